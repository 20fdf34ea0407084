//! The plot of growth: how long mounts and unmounts take as a node has more other mounts.

use crate::report::Level;
use crate::stats::Summary;
use anyhow::{Context as _, Result};
use plotters::prelude::*;
use std::path::Path;

const SIZE: (u32, u32) = (900, 480);
const FONT: &str = "sans-serif";

/// A line of the plot: its name, its colour, and where its times are.
type Line = (&'static str, RGBColor, fn(&Level) -> Summary);

const LINES: [Line; 4] = [
    ("mount, driver", RGBColor(0, 90, 181), |at| at.mount),
    ("mount, s3fs and a lookup", RGBColor(130, 180, 230), |at| {
        at.bare_mount
    }),
    ("unmount, driver", RGBColor(200, 60, 20), |at| at.unmount),
    (
        "unmount, umount and the daemon's end",
        RGBColor(240, 170, 120),
        |at| at.bare_unmount,
    ),
];

/// Draws `levels` into the SVG file at `path`. Bars show the spread.
pub(crate) fn draw(levels: &[Level], path: &Path) -> Result<()> {
    let most = levels.iter().map(|at| at.others).max().unwrap_or(1).max(1);
    let highest = levels
        .iter()
        .flat_map(|at| LINES.map(|(_, _, times)| times(at).p90))
        .fold(1.0, f64::max);
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE).context("draw the plot")?;
    let mut chart = ChartBuilder::on(&root)
        .caption("Time of a call over other mounts on the node", (FONT, 20))
        .margin(12)
        .x_label_area_size(40)
        .y_label_area_size(55)
        .build_cartesian_2d(0.0..most as f64 * 1.02, 0.0..highest * 1.35)
        .context("draw the axes")?;
    chart
        .configure_mesh()
        .x_desc("other mounts on the node")
        .y_desc("ms (median, lowest and highest tenth)")
        .x_label_formatter(&|value| format!("{value:.0}"))
        .y_label_formatter(&|value| format!("{value:.0}"))
        .light_line_style(WHITE)
        .label_style((FONT, 13))
        .draw()
        .context("draw the axes")?;
    for (name, colour, times) in LINES {
        let points = levels.iter().map(|at| (at.others as f64, times(at)));
        let line = points.clone().map(|(x, y)| (x, y.median));
        chart
            .draw_series(LineSeries::new(line, colour.stroke_width(2)))
            .context("draw a line")?
            .label(name)
            .legend(move |(x, y)| {
                PathElement::new(vec![(x, y), (x + 18, y)], colour.stroke_width(2))
            });
        chart
            .draw_series(points.map(|(x, y)| {
                PathElement::new(vec![(x, y.p10), (x, y.p90)], colour.stroke_width(1))
            }))
            .context("draw a spread")?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .border_style(RGBColor(200, 200, 200))
        .label_font((FONT, 13))
        .draw()
        .context("draw the legend")?;
    root.present().context("write the plot")
}
