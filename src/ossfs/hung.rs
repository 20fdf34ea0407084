//! A daemon that lives and does not answer. It is reported first, for a store may come back; where
//! the node's configuration says so, its connection to the kernel is aborted after a while, which
//! ends every call that waits for it.

use crate::mounts::table::MountTable;
use crate::state::volume::Volume;
use crate::sys::deadline::Deadline;
use anyhow::{Result, bail};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// How long a daemon that was killed may take to be gone.
const KILL_TIME: Duration = Duration::from_secs(5);

/// Notes that `volume` is silent. An error until it has been for `abort_after`; then its daemon is
/// aborted and killed, and may be replaced.
pub(crate) fn report(volume: &Volume, abort_after: Option<Duration>) -> Result<()> {
    let since = match volume.unresponsive_since()? {
        Some(since) => since,
        None => {
            volume.record_unresponsive(now())?;
            now()
        }
    };
    let silent = Duration::from_secs(now().saturating_sub(since));
    match abort_after {
        Some(limit) if silent >= limit => {
            log::warn!(
                "volume {}: silent for {} s, its daemon is aborted",
                volume.id(),
                silent.as_secs()
            );
            abort(volume)?;
            volume.clear_unresponsive()
        }
        Some(limit) => bail!(
            "its daemon has not answered for {} s; it is aborted after {} s",
            silent.as_secs(),
            limit.as_secs()
        ),
        None => bail!(
            "its daemon has not answered for {} s (abortHungAfterSeconds of the node configuration \
             would have it aborted)",
            silent.as_secs()
        ),
    }
}

/// Aborts the FUSE connection of the volume's mount (Documentation/filesystems/fuse.rst) and kills
/// its daemon.
fn abort(volume: &Volume) -> Result<()> {
    if let Some(top) = MountTable::read()?.top(&volume.staging()) {
        let minor = top.device.rsplit(':').next().unwrap_or_default();
        let path = format!("/sys/fs/fuse/connections/{minor}/abort");
        // Where fusectl is not mounted, the daemon's end aborts the connection as well.
        if let Err(e) = std::fs::write(&path, "1") {
            log::warn!("write {path}: {e}");
        }
    }
    if let Some(process) = volume.running_daemon()? {
        process.kill();
        if !process.wait(Deadline::after(KILL_TIME))? {
            bail!("its daemon (process {}) cannot be killed", process.pid());
        }
    }
    Ok(())
}

fn now() -> u64 {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs())
}
