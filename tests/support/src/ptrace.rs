//! Ends an installer between any two of its system calls (ptrace(2)).

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::process::{Command, Stdio};

/// Runs the installer until it has made `calls` stops before or after a system call and then kills
/// it; returns false if it ended before. SIGTERM is sent as soon as it is held back, so that a whole
/// run is one pass.
#[allow(clippy::zombie_processes, reason = "waitpid waits for it")]
pub fn kill_after(command: &mut Command, calls: usize) -> bool {
    let child = command
        // A traced process is slow: its pass goes on to the end all the same.
        .env("OSS_INSTALLER_GRACE", "3600")
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let pid = Pid::from_raw(child.id().cast_signed());
    ptrace::seize(pid, ptrace::Options::PTRACE_O_TRACESYSGOOD).unwrap();
    ptrace::interrupt(pid).unwrap();
    let mut asked = false;
    let mut stops = 0;
    match waitpid(pid, Some(WaitPidFlag::__WALL)).unwrap() {
        WaitStatus::Exited(..) | WaitStatus::Signaled(..) => return false,
        _ => {}
    }
    loop {
        if stops == calls {
            kill(pid, Signal::SIGKILL).unwrap();
            while !matches!(
                waitpid(pid, Some(WaitPidFlag::__WALL)).unwrap(),
                WaitStatus::Signaled(..) | WaitStatus::Exited(..)
            ) {}
            return true;
        }
        if !asked && blocks_term(pid) {
            kill(pid, Signal::SIGTERM).unwrap();
            asked = true;
        }
        ptrace::syscall(pid, None).unwrap();
        match waitpid(pid, Some(WaitPidFlag::__WALL)).unwrap() {
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => return false,
            // A signal, SIGCHLD above all: its default action is taken by going on without it.
            _ => stops += 1,
        }
    }
}

/// Whether the process holds SIGTERM back (proc_pid_status(5)).
fn blocks_term(pid: Pid) -> bool {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let blocked = status
        .lines()
        .find_map(|line| line.strip_prefix("SigBlk:"))
        .unwrap();
    let blocked = u64::from_str_radix(blocked.trim(), 16).unwrap();
    blocked & (1 << (Signal::SIGTERM as i32 - 1)) != 0
}
