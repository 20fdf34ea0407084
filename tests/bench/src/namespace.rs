//! Process and mount namespaces: the program runs as process 1 of its own, and each node that it
//! measures on has mounts of its own. The kernel ends and unmounts everything in them with process
//! 1, whatever ends that (pid_namespaces(7)).

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use std::ffi::OsString;
use std::fs::File;
use std::path::Path;
use std::process::{Command, ExitCode};

/// The first argument of the program when it runs inside.
pub(crate) const WORD: &str = "inside-namespaces";

/// Runs this program with `arguments` as process 1 of new namespaces, and ends as it ends.
pub(crate) fn run_inside(arguments: &[OsString]) -> Result<ExitCode> {
    unshare(CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS)
        .context("make namespaces: root is needed")?;
    let status = Command::new("/proc/self/exe")
        .arg(WORD)
        .args(arguments)
        .status()
        .context("start this program again")?;
    Ok(match status.code() {
        Some(0) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    })
}

/// Makes the namespaces that this process was started in its own.
pub(crate) fn settle() -> Result<()> {
    set_pdeathsig(Signal::SIGKILL).context("follow the parent's end")?;
    ensure!(std::process::id() == 1, "{WORD} is not for people");
    // Neither is what is mounted here seen outside, nor the other way round.
    change("/", MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
    fresh("proc", Path::new("/proc"))
}

/// Mounts a new, empty file system of `kind` at `path`.
pub(crate) fn fresh(kind: &str, path: &Path) -> Result<()> {
    mount(
        Some(kind),
        path,
        Some(kind),
        MsFlags::MS_NOSUID | MsFlags::MS_NODEV,
        None::<&str>,
    )
    .with_context(|| format!("mount {kind} at {}", path.display()))
}

/// Shows `source` at `path` too.
pub(crate) fn bind(source: &Path, path: &Path) -> Result<()> {
    mount(
        Some(source),
        path,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .with_context(|| format!("bind {}", path.display()))
}

/// Changes how the mount at `path` shares with others.
pub(crate) fn change(path: &str, flags: MsFlags) -> Result<()> {
    let none = None::<&str>;
    mount(none, path, none, flags, none).with_context(|| format!("change the mount {path}"))
}

/// Takes all mounts away but those at `points`, in this thread's mount namespace.
pub(crate) fn leave_only(points: &[&str]) -> Result<()> {
    let table = std::fs::read_to_string("/proc/thread-self/mountinfo").context("read mountinfo")?;
    let others = table
        .lines()
        .filter_map(|line| line.split(' ').nth(4))
        .filter(|point| !points.contains(point));
    // What is on top comes last in the table.
    for point in others.collect::<Vec<_>>().iter().rev() {
        match umount2(*point, MntFlags::MNT_DETACH) {
            // It went with the mount that it was on.
            Ok(()) | Err(Errno::EINVAL | Errno::ENOENT) => {}
            Err(e) => return Err(e).with_context(|| format!("unmount {point}")),
        }
    }
    Ok(())
}

/// A mount namespace that this thread can be in.
pub(crate) struct Mounts(File);

impl Mounts {
    /// The one that this thread is in.
    pub(crate) fn current() -> Result<Self> {
        let path = "/proc/thread-self/ns/mnt";
        Ok(Self(
            File::open(path).with_context(|| format!("open {path}"))?,
        ))
    }

    /// A copy of this one, which the thread is in from now on.
    pub(crate) fn copy(&self) -> Result<Self> {
        self.enter()?;
        unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
        Self::current()
    }

    /// Enters it: what this thread does and starts from now on is there. To be called while there
    /// is only this thread.
    pub(crate) fn enter(&self) -> Result<()> {
        setns(&self.0, CloneFlags::CLONE_NEWNS).context("enter a mount namespace")
    }
}

/// Takes note of the end of daemons that have become children of process 1. To be called while no
/// other child is waited for.
pub(crate) fn reap() {
    while matches!(
        waitpid(None, Some(WaitPidFlag::WNOHANG)),
        Ok(WaitStatus::Exited(..) | WaitStatus::Signaled(..))
    ) {}
}
