//! Volumes whose process was killed together with what kept its FUSE connection: their mounts are
//! dead, and `oss heal` or the next Pod's mount call has them served anew.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use nix::errno::Errno;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::json;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::{
    Container, Fault, Propagation, Sandbox, Settings, wait_until, with_sandbox, with_settings,
};

const DRIVER: &str = env!("CARGO_BIN_EXE_oss");

fn directory(node: &Sandbox, name: &str) -> PathBuf {
    let path = node.path(name);
    fs::create_dir_all(&path).unwrap();
    path
}

/// A container that sees the volume at `target`.
fn container(node: &Sandbox, target: &Path, name: &str, propagation: Propagation) -> Container {
    Container::start(target, &directory(node, name), propagation, false)
}

#[track_caller]
fn assert_dead(path: &Path) {
    let error = fs::read(path).unwrap_err();
    let error = error.raw_os_error().map(Errno::from_raw);
    assert_eq!(error, Some(Errno::ENOTCONN), "{}", path.display());
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_lost_mount_is_made_anew_by_heal_and_by_the_next_pod_and_the_others_are_named() {
    with_sandbox(DRIVER, |node| {
        let [first, second, third] = ["u1", "u2", "u3"].map(|pod| node.target(pod, "oss1"));
        node.store.put("docker", "file", "content");
        for next_pod in [false, true] {
            for target in [&first, &second] {
                node.mount(target, &node.options(json!({}))).success();
            }
            let slave = container(node, &first, "slave", Propagation::Slave);
            let private = container(node, &second, "private", Propagation::Private);
            node.kill_all_that_serves();
            for target in [&first, &second] {
                assert_dead(&target.join("file"));
            }
            match next_pod {
                false => {
                    let healed = node.heal().unwrap();
                    assert!(healed.contains("restart the Pods u1, u2"), "{healed}");
                }
                true => node.mount(&third, &node.options(json!({}))).success(),
            }
            let named = "its mount was lost and has been replaced; restart the Pods u1, u2";
            assert!(node.log().contains(named), "{}", node.log());
            for target in [&first, &second] {
                assert_eq!(fs::read(target.join("file")).unwrap(), b"content");
            }
            assert_eq!(fs::read(slave.path("file")).unwrap(), b"content");
            // It is this Pod that was named. A container that starts now sees the volume.
            assert_dead(&private.path("file"));
            let new = container(node, &second, "new", Propagation::Private);
            assert_eq!(fs::read(new.path("file")).unwrap(), b"content");
            assert_eq!(node.heal().unwrap(), "", "nothing is left to do");
            drop((slave, private, new));
            for target in [&first, &second, &third] {
                node.unmount(target).success();
            }
            node.assert_clean();
            fs::write(node.log_file(), "").unwrap();
        }
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn other_volumes_are_left_alone() {
    with_sandbox(DRIVER, |node| {
        let (lost, kept) = (node.target("u1", "v"), node.target("u2", "v"));
        node.mount(&kept, &node.options(json!({"shareMount": "false"})))
            .success();
        let (daemon, parents) = (node.daemon(), node.servers("--parent"));
        node.mount(&lost, &node.options(json!({}))).success();
        let mount = node.mount_at(&kept);
        let mut lost_ones = node.servers("--parent");
        lost_ones.retain(|pid| !parents.contains(pid));
        node.kill_with_children(&lost_ones);
        node.heal().unwrap();
        fs::write(lost.join("again"), "x").unwrap();
        fs::write(kept.join("still"), "x").unwrap();
        assert!(node.daemons().contains(&daemon));
        assert_eq!(node.mount_at(&kept), mount);
        for target in [&lost, &kept] {
            node.unmount(target).success();
        }
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn unmount_copes_with_whatever_healing_has_left() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "v");
        let options = node.options(json!({}));
        for heals in [0, 1, 3] {
            node.mount(&target, &options).success();
            for _ in 0..heals {
                node.kill_all_that_serves();
                node.heal().unwrap();
                fs::write(target.join("file"), "x").unwrap();
            }
            node.kill_all_that_serves();
            node.unmount(&target).success();
            node.assert_clean();
        }
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn heal_without_volumes_or_for_unknown_ones_has_nothing_to_do() {
    with_sandbox(DRIVER, |node| {
        assert_eq!(node.heal().unwrap(), "");
        let target = node.target("u1", "v");
        node.mount(&target, &node.options(json!({}))).success();
        node.kill_all_that_serves();
        let output = Command::new(DRIVER)
            .args(["heal", "0123456789abcdef0123456789abcdef"])
            .envs(node.kubelet.environment.iter().cloned())
            .output()
            .unwrap();
        assert!(output.status.success() && output.stdout.is_empty());
        assert_eq!(
            node.daemons(),
            [] as [i32; 0],
            "it was not asked to heal that"
        );
        node.unmount(&target).success();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_kubelet_directory_that_is_bound_on_itself_below_a_shared_mount_is_healed_too() {
    with_sandbox(DRIVER, |node| {
        // As on nodes whose kubelet is in a container: every mount below it is there twice then, once
        // hidden below the bind.
        let (none, pods) = (None::<&str>, directory(node, "kubelet/pods"));
        mount(Some(&pods), &pods, none, MsFlags::MS_BIND, none).unwrap();
        let target = node.target("u1", "oss1");
        node.store.put("docker", "file", "content");
        node.mount(&target, &node.options(json!({}))).success();
        let seen = node.mounts_at(&target);
        assert_eq!(seen, 2, "one of them hidden");
        for round in 0..3 {
            node.kill_all_that_serves();
            node.heal().unwrap();
            assert_eq!(
                fs::read(target.join("file")).unwrap(),
                b"content",
                "{round}"
            );
        }
        node.unmount(&target).success();
        umount2(&pods, MntFlags::MNT_DETACH).unwrap();
        node.assert_clean();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn stores_that_are_silent_hold_up_no_other_volume() {
    let settings = Settings::config(json!({"mountTimeoutSeconds": 120}));
    with_settings(DRIVER, &settings, |node| {
        node.store.put("docker", "file", "content");
        let good = node.target("u0", "v");
        node.mount(&good, &node.options(json!({}))).success();
        let silent: Vec<PathBuf> = (1..4)
            .map(|n| {
                let (bucket, target) = (format!("silent{n}"), node.target(&format!("u{n}"), "v"));
                node.store.create_bucket(&bucket);
                node.mount(&target, &node.options(json!({"bucket": bucket})))
                    .success();
                target
            })
            .collect();
        node.kill_all_that_serves();
        let faults: Vec<_> = (1..4)
            .map(|n| node.store.inject(&format!("silent{n}"), Fault::Hang))
            .collect();
        let mut heal = Command::new(DRIVER)
            .arg("heal")
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .envs(node.kubelet.environment.iter().cloned())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        wait_until("the other volume is served", || {
            fs::read(good.join("file")).is_ok_and(|content| content == b"content")
        });
        let waits = heal.try_wait().unwrap().is_none();
        for fault in faults {
            node.store.remove_fault(fault);
        }
        assert!(heal.wait().unwrap().success());
        assert!(waits, "the silent stores were waited for");
        for target in silent.iter().chain([&good]) {
            node.unmount(target).success();
        }
    });
}
