//! What is written shortly before a volume's end reaches the bucket, whatever the driver is asked
//! meanwhile, and a volume leaves nothing however it ended.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use std::fs::File;
use std::io::{Read as _, Write as _};
use std::os::fd::IntoRawFd as _;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use support::{
    Container, PATIENCE, Pidfd, Propagation, Sandbox, Settings, with_sandbox, with_settings,
};

const DRIVER: &str = env!("CARGO_BIN_EXE_oss");

/// Unmounts a volume while a file in it is open that has not been uploaded, does `meanwhile`, and
/// closes the file.
fn written_meanwhile(meanwhile: impl FnOnce(&Sandbox, &Path) + Send) {
    let settings = Settings::config(json!({"unmountTimeoutSeconds": 1, "mountTimeoutSeconds": 2}));
    with_settings(DRIVER, &settings, |node| {
        let target = node.target("u1", "oss1");
        node.mount(&target, &node.options(json!({}))).success();
        let mut file = File::create(target.join("late")).unwrap();
        file.write_all(b"written").unwrap();
        let daemons = node.daemons();
        node.unmount(&target).success();
        meanwhile(node, &target);
        assert_eq!(node.daemons(), daemons);
        nix::unistd::close(file.into_raw_fd()).unwrap();
        for pid in daemons {
            assert!(Pidfd::wait_for_end(pid, PATIENCE));
        }
        let stored = node.store.object("docker", "late");
        assert_eq!(stored.as_deref(), Some(&b"written"[..]));
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn an_upload_outlives_the_unmount_of_others() {
    written_meanwhile(|node, target| {
        // kubelet asks twice, and for other volumes.
        node.unmount(target).success();
        node.unmount(&node.target("u2", "oss2")).success();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn an_upload_outlives_a_mount_that_has_to_wait_for_it() {
    written_meanwhile(|node, _| {
        let next = node.target("u2", "oss1");
        let answer = node.mount(&next, &node.options(json!({})));
        let why = answer.failure();
        assert!(why.contains("still uploads to the bucket"), "{why}");
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn an_ossfs_that_never_finishes_is_ended_after_its_time() {
    let settings = Settings::config(json!({"unmountTimeoutSeconds": 1, "mountTimeoutSeconds": 2}));
    with_settings(DRIVER, &settings, |node| {
        let target = node.target("u1", "oss1");
        node.mount(&target, &node.options(json!({}))).success();
        let mut file = File::create(target.join("never")).unwrap();
        file.write_all(b"closed").unwrap();
        let daemons = node.daemons();
        node.unmount(&target).success();
        // A mount call that waits for it in vain changes nothing about its time.
        node.mount(&target, &node.options(json!({}))).failure();
        assert_eq!(node.heal().unwrap(), "");
        assert_eq!(node.daemons(), daemons, "a day has not passed");
        let Value::Object(shorter) = json!({"finishTimeoutSeconds": 1}) else {
            unreachable!()
        };
        node.configure(&shorter);
        assert_eq!(node.heal().unwrap(), "");
        let said = "has not finished within 1 s of the last unmount";
        assert!(node.log().contains(said), "{}", node.log());
        node.assert_clean();
        drop(file);
    });
}

/// A process with a copy of the node's mounts that nothing is propagated to, as a node agent has one
/// that mounts the host's root directory, while `target` is mounted.
fn copy_of_mounts(node: &Sandbox, target: &Path) -> Container {
    let seen_at = node.path("copy");
    std::fs::create_dir_all(&seen_at).unwrap();
    Container::start(target, &seen_at, Propagation::Private, false)
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_copy_of_the_mounts_keeps_no_volume_alive() {
    let settings = Settings::config(json!({"unmountTimeoutSeconds": 60}));
    with_settings(DRIVER, &settings, |node| {
        let target = node.target("u1", "oss1");
        let mut copies = Vec::new();
        for _ in 0..2 {
            node.mount(&target, &node.options(json!({}))).success();
            std::fs::write(target.join("file"), "content").unwrap();
            copies.push(copy_of_mounts(node, &target));
            assert_eq!(
                std::fs::read(copies[0].path("file")).is_ok(),
                copies.len() == 1,
                "the first copy is of a mount that has ended"
            );
            node.unmount(&target).success();
            // Nothing has to wait for the end of the copy, and nothing runs for it.
            node.assert_clean();
        }
        drop(copies);
        assert!(!node.log().contains("it is left running"), "{}", node.log());
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn who_only_reads_in_a_copy_of_the_mounts_holds_up_neither_unmount_nor_mount() {
    // Were they waited for, the test would take minutes and the mount would fail.
    let settings =
        Settings::config(json!({"unmountTimeoutSeconds": 120, "mountTimeoutSeconds": 30}));
    with_settings(DRIVER, &settings, |node| {
        let target = node.target("u1", "oss1");
        let options = node.options(json!({}));
        node.mount(&target, &options).success();
        std::fs::write(target.join("file"), "content").unwrap();
        let copy = copy_of_mounts(node, &target);
        let mut reader = File::open(copy.path("file")).unwrap();
        let since = Instant::now();
        node.unmount(&target).success();
        assert!(since.elapsed() < Duration::from_secs(60));
        // It goes on to read, until the volume is mounted again.
        let mut content = String::new();
        reader.read_to_string(&mut content).unwrap();
        assert_eq!(content, "content");
        node.mount(&target, &options).success();
        assert!(node.log().contains("its reads fail from now on"));
        let again = File::open(copy.path("file"));
        assert!(again.is_err(), "the copy has the mount that has ended");
        drop((reader, copy));
        node.unmount(&target).success();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn what_is_written_in_a_copy_of_the_mounts_is_uploaded_and_then_the_volume_ends() {
    let settings = Settings::config(json!({"unmountTimeoutSeconds": 1}));
    with_settings(DRIVER, &settings, |node| {
        let target = node.target("u1", "oss1");
        node.mount(&target, &node.options(json!({}))).success();
        let copy = copy_of_mounts(node, &target);
        let mut file = File::create(copy.path("late")).unwrap();
        file.write_all(b"before").unwrap();
        node.unmount(&target).success();
        assert!(node.log().contains("it is left running"), "{}", node.log());
        let daemons = node.daemons();
        assert_eq!(daemons.len(), 1);
        file.write_all(b" and after").unwrap();
        nix::unistd::close(file.into_raw_fd()).unwrap();
        for pid in daemons {
            assert!(
                Pidfd::wait_for_end(pid, PATIENCE),
                "the copy is still there"
            );
        }
        let stored = node.store.object("docker", "late");
        assert_eq!(stored.as_deref(), Some(&b"before and after"[..]));
        drop(copy);
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn no_control_group_is_left_when_a_volume_was_killed() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "oss1");
        node.mount(&target, &node.options(json!({}))).success();
        let volumes = node.state_directory().join("volumes");
        let id = volumes.read_dir().unwrap().next().unwrap().unwrap();
        let groups: Vec<PathBuf> = ["memory/", ""]
            .map(|part| PathBuf::from(format!("/sys/fs/cgroup/{part}alicloud-oss")))
            .map(|parent| parent.join(id.file_name()))
            .into();
        let daemons = node.daemons();
        for part in ["--parent", "--child"] {
            let processes = node.processes(&format!("serve\0{part}\0{}/", volumes.display()));
            for pid in processes {
                // The child ends with its parent.
                let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
            }
        }
        for pid in daemons {
            assert!(Pidfd::wait_for_end(pid, PATIENCE));
        }
        node.unmount(&target).success();
        assert!(groups.iter().all(|group| !group.exists()), "{groups:?}");
    });
}
