//! `oss adopt`: takes daemons of the old Go driver, which it started in kubelet's own cgroup, out of
//! there, so that the next restart of kubelet does not end them. Their mounts are not touched.

use crate::descriptor;
use crate::kubelet::{DRIVER_DIRECTORY, group};
use crate::ossfs::systemd;
use crate::sys::process;
use crate::text::{cut, list};
use anyhow::{Result, bail};

/// The longest TARGET in a message, in bytes: the process has chosen it.
const MAX_TARGET: usize = 1024;

/// Moves every daemon that serves a target and is in kubelet's control group into the daemons' slice.
/// Only processes of the host count: anybody's process in a container may have such a name and such
/// arguments. Returns one line for each; the error names those that stay where they are.
pub(super) fn adopt() -> Result<Vec<String>> {
    if !systemd::is_running() {
        bail!("systemd is not running on this node: there is no slice to move daemons to");
    }
    let kubelets: Vec<String> = process::named(&group::PROGRAMS)
        .filter(|pid| is_of_host(*pid))
        .filter_map(group_of)
        .collect();
    let (mut moved, mut failed) = (Vec::new(), Vec::new());
    for (pid, target) in
        process::with_argument_in(&descriptor::NAMES, &format!("/volumes/{DRIVER_DIRECTORY}/"))
    {
        let is_ours = || group_of(pid).is_some_and(|group| group::is_of_kubelet(&group, &kubelets));
        if systemd::is_in_slice(pid) || !is_of_host(pid) || !is_ours() {
            continue;
        }
        match systemd::adopt(pid) {
            Ok(()) => moved.push(format!(
                "moved process {pid}, which serves {}, to {}",
                cut(&target, MAX_TARGET),
                systemd::SLICE
            )),
            Err(e) => failed.push(format!("{e:#}")),
        }
    }
    for line in &moved {
        log::info!("adopt: {line}");
    }
    if !failed.is_empty() {
        bail!("{}", list(&failed, "; "));
    }
    Ok(moved)
}

/// Whether the process `pid` is in the namespaces of the host's first process.
fn is_of_host(pid: i32) -> bool {
    process::shares_namespaces(pid, 1)
}

/// The control group that systemd keeps the process `pid` in.
fn group_of(pid: i32) -> Option<String> {
    let text = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).ok()?;
    group::of_systemd(&text).map(str::to_owned)
}
