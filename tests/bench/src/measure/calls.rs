//! init next to `/bin/true`: the floor, for it does nothing but start and end.

use super::Bench;
use crate::report::Results;
use crate::row::{Row, Unit};
use crate::run;
use crate::stats::Samples;
use anyhow::Result;
use std::path::Path;

pub(super) fn rows(bench: &Bench<'_>, _: &mut Results) -> Result<Vec<Row>> {
    let node = bench.node(0)?;
    let (mut init, mut floor) = (Samples::default(), Samples::default());
    for _ in 0..bench.rounds(400, 20) {
        init.add_time(node.init()?);
        floor.add_time(run::run(Path::new("/bin/true"), &[] as &[&str], &[])?.time);
    }
    Ok(vec![Row::ratio(
        "init",
        Unit::Milliseconds,
        init.summary(),
        ("`/bin/true`", floor.summary()),
        1.0,
    )])
}
