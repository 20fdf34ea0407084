//! Having a volume served by a live daemon.

use crate::mounts::bind::{make_private, set_flags};
use crate::mounts::directory::{self, Directory};
use crate::ossfs::launch::{self, unix_time};
use crate::ossfs::readiness::{Daemon, Starting};
use crate::ossfs::systemd;
use crate::service::relayed;
use crate::service::release::{KILL_TIME, Shutdown, clear, end, log_failed_cleanup};
use crate::state::start::{Start, Supervisor};
use crate::state::volume::Volume;
use crate::sys::deadline::Deadline;
use crate::sys::lock::Lock;
use crate::sys::process::{Process, ProcessId};
use crate::sys::{failpoint, root_only};
use anyhow::{Context as _, Result, bail};
use nix::mount::MsFlags;
use nix::sys::statvfs::FsFlags;
use std::time::Duration;

/// How long the result of a probe is trusted: Pods that start at once cause one request to the store.
const PROBE_HOLDS: Duration = Duration::from_secs(1);

/// Has a live daemon serve `volume`, whose `lock` is held and whose start is recorded: the running
/// one, or a new one. Returns whether it is new. On failure a daemon that this call started has been
/// killed, and one that it found is left as it was.
pub(crate) fn serve(volume: &Volume, lock: &Lock, deadline: Deadline) -> Result<bool> {
    let start = volume.read_start()?.context("volume.json is missing")?;
    if volume.was_probed_within(PROBE_HOLDS)
        && volume.running_daemon()?.is_some()
        && directory::is_mount_point(&volume.staging())?
    {
        return Ok(false);
    }
    if volume.has_plan() {
        return relayed::serve(volume, lock, &start, deadline).map(|()| false);
    }
    let (failed, _) = volume.failed_starts()?;
    // Read once: systemd may be starting a daemon, which records itself at any time.
    let recorded = volume.recorded_daemon()?;
    let (mut starting, is_new) = match running(recorded.as_ref())? {
        Some(process) => (Starting::of(volume, &start, Daemon::Found(process)), false),
        None => (
            launch(volume, lock, &start, recorded, failed, deadline)?,
            true,
        ),
    };
    let served = starting.wait(deadline).and_then(|flags| {
        failpoint::reach("serve: served");
        record_healthy(volume, flags, &start)
    });
    match served {
        Ok(()) => Ok(is_new),
        Err(e) => {
            // systemd continues to restart it, for as long as the volume has targets.
            if is_new && start.supervisor != Supervisor::Unit {
                let cleanup = end(volume, Shutdown::Force, Deadline::after(KILL_TIME))
                    .and_then(|()| volume.record_failed_starts(failed + 1, unix_time()));
                log_failed_cleanup("a failed start", volume, cleanup);
            }
            Err(e)
        }
    }
}

/// The recorded process, if it is running.
fn running(recorded: Option<&ProcessId>) -> Result<Option<Process>> {
    Ok(recorded.map(ProcessId::open).transpose()?.flatten())
}

/// Starts a daemon for `volume`, of which nothing is left mounted.
fn launch<'a>(
    volume: &'a Volume,
    lock: &Lock,
    start: &Start,
    recorded: Option<ProcessId>,
    failed: u32,
    deadline: Deadline,
) -> Result<Starting<'a>> {
    log::debug!("{} {:?}", start.program.display(), start.arguments);
    if start.supervisor == Supervisor::Unit {
        // systemd may be starting it already, so the process itself does all that belongs to a start.
        let starting = Starting::of(volume, start, Daemon::Awaited(recorded));
        // A unit that waits after failed starts is started at once.
        volume.clear_failed_starts()?;
        systemd::install_template(volume.directory().parent().unwrap_or(volume.directory()))?;
        systemd::start(volume.id())?;
        return Ok(starting);
    }
    clear(volume, deadline)?;
    root_only::make_directory(&volume.staging())?;
    // Until it serves: this call may be killed.
    volume.record_failed_starts(failed + 1, unix_time())?;
    let (child, output) = launch::spawn(volume, lock)?;
    failpoint::reach("serve: started");
    let process = Process::of_child(&child)?;
    Ok(Starting::of(
        volume,
        start,
        Daemon::Child {
            process,
            child,
            output,
        },
    ))
}

/// Waits until the daemon of `volume`, which systemd has just started as the process `main`, serves
/// it. On failure that daemon is killed.
pub(crate) fn await_unit(volume: &Volume, main: Option<i32>, deadline: Deadline) -> Result<()> {
    let start = volume.read_start()?.context("volume.json is missing")?;
    let recorded = volume.recorded_daemon()?;
    let daemon = match (running(recorded.as_ref())?, recorded) {
        (Some(process), _) => Daemon::Found(process),
        // It has recorded itself and ended since.
        (None, Some(recorded)) if Some(recorded.pid()) == main => Daemon::Ended(recorded.pid()),
        (None, recorded) => Daemon::Awaited(recorded),
    };
    let mut starting = Starting::of(volume, &start, daemon);
    let served = starting
        .wait(deadline)
        .and_then(|flags| record_healthy(volume, flags, &start));
    if served.is_err() {
        let cleanup = volume.running_daemon().map(|daemon| {
            if let Some(process) = daemon {
                process.kill();
            }
        });
        log_failed_cleanup("a failed start", volume, cleanup);
    }
    served
}

/// Has `volume`, whose `lock` is held and whose daemon has died, served again. Starts that fail again
/// and again are retried with increasing delay.
pub(crate) fn restart(volume: &Volume, lock: &Lock, deadline: Deadline) -> Result<()> {
    let (failed, last) = match volume.read_start()? {
        // Held back by the unit.
        Some(start) if start.supervisor == Supervisor::Unit => (0, 0),
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

/// Records that `volume` is served, by a mount with `flags`, and sets the flags that are missing. An
/// earlier call may have been killed before it did this.
pub(crate) fn record_healthy(volume: &Volume, flags: FsFlags, start: &Start) -> Result<()> {
    protect(volume, flags, start.read_only)?;
    volume.clear_unresponsive()?;
    volume.clear_failed_starts()?;
    volume.record_probe()
}

/// Gives the mount at staging the flags that every volume has, if ossfs has not: binds of it have
/// them too.
fn protect(volume: &Volume, found: FsFlags, read_only: bool) -> Result<()> {
    let mut wanted = FsFlags::ST_NOSUID | FsFlags::ST_NODEV;
    if read_only {
        wanted |= FsFlags::ST_RDONLY;
    }
    let staging = Directory::open(&volume.staging())?.context("the staging directory is gone")?;
    // Each target becomes its own peer group: a mount on one must not propagate to the others.
    make_private(&staging)?;
    if found.contains(wanted) {
        return Ok(());
    }
    set_flags(&staging, mount_flags(found | wanted))
}

/// The flags of mount(2) for those of statvfs(3).
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
    .filter(|(flag, _)| flags.contains(*flag))
    .fold(MsFlags::empty(), |all, (_, flag)| all | flag)
}
