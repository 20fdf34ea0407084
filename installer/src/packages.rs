//! ossfs from packages that the administrator provides in a directory: the one for this distribution is
//! chosen by its name and installed with the host's own package manager, where ossfs is missing or
//! older. Running daemons keep the program that they were started from.

mod choose;
pub(crate) mod dependencies;
mod manager;

use crate::args::Settings;
use crate::checks;
use crate::checksum::checksum_of;
use crate::find::{self, Found};
use crate::finding::Finding;
use crate::host::Host;
use crate::host::files;
use crate::state::{DEB_COPY, RPM_COPY};
use anyhow::{Context as _, Result, bail};
use choose::{Format, OsRelease, Package};
pub(crate) use manager::LIMIT;
use manager::Manager;
use std::path::Path;
use std::time::{Duration, Instant, SystemTime};

/// The checksums of the packages, as sha256sum(1) writes them.
const CHECKSUMS: &str = "SHA256SUMS";
/// The longest time between two attempts to install the same package.
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

/// What is known of the attempts so far.
#[derive(Default)]
pub(crate) struct Packages {
    failed: Option<Failed>,
}

/// An attempt that failed.
struct Failed {
    package: Identity,
    times: u32,
    since: Instant,
    finding: Finding,
}

/// A package file: another one of the same name is another package.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Identity {
    file: String,
    length: u64,
    modified: Option<SystemTime>,
}

impl Packages {
    /// Installs ossfs if packages are given and the host needs one. What keeps it from that is found, and
    /// tried again less and less often: a package manager changes much before it fails.
    pub(crate) fn install(&mut self, settings: &Settings, found: &Found) -> Option<Finding> {
        let directory = settings.packages.as_deref()?;
        if settings.host_root.is_none() {
            return Some(Finding::warning(
                "packages of ossfs can only be installed on a host that is reached: see --host-root",
            ));
        }
        let host = &found.host;
        let chosen = choose(directory, host);
        let package = match chosen {
            Ok(package) => package,
            Err(e) => return Some(Finding::warning(format!("ossfs: {e:#}"))),
        };
        // One that does not run counts as missing.
        let present = checks::ossfs_version(host, "ossfs").ok().flatten();
        let is_new = present.is_none();
        if present.is_some_and(|present| present >= package.version) {
            self.failed = None;
            return None;
        }
        let identity = identity(directory, &package);
        if let Some(failed) = &self.failed
            && failed.package == identity
            && failed.since.elapsed() < pause(settings.period, failed.times)
        {
            return Some(failed.finding.clone());
        }
        let before = self
            .failed
            .take()
            .filter(|failed| failed.package == identity);
        let Err(e) = install(directory, &package, is_new, settings, host) else {
            log::info!("installed {} on the host", package.file);
            return None;
        };
        let finding = Finding::warning(format!("ossfs: {e:#}"));
        self.failed = Some(Failed {
            package: identity,
            times: before.map_or(0, |failed| failed.times) + 1,
            since: Instant::now(),
            finding: finding.clone(),
        });
        Some(finding)
    }
}

/// Installs ossfs once, for a container that does nothing else; what keeps it from that is logged.
pub(crate) fn once(settings: &Settings) {
    match find::find(settings, None) {
        Ok(found) => {
            if let Some(finding) = Packages::default().install(settings, &found) {
                finding.log();
            }
        }
        Err(e) => log::warn!("ossfs: {e:#}"),
    }
}

/// How long to wait after the attempt number `times` that failed.
fn pause(period: Duration, times: u32) -> Duration {
    let factor = 1_u32
        .checked_shl(times.saturating_sub(1))
        .unwrap_or(u32::MAX);
    period.saturating_mul(factor).min(LONGEST_PAUSE)
}

fn identity(directory: &Path, package: &Package) -> Identity {
    let meta = directory.join(&package.file).metadata().ok();
    Identity {
        file: package.file.clone(),
        length: meta.as_ref().map_or(0, std::fs::Metadata::len),
        modified: meta.and_then(|meta| meta.modified().ok()),
    }
}

/// The package in `directory` for `host`; an error says which one is wanted.
fn choose(directory: &Path, host: &Host) -> Result<Package> {
    let packages = packages(directory)?;
    let text = host
        .read(Path::new("/etc/os-release"))
        .context("read the host's /etc/os-release")?;
    let os = OsRelease::parse(&text);
    let system = nix::sys::utsname::uname().context("uname")?;
    let machine = system.machine().to_string_lossy();
    match choose::choose(&packages, &os, &machine) {
        Some(package) => Ok(package.clone()),
        None => bail!(
            "{}: wanted is {}",
            match packages.len() {
                0 => format!("there is no package in {}", directory.display()),
                1 => format!(
                    "the only package in {} is not for this host",
                    directory.display()
                ),
                count => format!(
                    "none of the {count} packages in {} is for this host",
                    directory.display()
                ),
            },
            choose::wanted(&os, &machine)
        ),
    }
}

fn install(
    directory: &Path,
    package: &Package,
    is_new: bool,
    settings: &Settings,
    host: &Host,
) -> Result<()> {
    verify(directory, &package.file)?;
    let copy = settings.state_dir.join(match package.format {
        Format::Rpm => RPM_COPY,
        Format::Deb => DEB_COPY,
    });
    let manager = Manager {
        host,
        format: package.format,
        dependencies: settings.dependencies,
        file: &directory.join(&package.file),
        copy: &copy,
    };
    let installed = manager.install(is_new);
    files::remove(host, &copy)?;
    installed.with_context(|| format!("install {}", package.file))
}

/// An error if the directory has checksums, and not that of the file `name`.
fn verify(directory: &Path, name: &str) -> Result<()> {
    let sums = directory.join(CHECKSUMS);
    let text = match std::fs::read_to_string(&sums) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(()),
        text => text.with_context(|| format!("read {}", sums.display()))?,
    };
    let Some(expected) = expected_sum(&text, name) else {
        bail!(
            "{name} is not in {}, which lists the packages",
            sums.display()
        );
    };
    let file = directory.join(name);
    let found = checksum_of(&file).with_context(|| format!("read {}", file.display()))?;
    if !found.eq_ignore_ascii_case(expected) {
        bail!(
            "{name} has the SHA-256 {found}, and {} has {expected}: copy the package again",
            sums.display()
        );
    }
    Ok(())
}

/// The checksum of the file `name` in `text`: lines of digits, a space, a space or `*`, and a name.
fn expected_sum<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines().find_map(|line| {
        let (sum, rest) = line.split_once(' ')?;
        let found = rest.strip_prefix(['*', ' ']).unwrap_or(rest);
        (found.trim_start_matches("./") == name).then_some(sum)
    })
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
    use super::{CHECKSUMS, LONGEST_PAUSE, pause, verify};
    use std::fs::write;
    use std::time::Duration;

    #[test]
    fn attempts_become_rare() {
        let minute = Duration::from_secs(60);
        for (times, minutes) in [
            (1, 1),
            (2, 2),
            (3, 4),
            (6, 32),
            (7, 60),
            (40, 60),
            (u32::MAX, 60),
        ] {
            assert_eq!(pause(minute, times), minute * minutes, "{times}");
        }
        assert_eq!(pause(LONGEST_PAUSE * 2, 1), LONGEST_PAUSE);
    }

    #[test]
    fn where_there_are_checksums_each_package_has_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let name = "ossfs_1.91_debian12_amd64.deb";
        write(dir.path().join(name), "").unwrap();
        assert!(verify(dir.path(), name).is_ok());
        let sum = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        for (text, expected) in [
            (format!("{sum}  {name}\n"), ""),
            (format!("{}  other\n{sum} *./{name}\n", "0".repeat(64)), ""),
            (
                format!("{}  {name}\n", "0".repeat(64)),
                "has the SHA-256 e3b0",
            ),
            (format!("{sum}  other\n"), "is not in "),
            (String::new(), "is not in "),
        ] {
            write(dir.path().join(CHECKSUMS), &text).unwrap();
            match (verify(dir.path(), name), expected) {
                (Ok(()), "") => {}
                (Err(e), part) if !part.is_empty() => {
                    assert!(e.to_string().contains(part), "{text}: {e}");
                }
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
    }
}
