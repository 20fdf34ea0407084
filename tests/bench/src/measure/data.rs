//! Reading and writing through the driver next to a bare mount, and next to each other two bare mounts,
//! which shows what is chance: with a store in memory on the same CPUs, and with one that takes its
//! time for each request, as one across a network does.

use super::Bench;
use crate::bare;
use crate::data::{Large, small, small_writes, statfs};
use crate::namespace;
use crate::node::{self, Node};
use crate::processes;
use crate::report::Results;
use crate::row::{Goal, Row, Unit};
use crate::stats::Samples;
use crate::store::Store;
use anyhow::Result;
use nix::unistd::Pid;
use serde_json::json;
use std::path::PathBuf;

/// Goals, times the bare mount: where the store is the most of it, where everything shares the CPUs,
/// and for what never reaches the store.
const SLOW_STORE: f64 = 1.03;
const IN_MEMORY: f64 = 1.15;
const NO_STORE: f64 = 1.8;
/// How long the slow store takes for each request, in milliseconds.
const DELAY: &str = "2";
const BARE: &str = "a bare mount";

/// Something that is mounted, and what it takes.
struct Place {
    directory: PathBuf,
    /// What serves it.
    processes: Vec<Pid>,
    times: Times,
}

#[derive(Default)]
struct Times {
    write: Samples,
    read: Samples,
    small: Samples,
    statfs: Samples,
    small_writes: Samples,
    /// Of what serves it, in seconds for each GiB.
    cpu_write: Samples,
    cpu_read: Samples,
}

/// What is done in each round.
struct Work {
    large: Large,
    small_files: usize,
    calls: u32,
}

impl Place {
    /// The volume of bucket `number`, mounted by the driver for the Pod of the same number.
    fn of_driver(node: &Node, number: usize, relay: bool) -> Result<Self> {
        let more = json!({"relay": relay.to_string()});
        let mounted = processes::started_by(|| node.mount_with(number, number, more))?;
        Ok(Self::new(node::target(number).into(), mounted.1))
    }

    /// Bucket `number` mounted by hand at `place`.
    fn of_hand(node: &Node, place: usize, number: usize) -> Result<Self> {
        let mounted = processes::started_by(|| bare::mount(node, place, number))?;
        Ok(Self::new(bare::directory(place), mounted.1))
    }

    fn new(directory: PathBuf, processes: Vec<Pid>) -> Self {
        Self {
            directory,
            processes,
            times: Times::default(),
        }
    }

    fn round(&mut self, work: &Work) -> Result<()> {
        let (times, large) = (&mut self.times, &work.large);
        let file = self.directory.join("large");
        let gib = large.mib() as f64 / 1024.0;
        let before = processes::cpu_seconds(&self.processes)?;
        times.write.add_time(large.write(&file)?);
        let between = processes::cpu_seconds(&self.processes)?;
        times.read.add_time(large.read(&file)?);
        let after = processes::cpu_seconds(&self.processes)?;
        times.cpu_write.add((between - before) / gib);
        times.cpu_read.add((after - between) / gib);
        std::fs::remove_file(&file)?;
        times
            .small
            .add_time(small(&self.directory, work.small_files)?);
        let micros = |time: std::time::Duration| time.as_secs_f64() * 1e6;
        times
            .statfs
            .add(micros(statfs(&self.directory, work.calls)?));
        let writes = small_writes(&self.directory, work.calls)?;
        times.small_writes.add(micros(writes));
        Ok(())
    }
}

pub(super) fn rows(bench: &Bench<'_>, _: &mut Results) -> Result<Vec<Row>> {
    let mut rows = in_memory(bench)?;
    rows.extend(slow_store(bench)?);
    Ok(rows)
}

fn in_memory(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let node = bench.node(0)?;
    bare::prepare(2)?;
    // A bucket each: one's objects are no load for the other's listings.
    let mut places = [
        Place::of_driver(&node, 1, true)?,
        Place::of_hand(&node, 0, 0)?,
        Place::of_hand(&node, 1, 2)?,
        Place::of_driver(&node, 3, false)?,
    ];
    let work = Work {
        large: Large::new(bench.rounds(256, 16)),
        small_files: bench.rounds(300, 20),
        calls: if bench.options.quick { 100 } else { 2000 },
    };
    rounds(bench, &mut places, &work)?;
    node.unmount(1)?;
    node.unmount(3)?;
    bare::clear(2)?;
    namespace::reap();
    let [driver, bare, second, direct] = places.map(|place| place.times);
    let names = names(&work, "");
    let mut rows = Vec::new();
    for (name, of) in names.iter().zip(DATA) {
        rows.push(paired(name, "", of, &driver, &bare, Goal::Ratio(IN_MEMORY)));
        rows.push(paired(
            name,
            DIRECT,
            of,
            &direct,
            &bare,
            Goal::Ratio(IN_MEMORY),
        ));
        rows.push(paired(name, CHANCE, of, &second, &bare, Goal::None));
    }
    for (name, unit, of) in CALLS {
        let goal = match unit {
            Unit::Microseconds => Goal::Ratio(NO_STORE),
            _ => Goal::None,
        };
        for (more, times, goal) in [
            ("", &driver, goal),
            (DIRECT, &direct, Goal::None),
            (CHANCE, &second, Goal::None),
        ] {
            let name = format!("{name}{more}");
            rows.push(Row::paired(name, *unit, of(times), (BARE, of(&bare)), goal));
        }
    }
    Ok(rows)
}

fn slow_store(bench: &Bench<'_>) -> Result<Vec<Row>> {
    let store = Store::start(&bench.options.store, &["--delay", DELAY])?;
    let node = bench.node_with(&store, 0)?;
    bare::prepare(2)?;
    let mut places = [
        Place::of_driver(&node, 1, true)?,
        Place::of_hand(&node, 0, 0)?,
        Place::of_hand(&node, 1, 2)?,
    ];
    let work = Work {
        large: Large::new(bench.rounds(64, 16)),
        small_files: bench.rounds(20, 10),
        calls: 100,
    };
    rounds(bench, &mut places, &work)?;
    node.unmount(1)?;
    bare::clear(2)?;
    namespace::reap();
    let [driver, bare, second] = places.map(|place| place.times);
    let names = names(&work, &format!(", {DELAY} ms for each request"));
    let mut rows = Vec::new();
    for (name, of) in names.iter().zip(DATA) {
        let chance = of(&second).over(of(&bare)).median_with_bounds().high;
        let goal = Goal::RatioOrChance(SLOW_STORE, chance);
        rows.push(paired(name, "", of, &driver, &bare, goal));
        rows.push(paired(name, CHANCE, of, &second, &bare, Goal::None));
    }
    Ok(rows)
}

/// Does the work of each round in every place, in changing order.
fn rounds(bench: &Bench<'_>, places: &mut [Place], work: &Work) -> Result<()> {
    let (count, rounds) = (places.len(), bench.rounds(15, 2));
    for round in 0..rounds {
        for step in 0..count {
            // Each is first as often as any other, and each follows each other one.
            let at = match round / count % 2 {
                0 => (round + step) % count,
                _ => (round + count - step) % count,
            };
            places[at].round(work)?;
        }
        bench.progress("reading and writing", round + 1, rounds);
    }
    Ok(())
}

/// What is added to a row's name: the driver that hands ossfs the connection itself, and a second bare
/// mount in its place.
const DIRECT: &str = ", `relay: false`";
const CHANCE: &str = ", a second bare mount";

type Of = fn(&Times) -> &Samples;
const DATA: [Of; 3] = [
    |times| &times.write,
    |times| &times.read,
    |times| &times.small,
];
const CALLS: &[(&str, Unit, Of)] = &[
    ("statfs", Unit::Microseconds, |times| &times.statfs),
    (
        "write 4 KiB into an open file",
        Unit::Microseconds,
        |times| &times.small_writes,
    ),
    ("CPU for 1 GiB written", Unit::Seconds, |times| {
        &times.cpu_write
    }),
    ("CPU for 1 GiB read", Unit::Seconds, |times| &times.cpu_read),
];

fn names(work: &Work, store: &str) -> [String; 3] {
    let (mib, files) = (work.large.mib(), work.small_files);
    [
        format!("write {mib} MiB{store}"),
        format!("read {mib} MiB{store}"),
        format!("write and read {files} small files{store}"),
    ]
}

fn paired(name: &str, more: &str, of: Of, driver: &Times, bare: &Times, goal: Goal) -> Row {
    let beside = (BARE, of(bare));
    let name = format!("{name}{more}");
    Row::paired(name, Unit::Milliseconds, of(driver), beside, goal)
}
