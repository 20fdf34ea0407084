//! What is measured, group by group.

mod calls;
mod crowd;
mod data;
mod deaths;
mod growth;
mod memory;
mod serve;
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
    since: Instant,
}

impl Bench<'_> {
    /// A new node with `others` mounts on it, which this thread is on from now on.
    fn node(&self, others: usize) -> Result<Node> {
        self.node_with(&self.store, others)
    }

    /// The same, with volumes of that store.
    fn node_with(&self, store: &Store, others: usize) -> Result<Node> {
        Node::new(&self.base, &self.options.driver, &store.url, others)
    }

    fn rounds(&self, full: usize, quick: usize) -> usize {
        self.options.rounds(full, quick)
    }

    /// Tells a person who waits how far something is.
    fn progress(&self, what: &str, round: usize, rounds: usize) {
        // Four times in all, at most.
        if round * 4 / rounds != (round - 1) * 4 / rounds {
            let seconds = self.since.elapsed().as_secs();
            eprintln!("{seconds:4} s  {what}: round {round} of {rounds}");
        }
    }
}

/// A group of rows.
struct Group {
    /// What `--rows` calls it.
    word: &'static str,
    name: &'static str,
    rows: fn(&Bench<'_>, &mut Results) -> Result<Vec<Row>>,
}

const fn group(
    word: &'static str,
    name: &'static str,
    rows: fn(&Bench<'_>, &mut Results) -> Result<Vec<Row>>,
) -> Group {
    Group { word, name, rows }
}

const GROUPS: [Group; 8] = [
    group("init", "init", calls::rows),
    group(
        "mounts",
        "mounts and unmounts, among other mounts",
        growth::rows,
    ),
    group("systemd", "mounts and kills under systemd", systemd::rows),
    group("deaths", "kills without systemd", deaths::rows),
    group("memory", "memory and size of the driver", memory::rows),
    group("serve", "memory of oss serve", serve::rows),
    group("crowd", "many Pods at once", crowd::rows),
    group("data", "reading and writing", data::rows),
];

/// The words for groups of rows.
pub(crate) const WORDS: [&str; GROUPS.len()] = {
    let mut words = [""; GROUPS.len()];
    let mut number = 0;
    while number < words.len() {
        words[number] = GROUPS[number].word;
        number += 1;
    }
    words
};

/// Measures everything, or what the options name. Every thread that was started has ended.
pub(crate) fn all(options: &Options) -> Result<Results> {
    let since = Instant::now();
    let base = MountNamespace::current()?;
    let store = Store::start(&options.store, &[])?;
    let bench = Bench {
        options,
        base,
        store,
        since,
    };
    let mut results = Results::new(options.quick);
    for group in GROUPS {
        if !options.wants(group.word) {
            continue;
        }
        let Group { word, name, .. } = group;
        eprintln!("{:4} s  {word}: {name}", since.elapsed().as_secs());
        let rows = (group.rows)(&bench, &mut results).with_context(|| format!("measure {name}"))?;
        results.rows.extend(rows);
        // Whatever a group leaves goes with its node.
        bench.base.enter()?;
    }
    results.seconds = since.elapsed().as_secs_f64();
    Ok(results)
}
