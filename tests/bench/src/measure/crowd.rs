//! Many Pods at once: of one volume, and of many volumes with a few Pods each, next to a bare
//! daemon for each Pod.

use super::Bench;
use crate::bare;
use crate::namespace;
use crate::node::Node;
use crate::processes;
use crate::report::Results;
use crate::row::{Row, Unit};
use crate::stats::Samples;
use anyhow::{Context as _, Result, ensure};
use std::time::{Duration, Instant};

/// The share of the bare daemons' time, number and memory that is the goal.
const LIMIT: f64 = 0.2;

/// What a crowd takes.
#[derive(Default)]
struct Crowd {
    time: Samples,
    /// Daemons, and whatever else there is for volumes.
    processes: Samples,
    memory: Samples,
}

impl Crowd {
    /// Records the time it took, and what runs now. Returns the number of daemons.
    fn record(&mut self, time: Duration) -> usize {
        let serving = processes::serving();
        self.time.add_time(time);
        self.processes.add(serving.len() as f64);
        self.memory.add(processes::memory(&serving));
        processes::daemons().len()
    }

    fn rows(&self, name: &str, bare: &Self, beside: &str) -> Vec<Row> {
        [
            (
                "until the last Success",
                Unit::Milliseconds,
                &self.time,
                &bare.time,
            ),
            ("processes", Unit::Count, &self.processes, &bare.processes),
            ("memory (PSS)", Unit::Mebibytes, &self.memory, &bare.memory),
        ]
        .map(|(what, unit, driver, bare)| {
            let beside = (beside, bare.summary());
            let name = format!("{name}: {what}");
            Row::ratio(name, unit, driver.summary(), beside, LIMIT)
        })
        .into()
    }
}

pub(super) fn rows(bench: &Bench<'_>, _: &mut Results) -> Result<Vec<Row>> {
    let (pods, volumes) = match bench.options.quick {
        true => (12, 3),
        false => (200, 50),
    };
    let node = bench.node(0)?;
    bare::prepare(pods)?;
    let [mut one, mut many, mut bare, mut few]: [Crowd; 4] = Default::default();
    for _ in 0..bench.rounds(3, 1) {
        driver(&node, pods, 1, &mut one)?;
        driver(&node, pods, volumes, &mut many)?;
        for (daemons, crowd) in [(pods, &mut bare), (volumes, &mut few)] {
            let time = at_once(daemons, |place| bare::mount(&node, place, place % volumes))?;
            ensure!(crowd.record(time) == daemons, "a bare daemon each");
            bare::clear(daemons)?;
        }
    }
    let each = "a bare daemon each";
    let name = format!("{pods} Pods on 1 volume");
    let mut rows = one.rows(&name, &bare, each);
    let name = format!("{volumes} volumes of {} Pods", pods / volumes);
    rows.extend(many.rows(&name, &bare, each));
    // Without a goal: as many daemons as the driver needs, too, and no Pods besides.
    let rest = many.rows(&name, &few, "a bare daemon for each volume");
    rows.extend(rest.into_iter().map(Row::without_goal));
    Ok(rows)
}

/// Has the driver mount `volumes` volumes for `pods` Pods at once, and unmount them again.
fn driver(node: &Node, pods: usize, volumes: usize, crowd: &mut Crowd) -> Result<()> {
    let time = at_once(pods, |pod| node.mount(pod, pod % volumes))?;
    ensure!(crowd.record(time) == volumes, "a daemon for each volume");
    at_once(pods, |pod| node.unmount(pod))?;
    namespace::reap();
    Ok(())
}

/// The time until `step` is over for each of as many Pods, each in a thread of its own.
fn at_once(pods: usize, step: impl Fn(usize) -> Result<Duration> + Sync) -> Result<Duration> {
    let since = Instant::now();
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..pods)
            .map(|pod| {
                let step = &step;
                scope.spawn(move || step(pod))
            })
            .collect();
        for thread in threads {
            let ended = thread.join().ok().context("a thread has panicked")?;
            ended?;
        }
        Ok(since.elapsed())
    })
}
