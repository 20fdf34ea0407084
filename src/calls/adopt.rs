//! `oss adopt`: takes daemons of the old Go driver, which it started in kubelet's own cgroup, out of
//! there, so that the next restart of kubelet does not end them. Their mounts are not touched.

use crate::descriptor;
use crate::kubelet::DRIVER_DIRECTORY;
use crate::ossfs::systemd;
use crate::sys::process;
use anyhow::{Result, bail};

/// Moves every daemon that serves a target and is not in the daemons' slice into it. Returns one
/// line for each; the error names those that stay where they are.
pub(super) fn adopt() -> Result<Vec<String>> {
    if !systemd::is_running() {
        bail!("systemd is not running on this node: there is no slice to move a daemon to");
    }
    let (mut moved, mut failed) = (Vec::new(), Vec::new());
    for (pid, target) in
        process::with_argument_in(&descriptor::NAMES, &format!("/volumes/{DRIVER_DIRECTORY}/"))
    {
        if systemd::is_in_slice(pid) {
            continue;
        }
        match systemd::adopt(pid) {
            Ok(()) => moved.push(format!(
                "process {pid}, which serves {target}, is in {}",
                systemd::SLICE
            )),
            Err(e) => failed.push(format!("{e:#}")),
        }
    }
    for line in &moved {
        log::info!("adopt: {line}");
    }
    if !failed.is_empty() {
        bail!("{}", failed.join("; "));
    }
    Ok(moved)
}
