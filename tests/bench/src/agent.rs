//! This program as a service of a node that runs systemd: there it measures the driver's unit, and
//! prints what it has measured as JSON for the program outside.

use crate::bare;
use crate::deaths::{self, Deaths, Plan};
use crate::node::Node;
use crate::stats::Samples;
use anyhow::{Context as _, Result};
use nix::sys::prctl::set_child_subreaper;
use serde::{Deserialize, Serialize};
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;

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
    /// How often to kill.
    pub(crate) kills: Plan,
}

/// What was measured, in milliseconds.
#[derive(Debug, Default, Serialize, Deserialize)]
pub(crate) struct Measured {
    pub(crate) mount: Samples,
    pub(crate) bare_mount: Samples,
    pub(crate) unmount: Samples,
    pub(crate) bare_unmount: Samples,
    pub(crate) deaths: Vec<Deaths>,
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
    measured.deaths = deaths::measure(&node, task.kills)?;
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
