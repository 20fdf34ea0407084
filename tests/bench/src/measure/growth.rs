//! Mounts and unmounts next to the bare commands, on nodes that differ in the number of other
//! mounts: one round does everything on every node, so that all of it meets the same noise.

use super::Bench;
use crate::bare;
use crate::namespace;
use crate::node::Node;
use crate::report::{Level, Results};
use crate::row::{Row, Unit};
use crate::stats::Samples;
use anyhow::Result;

/// How many other mounts the nodes have.
const LEVELS: [usize; 5] = [0, 500, 2_000, 5_000, 10_000];
const QUICK_LEVELS: [usize; 2] = [0, 200];
/// The levels that have rows of their own.
const JUDGED: [usize; 2] = [2_000, 10_000];
/// How much slower than on an empty node a call may be.
const LIMIT: f64 = 1.3;
/// The rows of a second Pod's mount: within a second after the daemon was last seen to serve, and
/// later.
const SERVED: &str = "mount, served already, within a second";
const LATER: &str = "mount, served already, later";

/// The times on one node, in milliseconds.
#[derive(Default)]
struct Times {
    mount: Samples,
    served: Samples,
    later: Samples,
    not_last: Samples,
    last: Samples,
    bare_mount: Samples,
    bare_not_last: Samples,
    bare_last: Samples,
}

pub(super) fn rows(bench: &Bench<'_>, results: &mut Results) -> Result<Vec<Row>> {
    let levels: &[usize] = match bench.options.quick {
        true => &QUICK_LEVELS,
        false => &LEVELS,
    };
    let nodes: Vec<Node> = levels
        .iter()
        .map(|others| {
            let node = bench.node(*others)?;
            bare::prepare(1)?;
            Ok(node)
        })
        .collect::<Result<_>>()?;
    let mut times: Vec<Times> = levels.iter().map(|_| Times::default()).collect();
    let rounds = bench.rounds(40, 3);
    for round in 0..rounds {
        for step in 0..nodes.len() {
            // Each node follows each other one, over the rounds.
            let at = (step * (1 + round % 2) + round) % nodes.len();
            nodes[at].enter()?;
            match round % 2 {
                0 => {
                    driver(&nodes[at], &mut times[at])?;
                    bare(&nodes[at], &mut times[at])?;
                }
                _ => {
                    bare(&nodes[at], &mut times[at])?;
                    driver(&nodes[at], &mut times[at])?;
                }
            }
        }
        bench.progress("mounts", round + 1, rounds);
    }
    results.growth = levels
        .iter()
        .zip(&times)
        .map(|(others, times)| Level {
            others: *others,
            mount: times.mount.summary(),
            unmount: times.last.summary(),
            bare_mount: times.bare_mount.summary(),
            bare_unmount: times.bare_last.summary(),
        })
        .collect();
    let mut rows = next_to_bare(&times[0]);
    for (others, full) in levels.iter().zip(&times).skip(1) {
        if bench.options.quick || JUDGED.contains(others) {
            rows.extend(next_to_empty(*others, full, &times[0]));
        }
    }
    Ok(rows)
}

/// A mount of a new volume, two of the same for a second Pod, and their unmounts.
fn driver(node: &Node, times: &mut Times) -> Result<()> {
    times.mount.add_time(node.mount(1, 0)?);
    times.served.add_time(node.mount(2, 0)?);
    node.unmount(2)?;
    node.let_probe_pass()?;
    times.later.add_time(node.mount(2, 0)?);
    times.not_last.add_time(node.unmount(2)?);
    times.last.add_time(node.unmount(1)?);
    namespace::reap();
    Ok(())
}

fn bare(node: &Node, times: &mut Times) -> Result<()> {
    times.bare_mount.add_time(bare::mount(node, 0, 0)?);
    times.bare_not_last.add_time(bare::unmount_one_of_two(0)?);
    times.bare_last.add_time(bare::unmount(0)?);
    namespace::reap();
    Ok(())
}

fn next_to_bare(times: &Times) -> Vec<Row> {
    let mount = ("`s3fs` and a lookup", &times.bare_mount);
    [
        ("mount", &times.mount, mount, 1.25),
        (SERVED, &times.served, mount, 0.2),
        (LATER, &times.later, mount, 0.2),
        (
            "unmount, last user",
            &times.last,
            ("`umount` and the daemon's end", &times.bare_last),
            1.5,
        ),
        (
            "unmount, not the last user",
            &times.not_last,
            ("`umount` of one of two mounts", &times.bare_not_last),
            1.0,
        ),
    ]
    .map(|(name, driver, (beside, bare), limit)| {
        let beside = (beside, bare.summary());
        Row::ratio(name, Unit::Milliseconds, driver.summary(), beside, limit)
    })
    .into()
}

fn next_to_empty(others: usize, full: &Times, empty: &Times) -> Vec<Row> {
    [
        ("mount", &full.mount, &empty.mount),
        (SERVED, &full.served, &empty.served),
        (LATER, &full.later, &empty.later),
        ("unmount, last user", &full.last, &empty.last),
        (
            "unmount, not the last user",
            &full.not_last,
            &empty.not_last,
        ),
    ]
    .map(|(name, full, empty)| {
        let name = format!("{name}, {others} other mounts");
        let beside = ("the same with none", empty.summary());
        Row::ratio(name, Unit::Milliseconds, full.summary(), beside, LIMIT)
    })
    .into()
}
