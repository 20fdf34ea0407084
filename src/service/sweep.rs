//! Cleaning up after calls that were killed.

use crate::kubelet::target::Target;
use crate::mounts::directory::Directory;
use crate::service::kubelet_root::real_path;
use crate::service::release::{Shutdown, remove};
use crate::state::directory::StateDirectory;
use crate::state::volume::Volume;
use crate::sys::deadline::Deadline;
use anyhow::Result;
use std::time::Duration;

/// Cleans up after calls that were killed: unregisters targets that kubelet has removed, removes
/// volumes without a target, and stale locks. Ends processes that were left to finish longer than
/// `finish_timeout` ago. Volumes that a call holds the lock of are skipped; a failure is logged and the
/// rest is left for the next call.
pub(crate) fn sweep(state: &StateDirectory, finish_timeout: Duration, deadline: Deadline) {
    let swept = state.all().map(|volumes| {
        for volume in volumes {
            if let Err(e) = sweep_one(&volume, finish_timeout, deadline) {
                log::warn!("volume {}: {e:#}", volume.id());
            }
        }
    });
    if let Err(e) = swept.and_then(|()| state.remove_stale_locks()) {
        log::warn!("{e:#}");
    }
}

fn sweep_one(volume: &Volume, finish_timeout: Duration, deadline: Deadline) -> Result<()> {
    if volume.is_used()? && !volume.targets()?.iter().any(is_gone) {
        return Ok(());
    }
    let Some(lock) = volume.try_lock()? else {
        return Ok(());
    };
    for target in volume.targets()?.iter().filter(|target| is_gone(target)) {
        volume.unregister(target)?;
    }
    if volume.is_abandoned()
        && let Some(process) = volume.running_daemon()?
    {
        // It still uploads, and removes the rest when it ends.
        if volume.abandoned_for()? < finish_timeout {
            return Ok(());
        }
        log::error!(
            "volume {}: ending ossfs (process {}), which has not finished within {} s of the last \
             unmount (finishTimeoutSeconds): what it has not uploaded is lost",
            volume.id(),
            process.pid(),
            finish_timeout.as_secs()
        );
        return remove(volume, Shutdown::Force, deadline);
    }
    if !volume.is_used()? {
        log::info!("volume {} has no target any more", volume.id());
        remove(volume, Shutdown::Graceful, deadline)?;
    }
    drop(lock);
    Ok(())
}

/// Whether kubelet has removed the directory `target`.
fn is_gone(target: &Target) -> bool {
    // Recorded before kubelet's root directory was moved and became a link.
    real_path(target.clone()).is_ok_and(|target| matches!(Directory::open(target.path()), Ok(None)))
}
