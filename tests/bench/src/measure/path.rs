//! Reading and writing through the driver's bind mount, next to a bare mount.

use super::Bench;
use crate::bare;
use crate::data::{Large, small};
use crate::namespace;
use crate::node;
use crate::report::Results;
use crate::row::{Row, Unit};
use crate::stats::Samples;
use anyhow::Result;
use std::path::PathBuf;

/// How much slower than the bare mount it may be: 2 %.
const LIMIT: f64 = 1.02;

#[derive(Default)]
struct Times {
    write: Samples,
    read: Samples,
    small: Samples,
}

pub(super) fn rows(bench: &Bench<'_>, _: &mut Results) -> Result<Vec<Row>> {
    let node = bench.node(0)?;
    bare::prepare(1)?;
    // Two buckets: one's objects are no load for the other's listings.
    node.mount(1, 0)?;
    bare::mount(&node, 0, 1)?;
    let places: [PathBuf; 2] = [node::target(1).into(), bare::directory(0)];
    let mut times: [Times; 2] = Default::default();
    let large = Large::new(bench.rounds(256, 16));
    for round in 0..bench.rounds(7, 1) {
        for step in 0..2 {
            let at = (round + step) % 2;
            let file = places[at].join("large");
            times[at].write.add_time(large.write(&file)?);
            times[at].read.add_time(large.read(&file)?);
            std::fs::remove_file(&file)?;
        }
    }
    let files = bench.rounds(500, 20);
    for round in 0..bench.rounds(3, 1) {
        for step in 0..2 {
            let at = (round + step) % 2;
            times[at].small.add_time(small(&places[at], files)?);
        }
    }
    node.unmount(1)?;
    bare::unmount(0)?;
    namespace::reap();
    let [driver, bare] = &times;
    let mib = large.mib();
    Ok([
        (format!("write {mib} MiB"), &driver.write, &bare.write),
        (format!("read {mib} MiB"), &driver.read, &bare.read),
        (
            format!("write and read {files} small files"),
            &driver.small,
            &bare.small,
        ),
    ]
    .map(|(name, driver, bare)| {
        let beside = ("a bare mount", bare.summary());
        Row::ratio(name, Unit::Milliseconds, driver.summary(), beside, LIMIT)
    })
    .into())
}
