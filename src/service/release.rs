//! Giving up a target of a volume, and removing the volume after its last one.

use crate::kubelet::target::Target;
use crate::mounts::{directory, unmount};
use crate::ossfs::systemd;
use crate::state::volume::Volume;
use crate::sys::deadline::Deadline;
use crate::sys::failpoint;
use anyhow::Result;
use std::time::Duration;

/// How long a daemon that was killed may take to end.
pub(crate) const KILL_TIME: Duration = Duration::from_secs(5);

/// How a daemon's end is brought about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shutdown {
    /// Its mount is taken away, and it writes to the bucket what it has before it ends.
    Graceful,
    /// It is killed: nobody has written anything through it.
    Force,
}

/// Takes `target` off `volume`'s list, and ends the volume if that was the last one.
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

/// Ends the daemon of `volume`, whose lock is held, and removes all that is known of the volume,
/// its key file first of all.
pub(crate) fn remove(volume: &Volume, shutdown: Shutdown, deadline: Deadline) -> Result<()> {
    volume.remove_start()?;
    failpoint::reach("remove: about to end");
    end(volume, shutdown, deadline)?;
    failpoint::reach("remove: ended");
    volume.remove()
}

/// Ends the daemon of `volume` and unmounts its staging directory. A daemon that has not written
/// everything by `deadline` is left to finish.
pub(crate) fn end(volume: &Volume, shutdown: Shutdown, deadline: Deadline) -> Result<()> {
    let daemon = volume.running_daemon()?;
    let mounted = directory::is_mount_point(&volume.staging())?;
    if let Some(process) = &daemon
        && (shutdown == Shutdown::Force || !mounted)
    {
        // Not mounted yet: nobody has written anything through it.
        process.kill();
        process.wait(Deadline::after(KILL_TIME))?;
    }
    if shutdown == Shutdown::Force && systemd::is_running() {
        // It would start a daemon that was killed again. There may be no such instance.
        if let Err(e) = systemd::stop(volume.id()) {
            log::debug!("{e:#}");
        }
    }
    // From here on a call finds no daemon, rather than one that is about to end.
    volume.remove_daemon_record()?;
    failpoint::reach("end: daemon forgotten");
    clear(volume, deadline)?;
    failpoint::reach("end: staging unmounted");
    if let Some(process) = daemon
        && !process.wait(deadline)?
    {
        log::warn!(
            "volume {}: ossfs (process {}) still writes to the bucket, or something still has its \
             files open; it is left to finish",
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

/// Unmounts what is left at the staging directory: in a child process, for the last mount of a file
/// system may have to wait for its daemon.
pub(crate) fn clear(volume: &Volume, deadline: Deadline) -> Result<()> {
    if directory::is_mount_point(&volume.staging())? {
        unmount::in_helper(&volume.staging(), deadline.half())?;
    }
    if directory::is_mount_point(&volume.scratch())? {
        unmount::in_helper(&volume.scratch(), deadline.half())?;
    }
    Ok(())
}
