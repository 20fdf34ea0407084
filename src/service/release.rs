//! Releasing a target of a volume, and removing the volume with its last one.

use crate::kubelet::target::Target;
use crate::mounts::{directory, unmount};
use crate::ossfs::systemd;
use crate::serve::plan::Plan;
use crate::service::directories;
use crate::state::volume::Volume;
use crate::sys::deadline::Deadline;
use crate::sys::failpoint;
use anyhow::Result;
use std::time::Duration;

/// How long a daemon that was killed may take to end.
pub(crate) const KILL_TIME: Duration = Duration::from_secs(5);

/// How a daemon is stopped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shutdown {
    /// By unmounting: it writes to the bucket what it has, and then exits.
    Graceful,
    /// By SIGKILL: nothing has been written through it.
    Force,
}

/// Unregisters `target` from `volume`, and removes the volume if that was its last one.
pub(crate) fn release(
    volume: &Volume,
    target: &Target,
    shutdown: Shutdown,
    deadline: Deadline,
) -> Result<()> {
    let Some(lock) = volume.lock_existing(deadline)? else {
        return Ok(());
    };
    volume.unregister(target)?;
    failpoint::reach("release: unregistered");
    if !volume.is_used()? {
        remove(volume, shutdown, deadline)?;
    }
    drop(lock);
    Ok(())
}

/// Stops the daemon of `volume`, whose lock is held, and removes the volume's directory, the key file
/// first.
pub(crate) fn remove(volume: &Volume, shutdown: Shutdown, deadline: Deadline) -> Result<()> {
    if let Some(plan) = volume.plan()? {
        return remove_relayed(volume, &plan, shutdown, deadline);
    }
    volume.remove_start()?;
    failpoint::reach("remove: about to end");
    end(volume, shutdown, deadline)?;
    failpoint::reach("remove: ended");
    volume.remove()
}

/// `remove` for a volume with the relay. Where ossfs has not uploaded everything by `deadline`, it is
/// left to finish, and the volume's directory, without the key file, for a later call to remove.
fn remove_relayed(
    volume: &Volume,
    plan: &Plan,
    shutdown: Shutdown,
    deadline: Deadline,
) -> Result<()> {
    let process = volume.running_daemon()?;
    let is_mounted = directory::is_mount_point(&volume.staging())?;
    volume.remove_start()?;
    failpoint::reach("remove: about to end");
    if shutdown == Shutdown::Force {
        if systemd::is_running() {
            // There may be no such instance.
            if let Err(e) = systemd::stop(volume.id()) {
                log::debug!("{e:#}");
            }
        }
        if let Some(process) = &process {
            process.kill();
            process.wait(Deadline::after(KILL_TIME))?;
        }
    }
    clear(volume, deadline)?;
    failpoint::reach("end: staging unmounted");
    if let Some(process) = process {
        if !is_mounted && shutdown == Shutdown::Graceful {
            // Its mount has gone: nothing but this tells it to end.
            process.terminate();
        }
        if !process.wait(deadline)? {
            log::warn!(
                "volume {}: ossfs (process {}) still uploads to the bucket, or something still has \
                 its files open; it is left running until it is done",
                volume.id(),
                process.pid()
            );
            return volume.remove_keys();
        }
    }
    failpoint::reach("remove: ended");
    directories::remove_directory(&plan.temporary)?;
    for directory in &plan.emptied {
        directories::remove_directory(directory)?;
    }
    volume.remove_plan()?;
    volume.remove()
}

/// Stops the daemon of `volume` and unmounts its staging directory. A daemon that has not written
/// everything by `deadline` is left to finish.
pub(crate) fn end(volume: &Volume, shutdown: Shutdown, deadline: Deadline) -> Result<()> {
    let daemon = volume.running_daemon()?;
    let mounted = directory::is_mount_point(&volume.staging())?;
    if let Some(process) = &daemon
        && (shutdown == Shutdown::Force || !mounted)
    {
        // Not mounted yet: nothing has been written through it.
        process.kill();
        process.wait(Deadline::after(KILL_TIME))?;
    }
    if shutdown == Shutdown::Force && systemd::is_running() {
        // It would restart a daemon that was killed. There may be no such instance.
        if let Err(e) = systemd::stop(volume.id()) {
            log::debug!("{e:#}");
        }
    }
    // From here on a call finds no daemon, rather than one that is about to exit.
    volume.remove_daemon_record()?;
    failpoint::reach("end: daemon record removed");
    clear(volume, deadline)?;
    failpoint::reach("end: staging unmounted");
    if let Some(process) = daemon
        && !process.wait(deadline)?
    {
        log::warn!(
            "volume {}: ossfs (process {}) still writes to the bucket, or something still has its \
             files open; it is left running until it is done",
            volume.id(),
            process.pid()
        );
    }
    Ok(())
}

/// Logs that the cleanup after `failure` has failed, too: the error to report is the one that it
/// cleaned up after. What is left is removed by the next call.
pub(crate) fn log_failed_cleanup(failure: &str, volume: &Volume, cleanup: Result<()>) {
    if let Err(e) = cleanup {
        log::warn!("volume {}: clean up after {failure}: {e:#}", volume.id());
    }
}

/// Unmounts what is left at the staging directory: in a helper process, because unmounting the last
/// mount of a file system may have to wait for its daemon.
pub(crate) fn clear(volume: &Volume, deadline: Deadline) -> Result<()> {
    if directory::is_mount_point(&volume.staging())? {
        unmount::in_helper(&volume.staging(), deadline.half())?;
    }
    if directory::is_mount_point(&volume.scratch())? {
        unmount::in_helper(&volume.scratch(), deadline.half())?;
    }
    Ok(())
}
