//! What the driver needs on the host beside itself: its configuration, the systemd unit, updatedb
//! told to leave buckets alone. And all of it undone.

use crate::args::Settings;
use crate::checks::CONFIG;
use crate::directory::Directory;
use crate::find::Found;
use crate::host::{Host, program};
use crate::{ready, updatedb};
use anyhow::{Context as _, Result, bail};
use nix::fcntl::{Flock, FlockArg};
use nix::sys::stat::Mode;
use std::ffi::OsStr;
use std::fs::{DirBuilder, File, Permissions};
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

const UPDATEDB: &str = "/etc/updatedb.conf";
const UNITS: &str = "/etc/systemd/system";
/// The unit that the driver makes itself where nobody has installed one.
const RUNTIME_UNIT: &str = "/run/systemd/system/alicloud-oss@.service";
/// In the state directory: while it is there, the driver mounts nothing.
const DRAIN: &str = "drain";
/// In the state directory: which boot of the node the rest is of.
const BOOT: &str = "boot";
/// In the state directory: a file for each target that a call of the driver is busy with, which the
/// call has locked.
const LOCKS: &str = "locks";
/// systemd reads its units in well under a second.
const SYSTEMCTL_LIMIT: Duration = Duration::from_secs(30);

/// Brings to the host what is missing there. Nothing of it is needed to unmount, so what goes wrong
/// is logged and tried again at the next pass.
pub(crate) fn prepare(settings: &Settings, found: &Found) {
    if settings.host_root.is_none() {
        return;
    }
    for result in [
        configure(settings, &found.host),
        put_unit(settings, &found.host),
        change(&found.host, UPDATEDB, updatedb::prune),
    ] {
        if let Err(e) = result {
            log::warn!("{e:#}");
        }
    }
}

/// Takes from the host what `prepare` and the driver put there. The log stays, and so does a
/// configuration that is not the one in `settings`.
pub(crate) fn undo(settings: &Settings, found: &Found) -> Result<()> {
    let host = &found.host;
    change(host, UPDATEDB, updatedb::restore)?;
    let ours = match unit(settings) {
        Some((source, target)) => is_same(host, &target, source)?.then_some(target),
        None => None,
    };
    // And the one that the driver makes where there is no other.
    let made = host.metadata(Path::new(RUNTIME_UNIT)).is_ok();
    for unit in ours
        .iter()
        .map(PathBuf::as_path)
        .chain(made.then_some(Path::new(RUNTIME_UNIT)))
    {
        remove(host, unit)?;
    }
    if (made || ours.is_some()) && host.runs_systemd() {
        reload_systemd(host)?;
    }
    if let Some(source) = &settings.config {
        if is_same(host, Path::new(CONFIG), source)? {
            remove(host, Path::new(CONFIG))?;
            remove_empty(host, Path::new(CONFIG).parent());
        } else if host.metadata(Path::new(CONFIG)).is_ok() {
            log::info!("{CONFIG} stays: it is not as it was installed");
        }
    }
    for name in [ready::STAMP, BOOT, DRAIN] {
        remove(host, &settings.state_dir.join(name))?;
    }
    for name in ["volumes", LOCKS, ""] {
        remove_empty(host, Some(&settings.state_dir.join(name)));
    }
    Ok(())
}

/// Makes the state directory root's alone, as the driver expects it, where it is there already:
/// kubelet makes a directory that it mounts into a Pod for all to read.
pub(crate) fn close_state_directory(settings: &Settings) {
    let root = settings.host_root.as_deref().unwrap_or(Path::new("/"));
    let closed = Host::new(root)
        .locate(&settings.state_dir)
        .and_then(|place| std::fs::set_permissions(place, Permissions::from_mode(0o700)));
    match closed {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            log::warn!("set the mode of {}: {e}", settings.state_dir.display());
        }
        _ => {}
    }
}

/// Lets the driver mount nothing from here on, not even in a call that runs already.
pub(crate) fn drain(settings: &Settings, found: &Found) -> Result<()> {
    let note = settings.state_dir.join(DRAIN);
    put(&found.host, &note, b"", 0o600, 0o700)?;
    // A call looks for the note when it has the lock of its target; who has it now may not have
    // seen the note. It ends by its own deadline at the latest.
    let locks = locate(&found.host, &settings.state_dir.join(LOCKS))?;
    for entry in std::fs::read_dir(&locks).into_iter().flatten().flatten() {
        match File::open(entry.path()) {
            Ok(file) => {
                let _ = Flock::lock(file, FlockArg::LockExclusive)
                    .map_err(|(_, e)| e)
                    .with_context(|| format!("wait for the call of {}", entry.path().display()))?;
            }
            // The call has ended.
            Err(e) if e.kind() == ErrorKind::NotFound => {}
            Err(e) => Err(e).with_context(|| format!("open {}", entry.path().display()))?,
        }
    }
    Ok(())
}

/// Lets the driver mount again, if it was kept from it.
pub(crate) fn end_drain(settings: &Settings) {
    let root = settings.host_root.as_deref().unwrap_or(Path::new("/"));
    let ended = Host::new(root)
        .locate(&settings.state_dir.join(DRAIN))
        .and_then(std::fs::remove_file);
    match ended {
        Ok(()) => log::warn!("the node was being drained for an uninstall: that is over"),
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        Err(e) => log::warn!("end the draining of this node: {e}"),
    }
}

/// The administrator's configuration is never overwritten, and a broken one not installed.
fn configure(settings: &Settings, host: &Host) -> Result<()> {
    let Some(source) = &settings.config else {
        return Ok(());
    };
    if host.metadata(Path::new(CONFIG)).is_ok() {
        return Ok(());
    }
    let text = std::fs::read_to_string(source)
        .with_context(|| format!("read the node configuration {}", source.display()))?;
    let json: serde_json::Value = serde_json::from_str(&text)
        .with_context(|| format!("read the node configuration {}", source.display()))?;
    if !json.is_object() {
        bail!(
            "the node configuration {} is not a JSON object",
            source.display()
        );
    }
    put(host, Path::new(CONFIG), text.as_bytes(), 0o644, 0o755)?;
    log::info!("installed {CONFIG}");
    Ok(())
}

/// The file of the unit, and its place on the host.
fn unit(settings: &Settings) -> Option<(&Path, PathBuf)> {
    let source = settings.unit.as_deref()?;
    Some((source, Path::new(UNITS).join(source.file_name()?)))
}

fn put_unit(settings: &Settings, host: &Host) -> Result<()> {
    let Some((source, target)) = unit(settings).filter(|_| host.runs_systemd()) else {
        return Ok(());
    };
    if is_same(host, &target, source)? {
        return Ok(());
    }
    let bytes = std::fs::read(source).with_context(|| format!("read {}", source.display()))?;
    put(host, &target, &bytes, 0o644, 0o755)?;
    reload_systemd(host)?;
    log::info!("installed {}", target.display());
    Ok(())
}

fn reload_systemd(host: &Host) -> Result<()> {
    let args = [OsStr::new("daemon-reload")];
    let output = program::run_on(host, "systemctl", &args, SYSTEMCTL_LIMIT)?;
    output.success().context("systemctl daemon-reload")?;
    Ok(())
}

/// Rewrites the host's file at `path`, if it is there, and `edit` has something to change.
fn change(host: &Host, path: &str, edit: fn(&str) -> Option<String>) -> Result<()> {
    let path = Path::new(path);
    let text = match host.read(path) {
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(()),
        text => text.with_context(|| format!("read {}", path.display()))?,
    };
    let Some(changed) = edit(&text) else {
        return Ok(());
    };
    let mode = host
        .metadata(path)
        .with_context(|| format!("look at {}", path.display()))?
        .permissions()
        .mode();
    put(host, path, changed.as_bytes(), mode & 0o777, 0o755)?;
    log::info!("changed {}", path.display());
    Ok(())
}

/// Writes the host's file at `path` at once, with directories above it as needed.
fn put(host: &Host, path: &Path, bytes: &[u8], mode: u32, directory_mode: u32) -> Result<()> {
    let place = locate(host, path)?;
    let (Some(parent), Some(name)) = (place.parent(), place.file_name()) else {
        bail!("{} is not a file", path.display());
    };
    DirBuilder::new()
        .recursive(true)
        .mode(directory_mode)
        .create(parent)
        .with_context(|| format!("make directory {}", parent.display()))?;
    let directory =
        Directory::open(parent)?.with_context(|| format!("{} is gone", parent.display()))?;
    let name = name.to_string_lossy();
    let new = format!(".{name}.new");
    // Left behind by an installer that was killed.
    directory.remove(&new)?;
    directory.write(&new, Mode::from_bits_truncate(mode), |file| {
        file.write_all(bytes)
    })?;
    directory.rename(&new, &name)?;
    directory.sync()
}

/// Copies the file `source` of the image to the host's `path`, and returns where that is.
pub(crate) fn put_copy(host: &Host, path: &Path, source: &Path) -> Result<()> {
    let bytes = std::fs::read(source).with_context(|| format!("read {}", source.display()))?;
    put(host, path, &bytes, 0o600, 0o700)
}

/// Removes the host's file at `path`, if it is there.
pub(crate) fn remove(host: &Host, path: &Path) -> Result<()> {
    match std::fs::remove_file(locate(host, path)?) {
        Err(e) if e.kind() != ErrorKind::NotFound => {
            Err(e).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Removes the host's directory at `path` if nothing is in it.
fn remove_empty(host: &Host, path: Option<&Path>) {
    if let Some(Ok(place)) = path.map(|path| host.locate(path)) {
        // Not empty: somebody needs it.
        let _ = std::fs::remove_dir(place);
    }
}

/// Whether the host's file at `path` has the bytes of `source`, a file of the image.
fn is_same(host: &Host, path: &Path, source: &Path) -> Result<bool> {
    let wanted = std::fs::read(source).with_context(|| format!("read {}", source.display()))?;
    match std::fs::read(locate(host, path)?) {
        Ok(found) => Ok(found == wanted),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e).with_context(|| format!("read {}", path.display())),
    }
}

fn locate(host: &Host, path: &Path) -> Result<PathBuf> {
    host.locate(path)
        .with_context(|| format!("look at {}", path.display()))
}
