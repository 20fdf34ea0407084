//! What `check` finds, and what of it keeps a node from being ready.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use alicloud_oss::sys::process::ProcessId;
use std::fs::{create_dir_all, read_to_string, write};
use std::process::{Command, Stdio};
use support::{Process, Stream, TestHost, finish};

/// A node on which this driver is installed and kubelet has loaded it, and its kubelet.
fn ready_node() -> (TestHost, Process) {
    let node = TestHost::new();
    let driver = node.make_driver("a", "");
    assert!(finish(node.minimal("run", &driver).arg("--once")).0);
    let kubelet = node.start_kubelet(&[]);
    (node, kubelet)
}

fn check(node: &TestHost) -> (bool, String) {
    finish(&mut node.minimal("check", &node.path("image-a")))
}

#[track_caller]
fn has_line(text: &str, start: &str) {
    assert!(
        text.lines().any(|line| line.starts_with(start)),
        "{start}:\n{text}"
    );
}

#[test]
fn a_run_that_is_at_work_is_ready_and_one_that_was_killed_is_not() {
    let (node, _kubelet) = ready_node();
    let (ready, text) = check(&node);
    assert!(ready, "{text}");
    has_line(
        &text,
        "warning: oss-installer run is not at work on this node",
    );
    let mut run = Process::start(
        &mut node.minimal("run", &node.path("image-a")),
        Stream::Stderr,
    );
    run.wait_for("the host is not reached");
    let (ready, text) = check(&node);
    assert!(ready && !text.contains("oss-installer run"), "{text}");
    run.kill();
    let (ready, text) = check(&node);
    assert!(!ready, "{text}");
    has_line(
        &text,
        "problem: oss-installer run was killed, so nothing repairs the driver: ",
    );
    // The next one is at work, and leaves no record when it is asked to end.
    let mut run = Process::start(
        &mut node.minimal("run", &node.path("image-a")),
        Stream::Stderr,
    );
    run.wait_for("the host is not reached");
    assert!(check(&node).0);
    assert!(run.terminate().0);
    assert!(!node.state.join("installer.json").exists());
}

#[test]
fn a_run_that_hangs_is_not_ready() {
    let (node, _kubelet) = ready_node();
    // A process that lives, and should have written long ago.
    let process = ProcessId::own().unwrap().render();
    let record = serde_json::json!({"process": process, "until": 1, "warnings": ["w"]});
    write(node.state.join("installer.json"), record.to_string()).unwrap();
    let (ready, text) = check(&node);
    assert!(!ready, "{text}");
    has_line(
        &text,
        "problem: oss-installer run is stopped or hangs: it is ",
    );
    has_line(&text, "warning: w");
}

#[test]
fn the_gravest_reason_comes_first_and_equal_checks_print_the_same() {
    let node = TestHost::new();
    let driver = node.make_driver("a", "");
    let full = || {
        let mut command = node.full("check", &driver);
        finish(command.args(["--plugin-dir", "/plugins"]))
    };
    let (ready, text) = full();
    assert!(!ready);
    let kinds: Vec<&str> = text
        .lines()
        .filter_map(|line| line.split(": ").next())
        .collect();
    assert_eq!(kinds.first(), Some(&"blocks mounting"), "{text}");
    assert_eq!(kinds.last(), Some(&"warning"), "{text}");
    assert_eq!(full().1, text);
}

#[test]
fn paths_are_those_of_the_host() {
    let node = TestHost::new();
    let driver = node.make_driver("a", "");
    write(node.plugins.join("alicloud~oss"), "").unwrap();
    std::fs::remove_dir_all(&node.plugins).unwrap();
    write(&node.plugins, "").unwrap();
    let mut command = node.full("check", &driver);
    let (_, text) = finish(command.args(["--plugin-dir", "/plugins"]));
    has_line(&text, "blocks installing: open directory /plugins: ");
    assert!(
        !text.contains(node.path("host").to_str().unwrap()),
        "{text}"
    );
}

#[test]
fn a_volume_that_is_not_served_is_a_warning() {
    let node = TestHost::new();
    let driver = node.make_driver("a", "");
    let volume = node.state.join("volumes").join("a".repeat(32));
    create_dir_all(volume.join("targets")).unwrap();
    create_dir_all(node.host("var/log/pods/shop_web-0_uid-1")).unwrap();
    write(
        volume.join("targets").join("b".repeat(32)),
        "/var/lib/kubelet/pods/uid-1/volumes/alicloud~oss/data",
    )
    .unwrap();
    let mut served = Command::new("sleep");
    let mut served = served.arg("86399.25").stdin(Stdio::null()).spawn().unwrap();
    let id = ProcessId::of_pid(served.id().cast_signed())
        .unwrap()
        .unwrap();
    write(volume.join("daemon"), id.render()).unwrap();
    let full = || {
        let mut command = node.full("check", &driver);
        finish(command.args(["--plugin-dir", "/plugins"])).1
    };
    assert!(!full().contains("no process serves"));
    served.kill().unwrap();
    served.wait().unwrap();
    has_line(
        &full(),
        "warning: no process serves volume \"data\" of Pod shop/web-0: oss heal, or ",
    );
    // Without a record, a call is about to make or to remove it.
    std::fs::remove_file(volume.join("daemon")).unwrap();
    assert!(!full().contains("no process serves"));
}

#[test]
fn a_launcher_that_the_driver_refuses_blocks_mounting() {
    let node = TestHost::new();
    let driver = node.make_driver("a", "");
    create_dir_all(node.host("etc/alicloud-oss")).unwrap();
    let file = node.host("etc/alicloud-oss/config.json");
    let full = || {
        let mut command = node.full("check", &driver);
        finish(command.args(["--plugin-dir", "/plugins"])).1
    };
    let blocked = "blocks mounting: the launcher \"unit\" of the node configuration needs systemd and \
                   systemctl, which are not available on this node: set \"launcher\" to \"auto\"";
    write(&file, r#"{"launcher":"unit"}"#).unwrap();
    has_line(&full(), blocked);
    // systemd's directory alone is not what the driver goes by.
    create_dir_all(node.host("run/systemd/system")).unwrap();
    has_line(&full(), blocked);
    create_dir_all(node.host("usr/bin")).unwrap();
    support::copy_program(&driver, &node.host("usr/bin/systemctl"));
    assert!(!full().contains("launcher"));
    assert!(!read_to_string(file).unwrap().is_empty());
}
