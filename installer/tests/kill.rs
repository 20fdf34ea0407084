//! An installer that is killed at any point: between any two of its system calls, one after the
//! other, with a kubelet that watches and a watcher of the driver's path.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::path::{Path, PathBuf};
use support::{DriverWatcher, TestHost, fingerprint, kill_after};

/// The driver that is installed, by its mode, its length and its last bytes.
fn installed(node: &TestHost, drivers: &[PathBuf]) -> Option<usize> {
    let found = fingerprint(&node.driver()).ok()?;
    drivers
        .iter()
        .position(|driver| fingerprint(driver).unwrap() == found)
}

#[test]
fn an_upgrade_killed_anywhere_leaves_a_whole_driver() {
    let node = TestHost::new();
    let drivers = [node.make_driver("a", ""), node.make_driver("b", "")];
    while kill_after(&mut node.minimal("run", &drivers[0]), usize::MAX) {}
    let kubelet = node.start_kubelet(&[]);
    // It loads the driver that is there when it starts.
    let watcher = DriverWatcher::start(&node.driver(), &drivers);
    let (mut now, mut changes, mut whole_runs) = (0, 0, 0);
    // After a call is as good as before the next one.
    for calls in (1..).step_by(2) {
        let next = 1 - now;
        if !kill_after(&mut node.minimal("run", &drivers[next]), calls) {
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
    watcher.stop();
    let seen = node.seen_by(&kubelet);
    assert!(seen.iter().all(|line| line.contains(" ok ")), "{seen:#?}");
    assert_eq!(seen.len(), changes, "init is run once for each change");
    assert!(changes >= 3);
    assert_eq!(node.names(), ["alicloud~oss", "oss"]);
}

#[test]
fn a_first_install_killed_anywhere_shows_all_or_nothing() {
    let node = TestHost::new();
    let driver = node.make_driver("a", "");
    let kubelet = node.start_kubelet(&[]);
    let mut changes = 0;
    for calls in (1..).step_by(2) {
        let killed = kill_after(&mut node.minimal("run", &driver), calls);
        if installed(&node, std::slice::from_ref(&driver)).is_some() {
            changes += 1;
            assert_eq!(node.seen_by(&kubelet), ["init alicloud~oss ok oss a"]);
            take_away(&node, changes);
            let seen = node.seen_by(&kubelet);
            assert!(seen.iter().all(|line| line.contains("failed")), "{seen:#?}");
        } else {
            assert!(!node.plugins.join("alicloud~oss").exists());
        }
        if !killed {
            break;
        }
    }
    assert_eq!(node.seen_by(&kubelet).len(), 0);
    assert!(changes > 0);
}

/// Moves the driver's directory out of the plugin directory: kubelet sees it go as a whole.
fn take_away(node: &TestHost, number: usize) {
    let away: &Path = &node.path(&format!("away{number}"));
    std::fs::rename(node.plugins.join("alicloud~oss"), away).unwrap();
}
