//! The loop of `run`: its periods, its log and its end.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use alicloud_oss::sys::deadline::Deadline;
use alicloud_oss::sys::lock;
use std::fs::{File, read, write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use support::{EndOnDrop, Process, Stream, TestHost, copy_program, finish, installer, kill_after};

#[test]
fn events_without_end_neither_starve_the_checks_nor_fill_the_log() {
    let node = TestHost::new();
    let driver = node.make_driver("a", "");
    let config = node.path("config.json");
    write(&config, "{}").unwrap();
    let mut command = node.full("run", &driver);
    command.args(["--plugin-dir", "/plugins", "--period", "1", "--config"]);
    let mut run = Process::start(command.arg(&config), Stream::Stderr);
    let mut lines = run.read_until("/dev/fuse is missing");
    let ended = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let ends = EndOnDrop(&ended);
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                write(node.plugins.join(".busy"), "").unwrap();
                std::thread::yield_now();
            }
        });
        for ossfs in ["one", "two", "three"] {
            write(&config, format!("{{\"ossfs\":\"{ossfs}\"}}")).unwrap();
            lines.extend(run.read_until(&format!("{ossfs:?} is not installed on the host")));
        }
        drop(ends);
    });
    let (ended_well, rest) = run.terminate();
    assert!(ended_well);
    lines.extend(rest);
    let fuse = |line: &&String| line.contains("/dev/fuse is missing");
    assert_eq!(lines.iter().filter(fuse).count(), 1, "{lines:#?}");
}

#[test]
fn sigterm_ends_a_run_that_waits_for_a_lock() {
    let node = TestHost::new();
    let driver = node.make_driver("a", "");
    let plugins = File::open(&node.plugins).unwrap();
    let later = Deadline::after(Duration::from_secs(60));
    let held = lock::wait_for(plugins, later).unwrap().unwrap();
    let mut run = Process::start(&mut node.minimal("run", &driver), Stream::Stderr);
    run.await_lock();
    let (ended_well, lines) = run.terminate();
    // It has not given up waiting: that comes later.
    assert!(ended_well && lines.len() == 1, "{lines:#?}");
    assert!(
        lines[0].ends_with("stopped; the driver stays installed"),
        "{lines:#?}"
    );
    assert!(!node.driver().exists());
    assert!(!node.state.join("installer.json").exists());
    drop(held);
}

#[test]
fn a_driver_that_another_installer_replaces_again_is_named() {
    let node = TestHost::new();
    let (driver, other) = (node.make_driver("a", ""), node.make_driver("b", ""));
    let mut run = Process::start(&mut node.minimal("run", &driver), Stream::Stderr);
    run.wait_for("the host is not reached");
    let replaced = "another build of the driver was installed over this one more than once";
    copy_program(&other, &node.path("host/.other"));
    std::fs::rename(node.path("host/.other"), node.driver()).unwrap();
    let line = run.wait_for("installed /");
    assert!(!line.contains(replaced));
    copy_program(&other, &node.path("host/.other"));
    std::fs::rename(node.path("host/.other"), node.driver()).unwrap();
    let line = run.wait_for(replaced);
    assert!(
        line.contains("WARN") && line.contains("MIGRATING.md"),
        "{line}"
    );
    assert!(run.terminate().0);
    assert_eq!(read(node.driver()).unwrap(), read(&driver).unwrap());
}

#[test]
fn a_replacement_is_told_by_check_too() {
    let node = TestHost::new();
    let (driver, other) = (node.make_driver("a", ""), node.make_driver("b", ""));
    let mut command = node.full("run", &driver);
    command.args(["--plugin-dir", "/plugins", "--period", "1"]);
    let run = Process::start(&mut command, Stream::Stderr);
    run.wait_for("/dev/fuse is missing");
    for _ in 0..2 {
        copy_program(&other, &node.path("host/.other"));
        std::fs::rename(node.path("host/.other"), node.driver()).unwrap();
        run.wait_for("installed /");
    }
    let warns = || {
        let mut command = node.full("check", &driver);
        let (_, text) = finish(command.args(["--plugin-dir", "/plugins"]));
        text.contains("warning: another build of the driver was installed over this one")
    };
    run.wait_until("check has the warning", warns);
}

#[test]
fn a_state_directory_that_is_not_reached_does_not_end_a_run() {
    let node = TestHost::new();
    let driver = node.make_driver("a", "");
    std::fs::remove_dir_all(node.host("run")).unwrap();
    std::os::unix::fs::symlink("run", node.host("run")).unwrap();
    let mut command = node.full("run", &driver);
    command.args(["--plugin-dir", "/plugins"]);
    let mut run = Process::start(&mut command, Stream::Stderr);
    let line = run.wait_for("record that this process is at work: resolve /run/alicloud-oss");
    assert!(line.contains("too many symbolic links"), "{line}");
    run.wait_for("installed /plugins/alicloud~oss/oss");
    assert!(run.terminate().0);
}

#[test]
fn a_pod_that_only_waits_ends_with_sigterm() {
    assert!(!kill_after(&mut installer("wait"), usize::MAX));
}
