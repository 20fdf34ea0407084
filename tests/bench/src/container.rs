//! A container as far as a volume goes: a process with mounts of its own, into which a runtime has
//! bound the volume with the mount propagation that Kubernetes gives by default, none. It tells by
//! itself when the volume answers again, so nobody has to look.

use crate::node;
use anyhow::{Context as _, Result};
use nix::mount::MsFlags;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use std::ffi::OsString;
use std::fs::{File, create_dir, symlink_metadata};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::process::{Child, ChildStdout, ExitCode, Stdio};
use support::namespace::{bind, mount_new, own_mounts, pivot_into, this_program};

/// The first argument of the program when it is the process; the volume's TARGET follows.
pub(crate) const WORD: &str = "inside-container";
/// Where its root is put together: a directory of every system.
const ROOT: &str = "/media";
const VOLUME: &str = "/volume";
/// A name that nobody has.
const MISSING: &str = "/volume/.0c4f2c1e-64a5-4dd0-9a4a-f7f0c0a6b9d3";

/// A running container. Dropping it ends it.
pub(crate) struct Container {
    process: Child,
    words: ChildStdout,
}

impl Container {
    /// Starts a container of a Pod that has its volume, and returns when the volume answers in it.
    pub(crate) fn start(pod: usize) -> Result<Self> {
        let mut process = this_program(WORD, &[node::target(pod)])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .context("start a container")?;
        let words = process.stdout.take().context("a container has no stdout")?;
        let mut container = Self { process, words };
        container.wait()?;
        Ok(container)
    }

    /// Waits until the volume answers through a file system that it did not answer through before.
    pub(crate) fn wait(&mut self) -> Result<()> {
        let mut word = [0];
        self.words.read_exact(&mut word).context("a container")
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // It has ended by itself, at worst.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Is the process of a container, until it is killed.
pub(crate) fn run(arguments: &[OsString]) -> Result<ExitCode> {
    let target = arguments.first().context("the target is missing")?;
    set_pdeathsig(Signal::SIGKILL).context("follow the parent's end")?;
    enter(Path::new(target))?;
    // Opened before the first look, so that no change in between is missed.
    let table = File::open("/proc/self/mountinfo").context("open mountinfo")?;
    let mut before = None;
    loop {
        let device = answering();
        if device.is_some() && device != before {
            before = device;
            std::io::stdout().write_all(b".").context("tell")?;
            std::io::stdout().flush().context("tell")?;
        }
        // A change of the mount table is an exceptional condition (proc_pid_mounts(5)).
        let mut fds = [PollFd::new(table.as_fd(), PollFlags::POLLPRI)];
        poll(&mut fds, PollTimeout::NONE).context("wait for a change of the mounts")?;
    }
}

/// Enters mounts of its own that hold the volume, and little besides.
fn enter(target: &Path) -> Result<()> {
    own_mounts(MsFlags::MS_PRIVATE)?;
    let root = Path::new(ROOT);
    mount_new("tmpfs", root, "")?;
    for directory in ["proc", "volume"] {
        create_dir(root.join(directory)).context("make a directory")?;
    }
    mount_new("proc", &root.join("proc"), "")?;
    bind(target, &root.join("volume"))?;
    pivot_into(root)
}

/// The device of the file system that the volume answers through, if it does.
fn answering() -> Option<u64> {
    let device = symlink_metadata(VOLUME).ok()?.dev();
    match symlink_metadata(MISSING) {
        Err(e) if e.kind() == ErrorKind::NotFound => Some(device),
        _ => None,
    }
}
