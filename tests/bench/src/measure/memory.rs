//! The peak memory of calls, and the driver's size.

use super::Bench;
use crate::namespace;
use crate::node::{CONFIG, CONFIG_VARIABLE};
use crate::peak;
use crate::report::Results;
use crate::row::{Row, Unit};
use crate::stats::Samples;
use anyhow::{Context as _, Result};
use serde_json::json;

/// The most that any process of a call may take, in MiB.
const PEAK: f64 = 4.0;
/// The largest driver, in MiB.
const SIZE: f64 = 2.5;

pub(super) fn rows(bench: &Bench<'_>, _: &mut Results) -> Result<Vec<Row>> {
    let node = bench.node(0)?;
    let driver = node.driver().to_str().context("the driver's path")?;
    let options = node.options(0, json!({})).to_string();
    let [one, two] = [node.make_target(1)?, node.make_target(2)?];
    let steps: [(&str, &[&str]); 6] = [
        ("init", &["init"]),
        ("mount", &["mount", &one, &options]),
        ("mount, volume served already", &["mount", &two, &options]),
        ("unmount, not the last user", &["unmount", &two]),
        ("unmount, last user", &["unmount", &one]),
        ("floor", &[]),
    ];
    let mut peaks = steps.map(|_| Samples::default());
    for _ in 0..bench.rounds(20, 2) {
        for ((name, arguments), peaks) in steps.iter().zip(&mut peaks) {
            let program = if *name == "floor" {
                "/bin/true"
            } else {
                driver
            };
            let mut command = vec![program];
            command.extend(*arguments);
            peaks.add(peak::of(&command, &[(CONFIG_VARIABLE, CONFIG)])?);
        }
        namespace::reap();
    }
    let floor = peaks[5].summary();
    let mut rows: Vec<Row> = steps[..5]
        .iter()
        .zip(&peaks)
        .map(|((name, _), peaks)| {
            let name = format!("peak memory: {name}");
            Row::value(&name, Unit::Mebibytes, peaks.summary(), PEAK).next_to("`/bin/true`", floor)
        })
        .collect();
    let mut size = Samples::default();
    let bytes = std::fs::metadata(driver)
        .context("the driver's size")?
        .len();
    size.add(bytes as f64 / 1024.0 / 1024.0);
    rows.push(Row::value(
        "size of the driver",
        Unit::Mebibytes,
        size.summary(),
        SIZE,
    ));
    Ok(rows)
}
