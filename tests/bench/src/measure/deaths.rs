//! Kills of ossfs and of `oss serve` on a node without systemd.

use super::Bench;
use crate::deaths::{self, Deaths, Plan, Victim};
use crate::namespace;
use crate::report::Results;
use crate::row::{Row, Unit};
use anyhow::Result;

/// The most that the median and the bound of the highest hundredth may be above a daemon's own
/// start, in milliseconds.
const LIMITS: (f64, f64) = (100.0, 500.0);

/// How many kills there are of each kind: at least a hundred, of which there is a highest hundredth.
pub(super) fn plan(bench: &Bench<'_>) -> Plan {
    Plan {
        turns: bench.rounds(4, 1),
        kills: bench.rounds(25, 2),
    }
}

pub(super) fn rows(bench: &Bench<'_>, _: &mut Results) -> Result<Vec<Row>> {
    let node = bench.node(0)?;
    let deaths = deaths::measure(&node, plan(bench))?;
    namespace::reap();
    Ok(rows_of(deaths, ""))
}

/// The rows of `deaths`, which happened `under` something.
pub(super) fn rows_of(deaths: Vec<Deaths>, under: &str) -> Vec<Row> {
    let mut rows = Vec::new();
    for deaths in deaths {
        let victim = match deaths.victim {
            Victim::Ossfs => "ossfs",
            Victim::Serve => "`oss serve`",
        };
        let containers = match deaths.containers {
            1 => "1 container".to_owned(),
            more => format!("{more} containers"),
        };
        let name = format!("next answer after SIGKILL of {victim}{under}, {containers}");
        let (gap, start) = (deaths.gaps.summary(), deaths.starts.summary());
        let start = ("a bare start", start);
        let unit = Unit::Milliseconds;
        rows.push(Row::above(
            format!("{name}; p50"),
            unit,
            gap,
            start,
            LIMITS.0,
        ));
        rows.extend(Row::p99_above(
            format!("{name}; p99"),
            unit,
            gap,
            start,
            LIMITS.1,
        ));
    }
    rows
}
