//! The bare tools: `s3fs` started by hand, as a daemon of its own for each mount, and `umount`.

use crate::node::{Node, TEMPORARY};
use crate::processes;
use crate::run;
use crate::store::{KEY_ID, SECRET, bucket};
use anyhow::{Context as _, Result, ensure};
use nix::mount::{MntFlags, umount2};
use nix::sys::statfs::statfs;
use nix::sys::wait::waitpid;
use nix::unistd::Pid;
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use support::namespace::bind;

const PASSWD_FILE: &str = "/mnt/passwd-s3fs";

/// Where bare mount `place` is.
pub(crate) fn directory(place: usize) -> PathBuf {
    format!("/mnt/bare/{place:03}").into()
}

/// Writes down the key pair and makes the directories of as many places.
pub(crate) fn prepare(places: usize) -> Result<()> {
    let file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(PASSWD_FILE)
        .context("make the key file")?;
    std::io::Write::write_all(&mut &file, format!("{KEY_ID}:{SECRET}\n").as_bytes())
        .context("write the key file")?;
    for place in 0..places {
        std::fs::create_dir_all(directory(place)).context("make a mount point")?;
    }
    Ok(())
}

/// Mounts the bucket of this number at `place`, and returns the time until its root has answered a
/// lookup: the command goes into the background before it has asked the store for anything.
pub(crate) fn mount(node: &Node, place: usize, number: usize) -> Result<Duration> {
    let directory = directory(place);
    let url = format!("url={}", node.url());
    let passwd = format!("passwd_file={PASSWD_FILE}");
    let temporary = format!("tmpdir={TEMPORARY}");
    let path = directory.to_string_lossy();
    let bucket = bucket(number);
    let mut arguments = vec![bucket.as_str(), &path];
    for option in ["use_path_request_style", "allow_other", "nosuid", "nodev"] {
        arguments.extend(["-o", option]);
    }
    arguments.extend(["-o", &temporary, "-o", &url, "-o", &passwd]);
    let since = Instant::now();
    run::run(Path::new("/usr/bin/s3fs"), &arguments, &[])?;
    statfs(&directory).context("statfs of the bare mount")?;
    let missing = directory.join(".7c1e0d52-9f5b-4b4a-8f04-5f6f7e1b2a90");
    match std::fs::symlink_metadata(missing) {
        Err(e) if e.kind() == ErrorKind::NotFound => {}
        other => anyhow::bail!("a lookup in the bare mount: {other:?}"),
    }
    Ok(since.elapsed())
}

/// Unmounts `place` with `umount`, and returns the time until the daemon has ended.
pub(crate) fn unmount(place: usize) -> Result<Duration> {
    let directory = directory(place);
    let daemon = daemon(&directory)?;
    let since = Instant::now();
    umount(&directory)?;
    // Its parent has ended, so it is a child of process 1.
    waitpid(daemon, None).context("wait for the bare daemon")?;
    Ok(since.elapsed())
}

/// The time of `umount` for a second mount of a file system, which ends nothing.
pub(crate) fn unmount_one_of_two(place: usize) -> Result<Duration> {
    let second = Path::new("/mnt/second");
    std::fs::create_dir_all(second).context("make a mount point")?;
    bind(&directory(place), second)?;
    umount(second)
}

/// Takes all the places away that were mounted, and waits for their daemons.
pub(crate) fn clear(places: usize) -> Result<()> {
    let daemons = processes::daemons();
    for place in 0..places {
        umount2(&directory(place), MntFlags::MNT_DETACH).context("unmount a bare mount")?;
    }
    for daemon in daemons {
        waitpid(daemon, None).context("wait for a bare daemon")?;
    }
    Ok(())
}

fn umount(path: &Path) -> Result<Duration> {
    Ok(run::run(Path::new("/usr/bin/umount"), &[path], &[])?.time)
}

/// The process that serves the bare mount at `directory`.
fn daemon(directory: &Path) -> Result<Pid> {
    let directory = directory.to_string_lossy();
    let found: Vec<_> = processes::all()
        .into_iter()
        .filter(|process| process.is_daemon() && process.has_argument(&directory))
        .collect();
    ensure!(found.len() == 1, "{} daemons serve one mount", found.len());
    Ok(found[0].pid)
}
