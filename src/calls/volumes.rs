//! What mount and unmount do with a volume as a whole: have it served by a daemon, give up one
//! target of it, end it behind its last user.

use crate::child;
use crate::deadline::Deadline;
use crate::fault;
use crate::lock::Lock;
use crate::mounts;
use crate::mounts::directory::{self, Directory};
use crate::ossfs::launch::{self, Start, Under, unix_time};
use crate::ossfs::ready::{Daemon, Starting};
use crate::ossfs::systemd;
use crate::private;
use crate::process::{Process, ProcessId};
use crate::target::Target;
use crate::volume::{StateDirectory, Volume};
use anyhow::{Context as _, Result, bail};
use nix::mount::MsFlags;
use nix::sys::statvfs::FsFlags;
use std::time::Duration;

/// How long a daemon that was killed may take to be gone.
const KILL_TIME: Duration = Duration::from_secs(5);

/// How long what a probe found is taken to hold: Pods that start at once ask the store once.
const PROBE_HOLDS: Duration = Duration::from_secs(1);

/// How a daemon's end is brought about.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Its mount is taken away, and it writes to the bucket what it has before it ends.
    Finish,
    /// It is killed: nobody has written anything through it.
    Kill,
}

/// Has a live daemon serve `volume`, whose `lock` is held and whose start is written down: the one
/// that does already, or a new one. Returns whether it is new. On failure a daemon that this call
/// started is gone again, and one that it found is as before.
pub(super) fn serve(volume: &Volume, lock: &Lock, deadline: Deadline) -> Result<bool> {
    let start = volume
        .find_start()?
        .context("how its daemon is started is not known any more")?;
    if volume.was_probed_within(PROBE_HOLDS)
        && volume.daemon()?.is_some()
        && directory::is_mount_point(&volume.staging())?
    {
        return Ok(false);
    }
    let (failed, _) = volume.failed_starts()?;
    // Read once: systemd may be starting it, and the note of a new one be made at any time.
    let noted = volume.noted_daemon()?;
    let (mut starting, is_new) = match running(noted.as_ref())? {
        Some(process) => (Starting::of(volume, Daemon::Found(process)), false),
        None => (launch(volume, lock, &start, noted, failed, deadline)?, true),
    };
    let served = starting.wait(deadline).and_then(|flags| {
        fault::point("serve: served");
        settle(volume, flags, &start)
    });
    match served {
        Ok(()) => Ok(is_new),
        Err(e) => {
            // systemd goes on trying, for as long as the volume has users.
            if is_new && start.under != Under::Unit {
                end(volume, Ending::Kill, Deadline::after(KILL_TIME))
                    .context("after a failed start")?;
                volume.note_failed_starts(failed + 1, unix_time())?;
            }
            Err(e)
        }
    }
}

/// The process that was noted, if it runs.
fn running(noted: Option<&ProcessId>) -> Result<Option<Process>> {
    Ok(noted.map(ProcessId::open).transpose()?.flatten())
}

/// Starts a daemon for `volume`, of which nothing is left mounted.
fn launch<'a>(
    volume: &'a Volume,
    lock: &Lock,
    start: &Start,
    noted: Option<ProcessId>,
    failed: u32,
    deadline: Deadline,
) -> Result<Starting<'a>> {
    log::debug!("{} {:?}", start.program.display(), start.arguments);
    if start.under == Under::Unit {
        // systemd may be at it already, so all that belongs to a start is done in there.
        let starting = Starting::of(volume, Daemon::Awaited(noted));
        // A unit that is held back behind starts that failed is let go at once.
        volume.forget_starts()?;
        systemd::install_template(volume.directory().parent().unwrap_or(volume.directory()))?;
        systemd::start(volume.id())?;
        return Ok(starting);
    }
    clear(volume, deadline)?;
    private::make_directory(&volume.staging())?;
    // Until it serves: this call may be killed.
    volume.note_failed_starts(failed + 1, unix_time())?;
    let (child, output) = launch::spawn(volume, lock)?;
    fault::point("serve: started");
    let process = Process::of_child(&child)?;
    Ok(Starting::of(
        volume,
        Daemon::Child {
            process,
            child,
            output,
        },
    ))
}

/// Waits until the daemon of `volume`, which systemd has just started as the process `main`, serves
/// it. On failure that daemon is ended.
pub(super) fn await_unit(volume: &Volume, main: Option<i32>, deadline: Deadline) -> Result<()> {
    let start = volume
        .find_start()?
        .context("how its daemon is started is not known any more")?;
    let noted = volume.noted_daemon()?;
    let daemon = match (running(noted.as_ref())?, noted) {
        (Some(process), _) => Daemon::Found(process),
        // It has noted itself and ended since.
        (None, Some(noted)) if Some(noted.pid()) == main => Daemon::Ended(noted.pid()),
        (None, noted) => Daemon::Awaited(noted),
    };
    let mut starting = Starting::of(volume, daemon);
    let served = starting
        .wait(deadline)
        .and_then(|flags| settle(volume, flags, &start));
    if served.is_err()
        && let Some(process) = volume.daemon()?
    {
        process.kill();
    }
    served
}

/// Has `volume`, whose `lock` is held and whose daemon has died, served again. Starts that fail again
/// and again are tried less and less often.
pub(super) fn restart(volume: &Volume, lock: &Lock, deadline: Deadline) -> Result<()> {
    let (failed, last) = match volume.find_start()? {
        // Held back by the unit.
        Some(start) if start.under == Under::Unit => (0, 0),
        _ => volume.failed_starts()?,
    };
    let next = last.saturating_add(launch::backoff(failed).as_secs());
    let now = unix_time();
    if now < next {
        bail!(
            "{failed} starts of its daemon have failed in a row, the next is tried in {} s",
            next - now
        );
    }
    serve(volume, lock, deadline).map(drop)
}

/// What follows once `volume` is served by a mount with `flags`; a call before may have been killed
/// before it came to this.
pub(super) fn settle(volume: &Volume, flags: FsFlags, start: &Start) -> Result<()> {
    protect(volume, flags, start.read_only)?;
    volume.forget_silence()?;
    volume.forget_starts()?;
    volume.note_probe()
}

/// Gives the mount at staging the flags that every volume has, if ossfs has not: binds of it have
/// them too.
fn protect(volume: &Volume, found: FsFlags, read_only: bool) -> Result<()> {
    let mut wanted = FsFlags::ST_NOSUID | FsFlags::ST_NODEV;
    if read_only {
        wanted |= FsFlags::ST_RDONLY;
    }
    let staging = Directory::open(&volume.staging())?.context("the staging directory is gone")?;
    // Each target becomes a peer group of its own: what heals one must not show at all others.
    mounts::make_private(&staging)?;
    if found.contains(wanted) {
        return Ok(());
    }
    mounts::set_flags(&staging, mount_flags(found | wanted))
}

/// The flags of mount(2) that statvfs(3) showed.
fn mount_flags(flags: FsFlags) -> MsFlags {
    [
        (FsFlags::ST_RDONLY, MsFlags::MS_RDONLY),
        (FsFlags::ST_NOSUID, MsFlags::MS_NOSUID),
        (FsFlags::ST_NODEV, MsFlags::MS_NODEV),
        (FsFlags::ST_NOEXEC, MsFlags::MS_NOEXEC),
        (FsFlags::ST_NOATIME, MsFlags::MS_NOATIME),
        (FsFlags::ST_NODIRATIME, MsFlags::MS_NODIRATIME),
        (FsFlags::ST_RELATIME, MsFlags::MS_RELATIME),
    ]
    .into_iter()
    .filter(|(shown, _)| flags.contains(*shown))
    .fold(MsFlags::empty(), |all, (_, flag)| all | flag)
}

/// Takes `target` off `volume`'s list, and ends the volume if that was the last one.
pub(super) fn release(
    volume: &Volume,
    target: &Target,
    ending: Ending,
    deadline: Deadline,
) -> Result<()> {
    let Some(lock) = volume.lock_existing(deadline)? else {
        return Ok(());
    };
    volume.unregister(target)?;
    fault::point("release: unregistered");
    if !volume.is_used()? {
        remove(volume, ending, deadline)?;
    }
    drop(lock);
    Ok(())
}

/// Cleans up behind calls that were killed: targets that kubelet has removed are taken off their
/// volumes, volumes without a user are ended, locks that nobody holds removed. What a call is busy
/// with is left to it; a failure is logged and leaves the rest for the next call.
pub(super) fn sweep(state: &StateDirectory, deadline: Deadline) {
    let swept = state.all().map(|volumes| {
        for volume in volumes {
            if let Err(e) = sweep_one(&volume, deadline) {
                log::warn!("volume {}: {e:#}", volume.id());
            }
        }
    });
    if let Err(e) = swept.and_then(|()| state.remove_free_locks()) {
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
    if !volume.is_used()? {
        log::info!("volume {} has no user any more", volume.id());
        remove(volume, Ending::Finish, deadline)?;
    }
    drop(lock);
    Ok(())
}

/// Whether kubelet has removed the directory `target`.
fn is_gone(target: &Target) -> bool {
    matches!(Directory::open(target.path()), Ok(None))
}

/// Ends the daemon of `volume`, whose lock is held, and removes all that is known of the volume,
/// its key file first of all.
pub(super) fn remove(volume: &Volume, ending: Ending, deadline: Deadline) -> Result<()> {
    volume.forget_start()?;
    fault::point("remove: about to end");
    end(volume, ending, deadline)?;
    fault::point("remove: ended");
    volume.remove()
}

/// Ends the daemon of `volume` and unmounts its staging directory. A daemon that has not written
/// everything by `deadline` is left to finish.
fn end(volume: &Volume, ending: Ending, deadline: Deadline) -> Result<()> {
    let daemon = volume.daemon()?;
    let mounted = directory::is_mount_point(&volume.staging())?;
    if let Some(process) = &daemon
        && (ending == Ending::Kill || !mounted)
    {
        // Not mounted yet: nobody has written anything through it.
        process.kill();
        process.wait(Deadline::after(KILL_TIME))?;
    }
    if ending == Ending::Kill && systemd::is_running() {
        // It would start a daemon that was killed again. There may be no such instance.
        if let Err(e) = systemd::stop(volume.id()) {
            log::debug!("{e:#}");
        }
    }
    // From here on a call finds no daemon, rather than one that is about to end.
    volume.forget_daemon()?;
    fault::point("end: daemon forgotten");
    clear(volume, deadline)?;
    fault::point("end: staging unmounted");
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

/// Unmounts what is left at the staging directory: in a child process, for the last mount of a file
/// system may have to wait for its daemon.
fn clear(volume: &Volume, deadline: Deadline) -> Result<()> {
    if directory::is_mount_point(&volume.staging())? {
        child::unmount(&volume.staging(), deadline.half())?;
    }
    if directory::is_mount_point(&volume.scratch())? {
        child::unmount(&volume.scratch(), deadline.half())?;
    }
    Ok(())
}
