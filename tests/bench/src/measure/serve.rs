//! The memory of `oss serve`: of a volume that nobody uses, of one that was used, and for each file
//! and directory that the kernel holds.

use super::Bench;
use crate::data::Large;
use crate::namespace;
use crate::node::{self, Node};
use crate::processes;
use crate::report::Results;
use crate::row::{Row, Unit};
use crate::stats::Samples;
use crate::store::{self, Store};
use anyhow::{Context as _, Result, ensure};
use std::path::Path;

/// The most that a volume's `oss serve` may take while it does nothing, in MiB.
const IDLE: f64 = 4.0;
/// The most for each node, in bytes, without its name.
const NODE: f64 = 200.0;
/// The length of the names that the store gives its objects.
const NAME: f64 = 13.0;
/// The bucket that has many objects.
const MANY: usize = 9;

pub(super) fn rows(bench: &Bench<'_>, _: &mut Results) -> Result<Vec<Row>> {
    let count = bench.rounds(20_000, 2_000);
    let objects = format!("{}:{count}", store::bucket(MANY));
    let store = Store::start(&bench.options.store, &["--objects", &objects])?;
    let node = bench.node_with(&store, 0)?;
    let [mut idle, mut all, mut used] = [(); 3].map(|()| Samples::default());
    let large = Large::new(bench.rounds(64, 16));
    for _ in 0..bench.rounds(5, 1) {
        node.mount(1, 0)?;
        idle.add(processes::memory(&processes::servers()));
        let mut rest = processes::serving();
        rest.retain(|pid| !processes::daemons().contains(pid));
        all.add(processes::memory(&rest));
        let file = Path::new(&node::target(1)).join("large");
        large.write(&file)?;
        large.read(&file)?;
        std::fs::remove_file(&file)?;
        used.add(processes::memory(&processes::servers()));
        node.unmount(1)?;
    }
    let (nodes, tables) = for_each_node(&node, count)?;
    namespace::reap();
    let row = |name: &str, unit, samples: &Samples, limit| {
        Row::value(name, unit, samples.summary(), limit)
    };
    let mib = Unit::Mebibytes;
    let name = "memory of `oss serve` (PSS)";
    Ok(vec![
        row(&format!("{name}, idle"), mib, &idle, IDLE),
        row(
            &format!("{name}, idle, the sandbox's process with it"),
            mib,
            &all,
            IDLE,
        )
        .without_goal(),
        row(
            &format!("{name}, after {} MiB were written and read", large.mib()),
            mib,
            &used,
            IDLE,
        )
        .without_goal(),
        row(
            &format!("{name} for each of {count} files that the kernel knows, without the name"),
            Unit::Bytes,
            &nodes,
            NODE,
        ),
        row(
            "in files for its successor, for each, the name with it",
            Unit::Bytes,
            &tables,
            NODE,
        )
        .without_goal(),
    ])
}

/// What `oss serve` takes for each of `count` objects that somebody has looked at, in memory without
/// the name, and in the files of its tables.
fn for_each_node(node: &Node, count: usize) -> Result<(Samples, Samples)> {
    node.mount(1, MANY)?;
    let before = (
        nodes(node)?,
        processes::memory(&processes::servers()),
        node.tables()?,
    );
    let target = node::target(1);
    for number in 0..count {
        std::fs::symlink_metadata(format!("{target}/object-{number:06}"))
            .context("look at a file")?;
    }
    let more = (nodes(node)? - before.0) as f64;
    ensure!(
        more > count as f64 * 0.9,
        "the kernel has forgotten files: it knows {more}"
    );
    let bytes = (processes::memory(&processes::servers()) - before.1) * 1024.0 * 1024.0;
    let tables = (node.tables()? - before.2) as f64;
    node.unmount(1)?;
    let [mut in_memory, mut in_files] = [(); 2].map(|()| Samples::default());
    in_memory.add(bytes / more - NAME);
    in_files.add(tables / more);
    Ok((in_memory, in_files))
}

fn nodes(node: &Node) -> Result<u64> {
    let status = node.status()?;
    status["nodes"]
        .as_u64()
        .context("the status has no number of nodes")
}
