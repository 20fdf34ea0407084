//! What the driver needs on the host besides itself: its configuration, the systemd unit, buckets
//! left out by updatedb. And the removal of all that.

use crate::args::Settings;
use crate::directory::Directory;
use crate::find::Found;
use crate::host::{Host, program};
use crate::updatedb;
use alicloud_oss::config::{Config, DEFAULT_FILE};
use alicloud_oss::ossfs::unit_files::runtime_files;
use anyhow::{Context as _, Error, Result, bail};
use nix::sys::stat::Mode;
use std::ffi::OsStr;
use std::fs::DirBuilder;
use std::io::{ErrorKind, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

const UPDATEDB: &str = "/etc/updatedb.conf";
const UNITS: &str = "/etc/systemd/system";
/// systemd reads its units in well under a second.
const SYSTEMCTL_LIMIT: Duration = Duration::from_secs(30);

/// Installs on the host what is missing there. Nothing of it is needed to unmount, so a failure is
/// logged and tried again at the next pass.
pub(crate) fn prepare(settings: &Settings, found: &Found) {
    if settings.host_root.is_none() {
        return;
    }
    for result in [
        configure(settings, &found.host),
        install_unit(settings, &found.host),
        change(&found.host, UPDATEDB, updatedb::prune),
    ] {
        if let Err(e) = result {
            log::warn!("{e:#}");
        }
    }
}

/// Removes from the host what `prepare` and the driver wrote there, the state directory apart. The
/// log stays, and so does a configuration that is not the one in `settings`. An error names all that
/// could not be removed; the rest is removed.
pub(crate) fn undo(settings: &Settings, host: &Host) -> Result<()> {
    let failed: Vec<Error> = [
        change(host, UPDATEDB, updatedb::restore).and(remove_new(host, Path::new(UPDATEDB))),
        remove_units(settings, host),
        remove_configuration(settings, host),
    ]
    .into_iter()
    .filter_map(Result::err)
    .collect();
    if failed.is_empty() {
        return Ok(());
    }
    let texts: Vec<String> = failed.iter().map(|e| format!("{e:#}")).collect();
    bail!("{}", texts.join("; "))
}

fn remove_units(settings: &Settings, host: &Host) -> Result<()> {
    let ours = match unit(settings) {
        Some((source, target)) => {
            remove_new(host, &target)?;
            is_same(host, &target, source)?.then_some(target)
        }
        None => None,
    };
    // And those that the driver makes where there are no others.
    let made: Vec<PathBuf> = runtime_files()
        .into_iter()
        .filter(|file| host.metadata(file).is_ok())
        .collect();
    for unit in ours.iter().chain(&made) {
        remove(host, unit)?;
    }
    if (!made.is_empty() || ours.is_some()) && host.runs_systemd() {
        reload_systemd(host)?;
    }
    Ok(())
}

fn remove_configuration(settings: &Settings, host: &Host) -> Result<()> {
    let (Some(source), config) = (&settings.config, Path::new(DEFAULT_FILE)) else {
        return Ok(());
    };
    remove_new(host, config)?;
    if is_same(host, config, source)? {
        remove(host, config)?;
    } else if host.metadata(config).is_ok() {
        log::info!("{DEFAULT_FILE} stays: it has been changed since it was installed");
    }
    remove_empty(host, config.parent());
    Ok(())
}

/// The administrator's configuration is never overwritten, and one that the driver would refuse is
/// not installed.
fn configure(settings: &Settings, host: &Host) -> Result<()> {
    let Some(source) = &settings.config else {
        return Ok(());
    };
    if host.metadata(Path::new(DEFAULT_FILE)).is_ok() {
        return Ok(());
    }
    let text = std::fs::read_to_string(source)
        .with_context(|| format!("read the node configuration {}", source.display()))?;
    Config::parse(&text)
        .with_context(|| format!("read the node configuration {}", source.display()))?;
    write_atomic(host, Path::new(DEFAULT_FILE), text.as_bytes(), 0o644, 0o755)?;
    log::info!("installed {DEFAULT_FILE}");
    Ok(())
}

/// The file of the unit, and its path on the host.
fn unit(settings: &Settings) -> Option<(&Path, PathBuf)> {
    let source = settings.unit.as_deref()?;
    Some((source, Path::new(UNITS).join(source.file_name()?)))
}

fn install_unit(settings: &Settings, host: &Host) -> Result<()> {
    let Some((source, target)) = unit(settings).filter(|_| host.runs_systemd()) else {
        return Ok(());
    };
    if is_same(host, &target, source)? {
        return Ok(());
    }
    let bytes = std::fs::read(source).with_context(|| format!("read {}", source.display()))?;
    write_atomic(host, &target, &bytes, 0o644, 0o755)?;
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
        .with_context(|| format!("stat {}", path.display()))?
        .permissions()
        .mode();
    write_atomic(host, path, changed.as_bytes(), mode & 0o777, 0o755)?;
    log::info!("changed {}", path.display());
    Ok(())
}

/// Replaces the host's file at `path` in one step, and makes missing directories above it. A reader
/// sees the old file or the whole new one; on an error there is still the old one.
pub(crate) fn write_atomic(
    host: &Host,
    path: &Path,
    bytes: &[u8],
    mode: u32,
    directory_mode: u32,
) -> Result<()> {
    let located = locate(host, path)?;
    let (Some(parent), Some(name)) = (located.parent(), located.file_name()) else {
        bail!("{} is not a file", path.display());
    };
    DirBuilder::new()
        .recursive(true)
        .mode(directory_mode)
        .create(parent)
        .with_context(|| format!("make directory {}", parent.display()))?;
    let directory = Directory::open(parent)?
        .with_context(|| format!("{} was removed meanwhile", parent.display()))?;
    let name = name.to_string_lossy();
    let new = new_name(&name);
    // Left by an installer that was killed.
    directory.remove(&new)?;
    directory.write(&new, Mode::from_bits_truncate(mode), |file| {
        file.write_all(bytes)
    })?;
    directory.rename(&new, &name)?;
    directory.sync()
}

/// The name under which a file is written before it is renamed.
fn new_name(name: &str) -> String {
    format!(".{name}.new")
}

/// Removes the host's file at `path`, if it is there, and what a killed installer has left of one.
pub(crate) fn remove(host: &Host, path: &Path) -> Result<()> {
    remove_new(host, path)?;
    remove_at(&locate(host, path)?)
}

/// Removes what a killed installer has not finished writing for the host's file at `path`.
fn remove_new(host: &Host, path: &Path) -> Result<()> {
    let located = locate(host, path)?;
    let name = located.file_name().unwrap_or_default().to_string_lossy();
    remove_at(&located.with_file_name(new_name(&name)))
}

fn remove_at(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if !matches!(e.kind(), ErrorKind::NotFound | ErrorKind::NotADirectory) => {
            Err(e).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

/// Removes the host's directory at `path` if nothing is in it.
pub(crate) fn remove_empty(host: &Host, path: Option<&Path>) {
    if let Some(Ok(located)) = path.map(|path| host.locate(path)) {
        // If it is not empty, somebody else uses it.
        let _ = std::fs::remove_dir(located);
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

pub(crate) fn locate(host: &Host, path: &Path) -> Result<PathBuf> {
    host.locate(path)
        .with_context(|| format!("resolve {}", path.display()))
}
