//! Namespaces of the run's own, for mounts, processes and network. Whatever ends the run, the kernel
//! ends every process in there and unmounts everything: nothing is left on the machine.

use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sched::CloneFlags;
use nix::sys::wait::{WaitStatus, wait};
use nix::unistd::Pid;
use std::ffi::OsString;
use std::path::Path;
use std::process::ExitCode;
use support::namespace::{become_init, exit_code, mount_new, run_as_init, this_program};

/// The first argument of process 1 of the namespaces.
pub(crate) const INIT: &str = "init";
/// The first argument of the run itself.
pub(crate) const INSIDE: &str = "inside";
/// Where the run keeps everything: in memory, seen by nobody else.
const DIRECTORY: &str = "/mnt";

/// Runs this program as `INSIDE` with `arguments` in new namespaces, and ends as it ends.
pub(crate) fn run_inside(arguments: &[OsString]) -> Result<ExitCode> {
    run_as_init(INIT, arguments, CloneFlags::CLONE_NEWNET)
}

/// Process 1: makes the namespaces its own, starts the run, and reaps daemons, whose parents have
/// ended before them, until the run has ended.
pub(crate) fn init(arguments: &[OsString]) -> Result<ExitCode> {
    become_init(true)?;
    mount_new("tmpfs", Path::new(DIRECTORY), "")?;
    let run = this_program(INSIDE, arguments)
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
