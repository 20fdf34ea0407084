//! The first process of a PID namespace: it starts ossfs, reports how it ended, and ends. ossfs is not
//! the first process itself, because that one is immune to the signals that abort(3) and an operator
//! send (pid_namespaces(7)). When this process ends, the kernel ends every other of the namespace.

use super::channel::{Report, send};
use super::spec::End;
use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use rustix::process::{Pid, WaitOptions, WaitStatus, wait};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Command, ExitCode};

/// Starts ossfs and returns when it has ended, or when the caller has: then `control` is closed.
pub(super) fn run(mut command: Command, control: &UnixStream, _life: OwnedFd) -> Result<ExitCode> {
    let child = command
        .spawn()
        .with_context(|| format!("start {}", command.get_program().display()))?;
    // Only ossfs has the FUSE descriptor from here on.
    drop(command);
    let child = Pid::from_child(&child);
    send(control, &Report::Started).context("report to the caller")?;
    // After the start: ossfs would inherit what is blocked here.
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGCHLD);
    signals.thread_block().context("block SIGCHLD")?;
    let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
    let signals = SignalFd::with_flags(&signals, flags).context("make a signalfd")?;
    loop {
        if let Some(end) = reap(child)? {
            // The caller may have ended at the same moment.
            let _ = send(control, &Report::Ended(end));
            return Ok(ExitCode::SUCCESS);
        }
        let mut fds = [
            PollFd::new(signals.as_fd(), PollFlags::POLLIN),
            PollFd::new(control.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(e).context("wait for ossfs"),
        }
        if fds[1].any() == Some(true) {
            // The caller sends nothing: it has ended.
            return Ok(ExitCode::FAILURE);
        }
        while let Ok(Some(_)) = signals.read_signal() {}
    }
}

/// How `child` has ended, if it has; processes that it left to this one are forgotten.
fn reap(child: Pid) -> Result<Option<End>> {
    while let Some((pid, status)) = wait(WaitOptions::NOHANG).context("wait for ossfs")? {
        if pid == child {
            return Ok(Some(end(status)));
        }
    }
    Ok(None)
}

fn end(status: WaitStatus) -> End {
    match status.terminating_signal() {
        Some(signal) => End::Killed(signal),
        None => End::Exited(status.exit_status().unwrap_or(0)),
    }
}
