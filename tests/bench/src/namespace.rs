//! The program runs as process 1 of a process namespace of its own, and each node that it measures on
//! has mounts of its own (`support::namespace`).

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::mount::{MntFlags, umount2};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use support::{Mount, OWN_TABLE};

/// The first argument of the program when it runs inside.
pub(crate) const WORD: &str = "inside-namespaces";

/// Unmounts all but what is at `points`, in this thread's mount namespace.
pub(crate) fn leave_only(points: &[&str]) -> Result<()> {
    // What is on top comes last in the table.
    for mount in Mount::table(OWN_TABLE).iter().rev() {
        let point = mount.point.as_str();
        if points.contains(&point) {
            continue;
        }
        match umount2(point, MntFlags::MNT_DETACH) {
            // It went with the mount that it was on.
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(e) => return Err(e).with_context(|| format!("unmount {point}")),
        }
    }
    Ok(())
}

/// Reaps daemons that have become children of process 1. To be called while no other child is waited
/// for.
pub(crate) fn reap() {
    while matches!(
        waitpid(None, Some(WaitPidFlag::WNOHANG)),
        Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..))
    ) {}
}
