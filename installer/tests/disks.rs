//! File systems that a driver cannot live on: full, read-only, without execution.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use nix::mount::{MsFlags, mount};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use support::{DriverWatcher, Process, Stream, TestHost, namespace::with_own_mounts};

fn mount_tmpfs(at: &Path, flags: MsFlags, size: &str) {
    let data = format!("mode=755,{size}");
    mount(Some("tmpfs"), at, Some("tmpfs"), flags, Some(data.as_str())).unwrap();
}

fn remount(at: &Path, flags: MsFlags) {
    let flags = MsFlags::MS_REMOUNT | MsFlags::MS_BIND | flags;
    mount(None::<&str>, at, None::<&str>, flags, None::<&str>).unwrap();
}

/// What the installer says until its first look is over.
fn said_by_run(node: &TestHost, driver: &Path) -> String {
    let run = Process::start(&mut node.minimal("run", driver), Stream::Stderr);
    run.end_at("the host is not reached")
}

#[test]
#[ignore = "needs root"]
fn a_full_disk_leaves_the_old_driver() {
    with_own_mounts(|| {
        let node = TestHost::new();
        let (a, b) = (node.make_driver("a", ""), node.make_driver("b", ""));
        let size = a.metadata().unwrap().len() * 3 / 2;
        mount_tmpfs(&node.plugins, MsFlags::empty(), &format!("size={size}"));
        let said = said_by_run(&node, &a);
        assert!(said.contains("installed /"), "{said}");
        let kubelet = node.start_kubelet(&[]);
        let watcher = DriverWatcher::start(&node.driver(), std::slice::from_ref(&a));
        let said = said_by_run(&node, &b);
        assert!(said.contains("blocks installing: install "), "{said}");
        assert!(
            said.contains("write ") && said.contains("No space left on device"),
            "{said}"
        );
        assert_eq!(node.names(), ["alicloud~oss", "oss"]);
        assert_eq!(node.seen_by(&kubelet).len(), 0);
        watcher.stop();
    });
}

#[test]
#[ignore = "needs root"]
fn a_first_install_on_a_full_disk_leaves_nothing() {
    with_own_mounts(|| {
        let node = TestHost::new();
        mount_tmpfs(&node.plugins, MsFlags::empty(), "size=100k");
        let said = said_by_run(&node, &node.make_driver("a", ""));
        assert!(said.contains("No space left on device"), "{said}");
        assert_eq!(node.names(), [""; 0]);
    });
}

#[test]
#[ignore = "needs root"]
fn disks_that_cannot_hold_a_driver_are_named() {
    with_own_mounts(|| {
        for (flags, expected) in [
            (
                MsFlags::MS_RDONLY,
                "is on a read-only file system: set kubelet's volumePluginDir",
            ),
            (
                MsFlags::MS_NOEXEC,
                "is on a file system mounted noexec: remount it with exec",
            ),
        ] {
            let node = TestHost::new();
            mount_tmpfs(&node.plugins, MsFlags::empty(), "size=100m");
            remount(&node.plugins, flags);
            let said = said_by_run(&node, &node.make_driver("a", ""));
            assert!(said.contains(expected), "{said}");
            assert_eq!(node.names(), [""; 0]);
        }
    });
}

#[test]
#[ignore = "needs root"]
fn the_driver_comes_when_the_disk_can_hold_it() {
    with_own_mounts(|| {
        let node = TestHost::new();
        mount_tmpfs(&node.plugins, MsFlags::empty(), "size=100m");
        remount(&node.plugins, MsFlags::MS_RDONLY);
        let mut command = node.minimal("run", &node.make_driver("a", ""));
        let run = Process::start(command.arg("--period=1"), Stream::Stderr);
        run.wait_for("is on a read-only file system");
        // In the namespace that the installer has been started in.
        remount(&node.plugins, MsFlags::empty());
        run.wait_for("installed /");
        assert_eq!(
            node.driver().metadata().unwrap().permissions().mode() & 0o7777,
            0o755
        );
    });
}
