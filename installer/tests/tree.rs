//! ossfs copied out of an image: the tree runs where nothing else is.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::fs::{Permissions, create_dir, read_dir, set_permissions, write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{finish, installer, namespace::with_own_mounts};

const PROGRAM: &str = "/usr/bin/s3fs";

fn copy(directory: &Path, program: &str) -> (bool, String) {
    finish(
        installer("copy-ossfs")
            .arg(directory)
            .args(["--program", program]),
    )
}

fn trees(directory: &Path) -> Vec<PathBuf> {
    let entries = read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().path()).collect()
}

#[test]
#[ignore = "needs root and s3fs"]
fn a_tree_runs_where_nothing_else_is_and_is_made_once() {
    let directory = tempfile::tempdir().unwrap();
    // Left by one that was killed.
    create_dir(directory.path().join(".new")).unwrap();
    write(directory.path().join(".new/half"), "x").unwrap();
    let (copied, text) = copy(directory.path(), PROGRAM);
    assert!(copied, "{text}");
    let found = trees(directory.path());
    assert_eq!(found.len(), 1, "{found:?}");
    let name = found[0].file_name().unwrap().to_str().unwrap();
    let (version, digest) = name.split_once('-').unwrap();
    assert!(version.starts_with("1.") && digest.len() == 12, "{name}");
    assert_eq!(text.trim(), found[0].to_str().unwrap());
    let output = Command::new("chroot")
        .arg(&found[0])
        .args([PROGRAM, "--version"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(
        output.status.success() && said.contains(version),
        "{output:?}"
    );
    assert!(found[0].join("etc/ld.so.cache").exists());
    let (copied, text) = copy(directory.path(), PROGRAM);
    assert!(copied && trees(directory.path()) == found, "{text}");
}

#[test]
fn what_cannot_be_copied_is_refused_and_leaves_nothing() {
    let directory = tempfile::tempdir().unwrap();
    let script = directory.path().join("script");
    write(&script, "#!/bin/sh\n").unwrap();
    set_permissions(&script, Permissions::from_mode(0o755)).unwrap();
    let made = directory.path().join("made");
    for (program, expected) in [
        (
            "no-such-program",
            "\"no-such-program\" is not a program of this image",
        ),
        (
            script.to_str().unwrap(),
            "is a script: name the program that it runs (--program)",
        ),
    ] {
        let (copied, text) = copy(&made, program);
        assert!(!copied && text.contains(expected), "{text}");
        assert!(!made.exists());
    }
}

#[test]
#[ignore = "needs root and s3fs"]
fn a_directory_where_nothing_can_run_is_refused_with_the_reason() {
    with_own_mounts(|| {
        let directory = tempfile::tempdir().unwrap();
        for (options, expected) in [("noexec", "is mounted noexec"), ("ro", "is read-only")] {
            let mount = ["-t", "tmpfs", "-o", options, "tmpfs"];
            let mounted = Command::new("mount")
                .args(mount)
                .arg(directory.path())
                .status();
            assert!(mounted.unwrap().success());
            let (copied, text) = copy(directory.path(), PROGRAM);
            let expected = format!("is on a file system that {expected}: choose a directory");
            assert!(!copied && text.contains(&expected), "{text}");
            assert_eq!(trees(directory.path()).len(), 0);
            let unmounted = Command::new("umount").arg(directory.path()).status();
            assert!(unmounted.unwrap().success());
        }
    });
}
