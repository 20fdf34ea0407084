//! An installer that is killed at any point: between any two of its system calls, one after the
//! other, with a kubelet that watches and an eye that never closes.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

mod support;

use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::Node;
use support::eye::{Eye, look};

/// Runs the installer until it has made `calls` stops before or behind a system call and then kills
/// it; returns false if it ended before. SIGTERM is sent as soon as it is held back, so that a whole
/// run is one pass.
#[allow(clippy::zombie_processes, reason = "waitpid waits for it")]
fn run_until(command: &mut Command, calls: usize) -> bool {
    let child = command
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

/// The driver that is installed, by its mode, its length and its last bytes.
fn installed(node: &Node, drivers: &[PathBuf]) -> Option<usize> {
    let found = look(&node.driver()).ok()?;
    drivers
        .iter()
        .position(|driver| look(driver).unwrap() == found)
}

#[test]
fn an_upgrade_killed_anywhere_leaves_a_whole_driver() {
    let node = Node::new();
    let drivers = [node.make_driver("a", ""), node.make_driver("b", "")];
    while run_until(&mut node.minimal("run", &drivers[0]), usize::MAX) {}
    let mut kubelet = node.start_kubelet(&[]);
    // It loads the driver that is there when it starts.
    let eye = Eye::open(&node.driver(), &drivers);
    let (mut now, mut changes, mut whole_runs) = (0, 0, 0);
    // Behind a call is as good as before the next one.
    for calls in (1..).step_by(2) {
        let next = 1 - now;
        if !run_until(&mut node.minimal("run", &drivers[next]), calls) {
            whole_runs += 1;
        }
        let found = installed(&node, &drivers).expect("a whole driver");
        if found != now {
            changes += 1;
            now = found;
        }
        // A few more, for a start that is not the same each time.
        if whole_runs == 3 {
            break;
        }
    }
    eye.close();
    let seen = node.seen_by(&mut kubelet);
    assert!(seen.iter().all(|line| line.contains(" ok ")), "{seen:#?}");
    assert_eq!(seen.len(), changes, "init is run once for each change");
    assert!(changes >= 3);
    assert_eq!(node.names(), ["alicloud~oss", "oss"]);
}

#[test]
fn a_first_install_killed_anywhere_shows_all_or_nothing() {
    let node = Node::new();
    let driver = node.make_driver("a", "");
    let mut kubelet = node.start_kubelet(&[]);
    let mut changes = 0;
    for calls in (1..).step_by(2) {
        let killed = run_until(&mut node.minimal("run", &driver), calls);
        if installed(&node, std::slice::from_ref(&driver)).is_some() {
            changes += 1;
            assert_eq!(node.seen_by(&mut kubelet), ["init alicloud~oss ok a"]);
            take_away(&node, changes);
            let seen = node.seen_by(&mut kubelet);
            assert!(seen.iter().all(|line| line.contains("failed")), "{seen:#?}");
        } else {
            assert!(!node.plugins.join("alicloud~oss").exists());
        }
        if !killed {
            break;
        }
    }
    assert_eq!(node.seen_by(&mut kubelet).len(), 0);
    assert!(changes > 0);
}

/// Moves the driver's directory out of the plugin directory: kubelet sees it go as a whole.
fn take_away(node: &Node, number: usize) {
    let away: &Path = &node.path(&format!("away{number}"));
    std::fs::rename(node.plugins.join("alicloud~oss"), away).unwrap();
}
