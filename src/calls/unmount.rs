//! The call `unmount TARGET`: afterwards nothing is mounted at TARGET. A volume without another
//! target is removed from the node, after everything that was written has reached the bucket.

use crate::config::Config;
use crate::descriptor;
use crate::kubelet::target::Target;
use crate::mounts::directory::{self, Directory};
use crate::mounts::table::MountTable;
use crate::mounts::unmount::{self, all_layers};
use crate::service::release::{Shutdown, release};
use crate::service::sweep::sweep;
use crate::state::directory::StateDirectory;
use crate::state::volume::Volume;
use crate::sys::deadline::Deadline;
use crate::sys::failpoint;
use crate::sys::process;
use anyhow::Result;

/// Unmounts `target`. Nothing mounted there, or no such directory, is a success.
pub(super) fn unmount(target: &Target, config: &Config) -> Result<()> {
    let deadline = Deadline::after(config.unmount_timeout);
    // Whatever is wrong with the state directory, the mount goes first.
    let state = StateDirectory::find(&config.state_dir).and_then(|state| {
        state.as_ref().map(StateDirectory::prepare).transpose()?;
        Ok(state)
    });
    let known = state.as_ref().ok().and_then(Option::as_ref);
    let lock = known
        .map(|state| state.lock_target(target, deadline))
        .transpose()?;
    let volumes: Vec<Volume> = match known {
        Some(state) => state
            .all()?
            .into_iter()
            .filter(|volume| volume.is_registered(target))
            .collect(),
        None => Vec::new(),
    };

    unmount_subpaths(target, deadline)?;
    failpoint::reach("unmount: found");
    unmount_target(target, &volumes, deadline)?;
    failpoint::reach("unmount: target unmounted");
    for volume in &volumes {
        release(volume, target, Shutdown::Graceful, deadline)?;
    }
    drop(lock);
    if let Some(state) = state? {
        sweep(&state, config.finish_timeout, deadline);
    }
    Ok(())
}

/// Unmounts every layer at `target`, and waits for the daemon of the old Go driver's mounts, which
/// were made there directly.
fn unmount_target(target: &Target, volumes: &[Volume], deadline: Deadline) -> Result<()> {
    let path = target.path();
    let staged = volumes
        .iter()
        .any(|volume| directory::is_mount_point(&volume.staging()).unwrap_or(false));
    if staged {
        // Not the last mount of its file system: this cannot wait for a daemon.
        return report(target, all_layers(path, deadline.half())?);
    }
    if !directory::is_mount_point(path)? {
        return Ok(());
    }
    let daemons: Vec<_> = target
        .names()
        .flat_map(|name| process::with_argument(&descriptor::NAMES, name))
        .collect();
    report(target, unmount::in_helper(path, deadline.half())?)?;
    for daemon in daemons {
        if let Some(process) = daemon.open()?
            && !process.wait(deadline)?
        {
            log::warn!("process {} still serves {}", process.pid(), target.as_str());
        }
    }
    Ok(())
}

fn report(target: &Target, detached: bool) -> Result<()> {
    if detached {
        log::warn!(
            "{} was busy and has been detached lazily (MNT_DETACH)",
            target.as_str()
        );
    }
    Ok(())
}

/// Unmounts binds of this volume's sub-directories that an old kubelet has left. Those of other
/// volumes, whose names may have the same beginning, are not touched.
fn unmount_subpaths(target: &Target, deadline: Deadline) -> Result<()> {
    let Some(subpaths) = target.subpaths() else {
        return Ok(());
    };
    if Directory::open(&subpaths)?.is_none() {
        return Ok(());
    }
    for point in MountTable::read()?.below(&subpaths) {
        unmount::in_helper(point, deadline.half())?;
    }
    Ok(())
}
