//! What is written shortly before a volume's end reaches the bucket, whatever the driver is asked
//! meanwhile, and a volume leaves nothing however it ended.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::fs::File;
use std::io::Write as _;
use std::os::fd::IntoRawFd as _;
use std::path::{Path, PathBuf};
use support::{PATIENCE, Pidfd, Sandbox, Settings, with_sandbox, with_settings};

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
