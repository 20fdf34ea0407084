//! The driver killed at each step of each call: the next call gets to the right result, and nothing
//! is left after it.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use alicloud_oss::serve::client;
use alicloud_oss::serve::protocol::State;
use serde_json::json;
use std::fs;
use std::io::Write as _;
use std::path::Path;
use std::time::Instant;
use support::store::Request;
use support::{
    Container, Fault, PATIENCE, Pidfd, Propagation, Sandbox, Settings, with_sandbox, with_settings,
};

const DRIVER: &str = env!("CARGO_BIN_EXE_oss");

const MOUNT: [&str; 5] = [
    "mount: registered",
    "mount: recorded",
    "serve: started",
    "serve: served",
    "mount: bound",
];
const UNMOUNT: [&str; 6] = [
    "unmount: found",
    "unmount: target unmounted",
    "release: unregistered",
    "remove: about to end",
    "remove: staging unmounted",
    "remove: ended",
];
const HEAL: [&str; 2] = ["serve: started", "serve: served"];

/// Returns once the node's only volume is served.
fn await_served(node: &Sandbox, target: &Path) {
    let until = Instant::now() + PATIENCE;
    let status = client::wait(&node.volume_of(target), until).unwrap();
    assert_eq!(status.state, State::Served);
}

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
fn a_heal_that_was_killed_is_finished_by_what_it_has_started() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "v");
        node.mount(&target, &node.options(json!({}))).success();
        fs::write(target.join("file"), "content").unwrap();
        let container = |name: &str, propagation| {
            let path = node.path(name);
            fs::create_dir(&path).unwrap();
            Container::start(&target, &path, propagation, false)
        };
        let slave = container("slave", Propagation::Slave);
        for point in HEAL {
            node.kill_all_that_serves();
            assert!(fs::metadata(target.join("file")).is_err(), "{point}");
            node.kubelet.killed_at(point, &["heal"]);
            assert_eq!(node.heal().unwrap(), "", "{point}: somebody serves it");
            await_served(node, &target);
            for path in [&target.join("file"), &slave.path("file")] {
                assert_eq!(fs::read(path).unwrap(), b"content", "{point}");
            }
            let new = container(&point.replace(": ", "-"), Propagation::Private);
            assert_eq!(fs::read(new.path("file")).unwrap(), b"content", "{point}");
            assert_eq!(node.daemons().len(), 1, "{point}");
        }
        drop(slave);
        node.unmount(&target).success();
        node.assert_clean();
    });
}

/// What comes after an unmount call that was killed while ossfs uploads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Next {
    /// Another unmount call, while ossfs still uploads.
    UnmountBefore,
    /// Another unmount call, after that.
    UnmountAfter,
    /// The next Pod, while ossfs still uploads, and after that.
    Mount,
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn an_unmount_that_was_killed_while_ossfs_uploads_loses_nothing_and_leaves_nothing() {
    let config = json!({"mountTimeoutSeconds": 2, "unmountTimeoutSeconds": 1});
    with_settings(DRIVER, &Settings::config(config), |node| {
        let points = UNMOUNT.iter().filter(|point| **point != "remove: ended");
        for point in points.chain(&["remove: abandoned"]) {
            for next in [Next::UnmountBefore, Next::UnmountAfter, Next::Mount] {
                uploads_at(node, point, next);
            }
        }
    });
}

fn uploads_at(node: &Sandbox, point: &str, next: Next) {
    let case = format!("{point}, {next:?}");
    let [target, successor] = ["u1", "u2"].map(|pod| node.target(pod, "v"));
    let options = node.options(json!({}));
    node.mount(&target, &options).success();
    let mut file = fs::File::create(target.join("late")).unwrap();
    file.write_all(case.as_bytes()).unwrap();
    let parent = node.servers("--parent")[0];
    let fault = node.store.inject("docker", Fault::Hang.only(&["PUT"]));
    node.store.clear_requests();
    let (begun, calls, closed) = std::thread::scope(|scope| {
        let writer = scope.spawn(|| nix::unistd::close(file));
        let is_upload = |request: &Request| request.method == "PUT" && request.key == "late";
        let begun = node.store.wait_for_request(PATIENCE, is_upload);
        node.kubelet
            .killed_at(point, &["unmount", target.to_str().unwrap()]);
        let call = match next {
            Next::UnmountBefore => Some(node.unmount(&target)),
            Next::UnmountAfter => None,
            Next::Mount => Some(node.mount(&successor, &options)),
        };
        node.store.remove_fault(fault);
        (begun, call, writer.join().unwrap())
    });
    assert!(begun, "{case}");
    assert_eq!(closed, Ok(()), "{case}");
    match (next, calls) {
        (Next::Mount, Some(answer)) => {
            // The process that still uploads serves on only if it is still mounted.
            let told = "still uploads to the bucket";
            assert!(
                answer.message.is_empty() || answer.message.contains(told),
                "{case}: {}",
                answer.message
            );
            let is_mounted = || node.mount(&successor, &options).message.is_empty();
            support::wait_until("the next Pod has its volume", is_mounted);
            assert_eq!(fs::read(successor.join("late")).unwrap(), case.as_bytes());
            node.unmount(&target).success();
            node.unmount(&successor).success();
        }
        (_, Some(answer)) => {
            answer.success();
            // It removes the rest itself.
            assert!(Pidfd::wait_for_end(parent, PATIENCE), "{case}");
        }
        // It removes the rest itself, or had not yet been left alone with it.
        (_, None) if point == "remove: abandoned" => {
            assert!(Pidfd::wait_for_end(parent, PATIENCE), "{case}");
            assert_eq!(node.volumes(), [] as [&str; 0], "{case}");
            // The lock of the killed call is left.
            assert_eq!(node.heal().unwrap(), "", "{case}");
        }
        (_, None) => node.unmount(&target).success(),
    }
    node.assert_clean();
    let stored = node.store.object("docker", "late");
    assert_eq!(stored.as_deref(), Some(case.as_bytes()), "{case}");
    // kubelet has removed it, as far as it was not called.
    let _ = fs::remove_dir(&target);
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
        node.kill_all_that_serves();
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
