//! What the driver needs on the host besides itself: the systemd unit, buckets left out by updatedb,
//! and its configuration (`node_config`). And the removal of all that.

use crate::args::Settings;
use crate::find::Found;
use crate::finding::Finding;
use crate::host::files::{locate, remove, remove_new, write_atomic};
use crate::host::{Host, program};
use crate::{node_config, supervision, updatedb};
use alicloud_oss::ossfs::unit_files::runtime_files;
use anyhow::{Context as _, Error, Result, bail};
use std::ffi::OsStr;
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

const UPDATEDB: &str = "/etc/updatedb.conf";
const UNITS: &str = "/etc/systemd/system";
/// systemd reads its units in well under a second.
const SYSTEMCTL_LIMIT: Duration = Duration::from_secs(30);

/// Installs on the host what is missing there. Nothing of it is needed to unmount, so a failure is
/// reported and tried again at the next pass.
pub(crate) fn prepare(settings: &Settings, found: &Found) -> Vec<Finding> {
    if settings.host_root.is_none() {
        return Vec::new();
    }
    let mut findings = node_config::install(settings, &found.host);
    for result in [
        install_unit(settings, found),
        change(&found.host, UPDATEDB, updatedb::prune),
    ] {
        findings.extend(result.err().map(|e| Finding::warning(format!("{e:#}"))));
    }
    findings
}

/// Removes from the host what `prepare` and the driver wrote there, the state directory apart. The
/// log stays, and so does a configuration that is not the one in `settings`. An error names all that
/// could not be removed; the rest is removed.
pub(crate) fn undo(settings: &Settings, host: &Host) -> Result<()> {
    let failed: Vec<Error> = [
        change(host, UPDATEDB, updatedb::restore).and(remove_new(host, Path::new(UPDATEDB))),
        remove_units(settings, host),
        node_config::remove(settings, host),
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

/// The file of the unit, and its path on the host.
fn unit(settings: &Settings) -> Option<(&Path, PathBuf)> {
    let source = settings.unit.as_deref()?;
    Some((source, Path::new(UNITS).join(source.file_name()?)))
}

fn install_unit(settings: &Settings, found: &Found) -> Result<()> {
    let host = &found.host;
    let launcher = node_config::read(host).ok().flatten();
    let launcher = launcher.unwrap_or_default().launcher;
    let is_for = |_: &(&Path, PathBuf)| supervision::is_systemd(found, launcher);
    let Some((source, target)) = unit(settings).filter(is_for) else {
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

/// Whether the host's file at `path` has the bytes of `source`, a file of the image.
fn is_same(host: &Host, path: &Path, source: &Path) -> Result<bool> {
    let wanted = std::fs::read(source).with_context(|| format!("read {}", source.display()))?;
    match std::fs::read(locate(host, path)?) {
        Ok(found) => Ok(found == wanted),
        Err(e) if e.kind() == ErrorKind::NotFound => Ok(false),
        Err(e) => Err(e).with_context(|| format!("read {}", path.display())),
    }
}
