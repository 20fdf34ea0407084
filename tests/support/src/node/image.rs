//! The root file system of the nodes.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail};

use crate::node::apt::{self, Archive};
use crate::node::host::{self, last_lines};
use crate::node::state;

/// Counts changes of this file that need a new image.
const VERSION: u32 = 1;

const PACKAGES: [&str; 7] = [
    "dbus",
    "fuse",
    "procps",
    "s3fs",
    "systemd",
    "systemd-sysv",
    "util-linux",
];

/// Units without use in a node that lives for one test.
const MASKED: [&str; 9] = [
    "apt-daily-upgrade.timer",
    "apt-daily.timer",
    "console-getty.service",
    "dpkg-db-backup.timer",
    "e2scrub_all.timer",
    "e2scrub_reap.service",
    "fstrim.timer",
    "getty.target",
    "systemd-firstboot.service",
];

/// Returns the root file system of the nodes, and makes it first if this machine does not have it.
///
/// It is the release that the host runs, taken from the archive that the apt of the host uses, with systemd, dbus,
/// fuse and s3fs. It lies in the directory that `OSS_TEST_CACHE` names, otherwise in
/// `/var/cache/oss-flexvolume-tests`, under a name that changes with its content; it stays there, and so do images
/// of other versions. Several processes may call this at the same time: one builds, the others wait.
///
/// # Errors
///
/// If debootstrap is not installed, no archive is found, or the build fails. An unfinished build never counts as an
/// image; the next call removes it.
pub fn image() -> Result<PathBuf> {
    image_with(&[])
}

/// As [`image`], with more packages.
pub(crate) fn image_with(packages: &[&str]) -> Result<PathBuf> {
    let packages = [PACKAGES.as_slice(), packages].concat();
    let archive = apt::archive()?;
    let cache = env::var_os("OSS_TEST_CACHE")
        .unwrap_or_else(|| OsString::from("/var/cache/oss-flexvolume-tests"));
    let cache = PathBuf::from(cache);
    fs::create_dir_all(&cache).with_context(|| format!("make {}", cache.display()))?;

    let name = format!(
        "node-{}-{:016x}",
        archive.suite,
        fingerprint(&archive, &packages)
    );
    let image = cache.join(&name);
    let _lock = state::create_locked(&cache.join(format!("{name}.lock")))?;
    if !image.exists() {
        let partial = cache.join(format!("{name}.partial"));
        build(&archive, &packages, &partial)
            .with_context(|| format!("build the image {}", image.display()))?;
        fs::rename(&partial, &image).context("rename the finished image")?;
    }
    Ok(image)
}

fn fingerprint(archive: &Archive, packages: &[&str]) -> u64 {
    let mut hasher = DefaultHasher::new();
    (VERSION, packages, MASKED, &archive.suite, env::consts::ARCH).hash(&mut hasher);
    hasher.finish()
}

fn build(archive: &Archive, packages: &[&str], root: &Path) -> Result<()> {
    if root.exists() {
        fs::remove_dir_all(root).context("remove an unfinished build")?;
    }
    debootstrap(archive, packages, root)?;
    for directory in ["var/cache/apt/archives", "var/lib/apt/lists"] {
        fs::remove_dir_all(root.join(directory)).with_context(|| format!("remove {directory}"))?;
    }
    // It would be the name of the host, and systemd would prefer it to the name of the container.
    fs::remove_file(root.join("etc/hostname")).context("remove etc/hostname")?;
    for unit in MASKED {
        symlink("/dev/null", root.join("etc/systemd/system").join(unit))
            .with_context(|| format!("mask {unit}"))?;
    }
    Ok(())
}

/// Runs debootstrap so that it ends with this thread, and what it mounts ends with it.
fn debootstrap(archive: &Archive, packages: &[&str], root: &Path) -> Result<()> {
    let mut command = Command::new(host::program("setpriv")?);
    command
        .args(["--pdeathsig", "KILL"])
        .arg(host::program("unshare")?)
        .args(["--mount", "--pid", "--fork", "--kill-child", "--mount-proc"])
        .arg(host::program("debootstrap")?)
        .arg("--variant=minbase")
        .arg(format!("--include={}", packages.join(",")))
        .arg(format!("--components={}", archive.components.join(",")));
    if let Some(keyring) = archive.keyring.as_deref().filter(|file| file.exists()) {
        command.arg(format!("--keyring={}", keyring.display()));
    }
    let output = command
        .arg(&archive.suite)
        .arg(root)
        .arg(&archive.uri)
        .env("PATH", host::PATH)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .context("start debootstrap")?;
    if !output.status.success() {
        let said =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        bail!("debootstrap: {}\n{}", output.status, last_lines(&said));
    }
    Ok(())
}
