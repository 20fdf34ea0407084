//! The node configuration that the installer is given, on nodes where it is the installer's and where
//! it is an administrator's.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::fs::{create_dir_all, read_to_string, remove_file, rename, write};
use std::path::PathBuf;
use std::process::Command;
use support::{Process, Stream, TestHost, finish};

/// A node that is given the configuration `text`.
fn node(text: &str) -> TestHost {
    let node = TestHost::new();
    node.make_driver("a", "");
    give(&node, text);
    node
}

/// Gives `text`, in one step as kubelet does with a ConfigMap.
fn give(node: &TestHost, text: &str) {
    write(node.path("part"), text).unwrap();
    rename(node.path("part"), node.path("given.json")).unwrap();
}

fn command(node: &TestHost, subcommand: &str) -> Command {
    let mut command = node.full(subcommand, &node.path("image-a"));
    command
        .args(["--plugin-dir", "/plugins"])
        .arg("--config")
        .arg(node.path("given.json"));
    command
}

fn run(node: &TestHost) -> Process {
    Process::start(command(node, "run").args(["--period", "1"]), Stream::Stderr)
}

fn file(node: &TestHost) -> PathBuf {
    node.host("etc/alicloud-oss/config.json")
}

const FIRST: &str = "{\"ossfs\":\"s3fs\"}\n";
const SECOND: &str = "{\"ossfs\":\"ossfs\"}\n";
const MINE: &str = "{\"logLevel\":\"debug\"}\n";

#[test]
fn a_change_reaches_a_node_whose_file_is_the_installers() {
    let node = node(FIRST);
    let running = run(&node);
    running.wait_for("installed /etc/alicloud-oss/config.json");
    give(&node, SECOND);
    running.wait_for("updated /etc/alicloud-oss/config.json");
    assert_eq!(read_to_string(file(&node)).unwrap(), SECOND);
    // It is known across processes, and when none is given any more.
    drop(running);
    let mut without = node.full("run", &node.path("image-a"));
    let running = Process::start(without.args(["--plugin-dir", "/plugins"]), Stream::Stderr);
    running.wait_for("removed /etc/alicloud-oss/config.json: none is given any more");
    assert!(!node.host("etc/alicloud-oss").exists());
}

#[test]
fn one_that_the_driver_refuses_is_named_and_the_old_one_stays() {
    let node = node(FIRST);
    let running = run(&node);
    running.wait_for("installed /etc/alicloud-oss/config.json");
    give(&node, "{\"osfs\":\"s3fs\"}");
    let line = running.wait_for("problem: ");
    assert!(line.contains("ERROR"), "{line}");
    for part in [
        "the new node configuration ",
        "is refused, and /etc/alicloud-oss/config.json stays as it is: key \"osfs\": unknown field",
    ] {
        assert!(line.contains(part), "{line}");
    }
    assert_eq!(read_to_string(file(&node)).unwrap(), FIRST);
    let (ready, text) = finish(&mut command(&node, "check"));
    assert!(
        !ready && text.contains("problem: the new node configuration "),
        "{text}"
    );
    give(&node, SECOND);
    running.wait_for("updated /etc/alicloud-oss/config.json");
    let (_, text) = finish(&mut command(&node, "check"));
    assert!(!text.contains("problem: "), "{text}");
}

#[test]
fn one_that_an_administrator_has_edited_is_named_and_stays() {
    let node = node(FIRST);
    let running = run(&node);
    running.wait_for("installed /etc/alicloud-oss/config.json");
    write(file(&node), MINE).unwrap();
    give(&node, SECOND);
    let line = running.wait_for("warning: /etc/alicloud-oss/config.json is not the one");
    assert!(line.contains("remove the file to have it used"), "{line}");
    let (_, text) = finish(&mut command(&node, "check"));
    assert_eq!(
        text.matches("warning: /etc/alicloud-oss/config.json is not")
            .count(),
        1,
        "{text}"
    );
    assert_eq!(read_to_string(file(&node)).unwrap(), MINE);
    remove_file(file(&node)).unwrap();
    running.wait_for("installed /etc/alicloud-oss/config.json");
    assert_eq!(read_to_string(file(&node)).unwrap(), SECOND);
}

#[test]
fn one_of_a_build_before_that_left_no_record_becomes_the_installers() {
    let node = node(FIRST);
    create_dir_all(node.host("etc/alicloud-oss")).unwrap();
    write(file(&node), FIRST).unwrap();
    let running = run(&node);
    running.wait_for("/dev/fuse is missing");
    give(&node, SECOND);
    running.wait_for("updated /etc/alicloud-oss/config.json");
}
