//! Kills: how long containers wait for an answer of their volume when a process that serves it has
//! been killed. Used on a node of this program's own, and on one that systemd runs.

use crate::bare;
use crate::container::{self, Container};
use crate::node::Node;
use crate::processes::{self, Process};
use crate::stats::Samples;
use anyhow::{Context as _, Result, ensure};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::time::{Duration, Instant};
use support::Pidfd;

/// What of a volume is killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Victim {
    Ossfs,
    Serve,
}

/// How many kills there are.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct Plan {
    /// How often each kind has its turn.
    pub(crate) turns: usize,
    /// Kills in a turn.
    pub(crate) kills: usize,
}

/// Kills of one kind, in milliseconds.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Deaths {
    pub(crate) victim: Victim,
    /// Containers that have the volume.
    pub(crate) containers: usize,
    /// From the kill until all of them have their answer.
    pub(crate) gaps: Samples,
    /// The start of a bare daemon, in the same minutes.
    pub(crate) starts: Samples,
}

/// The kinds of kills.
const KINDS: [(Victim, usize); 4] = [
    (Victim::Ossfs, 1),
    (Victim::Serve, 1),
    (Victim::Ossfs, 10),
    (Victim::Serve, 10),
];
/// A process that has served so long is replaced at once, however often that was before
/// (`src/serve/starts.rs`).
const SERVICE: Duration = Duration::from_millis(110);
/// How long a killed process may take to end.
const END: Duration = Duration::from_secs(60);

/// Kills on `node`, with the volume of bucket 0 for Pod 1, and bare mounts of bucket 1 in between.
pub(crate) fn measure(node: &Node, plan: Plan) -> Result<Vec<Deaths>> {
    let mut deaths = KINDS.map(|(victim, containers)| Deaths {
        victim,
        containers,
        gaps: Samples::default(),
        starts: Samples::default(),
    });
    bare::prepare(1)?;
    node.mount(1, 0)?;
    let most = KINDS.map(|(_, containers)| containers);
    container::prepare(1, most.into_iter().max().unwrap_or(1))?;
    for _ in 0..plan.turns {
        for deaths in &mut deaths {
            turn(node, plan.kills, deaths)?;
        }
    }
    node.unmount(1)?;
    Ok(deaths.into())
}

fn turn(node: &Node, kills: usize, deaths: &mut Deaths) -> Result<()> {
    let mut containers = (0..deaths.containers)
        .map(|number| Container::start(1, number))
        .collect::<Result<Vec<_>>>()?;
    for _ in 0..kills {
        let served = Instant::now();
        deaths.starts.add_time(bare::mount(node, 0, 1)?);
        bare::unmount(0)?;
        // Not to wait for something: that it has served for a while is what is measured.
        std::thread::sleep(SERVICE.saturating_sub(served.elapsed()));
        let pid = find(deaths.victim)?;
        let victim = Pidfd::open(pid.as_raw().unsigned_abs())?;
        let since = Instant::now();
        victim.kill();
        // What it may still answer before it ends is no answer of its successor.
        ensure!(victim.wait(END), "process {pid} does not end");
        containers.iter_mut().try_for_each(Container::ask)?;
        containers.iter_mut().try_for_each(Container::wait)?;
        deaths.gaps.add_time(since.elapsed());
        ensure!(find(deaths.victim)? != pid, "nothing was killed");
    }
    Ok(())
}

/// The only process of the kind.
fn find(victim: Victim) -> Result<Pid> {
    let is_wanted = match victim {
        Victim::Ossfs => Process::is_daemon,
        Victim::Serve => Process::serves,
    };
    let found: Vec<_> = processes::all().into_iter().filter(is_wanted).collect();
    ensure!(
        found.len() == 1,
        "{} {victim:?} run: {found:?}",
        found.len()
    );
    found.first().map(|process| process.pid).context("none")
}
