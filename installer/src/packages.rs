//! ossfs from packages that the administrator provides in a directory: the one for this distribution is
//! chosen by its name and installed with the host's own package manager, where ossfs is missing or
//! older. Running daemons keep the program that they were started from.

mod choose;

use crate::args::Settings;
use crate::checks;
use crate::find::Found;
use crate::host::Host;
use crate::host::program::{self, Output};
use crate::node;
use crate::state::{DEB_COPY, RPM_COPY};
use anyhow::{Context as _, Result, bail};
use choose::{Format, OsRelease, Package};
use std::ffi::OsStr;
use std::path::Path;
use std::time::Duration;

/// Enough for a package manager on a slow disk that waits for another one's lock.
const LIMIT: Duration = Duration::from_secs(300);

/// Installs ossfs if packages are given and the host needs one. Failures are logged: the checks report
/// whether mounting is possible.
pub(crate) fn install(settings: &Settings, found: &Found) {
    let Some(directory) = &settings.packages else {
        return;
    };
    if settings.host_root.is_none() {
        log::warn!(
            "packages of ossfs can only be installed on a host that is reached: see --host-root"
        );
        return;
    }
    if let Err(e) = install_from(directory, settings, &found.host) {
        log::warn!("ossfs: {e:#}");
    }
}

fn install_from(directory: &Path, settings: &Settings, host: &Host) -> Result<()> {
    let packages = packages(directory)?;
    let text = host
        .read(Path::new("/etc/os-release"))
        .context("read the host's /etc/os-release")?;
    let os = OsRelease::parse(&text);
    let system = nix::sys::utsname::uname().context("uname")?;
    let machine = system.machine().to_string_lossy();
    let Some(package) = choose::choose(&packages, &os, &machine) else {
        bail!(
            "none of the {} packages in {} is for this host: wanted is {}",
            packages.len(),
            directory.display(),
            choose::wanted(&os, &machine)
        );
    };
    // One that does not run counts as missing.
    let present = checks::ossfs_version(host, "ossfs").ok().flatten();
    let is_new = present.is_none();
    if present.is_some_and(|present| present >= package.version) {
        return Ok(());
    }
    let copy = settings.state_dir.join(match package.format {
        Format::Rpm => RPM_COPY,
        Format::Deb => DEB_COPY,
    });
    let file = directory.join(&package.file);
    let installed = run_manager(host, package.format, &file, &copy, is_new);
    node::remove(host, &copy)?;
    installed.with_context(|| format!("install {}", package.file))?;
    log::info!("installed {} on the host", package.file);
    Ok(())
}

/// Installs the package in `file` by way of the host's `copy`. rpm refuses a package whose dependencies
/// are missing; dpkg unpacks it nevertheless, so one that `is_new` is removed again.
fn run_manager(host: &Host, format: Format, file: &Path, copy: &Path, is_new: bool) -> Result<()> {
    let (name, options) = match format {
        Format::Rpm => ("rpm", ["-U"].as_slice()),
        Format::Deb => ("dpkg", ["--force-confold", "--install"].as_slice()),
    };
    let mut args: Vec<&OsStr> = options.iter().map(OsStr::new).collect();
    args.push(copy.as_os_str());
    let output = program::run_with_copy(host, (file, copy), name, &args, LIMIT)?;
    let installed = check(output, name);
    if installed.is_err() && is_new && format == Format::Deb {
        let args = [OsStr::new("--remove"), OsStr::new("ossfs")];
        check(program::run_outside(host, name, &args, LIMIT)?, name)?;
    }
    installed
}

/// An error with the reason unless the package manager `name` succeeded.
fn check(output: Output, name: &str) -> Result<()> {
    let why = missing(&output.text).map(str::to_owned);
    match (output.success(), why) {
        (Ok(_), _) => Ok(()),
        (Err(_), Some(why)) => bail!("{name}: {why}: install that first"),
        (Err(e), None) => Err(e).context(name.to_owned()),
    }
}

/// The line in which dpkg or rpm names a dependency that is missing.
fn missing(text: &str) -> Option<&str> {
    let line = text
        .lines()
        .find(|line| line.contains(" depends on ") || line.contains(" is needed by "))?;
    Some(line.trim().trim_end_matches("; however:"))
}

fn packages(directory: &Path) -> Result<Vec<Package>> {
    let entries =
        std::fs::read_dir(directory).with_context(|| format!("list {}", directory.display()))?;
    Ok(entries
        .flatten()
        .filter_map(|entry| Package::parse(entry.file_name().to_str()?))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::missing;

    #[test]
    fn the_missing_dependency_is_named() {
        let dpkg = "dpkg: dependency problems prevent configuration of ossfs:\n ossfs depends on \
                    fuse (>= 2.9); however:\n  Package fuse is not installed.\n";
        let rpm = "error: Failed dependencies:\n\tfuse >= 2.8.4 is needed by ossfs-1.91-1.x86_64\n";
        assert_eq!(missing(dpkg), Some("ossfs depends on fuse (>= 2.9)"));
        assert_eq!(
            missing(rpm),
            Some("fuse >= 2.8.4 is needed by ossfs-1.91-1.x86_64")
        );
        assert_eq!(missing("error: open of x failed\n"), None);
    }
}
