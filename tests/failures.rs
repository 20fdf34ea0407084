//! Mounts that cannot succeed: a clear Failure within the deadline, and nothing left of it.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use nix::mount::{MsFlags, mount};
use serde_json::{Value, json};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use support::store::{refusing_server, silent_server};
use support::{Fault, Sandbox, Settings, mounter, with_sandbox, with_settings};

const DRIVER: &str = env!("CARGO_BIN_EXE_oss");

/// Far more than a deadline of three seconds, far less than the ten minutes ossfs alone would take.
const SOON: Duration = Duration::from_secs(30);

/// How the driver says that the store does not answer: ossfs asks it before it serves.
const SILENT: &str = "ossfs has not begun to serve within";

/// Mounts with `more` options, which fails with a message that holds each of `parts`.
#[track_caller]
fn fails(node: &Sandbox, more: Value, parts: &[&str]) {
    let target = node.target("u1", "oss1");
    let since = Instant::now();
    let answer = node.mount(&target, &node.options(more));
    let message = answer.failure();
    for part in parts {
        assert!(message.contains(part), "{message:?} lacks {part:?}");
    }
    assert!(since.elapsed() < SOON, "{:?}", since.elapsed());
    assert!(!target.exists());
    node.assert_clean();
}

fn impatient() -> Settings {
    Settings::config(json!({"mountTimeoutSeconds": 3}))
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn what_the_store_refuses_is_named_with_a_hint() {
    with_sandbox(DRIVER, |node| {
        let said = mounter();
        node.store.create_bucket("private");
        node.store.restrict("private", &[]);
        fails(
            node,
            json!({"akId": "unknown"}),
            &[said.ended, said.refused, "check akId and akSecret"],
        );
        fails(
            node,
            json!({"akSecret": "wrong"}),
            &[said.refused, "check akId and akSecret"],
        );
        fails(node, json!({"bucket": "private"}), &[said.refused]);
        fails(
            node,
            json!({"bucket": "missing"}),
            &[said.no_bucket, "check bucket and url"],
        );
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn an_endpoint_that_does_not_answer_fails_at_the_deadline() {
    with_settings(DRIVER, &impatient(), |node| {
        let refusing = refusing_server().unwrap();
        let silent = silent_server().unwrap();
        let hint = "check the url, and that this node can reach it";
        fails(node, json!({"url": refusing.url()}), &[SILENT, hint]);
        fails(node, json!({"url": silent.url()}), &[SILENT, hint]);
        fails(
            node,
            json!({"url": "http://no-such-host.invalid"}),
            &[SILENT, hint],
        );
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_store_that_answers_nonsense_is_not_mounted() {
    with_settings(DRIVER, &impatient(), |node| {
        for (fault, part) in [
            (Fault::Redirect("http://127.0.0.1:1/".to_owned()), SILENT),
            (Fault::Garbage, "not an object store"),
            (Fault::Status(500), SILENT),
            (Fault::Status(400), "Bad Request"),
            (Fault::Hang, SILENT),
            (Fault::Close, SILENT),
        ] {
            let fault = node.store.inject("docker", fault);
            fails(node, json!({}), &[part]);
            node.store.remove_fault(fault);
        }
        // The bucket check passes, and then nothing else does.
        let fault = node.store.inject("docker", Fault::Hang.after(1));
        fails(node, json!({}), &["check the url"]);
        node.store.remove_fault(fault);
        // "Not there" is what a store should say of a name that nobody made.
        node.store.inject("docker", Fault::Status(404).after(1));
        let target = node.target("u1", "oss1");
        node.mount(&target, &node.options(json!({}))).success();
        node.unmount(&target).success();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_store_that_works_again_is_mounted_again() {
    with_settings(DRIVER, &impatient(), |node| {
        let target = node.target("u1", "oss1");
        let fault = node.store.inject("docker", Fault::Hang);
        fails(node, json!({}), &[SILENT]);
        node.store.remove_fault(fault);
        node.mount(&target, &node.options(json!({}))).success();
        node.unmount(&target).success();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_daemon_that_does_not_serve_is_found_out() {
    with_settings(DRIVER, &impatient(), |node| {
        for (name, body, parts) in [
            (
                "exits-0",
                "exit 0",
                vec!["exited without serving the mount (status 0)"],
            ),
            (
                "exits-3",
                "echo 'ossfs: something is wrong' >&2; exit 3",
                vec!["exited with status 3", "ossfs: something is wrong"],
            ),
            ("killed", "kill -9 $$", vec!["was killed by a signal"]),
            (
                "never-mounts",
                "exec sleep 1000",
                vec![SILENT, "check the url"],
            ),
        ] {
            let script = node.write_script(name, body);
            node.configure(
                json!({"ossfs": script, "mountTimeoutSeconds": 3})
                    .as_object()
                    .unwrap(),
            );
            fails(node, json!({}), &parts);
        }
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_failed_cleanup_does_not_replace_the_error_that_it_cleans_up_after() {
    with_settings(DRIVER, &impatient(), |node| {
        let target = node.target("u1", "oss1");
        let options = node.options(json!({}));
        // With a script, as below: options that another program is given make another volume.
        node.configure(json!({"ossfs": node.path("ossfs")}).as_object().unwrap());
        node.mount(&target, &options).success();
        let id = node.volumes().remove(0);
        node.unmount(&target).success();

        let script = node.write_script("fails", "echo 'ossfs: something is wrong' >&2; exit 3");
        let config = json!({"ossfs": script, "mountTimeoutSeconds": 3});
        node.configure(config.as_object().unwrap());
        // The volume cannot be removed: something is mounted in its temporary directory.
        let busy = node.path("temporary").join(id).join("busy");
        fs::create_dir_all(&busy).unwrap();
        let none = None::<&str>;
        mount(Some("none"), &busy, Some("tmpfs"), MsFlags::empty(), none).unwrap();
        let answer = node.mount(&target, &options);
        let message = answer.failure();
        assert!(message.contains("exited with status 3"), "{message}");
        assert!(message.contains("ossfs: something is wrong"), "{message}");
        assert!(node.log().contains("clean up after a failed mount"));
        assert_eq!(node.key_files(), [] as [PathBuf; 0]);
        nix::mount::umount(&busy).unwrap();
        node.unmount(&target).success();
        node.assert_clean();
        assert!(!busy.exists());
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_node_that_lacks_something_says_what() {
    with_sandbox(DRIVER, |node| {
        let with = |config: Value| node.configure(config.as_object().unwrap());
        with(json!({"ossfs": "no-such-ossfs"}));
        fails(
            node,
            json!({}),
            &[
                "\"no-such-ossfs\" is not an executable file",
                "install ossfs",
            ],
        );
        with(json!({"ossfs": "/etc/passwd"}));
        fails(
            node,
            json!({}),
            &["\"/etc/passwd\" is not an executable file"],
        );
        let script = node.path("not-a-program");
        fs::write(&script, "\0").unwrap();
        fs::set_permissions(&script, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        with(json!({"ossfs": script}));
        fails(node, json!({}), &["not-a-program", "Exec format error"]);
        with(json!({}));
        let none = None::<&str>;
        mount(Some("/dev/null"), "/dev/fuse", none, MsFlags::MS_BIND, none).unwrap();
        let target = node.target("u1", "oss1");
        let answer = node.mount(&target, &node.options(json!({})));
        nix::mount::umount("/dev/fuse").unwrap();
        assert_eq!(
            answer.failure(),
            "/dev/fuse is not the FUSE device (character device 10:229)"
        );
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_target_that_is_not_free_is_left_alone() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "oss1");
        let call = || {
            let options = node.options(json!({})).to_string();
            node.kubelet
                .call(&["mount", target.to_str().unwrap(), &options])
        };
        assert!(call().failure().contains("does not exist"));

        fs::create_dir_all(&target).unwrap();
        fs::write(target.join("mine"), "x").unwrap();
        assert!(call().failure().contains("is not empty"));
        assert_eq!(fs::read(target.join("mine")).unwrap(), b"x");
        fs::remove_file(target.join("mine")).unwrap();

        let none = None::<&str>;
        mount(
            Some("strange"),
            &target,
            Some("tmpfs"),
            MsFlags::empty(),
            none,
        )
        .unwrap();
        let answer = call();
        assert!(
            answer
                .failure()
                .contains("another mount: strange of type tmpfs"),
            "{}",
            answer.message
        );
        nix::mount::umount(&target).unwrap();

        fs::remove_dir(&target).unwrap();
        std::os::unix::fs::symlink("/tmp", &target).unwrap();
        assert!(
            call()
                .failure()
                .contains("is a symbolic link or not a directory")
        );
        fs::remove_file(&target).unwrap();
        fs::write(&target, "").unwrap();
        assert!(
            call()
                .failure()
                .contains("is a symbolic link or not a directory")
        );
        fs::remove_file(&target).unwrap();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_failure_for_one_pod_leaves_the_others_on_the_volume_alone() {
    with_settings(DRIVER, &impatient(), |node| {
        let (one, two) = (node.target("u1", "v"), node.target("u2", "v"));
        let options = node.options(json!({}));
        node.mount(&one, &options).success();
        let daemons = node.daemons();
        let fault = node.store.inject("docker", Fault::Hang);
        // Just seen to be served: that holds for a second.
        node.mount(&two, &options).success();
        node.unmount(&two).success();
        for volume in fs::read_dir(node.state_directory().join("volumes")).unwrap() {
            fs::remove_file(volume.unwrap().path().join("probed")).unwrap();
        }
        node.mount(&two, &options).failure();
        node.store.remove_fault(fault);
        assert_eq!(node.daemons(), daemons);
        fs::write(one.join("still"), "here").unwrap();
        node.mount(&two, &options).success();
        node.unmount(&one).success();
        node.unmount(&two).success();
        assert_eq!(
            node.store.object("docker", "still").as_deref(),
            Some(&b"here"[..])
        );
    });
}
