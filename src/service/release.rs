//! Releasing a target of a volume, and removing the volume with its last one.

use crate::kubelet::target::Target;
use crate::mounts::{directory, unmount};
use crate::ossfs::{systemd, unit_files};
use crate::sandbox::Group;
use crate::serve::client;
use crate::serve::protocol::{State, Status};
use crate::service::directories;
use crate::state::volume::Volume;
use crate::sys::deadline::Deadline;
use crate::sys::failpoint;
use crate::sys::process::Process;
use anyhow::Result;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// How long a process may take to end that was asked to.
const END_TIME: Duration = Duration::from_secs(1);
/// How long a process that was killed may take to end.
const KILL_TIME: Duration = Duration::from_secs(5);
/// How long a process may take to report whether anything is unsaved.
const ANSWER_TIME: Duration = Duration::from_secs(1);
/// How long the end of a process may take after it has decided that there is nothing to clean up.
const LAST_LOOK: Duration = Duration::from_secs(1);
/// How long the process of a volume waits, as its last act, for the call that has abandoned it.
const FINISH_TIME: Duration = Duration::from_secs(10);

/// How often it looks whether that call has let go of the lock.
const LOCK_RETRY: Duration = Duration::from_millis(20);

/// How the process of a volume is stopped.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Shutdown {
    /// By unmounting: ossfs uploads what it has, and then both exit.
    Graceful,
    /// At once: nothing has been written through it.
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

/// Ends the process of `volume`, whose lock is held, and removes the volume's directory, the key file
/// first. Where ossfs has not uploaded everything by `deadline`, it is left to finish, and the rest of
/// the directory is removed by that process when it ends (`finish`).
pub(crate) fn remove(volume: &Volume, shutdown: Shutdown, deadline: Deadline) -> Result<()> {
    let process = volume.running_daemon()?;
    // One that listens has mounted: it ends with its mount, or with the last file that is open there.
    let has_begun =
        directory::is_mount_point(&volume.staging())? || client::is_listening(volume.directory());
    // From here on nothing starts it again.
    volume.remove_start()?;
    failpoint::reach("remove: about to end");
    if shutdown == Shutdown::Force {
        kill(volume, process.as_ref())?;
    }
    clear(volume, deadline)?;
    failpoint::reach("remove: staging unmounted");
    if let Some(process) = process {
        if !has_begun && shutdown == Shutdown::Graceful {
            // Nothing but this tells it to end.
            process.terminate();
        }
        let until = match has_begun && shutdown == Shutdown::Graceful {
            true => end_of_wait(volume, deadline),
            false => deadline,
        };
        if !process.wait(until)? {
            log::warn!(
                "volume {}: ossfs (process {}) still uploads to the bucket, or something still has \
                 its files open; it is left running until it is done",
                volume.id(),
                process.pid()
            );
            volume.remove_keys()?;
            if abandon(volume, &process, None)? {
                return Ok(());
            }
        }
    }
    failpoint::reach("remove: ended");
    remove_directories(volume)
}

/// How long to wait for the end of the process of `volume`, which was unmounted a moment ago: until
/// `deadline`, but not at all where it goes on only because something has the mount in a mount namespace of
/// its own, and reads there. Where nothing is open there, the process ends at once: a copy of the host's
/// mounts keeps no volume alive.
fn end_of_wait(volume: &Volume, deadline: Deadline) -> Deadline {
    match client::leave(volume.directory(), Instant::now() + ANSWER_TIME) {
        Ok(Some(status)) if is_only_read(&status) && !is_idle(&status) => {
            Deadline::after(Duration::ZERO)
        }
        Ok(_) => deadline,
        Err(e) => {
            log::debug!("volume {}: {e:#}", volume.id());
            deadline
        }
    }
}

/// Ends the process of `volume` where it goes on only because something reads in a copy of the mount that
/// no Pod uses: the reads fail from then on, and nothing is lost.
pub(crate) fn end_if_only_read(volume: &Volume) {
    let answer = || Instant::now() + ANSWER_TIME;
    let ended = match client::leave(volume.directory(), answer()) {
        Ok(Some(status)) if is_only_read(&status) && !is_idle(&status) => {
            log::warn!(
                "volume {}: a process with a copy of this node's mounts still has files of it open: \
                 its reads fail from now on, because the volume is mounted again",
                volume.id()
            );
            client::quit(volume.directory(), answer()).map(drop)
        }
        other => other.map(drop),
    };
    if let Err(e) = ended {
        log::debug!("volume {}: {e:#}", volume.id());
    }
}

/// Whether the process with `status` still serves and nothing is open for writing. One without the relay
/// does not know.
fn is_only_read(status: &Status) -> bool {
    status.state != State::Ending && status.writers == Some(0)
}

fn is_idle(status: &Status) -> bool {
    status.handles == 0 && status.in_flight == 0
}

/// Leaves the rest of `volume`, whose lock is held, to its process `process`, which still uploads: since
/// now, or as the record `since` has it. False if that process has ended meanwhile.
pub(crate) fn abandon(volume: &Volume, process: &Process, since: Option<String>) -> Result<bool> {
    volume.record_abandoned(since)?;
    failpoint::reach("remove: abandoned");
    // A process that ends at this moment may have looked for the marker too early.
    Ok(!process.wait(Deadline::after(LAST_LOOK))?)
}

/// Ends the process of `volume`, and keeps systemd from starting it again.
fn kill(volume: &Volume, process: Option<&Process>) -> Result<()> {
    if systemd::is_running() {
        // There may be no such instance.
        if let Err(e) = systemd::stop(volume.id()) {
            log::debug!("{e:#}");
        }
    }
    let Some(process) = process else {
        return Ok(());
    };
    // Asked a second time, it kills ossfs. It ends after all that it has started; killed, it would end
    // before them, and they may still be making files.
    for _ in 0..2 {
        process.terminate();
        if process.wait(Deadline::after(END_TIME))? {
            return Ok(());
        }
    }
    process.kill();
    process.wait(Deadline::after(KILL_TIME))?;
    Ok(())
}

/// Removes what is left of `volume`, whose process has ended.
fn remove_directories(volume: &Volume) -> Result<()> {
    // Whatever else cannot be removed.
    volume.remove_keys()?;
    match volume.plan() {
        Ok(Some(plan)) => {
            for directory in plan.emptied.iter().chain([&plan.temporary]) {
                directories::remove_directory(directory)?;
            }
            volume.remove_plan()?;
        }
        Ok(None) => {}
        // The volume goes all the same; where its temporary files are is not known.
        Err(e) => log::warn!(
            "volume {}: its temporary files stay on the node: {e:#}",
            volume.id()
        ),
    }
    // Left by a process that was killed.
    Group::remove(volume.id());
    unit_files::remove_drop_ins(volume.id());
    volume.remove()
}

/// The last act of the process of `volume`: removes what is left of a volume whose unmount call did not
/// wait for the end of its uploads. Nothing to do where a call is about to do that itself, or the
/// volume is mounted again.
pub(crate) fn finish(volume: &Volume) -> Result<()> {
    let deadline = Deadline::after(FINISH_TIME);
    let lock = loop {
        // A mount call takes the marker away, and waits for this process under the lock: this cannot
        // wait for that.
        if !volume.is_abandoned() || deadline.has_passed() {
            return Ok(());
        }
        if let Some(lock) = volume.try_lock()? {
            break lock;
        }
        sleep(LOCK_RETRY);
    };
    if volume.is_abandoned() && volume.read_start()?.is_none() && !volume.is_used()? {
        clear(volume, Deadline::after(FINISH_TIME))?;
        remove_directories(volume)?;
    }
    drop(lock);
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

#[cfg(test)]
mod tests {
    use super::{Shutdown, release};
    use crate::kubelet::target::Target;
    use crate::state::volume::Volume;
    use crate::sys::deadline::Deadline;
    use crate::sys::root_only;
    use std::ffi::OsStr;
    use std::time::Duration;

    #[test]
    fn a_volume_of_a_newer_build_is_left_by_mounts_and_removed_by_unmounts() {
        let dir = tempfile::tempdir().unwrap();
        let volume = Volume::new("ab", dir.path().join("ab"));
        let deadline = Deadline::after(Duration::from_secs(60));
        drop(volume.lock(deadline).unwrap());
        let target = Target::parse(OsStr::new("/no/such/target")).unwrap();
        volume.register(&target).unwrap();
        let newer = br#"{"version":99,"build":"9.0","new":{}}"#;
        let file = |name: &str| volume.directory().join(name);
        root_only::write(&volume.passwd_file(), b"key").unwrap();

        root_only::write(&file("serve.json"), newer).unwrap();
        assert!(volume.check_format().is_ok(), "it is about to be removed");
        root_only::write(&file("volume.json"), b"{}").unwrap();
        let error = format!("{:#}", volume.check_format().unwrap_err());
        assert!(
            error.contains("/ab/serve.json: build \"9.0\" of"),
            "{error}"
        );
        root_only::write(&file("volume.json"), newer).unwrap();
        let error = format!("{:#}", volume.check_format().unwrap_err());
        assert!(
            error.contains("/ab/volume.json: build \"9.0\" of"),
            "{error}"
        );

        release(&volume, &target, Shutdown::Graceful, deadline).unwrap();
        assert!(!volume.directory().exists());
    }
}
