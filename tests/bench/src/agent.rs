//! This program as a service of a node that runs systemd: there it measures the driver's unit, and
//! prints what it has measured as JSON for the program outside.

use crate::bare;
use crate::container::Container;
use crate::node::Node;
use crate::run;
use crate::stats::Samples;
use anyhow::{Context as _, Result, ensure};
use nix::sys::prctl::set_child_subreaper;
use nix::sys::signal::{Signal, kill};
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use std::time::Instant;

/// The first argument of the program when it is the service; a `Task` as JSON follows.
pub(crate) const WORD: &str = "inside-node";
/// Where the node has this program and the driver.
pub(crate) const PROGRAM: &str = "/opt/bench/bench";
pub(crate) const DRIVER: &str = "/opt/bench/oss";

/// What is to be measured.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Task {
    /// The store's.
    pub(crate) url: String,
    /// How often to mount.
    pub(crate) mounts: usize,
    /// The numbers of containers that have the volume when its daemon is killed.
    pub(crate) containers: Vec<usize>,
    /// How often each number has its turn, and how often the daemon is killed in a turn.
    pub(crate) turns: usize,
    pub(crate) kills: usize,
}

/// What was measured, in milliseconds.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) mount: Samples,
    pub(crate) bare_mount: Samples,
    pub(crate) unmount: Samples,
    pub(crate) bare_unmount: Samples,
    /// From the kill until all containers have the volume again, for each number of containers.
    pub(crate) gaps: Vec<Samples>,
}

/// Does the task in `arguments` and prints what was measured.
pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode> {
    let task = arguments.first().and_then(|word| word.to_str());
    let task: Task = serde_json::from_str(task.context("the task is missing")?)?;
    // As process 1 elsewhere: daemons whose parent has ended are this process's children.
    set_child_subreaper(true).context("become a subreaper")?;
    let node = Node::under_systemd(Path::new(DRIVER), &task.url)?;
    bare::prepare(1)?;
    let mut measured = Measured::default();
    mounts(&node, task.mounts, &mut measured)?;
    measured.gaps = gaps(&node, &task)?;
    println!("{}", serde_json::to_string(&measured)?);
    Ok(ExitCode::SUCCESS)
}

fn mounts(node: &Node, rounds: usize, measured: &mut Measured) -> Result<()> {
    // The first mount of a boot installs the template and has systemd read it.
    node.mount(1, 0)?;
    node.unmount(1)?;
    for round in 0..rounds * 2 {
        if round % 2 == (round / 2) % 2 {
            measured.mount.add_time(node.mount(1, 0)?);
            measured.unmount.add_time(node.unmount(1)?);
        } else {
            measured.bare_mount.add_time(bare::mount(node, 0, 0)?);
            measured.bare_unmount.add_time(bare::unmount(0)?);
        }
    }
    Ok(())
}

fn gaps(node: &Node, task: &Task) -> Result<Vec<Samples>> {
    let mut gaps = vec![Samples::default(); task.containers.len()];
    node.mount(1, 0)?;
    let unit = format!("alicloud-oss@{}.service", node.volume()?);
    for _ in 0..task.turns {
        for (number, gaps) in task.containers.iter().zip(&mut gaps) {
            let mut containers = (0..*number)
                .map(|_| Container::start(1))
                .collect::<Result<Vec<_>>>()?;
            for _ in 0..task.kills {
                // Comes back when a start that is under way is over: the healing is part of it.
                run::run(Path::new("/usr/bin/systemctl"), &["start", &unit], &[])?;
                let daemons = bare::daemons();
                ensure!(daemons.len() == 1, "{} daemons", daemons.len());
                let since = Instant::now();
                kill(daemons[0], Signal::SIGKILL).context("kill the daemon")?;
                containers.iter_mut().try_for_each(Container::wait)?;
                gaps.add_time(since.elapsed());
            }
        }
    }
    node.unmount(1)?;
    Ok(gaps)
}
