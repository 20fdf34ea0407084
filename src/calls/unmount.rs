//! The call `unmount TARGET`: afterwards nothing is mounted at TARGET, and a volume that nobody uses
//! any more has left the node, with everything that was written in the bucket.

use super::volumes::{self, Ending};
use crate::child;
use crate::config::Config;
use crate::deadline::Deadline;
use crate::fault;
use crate::mounts::directory::{self, Directory};
use crate::mounts::table::MountTable;
use crate::mounts::unmount::all_layers;
use crate::process;
use crate::target::Target;
use crate::volume::{StateDirectory, Volume};
use anyhow::Result;

/// Unmounts `target`. Nothing mounted there, or no such directory, is a success.
pub(super) fn unmount(target: &Target, config: &Config) -> Result<()> {
    let deadline = Deadline::after(config.unmount_timeout);
    // Whatever is wrong with the state directory, the mount goes first.
    let state = StateDirectory::find(&config.state_dir);
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
    fault::point("unmount: found");
    unmount_target(target, &volumes, deadline)?;
    fault::point("unmount: target unmounted");
    for volume in &volumes {
        volumes::release(volume, target, Ending::Finish, deadline)?;
    }
    drop(lock);
    if let Some(state) = state? {
        volumes::sweep(&state, deadline);
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
    let daemons = process::with_argument(&["ossfs", "s3fs"], target.as_str());
    report(target, child::unmount(path, deadline.half())?)?;
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
        log::warn!("{} was busy and has been detached lazily", target.as_str());
    }
    Ok(())
}

/// Unmounts binds of this volume's sub-directories that an old kubelet has left behind. Those of
/// other volumes, whose names may begin alike, are not touched.
fn unmount_subpaths(target: &Target, deadline: Deadline) -> Result<()> {
    let Some(subpaths) = target.subpaths() else {
        return Ok(());
    };
    if Directory::open(&subpaths)?.is_none() {
        return Ok(());
    }
    for point in MountTable::read()?.below(&subpaths) {
        child::unmount(point, deadline.half())?;
    }
    Ok(())
}
