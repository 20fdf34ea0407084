//! The results: a table for people, JSON for programs, and both in tests/bench/ with the plot.

use crate::plot;
use crate::row::{Goal, Row, Unit};
use crate::stats::{Bounds, Summary};
use anyhow::{Context as _, Result};
use serde::Serialize;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The lines of README.md that the table stands between.
const BEGIN: &str = "<!-- last run -->\n";
const END: &str = "<!-- end of the last run -->\n";

/// Times on a node with that many other mounts, in milliseconds.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Level {
    pub(crate) others: usize,
    pub(crate) mount: Summary,
    pub(crate) unmount: Summary,
    pub(crate) bare_mount: Summary,
    pub(crate) bare_unmount: Summary,
}

/// All that a run has found.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Results {
    /// The day, UTC.
    date: String,
    machine: String,
    pub(crate) seconds: f64,
    quick: bool,
    pub(crate) rows: Vec<Row>,
    pub(crate) growth: Vec<Level>,
}

impl Results {
    pub(crate) fn new(quick: bool) -> Self {
        Self {
            date: output("date", &["-u", "+%Y-%m-%d"]),
            machine: machine(),
            seconds: 0.0,
            quick,
            rows: Vec::new(),
            growth: Vec::new(),
        }
    }
}

/// What the numbers depend on.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let cpuinfo = read("/proc/cpuinfo");
    let cpu = cpuinfo
        .lines()
        .find_map(|line| line.strip_prefix("model name")?.split_once(": "))
        .map_or("unknown", |(_, name)| name);
    let kernel = read("/proc/sys/kernel/osrelease");
    let kernel: Vec<&str> = kernel.trim().split('.').take(2).collect();
    let s3fs = output("s3fs", &["--version"]);
    let version = s3fs
        .split_whitespace()
        .find(|word| word.starts_with('V'))
        .unwrap_or("s3fs");
    format!(
        "{cpus} CPUs ({cpu}), Linux {}, s3fs {}, the store on loopback",
        kernel.join("."),
        version.trim_start_matches('V')
    )
}

/// The first line that a command prints; empty if it does not.
pub(crate) fn output(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    let text = output.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    text.unwrap_or_default()
        .lines()
        .next()
        .unwrap_or_default()
        .to_owned()
}

/// The results as a table in Markdown.
pub(crate) fn table(results: &Results) -> String {
    let mut text = format!(
        "{}, {}; {:.0} s. Medians, with the bounds of the lowest and the highest tenth.\n\n",
        results.date, results.machine, results.seconds
    );
    if results.quick {
        text.push_str("A quick run: it shows that everything runs, not how fast.\n\n");
    }
    let header = ["what", "driver", "next to", "ratio", "goal", ""].map(str::to_owned);
    let lines: Vec<[String; 6]> = std::iter::once(header)
        .chain(results.rows.iter().map(cells))
        .collect();
    let widths: [usize; 6] = std::array::from_fn(|column| {
        lines
            .iter()
            .map(|line| line[column].chars().count())
            .max()
            .unwrap_or(0)
    });
    for (number, line) in lines.iter().enumerate() {
        let cells: Vec<String> = line
            .iter()
            .zip(widths)
            .map(|(cell, width)| format!("{cell:width$}"))
            .collect();
        text.push_str(&format!("| {} |\n", cells.join(" | ")));
        if number == 0 {
            let rules: Vec<String> = widths.iter().map(|width| "-".repeat(*width)).collect();
            text.push_str(&format!("| {} |\n", rules.join(" | ")));
        }
    }
    text
}

fn cells(row: &Row) -> [String; 6] {
    let goal = match row.goal {
        Goal::Ratio(limit) => format!("≤ {limit} ×"),
        Goal::RatioOrChance(limit, chance) if chance > limit => {
            format!("≤ {limit} × or chance, {chance:.2} ×")
        }
        Goal::RatioOrChance(limit, _) => format!("≤ {limit} ×"),
        Goal::Value(limit) => format!("≤ {limit}{}", suffix(row.unit)),
        Goal::Above(limit) | Goal::P99Above(limit) => {
            format!("≤ {limit}{} above", suffix(row.unit))
        }
        Goal::None => String::new(),
    };
    let beside = row.beside.as_ref();
    [
        row.name.clone(),
        match (row.goal, row.driver.p99) {
            (Goal::P99Above(_), Some(p99)) => number(row.unit, &row.driver, p99) + suffix(row.unit),
            _ => value(row.unit, &row.driver),
        },
        beside.map_or(String::new(), |beside| {
            format!("{}: {}", beside.name, value(row.unit, &beside.summary))
        }),
        match (row.ratio, row.bounds) {
            (Some(ratio), Some(Bounds { low, high, .. })) => {
                format!("{ratio:.2} ({low:.2} – {high:.2})")
            }
            (Some(ratio), None) => format!("{ratio:.2}"),
            (None, _) => String::new(),
        },
        goal,
        match row.reached {
            Some(true) => "reached".to_owned(),
            Some(false) => "**not reached**".to_owned(),
            None => String::new(),
        },
    ]
}

/// A summary as text: the median, and the spread if there is any.
fn value(unit: Unit, summary: &Summary) -> String {
    let number = |value| number(unit, summary, value);
    let (low, high) = (number(summary.p10), number(summary.p90));
    let median = number(summary.median) + suffix(unit);
    match low == high {
        true => median,
        false => format!("{median} ({low} – {high})"),
    }
}

/// A value of `summary` as text, as exact as its median is shown.
fn number(unit: Unit, summary: &Summary, value: f64) -> String {
    match unit {
        Unit::Count | Unit::Bytes => format!("{value:.0}"),
        Unit::Milliseconds if summary.median >= 100.0 => format!("{value:.0}"),
        _ => format!("{value:.2}"),
    }
}

fn suffix(unit: Unit) -> &'static str {
    match unit {
        Unit::Milliseconds => " ms",
        Unit::Microseconds => " µs",
        Unit::Seconds => " s",
        Unit::Mebibytes => " MiB",
        Unit::Bytes => " bytes",
        Unit::Count => "",
    }
}

/// The results as JSON.
pub(crate) fn json(results: &Results) -> Result<String> {
    let mut text = serde_json::to_string_pretty(results).context("write the results")?;
    text.push('\n');
    Ok(text)
}

/// A file of this directory in the repository.
pub(crate) fn file(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

/// Puts the results into the repository.
pub(crate) fn write(results: &Results) -> Result<()> {
    let readme = file("README.md");
    let text = std::fs::read_to_string(&readme).context("read README.md")?;
    let text = replaced(&text, &table(results)).context("README.md has no place for the table")?;
    std::fs::write(&readme, text).context("write README.md")?;
    std::fs::write(file("results.json"), json(results)?).context("write results.json")?;
    plot::draw(results, &file("growth.svg"))
}

/// `text` with `table` in its place; nothing if it has none.
fn replaced(text: &str, table: &str) -> Option<String> {
    let (before, rest) = text.split_once(BEGIN)?;
    let (_, after) = rest.split_once(END)?;
    Some(format!("{before}{BEGIN}\n{table}\n{END}{after}"))
}

#[cfg(test)]
mod tests {
    use super::{BEGIN, END, replaced, value};
    use crate::row::Unit;
    use crate::stats::Samples;

    #[test]
    fn replaces_the_table_and_nothing_else() {
        let text = format!("a\n{BEGIN}old\n{END}b\n");
        let new = replaced(&text, "| x |\n").unwrap();
        assert_eq!(new, format!("a\n{BEGIN}\n| x |\n\n{END}b\n"));
        assert_eq!(replaced(&new, "| x |\n").as_ref(), Some(&new));
        assert_eq!(replaced("a", ""), None);
    }

    #[test]
    fn shows_a_spread_where_there_is_one() {
        let mut samples = Samples::default();
        samples.add(2.0);
        assert_eq!(value(Unit::Mebibytes, &samples.summary()), "2.00 MiB");
        samples.add(300.0);
        assert_eq!(
            value(Unit::Milliseconds, &samples.summary()),
            "151 ms (32 – 270)"
        );
    }
}
