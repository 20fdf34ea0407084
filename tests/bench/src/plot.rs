//! The plot of growth: how long mounts and unmounts take as a node has more other mounts.

use crate::report::{Level, Results};
use crate::stats::Summary;
use anyhow::{Context as _, Result};
use plotters::coord::Shift;
use plotters::prelude::*;
use std::path::Path;

const SIZE: (u32, u32) = (900, 460);
const FONT: &str = "sans-serif";

type Panel<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// A line of a panel: its points, and how far each spreads.
struct Line {
    name: &'static str,
    colour: RGBColor,
    points: Vec<(f64, Point)>,
}

/// A value, and the bounds that most lie between.
#[derive(Clone, Copy)]
struct Point {
    low: f64,
    value: f64,
    high: f64,
}

/// Draws it into the SVG file at `path`.
pub(crate) fn draw(results: &Results, path: &Path) -> Result<()> {
    let root = SVGBackend::new(path, SIZE).into_drawing_area();
    root.fill(&WHITE).context("draw the plot")?;
    panel(
        &root,
        "A call, by the number of other mounts on the node",
        "other mounts",
        &calls(&results.growth),
    )?;
    root.present().context("write the plot")
}

fn calls(levels: &[Level]) -> Vec<Line> {
    let line = |name, colour, times: fn(&Level) -> Summary| Line {
        name,
        colour,
        points: levels
            .iter()
            .map(|at| (at.others as f64, median(times(at))))
            .collect(),
    };
    vec![
        line("mount: driver", RGBColor(0, 90, 181), |at| at.mount),
        line("mount: s3fs and a lookup", RGBColor(130, 180, 230), |at| {
            at.bare_mount
        }),
        line("unmount: driver", RGBColor(200, 60, 20), |at| at.unmount),
        line(
            "unmount: umount and the daemon's end",
            RGBColor(240, 170, 120),
            |at| at.bare_unmount,
        ),
    ]
}

fn median(times: Summary) -> Point {
    Point {
        low: times.p10,
        value: times.median,
        high: times.p90,
    }
}

fn panel(area: &Panel<'_>, title: &str, across: &str, lines: &[Line]) -> Result<()> {
    let points = || lines.iter().flat_map(|line| &line.points);
    let most = points().map(|(x, _)| *x).fold(1.0, f64::max);
    let highest = points().map(|(_, point)| point.high).fold(1.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(title, (FONT, 18))
        .margin(14)
        .margin_right(28)
        .x_label_area_size(42)
        .y_label_area_size(58)
        // Room on both sides: the outer points lie off the frame, and the legend above the lines.
        .build_cartesian_2d(-most * 0.02..most * 1.02, 0.0..highest * 1.45)
        .context("draw the axes")?;
    chart
        .configure_mesh()
        .x_desc(across)
        .y_desc("milliseconds")
        .x_labels(11)
        .y_labels(7)
        .x_label_formatter(&|value| grouped(*value))
        .y_label_formatter(&|value| grouped(*value))
        .bold_line_style(RGBColor(225, 225, 225))
        .light_line_style(WHITE)
        .label_style((FONT, 13))
        .axis_desc_style((FONT, 14))
        .draw()
        .context("draw the axes")?;
    for line in lines {
        let colour = line.colour;
        let medians = line.points.iter().map(|(x, point)| (*x, point.value));
        chart
            .draw_series(LineSeries::new(medians.clone(), colour.stroke_width(2)))
            .context("draw a line")?
            .label(line.name)
            .legend(move |(x, y)| {
                PathElement::new(vec![(x, y), (x + 18, y)], colour.stroke_width(2))
            });
        chart
            .draw_series(medians.map(|at| Circle::new(at, 3, colour.filled())))
            .context("draw the points")?;
        // Beside each other where lines are close: each has its own bars.
        chart
            .draw_series(
                line.points
                    .iter()
                    .filter(|(_, at)| at.low < at.high)
                    .map(|(x, at)| {
                        PathElement::new(vec![(*x, at.low), (*x, at.high)], colour.stroke_width(1))
                    }),
            )
            .context("draw a spread")?;
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE)
        .border_style(RGBColor(200, 200, 200))
        .label_font((FONT, 13))
        .draw()
        .context("draw the legend")
}

/// A number without decimals; thousands apart.
fn grouped(value: f64) -> String {
    let digits = format!("{value:.0}");
    match digits.len() {
        5.. => format!(
            "{} {}",
            &digits[..digits.len() - 3],
            &digits[digits.len() - 3..]
        ),
        _ => digits,
    }
}
