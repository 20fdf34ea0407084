//! Unmounting what is dead, hung, stacked, foreign or half gone.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::store::Request;
use support::{Fault, PATIENCE, Pidfd, Settings, wait_until, with_sandbox, with_settings};

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
        node.kill_all_that_serves();
        node.unmount(&target).success();
        node.assert_clean();
        // And a call over a dead mount has it served again.
        node.mount(&target, &options).success();
        node.kill_all_that_serves();
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
fn an_ossfs_that_was_just_killed_does_not_hold_up_an_unmount() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "oss1");
        for _ in 0..5 {
            node.mount(&target, &node.options(json!({}))).success();
            kill(Pid::from_raw(node.daemon()), Signal::SIGKILL).unwrap();
            node.unmount(&target).success();
            node.assert_clean();
        }
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_hung_daemon_does_not_hold_up_an_unmount() {
    let settings = Settings::config(json!({"unmountTimeoutSeconds": 2}));
    with_settings(DRIVER, &settings, |node| {
        let target = node.target("u1", "oss1");
        node.mount(&target, &node.options(json!({}))).success();
        let (daemon, parents) = (node.daemon(), node.servers("--parent"));
        kill(Pid::from_raw(daemon), Signal::SIGSTOP).unwrap();
        node.unmount(&target).success();
        assert_eq!(node.mounts(), []);
        assert_eq!(node.key_files(), [] as [PathBuf; 0]);
        // It may be at an upload: it is not for the driver to end it.
        assert_eq!(node.daemons(), [daemon]);
        kill(Pid::from_raw(daemon), Signal::SIGKILL).unwrap();
        for pid in parents {
            assert!(Pidfd::wait_for_end(pid, PATIENCE));
        }
        node.assert_clean();
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
fn an_upload_that_outlasts_the_unmount_is_completed_and_nothing_is_left_after_it() {
    let settings = Settings::config(json!({"mountTimeoutSeconds": 2, "unmountTimeoutSeconds": 2}));
    with_settings(DRIVER, &settings, |node| {
        let (target, next) = (node.target("u1", "oss1"), node.target("u2", "oss1"));
        let options = node.options(json!({}));
        node.mount(&target, &options).success();
        let content = vec![7; 3 << 20];
        let mut file = fs::File::create(target.join("late")).unwrap();
        file.write_all(&content).unwrap();
        let (daemon, parents) = (node.daemon(), node.servers("--parent"));
        let fault = node
            .store
            .inject("docker", Fault::Hang.only(&["PUT", "POST"]));
        node.store.clear_requests();
        let (begun, unmounted, keys, mounted, swept, daemons, closed) =
            std::thread::scope(|scope| {
                let writer = scope.spawn(|| nix::unistd::close(file));
                let is_upload =
                    |request: &Request| request.method != "GET" && request.key == "late";
                let begun = node.store.wait_for_request(PATIENCE, is_upload);
                let (unmounted, keys) = (node.unmount(&target), node.key_files());
                let (mounted, swept) = (node.mount(&next, &options), node.heal());
                let daemons = node.daemons();
                node.store.remove_fault(fault);
                let closed = writer.join().unwrap();
                (begun, unmounted, keys, mounted, swept, daemons, closed)
            });
        assert!(begun);
        unmounted.success();
        assert_eq!(keys, [] as [PathBuf; 0]);
        // Neither another call nor what cleans up ends it.
        let message = mounted.failure();
        assert!(message.contains("still uploads to the bucket"), "{message}");
        assert_eq!((swept, daemons), (Ok(String::new()), vec![daemon]));
        closed.unwrap();
        for pid in parents {
            assert!(Pidfd::wait_for_end(pid, PATIENCE));
        }
        // Without any further call.
        node.assert_clean();
        assert!(node.store.object("docker", "late").unwrap() == content);
        node.mount(&next, &options).success();
        node.unmount(&next).success();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn the_next_pod_waits_for_the_uploads_of_the_one_before() {
    // Less than the process of the volume would wait for a lock.
    let settings = Settings::config(json!({"mountTimeoutSeconds": 8, "unmountTimeoutSeconds": 2}));
    with_settings(DRIVER, &settings, |node| {
        let (target, next) = (node.target("u1", "oss1"), node.target("u2", "oss1"));
        let options = node.options(json!({}));
        node.mount(&target, &options).success();
        let marker = node.volume_of(&target).join("abandoned");
        let mut file = fs::File::create(target.join("late")).unwrap();
        file.write_all(b"content").unwrap();
        node.unmount(&target).success();
        assert!(marker.exists());
        let (kubelet, options) = (&node.kubelet, &options);
        let mounted = std::thread::scope(|scope| {
            let mount = scope.spawn(|| kubelet.mount(&next, options));
            // The call has the lock, and waits.
            let waits = || !marker.exists() || mount.is_finished();
            wait_until("the call waits", waits);
            nix::unistd::close(file).unwrap();
            mount.join().unwrap()
        });
        mounted.success();
        assert_eq!(fs::read(next.join("late")).unwrap(), b"content");
        node.unmount(&next).success();
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
