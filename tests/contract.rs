//! What kubelet requires of every answer, for every argv there is. No root is needed: nothing here
//! gets as far as a mount.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use serde_json::json;
use std::ffi::{OsStr, OsString};
use std::fs::Permissions;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::Path;
use std::process::{Command, Stdio};
use support::{Answer, Kubelet, Status};

const DRIVER: &str = env!("CARGO_BIN_EXE_oss");

/// A caller on a node whose log and state are in `directory`.
fn kubelet(directory: &tempfile::TempDir) -> Kubelet {
    let config = directory.path().join("config.json");
    let text = json!({
        "stateDir": directory.path().join("state"),
        "logFile": directory.path().join("oss.log"),
    });
    std::fs::write(&config, text.to_string()).unwrap();
    Kubelet {
        driver: DRIVER.into(),
        environment: vec![("OSS_FLEXVOLUME_CONFIG".into(), config.into())],
    }
}

fn call(args: &[&str]) -> Answer {
    let directory = tempfile::tempdir().unwrap();
    kubelet(&directory).call(args)
}

#[test]
fn init_sends_every_capability_as_false() {
    let expected = concat!(
        r#"{"status":"Success","capabilities":{"attach":false,"selinuxRelabel":false,"#,
        r#""supportsMetrics":false,"fsGroup":false,"requiresFSResize":false}}"#,
        "\n"
    );
    assert_eq!(call(&["init"]).raw, expected);
}

#[test]
fn init_answers_whatever_the_configuration_is() {
    let directory = tempfile::tempdir().unwrap();
    let mut kubelet = kubelet(&directory);
    kubelet.call(&["init"]).success();
    assert_eq!(directory.path().read_dir().unwrap().count(), 1);
    std::fs::write(directory.path().join("config.json"), "{").unwrap();
    kubelet.call(&["init"]).success();
    kubelet.environment = vec![("OSS_FLEXVOLUME_CONFIG".into(), "/no/such/file".into())];
    kubelet.call(&["init"]).success();
}

#[test]
fn init_of_an_installed_driver_leaves_a_record_in_the_state_directory() {
    let directory = tempfile::tempdir().unwrap();
    let stamp = directory.path().join("state/init.json");
    let mut kubelet = kubelet(&directory);
    let mut init_as = |name: &str| {
        let driver = directory.path().join(name);
        std::fs::create_dir_all(driver.parent().unwrap()).unwrap();
        // In a process of its own: what this one writes, a test beside it may hold open for writing.
        let copied = Command::new("cp").arg(DRIVER).arg(&driver).status();
        assert!(copied.unwrap().success());
        kubelet.driver = driver;
        kubelet.call(&["init"]).success();
    };
    for name in [".alicloud~oss/oss", "alicloud~oss/.oss.new", "bin/oss"] {
        init_as(name);
        assert!(!stamp.exists(), "{name}");
    }
    init_as("alicloud~oss/oss");
    assert_eq!(
        (mode(&stamp), mode(stamp.parent().unwrap())),
        (0o600, 0o700)
    );
    let found: serde_json::Value = serde_json::from_slice(&std::fs::read(&stamp).unwrap()).unwrap();
    let version = Command::new(DRIVER).arg("--version").output().unwrap();
    let version = String::from_utf8(version.stdout).unwrap();
    assert_eq!(found["build"], version.trim());
    assert_eq!(found["pid"], std::process::id());
    let caller = std::fs::read_to_string("/proc/self/comm").unwrap();
    assert_eq!(found["caller"], caller.trim());
    let written = stamp.metadata().unwrap().mtime();
    assert!((written - found["time"].as_i64().unwrap()).abs() <= 1);
    // What keeps the stamp from being written keeps nobody from the answer.
    let state = stamp.parent().unwrap();
    std::fs::set_permissions(state, Permissions::from_mode(0o755)).unwrap();
    std::fs::remove_file(&stamp).unwrap();
    init_as("alicloud~oss/oss");
    assert!(!stamp.exists());
    let log = std::fs::read_to_string(directory.path().join("oss.log")).unwrap();
    assert!(log.contains("mode 0755: 0700 is expected"), "{log}");
}

fn mode(path: &Path) -> u32 {
    path.metadata().unwrap().permissions().mode() & 0o7777
}

#[test]
fn other_calls_are_not_supported_and_mount_and_unmount_always_are() {
    for word in [
        "attach",
        "detach",
        "waitforattach",
        "isattached",
        "getvolumename",
        "mountdevice",
        "unmountdevice",
        "expandvolume",
        "expandfs",
        "help",
        "Mount",
        "mount ",
        "",
        "probe",
        "-x",
        "--",
    ] {
        assert_eq!(call(&[word]).status, Status::NotSupported, "{word}");
        assert_eq!(
            call(&[word, "/a", "{}"]).status,
            Status::NotSupported,
            "{word}"
        );
    }
    assert_eq!(call(&[]).status, Status::NotSupported);
    for args in [
        &["mount"][..],
        &["mount", "/a"],
        &["mount", "/a", "{}", "x"],
        &["mount", "/a", "{"],
        &["mount", "/a", ""],
        &["mount", "/a", "[]"],
        &["mount", "/a", "null"],
        &["mount", "--help", "{}"],
        &["mount", "a", "{}"],
        &["mount", "", "{}"],
        &["unmount"],
        &["unmount", "a"],
        &["unmount", "/a", "/b"],
        &["unmount", "--help"],
        &["unmount", ""],
    ] {
        assert_eq!(call(args).status, Status::Failure, "{args:?}");
    }
    call(&["unmount", "/no/such/directory"]).success();
    call(&["init", "extra"]).success();
}

#[test]
fn arguments_that_are_not_utf8_are_answered() {
    let directory = tempfile::tempdir().unwrap();
    let kubelet = kubelet(&directory);
    let bad = OsStr::from_bytes(b"/\xff\xfe");
    let mount = OsStr::new("mount");
    for args in [
        vec![bad],
        vec![mount, bad],
        vec![mount, bad, OsStr::new("{}")],
        vec![mount, OsStr::new("/a"), bad],
        vec![OsStr::new("unmount"), bad],
    ] {
        assert_ne!(kubelet.call(&args).status, Status::Success, "{args:?}");
    }
}

#[test]
fn a_closed_stdout_is_no_failure() {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let status = Command::new(DRIVER)
        .arg("init")
        .stdout(writer)
        .status()
        .unwrap();
    assert!(status.success());
}

#[test]
fn people_get_text() {
    for word in ["--help", "--version"] {
        let output = Command::new(DRIVER).arg(word).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(output.status.success() && output.stderr.is_empty());
        assert!(
            text.starts_with("FlexVolume driver") || text.starts_with("oss "),
            "{text}"
        );
    }
}

#[test]
fn a_broken_configuration_fails_mount_and_not_unmount() {
    let directory = tempfile::tempdir().unwrap();
    let mut kubelet = kubelet(&directory);
    let file = directory.path().join("config.json");
    std::fs::write(&file, "{\n\"mountTimeoutSecond\": 5\n}").unwrap();
    let message = kubelet.call(&["mount", "/a", "{}"]).message;
    assert!(message.contains(file.to_str().unwrap()), "{message}");
    assert!(
        message.contains("\"mountTimeoutSecond\"") && message.contains("line 2"),
        "{message}"
    );
    kubelet.call(&["unmount", "/no/such/directory"]).success();
    kubelet.environment = vec![("OSS_FLEXVOLUME_CONFIG".into(), "/no/such/file".into())];
    let message = kubelet.call(&["mount", "/a", "{}"]).message;
    assert!(message.contains("/no/such/file"), "{message}");
}

#[test]
fn a_log_that_cannot_be_written_changes_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let kubelet = kubelet(&directory);
    let log = directory.path().join("oss.log");
    std::fs::create_dir(&log).unwrap();
    kubelet.call(&["unmount", "/no/such/directory"]).success();
    std::fs::remove_dir(&log).unwrap();
    std::os::unix::fs::symlink("/dev/full", &log).unwrap();
    kubelet.call(&["unmount", "/no/such/directory"]).success();
}

#[test]
fn each_call_has_one_line_in_the_log() {
    let directory = tempfile::tempdir().unwrap();
    let kubelet = kubelet(&directory);
    let target = "/no/such/pods/aa7a-2990/volumes/alicloud~oss/grep";
    kubelet.call(&["unmount", target]).success();
    kubelet.call(&["mount", target, r#"{"bucket":"Bad"}"#]);
    let log = std::fs::read_to_string(directory.path().join("oss.log")).unwrap();
    let lines: Vec<&str> = log.lines().collect();
    assert_eq!(lines.len(), 2, "{log}");
    assert!(
        lines[0].contains(r#"unmount pod=aa7a-2990 volume="grep""#),
        "{log}"
    );
    assert!(
        lines[1].contains("Failure in") && lines[1].contains("is not a bucket name"),
        "{log}"
    );
}

#[test]
fn an_inherited_descriptor_does_not_keep_the_caller_waiting() {
    // A shell's redirection leaves a descriptor open across exec, as a careless caller would.
    let (mut reader, writer) = std::io::pipe().unwrap();
    let status = Command::new("sh")
        .args(["-c", "exec 7>&1 \"$0\" init", DRIVER])
        .stdout(writer)
        .stderr(Stdio::null())
        .status()
        .unwrap();
    assert!(status.success());
    let mut answer = String::new();
    std::io::Read::read_to_string(&mut reader, &mut answer).unwrap();
    assert!(answer.contains("Success"));
}

#[test]
fn unknown_arguments_never_end_in_a_panic() {
    let directory = tempfile::tempdir().unwrap();
    let kubelet = kubelet(&directory);
    let long = "x".repeat(100_000);
    for first in ["mount", "unmount", "init", "%s", "\u{202e}", long.as_str()] {
        let args: Vec<OsString> = vec![
            first.into(),
            long.clone().into(),
            "\u{0}".trim_end_matches('\0').into(),
        ];
        let answer = kubelet.call(&args);
        assert!(!answer.message.contains("internal error"), "{}", answer.raw);
        assert!(answer.raw.len() < 2000);
    }
}
