//! Namespaces of the run's own, for mounts, processes and network. Whatever ends the run, the kernel
//! ends every process in there and unmounts everything: nothing is left on the machine.

use anyhow::{Context as _, Result, ensure};
use nix::errno::Errno;
use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, unshare};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::Signal;
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::Pid;
use std::ffi::{OsStr, OsString};
use std::process::{Command, ExitCode};

/// The first argument of process 1 of the namespaces.
pub(crate) const INIT: &str = "init";
/// The first argument of the run itself.
pub(crate) const INSIDE: &str = "inside";
/// Where the run keeps everything: in memory, seen by nobody else.
const DIRECTORY: &str = "/mnt";

/// Runs this program as `INSIDE` with `arguments` in new namespaces, and ends as it ends.
pub(crate) fn run_inside(arguments: &[OsString]) -> Result<ExitCode> {
    unshare(CloneFlags::CLONE_NEWPID | CloneFlags::CLONE_NEWNS | CloneFlags::CLONE_NEWNET)
        .context("make namespaces: root is needed")?;
    let status = again(INIT, arguments).status().context("start init")?;
    Ok(exit_code(status.code()))
}

/// Process 1: makes the namespaces its own, starts the run, and takes note of the end of daemons,
/// whose parents have ended before them, until the run has ended.
pub(crate) fn init(arguments: &[OsString]) -> Result<ExitCode> {
    set_pdeathsig(Signal::SIGKILL).context("follow the parent's end")?;
    ensure!(std::process::id() == 1, "{INIT} is not for people");
    let none = None::<&str>;
    mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none).context("own mounts")?;
    for (kind, path) in [("proc", "/proc"), ("tmpfs", DIRECTORY)] {
        let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
        mount(Some(kind), path, Some(kind), flags, none)
            .with_context(|| format!("mount {kind} at {path}"))?;
    }
    let up = Command::new("ip")
        .args(["link", "set", "lo", "up"])
        .status();
    ensure!(up.context("run ip")?.success(), "bring up loopback");
    let run = again(INSIDE, arguments)
        .env("TMPDIR", DIRECTORY)
        .spawn()
        .context("start the run")?;
    let run = Pid::from_raw(run.id().cast_signed());
    loop {
        match wait() {
            Ok(WaitStatus::Exited(pid, status)) if pid == run => {
                return Ok(exit_code(Some(status)));
            }
            Ok(WaitStatus::Signaled(pid, ..)) if pid == run => return Ok(exit_code(None)),
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e).context("wait for the run"),
        }
    }
}

/// This program once more, as `word`.
pub(crate) fn again(word: &str, arguments: &[impl AsRef<OsStr>]) -> Command {
    let mut command = Command::new("/proc/self/exe");
    command.arg(word).args(arguments);
    command
}

fn exit_code(status: Option<i32>) -> ExitCode {
    match status {
        Some(0) => ExitCode::SUCCESS,
        Some(2) => ExitCode::from(2),
        _ => ExitCode::FAILURE,
    }
}
