//! Inputs that are as large as they can be: answered at once, in little memory. Linux passes at most
//! 128 KiB in one argument (execve(2)); what is larger is held against the parsers themselves.

use crate::DRIVER;
use crate::refused::{SECRET, Untouched};
use serde_json::json;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;
use std::time::{Duration, Instant};
use support::Status;

/// The most that fits one argument with its NUL.
const ARGUMENT: usize = 128 * 1024 - 1;
/// The memory that the driver may have for data of its own, in KiB.
const MEMORY_KIB: usize = 4096;

/// A JSON object of exactly `length` bytes, with `fill` between `before` and `after`.
fn filled(length: usize, before: &str, fill: &str, after: &str) -> String {
    let room = length - before.len() - after.len();
    let mut text = before.to_owned();
    text.push_str(&fill.repeat(room / fill.len()));
    text.push_str(after);
    text
}

/// The largest inputs, each with a part of the Failure that it gets.
fn largest() -> Vec<(&'static str, String, &'static str)> {
    let head = format!(
        "{{\"bucket\":\"docker\",\"url\":\"host\",\"akId\":\"i\",\"akSecret\":\"{SECRET}\","
    );
    let value =
        |key: &str, fill: &str| filled(ARGUMENT, &format!("{head}\"{key}\":\""), fill, "\"}");
    let changed = |key: &str, fill: &str| {
        let old = format!("\"{key}\":");
        let without: String = head
            .split_inclusive(',')
            .filter(|part| !part.contains(&old))
            .collect();
        let start = match without.starts_with('{') {
            true => without,
            false => format!("{{{without}"),
        };
        filled(ARGUMENT, &format!("{start}\"{key}\":\""), fill, "\"}")
    };
    vec![
        (
            "a large bucket",
            changed("bucket", "a"),
            "option \"bucket\"",
        ),
        ("a large url", changed("url", "a."), "option \"url\""),
        ("a large key id", changed("akId", "a"), "option \"akId\""),
        (
            "a large secret",
            changed("akSecret", "a"),
            "option \"akSecret\"",
        ),
        ("a large path", value("path", "/a"), "option \"path\""),
        ("a path of one name", value("path", "a"), "option \"path\""),
        (
            "a large name of an option",
            value("otherOpts", "a"),
            "option \"otherOpts\"",
        ),
        (
            "10,000 options",
            value("otherOpts", "-o noua "),
            "option \"otherOpts\"",
        ),
        (
            "60,000 options",
            value("otherOpts", "a,"),
            "option \"otherOpts\"",
        ),
        (
            "100,000 commas",
            value("otherOpts", ","),
            "option \"otherOpts\"",
        ),
        (
            "100,000 blanks",
            value("otherOpts", " x"),
            "option \"otherOpts\"",
        ),
        (
            "a large readwrite",
            value("kubernetes.io/readwrite", "r"),
            "readwrite\"",
        ),
        (
            "a large fsGroup",
            value("kubernetes.io/fsGroup", "1"),
            "fsGroup\"",
        ),
        (
            "a large sigVersion",
            value("sigVersion", "v"),
            "option \"sigVersion\"",
        ),
        (
            "a large ramRole",
            value("ramRole", "r"),
            "option \"ramRole\"",
        ),
        (
            "a large Secret",
            value("kubernetes.io/secret/akSecret", "QUFB"),
            "option",
        ),
        (
            "a large Secret that is broken",
            value("kubernetes.io/secret/akSecret", "QUF\\n"),
            "option",
        ),
        (
            "escapes",
            value("otherOpts", "\\u0000"),
            "option \"otherOpts\"",
        ),
        (
            "surrogates",
            value("path", "\\ud83d\\ude00"),
            "option \"path\"",
        ),
        (
            "lone surrogates",
            value("path", "\\ud83d"),
            "cannot be read",
        ),
        (
            "a large key",
            filled(ARGUMENT, &format!("{head}\""), "k", "\":1}"),
            "must be a string",
        ),
        (
            "20,000 keys",
            filled(ARGUMENT, &head, "\"\":\"\",", "\"z\":\"\"}"),
            "keys",
        ),
        (
            "deep lists",
            filled(ARGUMENT, &format!("{head}\"x\":"), "[", ""),
            "must be a string",
        ),
        (
            "deep objects",
            filled(ARGUMENT, &format!("{head}\"x\":"), "{\"a\":", ""),
            "must be a string",
        ),
        (
            "lists all the way",
            "[".repeat(ARGUMENT),
            "the options JSON",
        ),
        ("blanks", " ".repeat(ARGUMENT), "the options JSON"),
        ("digits", "9".repeat(ARGUMENT), "the options JSON"),
        ("quotes", "\"".repeat(ARGUMENT), "the options JSON"),
    ]
}

#[test]
fn the_largest_inputs_are_answered_at_once_and_in_little_memory() {
    let mut node = Untouched::new();
    let limited = node.path("limited");
    let script = format!("#!/bin/sh\nulimit -d {MEMORY_KIB} && exec {DRIVER} \"$@\"\n");
    std::fs::write(&limited, script).unwrap();
    std::fs::set_permissions(&limited, std::fs::Permissions::from_mode(0o755)).unwrap();
    node.kubelet.driver = limited;
    for (name, json, says) in largest() {
        let since = Instant::now();
        let answer = node.mount(&json);
        node.assert_refused(name, &answer, &[says]);
        // Hundreds of times what it takes; a quadratic parser would need more.
        assert!(since.elapsed() < Duration::from_secs(10), "{name}");
    }
}

#[test]
fn the_memory_limit_of_the_test_is_one() {
    let script = "ulimit -d 64 && exec \"$0\" mount /a '{}'";
    let output = Command::new("sh").args(["-c", script, DRIVER]).output();
    assert!(!output.unwrap().status.success());
}

#[test]
fn large_and_many_arguments_are_answered() {
    let node = Untouched::new();
    let large = "x".repeat(ARGUMENT);
    let right = json!({"bucket": "docker"}).to_string();
    for (name, arguments) in [
        ("a large TARGET", vec!["mount", &large, &right]),
        ("a large TARGET to unmount", vec!["unmount", &large]),
        ("10,000 arguments", vec!["mount"; 10_000]),
        ("empty arguments", vec!["mount", "", ""]),
    ] {
        let answer = node.kubelet.call(&arguments);
        node.assert_refused(name, &answer, &[]);
    }
    let answer = node.kubelet.call(&[&large]);
    assert_eq!(answer.status, Status::NotSupported);
    assert!(answer.raw.len() < 1000);
}
