//! Namespaces of a test's own (namespaces(7)). What is mounted in a mount namespace goes with its
//! last thread or process; what runs in a process namespace goes with its process 1, whatever ends
//! that.

use anyhow::{Context as _, Result, ensure};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, setns, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::unistd::pivot_root;
use std::ffi::OsStr;
use std::fs::File;
use std::panic::resume_unwind;
use std::path::Path;
use std::process::{Command, ExitCode};

/// Runs `test` in a thread whose mounts nobody else sees.
///
/// # Panics
/// If `test` panics, with its panic, and without root.
pub fn with_own_mounts<T: Send>(test: impl FnOnce() -> T + Send) -> T {
    let result = std::thread::scope(|scope| {
        let thread = scope.spawn(|| {
            own_mounts(MsFlags::MS_PRIVATE).expect("a mount namespace: root is needed");
            test()
        });
        thread.join()
    });
    result.unwrap_or_else(|panic| resume_unwind(panic))
}

/// Gives this thread a copy of its mounts, which follows the original as `propagation` says.
///
/// # Errors
/// Without root.
pub fn own_mounts(propagation: MsFlags) -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
    propagate(Path::new("/"), MsFlags::MS_REC | propagation)
}

/// Changes how the mount at `path` shares with others.
///
/// # Errors
/// If mount(2) fails.
pub fn propagate(path: &Path, propagation: MsFlags) -> Result<()> {
    let none = None::<&str>;
    mount(none, path, none, propagation, none)
        .with_context(|| format!("change the propagation of {}", path.display()))
}

/// Mounts `source` at `path` too.
///
/// # Errors
/// If mount(2) fails.
pub fn bind(source: &Path, path: &Path) -> Result<()> {
    let none = None::<&str>;
    mount(Some(source), path, none, MsFlags::MS_BIND, none)
        .with_context(|| format!("bind {} at {}", source.display(), path.display()))
}

/// Mounts a new file system of `kind` at `path`, with `data` as its options.
///
/// # Errors
/// If mount(2) fails.
pub fn mount_new(kind: &str, path: &Path, data: &str) -> Result<()> {
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    mount(Some(kind), path, Some(kind), flags, Some(data))
        .with_context(|| format!("mount {kind} at {}", path.display()))
}

/// Mounts a writable view of `lower` at `path`, and returns where the changes are, in memory at
/// `memory`, a directory that exists.
///
/// # Errors
/// If mount(2) fails.
pub fn overlay(lower: &Path, path: &Path, memory: &Path) -> Result<std::path::PathBuf> {
    mount_new("tmpfs", memory, "size=1g")?;
    let (upper, work) = (memory.join("upper"), memory.join("work"));
    std::fs::create_dir(&upper)?;
    std::fs::create_dir(&work)?;
    let data = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.display(),
        upper.display(),
        work.display()
    );
    // Not nosuid and not nodev, as the root of a host.
    let (kind, flags) = (Some("overlay"), MsFlags::empty());
    mount(kind, path, kind, flags, Some(data.as_str())).context("mount an overlay")?;
    Ok(upper)
}

/// Gives this thread a network namespace with loopback alone.
///
/// # Errors
/// Without root, or without ip(8).
pub fn own_network() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNET).context("make a network namespace")?;
    bring_up_loopback()
}

fn bring_up_loopback() -> Result<()> {
    let up = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status();
    ensure!(up.context("run ip")?.success(), "bring up loopback");
    Ok(())
}

/// This program once more, with `word` as its first argument.
pub fn this_program(word: &str, arguments: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(word).args(arguments);
    command
}

/// Runs this program as `word` with `arguments` as process 1 of new namespaces, `more` than those of
/// mounts and processes, and ends as it ends: with 0, 2 or 1.
///
/// # Errors
/// Without root.
pub fn run_as_init(
    word: &str,
    arguments: &[impl AsRef<OsStr>],
    more: CloneFlags,
) -> Result<ExitCode> {
    unshare(CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS | more)
        .context("make namespaces: root is needed")?;
    let status = this_program(word, arguments).status();
    Ok(exit_code(
        status.context("start this program again")?.code(),
    ))
}

/// How this program ends after one that ended with `status`.
pub fn exit_code(status: Option<i32>) -> ExitCode {
    match status {
        Some(0) => ExitCode::SUCCESS,
        Some(2) => ExitCode::from(2),
        _ => ExitCode::FAILURE,
    }
}

/// What process 1 of [`run_as_init`] begins with: it ends with its parent, its mounts are not seen
/// outside, nor the other way round, and /proc is its own; so is loopback, in a network of its own.
///
/// # Errors
/// If this is not process 1.
pub fn become_init(has_network: bool) -> Result<()> {
    set_pdeathsig(Signal::SIGKILL).context("follow the parent's end")?;
    ensure!(
        std::process::id() == 1,
        "this argument is for the program itself"
    );
    propagate(Path::new("/"), MsFlags::MS_REC | MsFlags::MS_PRIVATE)?;
    mount_new("proc", Path::new("/proc"), "")?;
    match has_network {
        true => bring_up_loopback(),
        false => Ok(()),
    }
}

/// Makes `root`, a mount point, the root directory of this process, and leaves all other mounts.
///
/// # Errors
/// If it is none, or others share the mounts of this process.
pub fn pivot_into(root: &Path) -> Result<()> {
    std::env::set_current_dir(root).context("enter the root")?;
    // The old root comes to lie on the new one, and is taken off again (pivot_root(2)).
    pivot_root(".", ".").context("change the root")?;
    umount2(".", MntFlags::MNT_DETACH).context("leave the old root")?;
    std::env::set_current_dir("/").context("enter the root")
}

/// A mount namespace that threads can be in.
pub struct MountNamespace(File);

impl MountNamespace {
    /// The one that this thread is in.
    ///
    /// # Errors
    /// If it cannot be opened.
    pub fn current() -> Result<Self> {
        let path = "/proc/thread-self/ns/mnt";
        let file = File::open(path).with_context(|| format!("open {path}"))?;
        Ok(Self(file))
    }

    /// A copy of this one, which this thread is in from now on.
    ///
    /// # Errors
    /// As [`MountNamespace::enter`].
    pub fn copy(&self) -> Result<Self> {
        self.enter()?;
        unshare(CloneFlags::CLONE_NEWNS).context("make a mount namespace")?;
        Self::current()
    }

    /// Enters it: what this thread does and starts from now on is there.
    ///
    /// # Errors
    /// If there is another thread in this process.
    pub fn enter(&self) -> Result<()> {
        setns(&self.0, CloneFlags::CLONE_NEWNS).context("enter a mount namespace")
    }
}
