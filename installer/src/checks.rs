//! What a node must have before the driver is installed, and before it can mount anything.

use crate::args::Settings;
use crate::directory::Directory;
use crate::driver::{self, Init};
use crate::find::Found;
use crate::finding::Finding;
use crate::host::{Host, program};
use crate::mounts::{self, MountTables};
use crate::{node_config, state, supervision};
use alicloud_oss::config::{Config, DEFAULT_FILE};
use anyhow::Result;
use nix::sys::stat::fstat;
use nix::sys::statvfs::{FsFlags, fstatvfs};
use std::ffi::OsStr;
use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _};
use std::path::Path;
use std::time::Duration;

/// The device of FUSE, and its number (`Documentation/admin-guide/devices.txt` of Linux).
const FUSE: &str = "/dev/fuse";
const FUSE_NUMBER: (u64, u64) = (10, 229);
/// `ossfs --version` neither uses the network nor waits for anything.
const VERSION_LIMIT: Duration = Duration::from_secs(10);

/// Whether the driver can live in the plugin directory, and safely.
pub(crate) fn directory(plugins: &Directory) -> Result<Vec<Finding>> {
    let path = plugins.path().display();
    let flags = fstatvfs(plugins)?.flags();
    let stat = fstat(plugins)?;
    let own = nix::unistd::geteuid().as_raw();
    let mut findings = Vec::new();
    let mut block = |what: String| findings.push(Finding::blocks_installing(what));
    if flags.contains(FsFlags::ST_RDONLY) {
        block(format!(
            "{path} is on a read-only file system: set kubelet's volumePluginDir to a directory \
             that can be written"
        ));
    }
    if flags.contains(FsFlags::ST_NOEXEC) {
        block(format!(
            "{path} is on a file system mounted noexec: remount it with exec, or set kubelet's \
             volumePluginDir to another directory"
        ));
    }
    if stat.st_uid != own || stat.st_mode & 0o022 != 0 {
        block(format!(
            "{path} belongs to user {} and has mode {:04o}: kubelet runs as root what is in it, so \
             only root may write there (chown root, chmod 0755)",
            stat.st_uid,
            stat.st_mode & 0o7777
        ));
    }
    Ok(findings)
}

/// What is to be known before another driver at `path` is replaced: kubelet holds volumes of one
/// that answered no capabilities as attachable, and cannot release them afterwards.
pub(crate) fn replaced(settings: &Settings, path: &Path) -> Option<Finding> {
    // What others may have changed is not run from here.
    let is_safe = |path: &Path| {
        path.symlink_metadata().is_ok_and(|meta| {
            meta.uid() == nix::unistd::geteuid().as_raw() && meta.mode() & 0o022 == 0
        })
    };
    if !is_safe(path) || !path.parent().is_some_and(is_safe) {
        return None;
    }
    // The `init` of this driver would leave an init record that is not kubelet's.
    let is_ours = driver::build(path).is_ok_and(|build| build.starts_with(driver::NAME));
    if is_ours || driver::init(path).ok()? != Init::NoCapabilities {
        return None;
    }
    let volumes = settings
        .host_root
        .as_ref()
        .and_then(|_| MountTables::open(&settings.proc, &[]).ok()?.volumes().ok());
    let mounted = match &volumes {
        Some(volumes) if volumes.is_empty() => return None,
        Some(volumes) if volumes.len() == 1 => "one of its volumes is mounted".to_owned(),
        Some(volumes) => format!("{} of its volumes are mounted", volumes.len()),
        None => "its volumes may be mounted".to_owned(),
    };
    Some(Finding::note(format!(
        "the old driver without capabilities is installed, and {mounted}: they keep working; \
         restart kubelet once, so that it releases them (or drain the node first)"
    )))
}

/// Whether volumes can be mounted where the driver runs.
pub(crate) fn host(settings: &Settings, found: &Found) -> Vec<Finding> {
    if settings.host_root.is_none() {
        return vec![Finding::note(
            "the host is not reached, so ossfs and /dev/fuse were not checked: see --host-root",
        )];
    }
    let host = &found.host;
    let (config, broken) = match node_config::read(host) {
        Ok(config) => (config, None),
        Err(e) => (None, Some(format!("{e:#}"))),
    };
    let problem = broken.or_else(|| other_state_directory(settings, host, config.as_ref()?));
    let config = config.unwrap_or_default();
    let launcher = supervision::of(found, &config).err();
    [
        problem.map(Finding::blocks_mounting),
        launcher.map(|e| Finding::blocks_mounting(format!("{e:#}: set \"launcher\" to \"auto\""))),
        node_config::check(settings, host),
        Some(ossfs(host, &config.ossfs)),
        fuse(host),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The volumes whose process does not run. Whatever the reason, it is theirs: a wrong key must not keep
/// a rollout from going on.
pub(crate) fn unserved(settings: &Settings, host: &Host) -> Option<Finding> {
    settings.host_root.as_ref()?;
    let (targets, run_again) = match state::unserved(settings, host) {
        Ok(targets) if targets.is_empty() => return None,
        Ok(targets) => (
            targets,
            "oss heal, or the next pass of oss-installer run, starts it again",
        ),
        Err(e) => return Some(Finding::warning(format!("{e:#}"))),
    };
    let volumes: Vec<mounts::Volume> = targets
        .iter()
        .filter_map(|target| mounts::volume_at(Path::new(target)))
        .collect();
    Some(Finding::warning(format!(
        "no process serves {}: {run_again}",
        mounts::describe(&volumes, host)
    )))
}

/// What is wrong if the driver's state directory is not the one that the installer was given. An
/// error if the node configuration, which names it, is not one.
pub(crate) fn state_directory(settings: &Settings, host: &Host) -> Result<Option<String>> {
    let config = node_config::read(host)?;
    Ok(config.and_then(|config| other_state_directory(settings, host, &config)))
}

fn other_state_directory(settings: &Settings, host: &Host, config: &Config) -> Option<String> {
    let (configured, given) = (&config.state_dir, &settings.state_dir);
    let located = |path: &Path| host.locate(path).ok();
    (located(configured) != located(given)).then(|| {
        format!(
            "stateDir in {DEFAULT_FILE} is {configured:?}, and --state-dir is {given:?}: they must \
             be the same"
        )
    })
}

/// The version of the host's ossfs as numbers, nothing if it has none; an error if its
/// output has no version.
pub(crate) fn ossfs_version(host: &Host, name: &str) -> Result<Option<Vec<u32>>> {
    let output = program::run_on(host, name, &[OsStr::new("--version")], VERSION_LIMIT)?;
    if output.is_missing() {
        return Ok(None);
    }
    let text = output.success()?;
    match parse_version(&text) {
        Some(version) => Ok(Some(version)),
        None => anyhow::bail!(
            "its output has no version: {:?}",
            text.lines().next().unwrap_or_default()
        ),
    }
}

/// Whether `name`, the FUSE daemon that the node configuration names, runs on the host.
fn ossfs(host: &Host, name: &str) -> Finding {
    match ossfs_version(host, name) {
        Ok(Some(version)) => Finding::note(format!("{name} {} is installed", dotted(&version))),
        Ok(None) => Finding::blocks_mounting(format!(
            "{name:?} is not installed on the host: install the package ossfs, or set \
             --ossfs-packages, or name another program in {DEFAULT_FILE}"
        )),
        Err(e) => Finding::blocks_mounting(format!(
            "{name:?} does not run on the host ({e:#}): run `{name} --version` there to see why"
        )),
    }
}

fn fuse(host: &Host) -> Option<Finding> {
    let missing = |what: String| {
        Some(Finding::blocks_mounting(format!(
            "{FUSE} {what}: load the module (modprobe fuse, and /etc/modules-load.d for the next \
             boot)"
        )))
    };
    match host.metadata(Path::new(FUSE)) {
        Err(e) => missing(format!("is missing on the host ({e})")),
        Ok(meta) => {
            let number = (
                nix::sys::stat::major(meta.rdev()),
                nix::sys::stat::minor(meta.rdev()),
            );
            match meta.file_type().is_char_device() && number == FUSE_NUMBER {
                true => None,
                false => missing("is not the FUSE device 10:229".to_owned()),
            }
        }
    }
}

/// The numbers after the first `V` in what `ossfs --version` prints.
pub(crate) fn parse_version(text: &str) -> Option<Vec<u32>> {
    text.split_whitespace().find_map(|word| {
        let word = word.strip_prefix(['V', 'v'])?;
        let end = word
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(word.len());
        numbers(&word[..end])
    })
}

/// `text`, numbers with dots between them.
pub(crate) fn numbers(text: &str) -> Option<Vec<u32>> {
    text.split('.').map(|part| part.parse().ok()).collect()
}

pub(crate) fn dotted(version: &[u32]) -> String {
    let parts: Vec<String> = version.iter().map(u32::to_string).collect();
    parts.join(".")
}

/// Why the driver must not be removed, if so: without it these volumes could never be unmounted.
pub(crate) fn mounted(volumes: &[mounts::Volume], host: &Host) -> Option<String> {
    (!volumes.is_empty()).then(|| {
        format!(
            "{} mounted, and only the driver can unmount {}: {}; delete {} first, or use --drain",
            match volumes.len() {
                1 => "1 volume is".to_owned(),
                count => format!("{count} volumes are"),
            },
            if volumes.len() == 1 { "it" } else { "them" },
            mounts::describe(volumes, host),
            if volumes.len() == 1 {
                "this Pod"
            } else {
                "these Pods"
            },
        )
    })
}

#[cfg(test)]
mod tests {
    use super::parse_version;

    #[test]
    fn versions_of_ossfs_and_s3fs_are_understood() {
        for (text, expected) in [
            (
                "Alibaba Cloud Open Storage Service File System V1.91.10(commit:x) with OpenSSL\n",
                Some(vec![1, 91, 10]),
            ),
            (
                "Amazon Simple Storage Service File System V1.90 (commit:unknown) with GnuTLS\nCopyright",
                Some(vec![1, 90]),
            ),
            ("ossfs v2.0.1\n", Some(vec![2, 0, 1])),
            ("no Version here", None),
            ("", None),
        ] {
            assert_eq!(parse_version(text), expected, "{text}");
        }
    }
}
