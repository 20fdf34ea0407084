//! Cleaning up after calls that were killed.

use crate::kubelet::target::Target;
use crate::mounts::directory::Directory;
use crate::service::kubelet_root::real_path;
use crate::service::release::{Shutdown, remove};
use crate::state::directory::StateDirectory;
use crate::state::volume::Volume;
use crate::sys::deadline::Deadline;
use anyhow::Result;

/// Cleans up after calls that were killed: unregisters targets that kubelet has removed, removes
/// volumes without a target, and stale locks. Volumes that a call holds the lock of are skipped; a
/// failure is logged and the rest is left for the next call.
pub(crate) fn sweep(state: &StateDirectory, deadline: Deadline) {
    let swept = state.all().map(|volumes| {
        for volume in volumes {
            if let Err(e) = sweep_one(&volume, deadline) {
                log::warn!("volume {}: {e:#}", volume.id());
            }
        }
    });
    if let Err(e) = swept.and_then(|()| state.remove_stale_locks()) {
        log::warn!("{e:#}");
    }
}

fn sweep_one(volume: &Volume, deadline: Deadline) -> Result<()> {
    if volume.is_used()? && !volume.targets()?.iter().any(is_gone) {
        return Ok(());
    }
    let Some(lock) = volume.try_lock()? else {
        return Ok(());
    };
    for target in volume.targets()?.iter().filter(|target| is_gone(target)) {
        volume.unregister(target)?;
    }
    if volume.is_abandoned() && volume.running_daemon()?.is_some() {
        // It still uploads, and removes the rest when it ends.
        return Ok(());
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
