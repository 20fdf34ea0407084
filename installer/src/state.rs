//! The driver's state directory (`alicloud_oss::state::layout` says what is in it), as far as the
//! installer changes it: root's alone, marked as being drained, removed.

use crate::args::Settings;
use crate::host::Host;
use crate::host::files;
use crate::node_config;
use alicloud_oss::state::layout::{
    BOOT, DRAIN, INCOMPLETE, INIT_RECORD, INSTALLER_RECORD, LOCKS, VOLUMES, VolumeLayout,
};
use alicloud_oss::sys::deadline::Deadline;
use alicloud_oss::sys::lock;
use alicloud_oss::sys::process::ProcessId;
use anyhow::{Context as _, Result, bail};
use std::fs::{File, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A package of ossfs in the state directory, while it is installed.
pub(crate) const RPM_COPY: &str = "ossfs-package.rpm";
pub(crate) const DEB_COPY: &str = "ossfs-package.deb";

/// How long a call of the driver is waited for. Those of the usual configuration end within half a
/// minute.
const CALL_LIMIT: Duration = Duration::from_secs(120);

/// Makes the state directory root's alone, as the driver expects it, where it is there already:
/// kubelet makes a directory that it mounts into a Pod readable for all.
pub(crate) fn restrict_mode(settings: &Settings) {
    let root = settings.host_root.as_deref().unwrap_or(Path::new("/"));
    let restricted = Host::new(root)
        .locate(&settings.state_dir)
        .and_then(|path| std::fs::set_permissions(path, Permissions::from_mode(0o700)));
    match restricted {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            log::warn!("set the mode of {}: {e}", settings.state_dir.display());
        }
        _ => {}
    }
}

/// Has the driver mount nothing from here on, not even in a call that runs already.
pub(crate) fn drain(settings: &Settings, host: &Host) -> Result<()> {
    files::write_atomic(host, &settings.state_dir.join(DRAIN), b"", 0o600, 0o700)?;
    // A call checks for the marker under the lock of its target; one that holds the lock now may
    // have checked before.
    wait_for_calls(settings, host)
}

/// Has the driver mount again, if the node was being drained.
pub(crate) fn end_drain(settings: &Settings, host: &Host) {
    let ended = host
        .locate(&settings.state_dir.join(DRAIN))
        .and_then(std::fs::remove_file);
    match ended {
        Ok(()) => log::warn!("the node is no longer being drained: an uninstall was interrupted"),
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => log::warn!("remove the drain marker: {e}"),
    }
}

/// Waits for the calls that run now. Each ends by its own deadline at the latest.
pub(crate) fn wait_for_calls(settings: &Settings, host: &Host) -> Result<()> {
    for file in list(&files::locate(host, &settings.state_dir.join(LOCKS))?)? {
        let _ = lock(&file)?;
    }
    Ok(())
}

/// The targets that are recorded for a volume, mounted or not. A record that cannot be read is not
/// one of the driver's.
pub(crate) fn targets(settings: &Settings, host: &Host) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for volume in list(&volumes(settings, host)?)? {
        found.extend(targets_of(&VolumeLayout::new(volume))?);
    }
    Ok(found)
}

fn targets_of(volume: &VolumeLayout) -> Result<Vec<String>> {
    let records = list(&volume.targets())?;
    Ok(records
        .iter()
        .filter(|record| record.extension().is_none())
        .filter_map(|record| std::fs::read_to_string(record).ok())
        .collect())
}

/// The targets of volumes whose process has ended: it has left its record, and volumes that a call is
/// about to mount or to remove have none.
pub(crate) fn unserved(settings: &Settings, host: &Host) -> Result<Vec<String>> {
    let mut found = Vec::new();
    for volume in list(&volumes(settings, host)?)? {
        let volume = VolumeLayout::new(volume);
        let recorded = std::fs::read_to_string(volume.daemon()).ok();
        let process = recorded.and_then(|text| ProcessId::parse(&text));
        // Of a boot before this one: the first call removes it.
        if process.is_some_and(|process| matches!(process.open(), Ok(None))) {
            found.extend(targets_of(&volume)?);
        }
    }
    Ok(found)
}

/// The directory of the volumes, as seen from here.
pub(crate) fn volumes(settings: &Settings, host: &Host) -> Result<PathBuf> {
    files::locate(host, &settings.state_dir.join(VOLUMES))
}

/// Whether any volume has a directory.
pub(crate) fn has_volumes(settings: &Settings, host: &Host) -> Result<bool> {
    Ok(!list(&volumes(settings, host)?)?.is_empty())
}

/// Removes all that the driver and the installer have written there, keys first. Nothing may be
/// mounted below it. Calls that still hold a lock are waited for.
pub(crate) fn remove(settings: &Settings, host: &Host) -> Result<()> {
    for volume in list(&volumes(settings, host)?)? {
        let volume = VolumeLayout::new(volume);
        let _held = lock(&volume.lock())?;
        removed(
            std::fs::remove_dir_all(volume.directory()),
            volume.directory(),
        )?;
    }
    for file in list(&files::locate(host, &settings.state_dir.join(LOCKS))?)? {
        let _held = lock(&file)?;
        removed(std::fs::remove_file(&file), &file)?;
    }
    for name in [INIT_RECORD, INSTALLER_RECORD, BOOT, DRAIN] {
        let file = settings.state_dir.join(name);
        files::remove(host, &file.with_extension(INCOMPLETE))?;
        files::remove(host, &file)?;
    }
    for name in [RPM_COPY, DEB_COPY] {
        files::remove(host, &settings.state_dir.join(name))?;
    }
    for name in [VOLUMES, LOCKS, ""] {
        files::remove_empty(host, Some(&settings.state_dir.join(name)));
    }
    // What is in it belongs to an ossfs that is uploading.
    let config = node_config::read(host)?.unwrap_or_default();
    files::remove_empty(host, Some(&config.temporary_dir));
    Ok(())
}

/// An error unless what was at `path` is removed, now or before.
fn removed(result: std::io::Result<()>, path: &Path) -> Result<()> {
    match result {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            Err(e).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// The lock of the file at `path`, once no call of the driver holds it; nothing where there is no
/// such file: its call is over. An error if a call holds it for longer than any call takes.
fn lock(path: &Path) -> Result<Option<File>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(None);
        }
        Err(e) => return Err(e).with_context(|| format!("open {}", path.display())),
    };
    let held = lock::wait_for(file, Deadline::after(CALL_LIMIT))
        .with_context(|| format!("wait for the lock {}", path.display()))?;
    match held {
        Some(file) => Ok(Some(file)),
        None => bail!(
            "a call of the driver has held {} for {} s: see proc_locks(5) for its process",
            path.display(),
            CALL_LIMIT.as_secs()
        ),
    }
}

/// What is in the directory at `path`; nothing where there is none.
fn list(path: &Path) -> Result<Vec<PathBuf>> {
    let context = || format!("list {}", path.display());
    let entries = match std::fs::read_dir(path) {
        Err(e) if matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            return Ok(Vec::new());
        }
        entries => entries.with_context(context)?,
    };
    entries
        .map(|entry| entry.map(|entry| entry.path()).with_context(context))
        .collect()
}
