//! What is measured, group by group.

mod calls;
mod crowd;
mod growth;
mod memory;
mod path;
mod systemd;

use crate::node::Node;
use crate::options::Options;
use crate::report::Results;
use crate::row::Row;
use crate::store::Store;
use anyhow::{Context as _, Result};
use std::time::Instant;
use support::namespace::MountNamespace;

/// What every group measures with.
pub(crate) struct Bench<'a> {
    options: &'a Options,
    base: MountNamespace,
    store: Store,
}

impl Bench<'_> {
    /// A new node with `others` mounts on it, which this thread is on from now on.
    fn node(&self, others: usize) -> Result<Node> {
        Node::new(&self.base, &self.options.driver, &self.store.url, others)
    }

    fn rounds(&self, full: usize, quick: usize) -> usize {
        self.options.rounds(full, quick)
    }
}

/// A group: its name, and what gives its rows.
type Group = (
    &'static str,
    fn(&Bench<'_>, &mut Results) -> Result<Vec<Row>>,
);

const GROUPS: &[Group] = &[
    ("init", calls::rows),
    ("mounts and unmounts, among other mounts", growth::rows),
    ("mounts and dead daemons under systemd", systemd::rows),
    ("memory and size", memory::rows),
    ("many Pods at once", crowd::rows),
    ("reading and writing", path::rows),
];

/// Measures everything. Every thread that was started has ended.
pub(crate) fn all(options: &Options) -> Result<Results> {
    let since = Instant::now();
    let base = MountNamespace::current()?;
    let store = Store::start(&options.store)?;
    let bench = Bench {
        options,
        base,
        store,
    };
    let mut results = Results::new(options.quick);
    for (name, group) in GROUPS {
        let begun = Instant::now();
        let rows = group(&bench, &mut results).with_context(|| format!("measure {name}"))?;
        results.rows.extend(rows);
        eprintln!("{name}: {:.1} s", begun.elapsed().as_secs_f64());
        // Whatever a group leaves goes with its node.
        bench.base.enter()?;
    }
    results.seconds = since.elapsed().as_secs_f64();
    Ok(results)
}
