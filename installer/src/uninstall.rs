//! Removing the driver, which must not strand a volume: without the driver no volume can be
//! unmounted, and its Pod never ends.

use crate::args::Settings;
use crate::directory::Directory;
use crate::mounts::{self, MountTable};
use crate::watch::{Stop, Wake};
use crate::{checks, find, install, node};
use anyhow::{Context as _, Result, bail};
use std::time::Duration;

/// How often to look at the mount table beside its own word, should that get lost.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// Removes the driver and what came with it. While volumes are mounted this is refused, or with
/// `drain` it waits for the last one, with a driver that only unmounts.
pub(crate) fn uninstall(settings: &Settings, drain: bool) -> Result<()> {
    let stop = Stop::catch()?;
    if settings.host_root.is_none() {
        bail!(
            "whether volumes are mounted cannot be seen from here, so nothing is removed: set \
             --host-root=/proc/1/root with hostPID"
        );
    }
    let found = find::find(settings, None)?;
    let mut table = MountTable::open(&settings.proc)?;
    // Before the look at the table, so that nothing is mounted behind it.
    node::drain(settings, &found)?;
    let mut said = None;
    loop {
        let volumes = table.volumes()?;
        let Some(problem) = checks::mounted(&volumes, &found.host) else {
            break;
        };
        if !drain {
            node::end_drain(settings);
            bail!("{problem}");
        }
        if said.as_ref() != Some(&volumes) {
            log::info!(
                "nothing is mounted any more; waiting for {}",
                mounts::describe(&volumes, &found.host)
            );
            said = Some(volumes);
        }
        if stop.wait(Some(table.source()), LOOK_AGAIN)? == Wake::Stop {
            bail!("stopped while volumes are mounted: the driver stays, and only unmounts");
        }
    }
    let place = found
        .host
        .locate(&found.path)
        .with_context(|| format!("look at {}", found.path.display()))?;
    if let Some(plugins) = Directory::open(&place)? {
        install::remove(&plugins)?;
    }
    node::undo(settings, &found)?;
    log::info!("removed the driver from {}", found.path.display());
    Ok(())
}
