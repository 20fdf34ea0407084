//! Unmounting what is dead, hung, stacked, foreign or half gone.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::fs;
use std::path::Path;
use std::process::Command;
use support::{Fault, PATIENCE, Pidfd, Settings, with_sandbox, with_settings};

const DRIVER: &str = env!("CARGO_BIN_EXE_oss");

fn bind(source: &Path, target: &Path) {
    fs::create_dir_all(target).unwrap();
    mount(
        Some(source),
        target,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .unwrap();
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_dead_mount_goes_and_comes_back() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "oss1");
        let options = node.options(json!({}));
        node.mount(&target, &options).success();
        kill(Pid::from_raw(node.daemons()[0]), Signal::SIGKILL).unwrap();
        node.unmount(&target).success();
        node.assert_clean();
        // And a call over a dead mount has it served again.
        node.mount(&target, &options).success();
        kill(Pid::from_raw(node.daemons()[0]), Signal::SIGKILL).unwrap();
        let answer = node
            .kubelet
            .call(&["mount", target.to_str().unwrap(), &options.to_string()]);
        answer.success();
        fs::write(target.join("again"), "x").unwrap();
        node.unmount(&target).success();
        assert_eq!(node.store.keys("docker"), ["again"]);
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_hung_daemon_does_not_hold_up_an_unmount() {
    let settings = Settings::config(json!({"unmountTimeoutSeconds": 2}));
    with_settings(DRIVER, &settings, |node| {
        let target = node.target("u1", "oss1");
        node.mount(&target, &node.options(json!({}))).success();
        let daemon = Pid::from_raw(node.daemons()[0]);
        kill(daemon, Signal::SIGSTOP).unwrap();
        node.unmount(&target).success();
        assert_eq!(node.mounts(), []);
        kill(daemon, Signal::SIGKILL).unwrap();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn stacked_layers_of_every_kind_go() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "oss1");
        let none = None::<&str>;
        node.mount(&target, &node.options(json!({}))).success();
        for _ in 0..3 {
            mount(Some("none"), &target, Some("tmpfs"), MsFlags::empty(), none).unwrap();
            bind(&target, &target);
        }
        node.unmount(&target).success();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_busy_mount_is_detached_at_the_deadline() {
    let settings = Settings::config(json!({"unmountTimeoutSeconds": 2}));
    with_settings(DRIVER, &settings, |node| {
        let target = node.target("u1", "oss1");
        node.mount(&target, &node.options(json!({}))).success();
        let open = fs::File::open(&target).unwrap();
        node.unmount(&target).success();
        assert!(!target.exists());
        assert!(
            node.log().contains("has been detached lazily"),
            "{}",
            node.log()
        );
        let daemons = node.daemons();
        drop(open);
        for pid in daemons {
            assert!(Pidfd::wait_for_end(pid, PATIENCE));
        }
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn sub_paths_of_this_volume_alone_are_cleaned() {
    with_sandbox(DRIVER, |node| {
        let (one, ten) = (node.target("u1", "oss1"), node.target("u1", "oss10"));
        let options = node.options(json!({}));
        node.mount(&one, &options).success();
        node.mount(&ten, &options).success();
        let subpath =
            |volume: &str| node.path(&format!("kubelet/pods/u1/volume-subpaths/{volume}/main/0"));
        bind(&one, &subpath("oss1"));
        bind(&one, &subpath("oss1").join("deeper"));
        bind(&ten, &subpath("oss10"));
        node.unmount(&one).success();
        let left = node.mounts();
        assert!(
            !left
                .iter()
                .any(|mount| mount.point.contains("volume-subpaths/oss1/")),
            "{left:?}"
        );
        assert!(
            left.iter()
                .any(|mount| mount.point.contains("volume-subpaths/oss10/")),
            "{left:?}"
        );
        node.unmount(&ten).success();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_volume_named_grep_is_a_volume() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "grep");
        node.mount(&target, &node.options(json!({}))).success();
        node.mount(&target, &node.options(json!({}))).success();
        node.unmount(&target).success();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn mounts_of_the_old_driver_are_kept_and_unmounted() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "oss1");
        node.mount_as_the_old_driver(&target);
        let mounts = node.mounts();
        // As when kubelet restarts after an upgrade and asks again.
        node.mount(&target, &node.options(json!({}))).success();
        assert_eq!(node.mounts(), mounts);
        fs::write(target.join("old"), vec![7; 20 << 20]).unwrap();
        node.unmount(&target).success();
        assert_eq!(
            node.store.object("docker", "old").map(|o| o.len()),
            Some(20 << 20)
        );
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_key_that_was_changed_is_reported_and_used_after_an_unmount() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "oss1");
        node.mount(&target, &node.options(json!({}))).success();
        node.store.add_key("newkey", "newsEcrEt");
        let options = node.options(json!({"akId": "newkey", "akSecret": "newsEcrEt"}));
        let call = ["mount", target.to_str().unwrap(), &options.to_string()];
        let answer = node.kubelet.call(&call);
        assert!(
            answer.failure().contains("other options or keys"),
            "{}",
            answer.message
        );
        node.unmount(&target).success();
        node.mount(&target, &options).success();
        node.unmount(&target).success();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_store_that_is_gone_does_not_hold_up_an_unmount() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "oss1");
        node.mount(&target, &node.options(json!({}))).success();
        node.store.inject_everywhere(Fault::Hang);
        node.unmount(&target).success();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn calls_that_were_killed_anywhere_leave_nothing_after_the_next_unmount() {
    with_sandbox(DRIVER, |node| {
        let options = node.options(json!({})).to_string();
        let target = node.target("u1", "oss1");
        // Killed after more and more of the system calls that a mount makes.
        for writes in 1..12 {
            fs::create_dir_all(&target).unwrap();
            let mut child = Command::new(DRIVER)
                .args([
                    std::ffi::OsStr::new("mount"),
                    target.as_os_str(),
                    options.as_ref(),
                ])
                .envs(node.kubelet.environment.iter().cloned())
                .stdout(std::process::Stdio::null())
                .spawn()
                .unwrap();
            // The state directory grows by a file a step; its growth is the event to kill at.
            while child.try_wait().unwrap().is_none() && files(&node.state_directory()) < writes {
                std::thread::yield_now();
            }
            // It may have ended already.
            let _ = child.kill();
            child.wait().unwrap();
            node.unmount(&target).success();
            node.assert_clean();
        }
        // And when the Pod is gone meanwhile, by the next unmount of any other.
        fs::create_dir_all(&target).unwrap();
        node.mount(&target, &node.options(json!({}))).success();
        nix::mount::umount(&target).unwrap();
        fs::remove_dir(&target).unwrap();
        node.unmount(&node.target("u2", "other")).success();
    });
}

fn files(directory: &Path) -> usize {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_name() != "staging")
        .map(|entry| match entry.file_type() {
            Ok(kind) if kind.is_dir() => 1 + files(&entry.path()),
            _ => 1,
        })
        .sum()
}
