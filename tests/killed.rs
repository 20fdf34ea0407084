//! The driver killed at each step of each call: the next call gets to the right result, and nothing
//! is left after it.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use nix::mount::{MsFlags, mount};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;
use support::{Container, Fault, Propagation, with_sandbox};

const DRIVER: &str = env!("CARGO_BIN_EXE_oss");

const MOUNT: [&str; 5] = [
    "mount: registered",
    "mount: recorded",
    "serve: started",
    "serve: served",
    "mount: bound",
];
const UNMOUNT: [&str; 7] = [
    "unmount: found",
    "unmount: target unmounted",
    "release: unregistered",
    "remove: about to end",
    "end: daemon record removed",
    "end: staging unmounted",
    "remove: ended",
];
const HEAL: [&str; 5] = [
    "serve: started",
    "serve: served",
    "heal: served",
    "heal: containers replaced",
    "heal: targets replaced",
];

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_mount_that_was_killed_is_finished_by_the_next_call() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "v");
        let options = node.options(json!({}));
        for point in MOUNT {
            fs::create_dir_all(&target).unwrap();
            let args = ["mount", target.to_str().unwrap(), &options.to_string()];
            node.kubelet.killed_at(point, &args);
            // kubelet asks again, whatever it finds there.
            node.kubelet.call(&args).success();
            assert_eq!(node.daemons().len(), 1, "{point}");
            fs::write(target.join("file"), point).unwrap();
            node.unmount(&target).success();
            assert_eq!(
                node.store.object("docker", "file").unwrap(),
                point.as_bytes()
            );
            node.assert_clean();
            // Or the Pod is gone meanwhile.
            fs::create_dir_all(&target).unwrap();
            node.kubelet.killed_at(point, &args);
            node.unmount(&target).success();
            node.assert_clean();
        }
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn an_unmount_that_was_killed_is_finished_by_the_next_call() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "v");
        let options = node.options(json!({}));
        for point in UNMOUNT {
            node.mount(&target, &options).success();
            fs::write(target.join("file"), point).unwrap();
            node.kubelet
                .killed_at(point, &["unmount", target.to_str().unwrap()]);
            node.unmount(&target).success();
            assert_eq!(
                node.store.object("docker", "file").unwrap(),
                point.as_bytes()
            );
            node.assert_clean();
            // Or the same Pod's successor mounts first.
            node.mount(&target, &options).success();
            node.kubelet
                .killed_at(point, &["unmount", target.to_str().unwrap()]);
            fs::create_dir_all(&target).unwrap();
            let args = ["mount", target.to_str().unwrap(), &options.to_string()];
            node.kubelet.call(&args).success();
            fs::write(target.join("file"), "again").unwrap();
            node.unmount(&target).success();
            assert_eq!(
                node.store.object("docker", "file").unwrap(),
                b"again",
                "{point}"
            );
            node.assert_clean();
        }
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_heal_that_was_killed_is_finished_by_the_next_one() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "v");
        node.mount(&target, &node.options(json!({}))).success();
        fs::write(target.join("file"), "content").unwrap();
        let path = node.path("container");
        fs::create_dir(&path).unwrap();
        let container = Container::start(&target, &path, Propagation::Private, false);
        for point in HEAL {
            for pid in node.daemons() {
                kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
            }
            while fs::metadata(target.join("file")).is_ok() {}
            node.kubelet.killed_at(point, &["heal"]);
            // Where the start itself was killed the next one is held back for a moment.
            while let Err(said) = node.heal() {
                assert!(said.contains("in a row"), "{point}: {said}");
            }
            assert_eq!(
                fs::read(container.path("file")).unwrap(),
                b"content",
                "{point}"
            );
            assert_eq!(
                fs::read(target.join("file")).unwrap(),
                b"content",
                "{point}"
            );
            assert!(
                container.mounts().len() <= 2,
                "{point}: {:#?}",
                container.mounts()
            );
            assert_eq!(node.daemons().len(), 1, "{point}");
        }
        drop(container);
        node.unmount(&target).success();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_panic_is_answered_and_the_next_call_copes_with_it() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "v");
        let options = node.options(json!({})).to_string();
        let args = ["mount", target.to_str().unwrap(), &options];
        let mut kubelet = node.kubelet.clone();
        for point in MOUNT {
            fs::create_dir_all(&target).unwrap();
            kubelet.environment = node.kubelet.environment.clone();
            kubelet
                .environment
                .push(("OSS_TEST_PANIC_AT".into(), point.into()));
            let answer = kubelet.call(&args);
            assert!(
                answer.failure().contains("internal error"),
                "{}",
                answer.message
            );
            assert!(node.log().contains("requested by a test"));
            node.unmount(&target).success();
            node.assert_clean();
        }
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn what_is_from_before_a_reboot_is_forgotten() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "v");
        node.mount(&target, &node.options(json!({}))).success();
        // As after a power cut, with a state directory on a disk.
        kill(Pid::from_raw(node.daemons()[0]), Signal::SIGKILL).unwrap();
        nix::mount::umount2(&target, nix::mount::MntFlags::MNT_DETACH).unwrap();
        for mount in node.mounts() {
            nix::mount::umount2(mount.point.as_str(), nix::mount::MntFlags::MNT_DETACH).unwrap();
        }
        assert_eq!(node.key_files().len(), 1);
        fs::write(node.state_directory().join("boot"), "another").unwrap();
        assert_eq!(node.heal().unwrap(), "");
        node.assert_clean();
        let options = node.options(json!({})).to_string();
        node.kubelet
            .call(&["mount", target.to_str().unwrap(), &options])
            .success();
        node.unmount(&target).success();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn containers_that_started_between_heals_are_healed_after_a_heal_that_was_killed() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "v");
        node.mount(&target, &node.options(json!({}))).success();
        fs::write(target.join("file"), "content").unwrap();
        let kill_daemon = || {
            for pid in node.daemons() {
                kill(Pid::from_raw(pid), Signal::SIGKILL).unwrap();
            }
            while fs::metadata(target.join("file")).is_ok() {}
        };
        for (round, point) in HEAL.iter().enumerate() {
            kill_daemon();
            node.heal().unwrap();
            let containers = [Propagation::Private, Propagation::Slave].map(|propagation| {
                let name = format!("container{round}{}", propagation as u8);
                let path = node.path(&name);
                fs::create_dir(&path).unwrap();
                Container::start(&target, &path, propagation, false)
            });
            kill_daemon();
            node.kubelet.killed_at(point, &["heal"]);
            while let Err(said) = node.heal() {
                assert!(said.contains("in a row"), "{point}: {said}");
            }
            for container in &containers {
                let found = fs::read(container.path("file"));
                assert!(
                    found.is_ok_and(|content| content == b"content"),
                    "{point}: {:#?}",
                    container.mounts()
                );
            }
        }
        // With the containers goes what was kept for them.
        kill_daemon();
        node.heal().unwrap();
        let layers = node.mounts_at(&target);
        assert_eq!(layers, 2);
        node.unmount(&target).success();
        node.assert_clean();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn what_a_killed_mount_recorded_goes_with_its_pod_although_others_use_the_volume() {
    with_sandbox(DRIVER, |node| {
        let options = node.options(json!({}));
        let user = node.target("u1", "v");
        node.mount(&user, &options).success();
        for pod in ["u2", "u3"] {
            let gone = node.target(pod, "v");
            fs::create_dir_all(&gone).unwrap();
            let text = options.to_string();
            let args = ["mount", gone.to_str().unwrap(), &text];
            node.kubelet.killed_at("mount: recorded", &args);
            // Its Pod is deleted: kubelet never names it again.
            fs::remove_dir(&gone).unwrap();
        }
        let count = |name: &str| {
            let listed = fs::read_dir(node.state_directory().join(name)).unwrap();
            listed.count()
        };
        let volume = fs::read_dir(node.state_directory().join("volumes"))
            .unwrap()
            .next()
            .unwrap()
            .unwrap();
        let targets = format!("volumes/{}/targets", volume.file_name().display());
        assert_eq!((count(&targets), count("locks")), (3, 2));
        node.heal().unwrap();
        assert_eq!((count(&targets), count("locks")), (1, 0));
        fs::write(user.join("file"), "x").unwrap();
        node.unmount(&user).success();
        node.assert_clean();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn what_a_killed_heal_had_begun_does_not_go_on_beside_the_next_one() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "v");
        for name in ["a", "b", "c", "d"] {
            node.store.put("docker", &format!("{name}/"), "");
            node.store.put("docker", &format!("{name}/file"), name);
        }
        node.mount(&target, &node.options(json!({}))).success();
        // Sub-paths, each of which is looked up in the store when it is replaced.
        let subs: Vec<_> = ["a", "b", "c", "d"]
            .iter()
            .map(|name| {
                let path = node.path(&format!("kubelet/pods/u1/volume-subpaths/v/main/{name}"));
                fs::create_dir_all(&path).unwrap();
                mount(
                    Some(&target.join(name)),
                    &path,
                    None::<&str>,
                    MsFlags::MS_BIND,
                    None::<&str>,
                )
                .unwrap();
                path
            })
            .collect();
        kill(Pid::from_raw(node.daemons()[0]), Signal::SIGKILL).unwrap();
        while fs::metadata(target.join("a/file")).is_ok() {}
        node.store
            .inject_everywhere(Fault::Delay(Duration::from_millis(100)));
        let mut heal = Command::new(DRIVER)
            .arg("heal")
            .envs(node.kubelet.environment.iter().cloned())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let state = node.state_directory().display().to_string();
        let replaces = |pid: &i32| {
            let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            words.starts_with(b"oss-replace\0")
        };
        while !node.processes(&state).iter().any(replaces) {
            assert!(heal.try_wait().unwrap().is_none(), "the heal has ended");
        }
        heal.kill().unwrap();
        heal.wait().unwrap();
        node.heal().unwrap();
        node.store.clear_faults();
        for (sub, name) in subs.iter().zip(["a", "b", "c", "d"]) {
            assert_eq!(fs::read(sub.join("file")).unwrap(), name.as_bytes());
            nix::mount::umount(sub).unwrap();
        }
        let layers = node.mounts_at(&target);
        assert!(layers <= 2, "{layers} layers");
        node.unmount(&target).success();
        node.assert_clean();
    });
}
