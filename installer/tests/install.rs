//! Installing, upgrading and checking, with a kubelet that watches.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::fs::{Permissions, read, set_permissions};
use std::os::unix::fs::PermissionsExt as _;
use support::{DriverWatcher, Process, Stream, TestHost, copy_program, finish};

/// Runs the installer until it has looked at the whole node once, and ends it.
#[track_caller]
fn run_once(node: &TestHost, driver: &std::path::Path) -> Vec<String> {
    let mut run = Process::start(&mut node.minimal("run", driver), Stream::Stderr);
    let mut lines = run.read_until("the host is not reached");
    let (ended_well, rest) = run.terminate();
    assert!(ended_well);
    lines.extend(rest);
    lines
}

#[test]
fn each_change_is_one_init_and_no_gap() {
    let node = TestHost::new();
    let (a, b) = (node.make_driver("a", ""), node.make_driver("b", ""));
    let kubelet = node.start_kubelet(&[]);
    let watcher = DriverWatcher::start(&node.driver(), &[a.clone(), b.clone()]);
    for (what, driver, expected) in [
        ("first install", &a, &["init alicloud~oss ok oss a"][..]),
        ("the same again", &a, &[]),
        ("upgrade", &b, &["init alicloud~oss ok oss b"]),
        ("downgrade", &a, &["init alicloud~oss ok oss a"]),
    ] {
        let lines = run_once(&node, driver);
        assert_eq!(node.seen_by(&kubelet), expected, "{what}: {lines:#?}");
        assert_eq!(
            read(node.driver()).unwrap(),
            read(driver).unwrap(),
            "{what}"
        );
        assert_eq!(node.names(), ["alicloud~oss", "oss"], "{what}");
        let (ready, text) = finish(&mut node.minimal("check", driver));
        assert!(ready, "{what}: {text}");
    }
    assert!(watcher.stop() > 100);
}

#[test]
fn run_once_installs_or_says_why_not_and_ends_well() {
    let node = TestHost::new();
    let (a, bad) = (
        node.make_driver("a", ""),
        node.make_driver("bad", "failure"),
    );
    let kubelet = node.start_kubelet(&[]);
    for (driver, said, expected) in [
        (&bad, "ERROR blocks installing: ", &[][..]),
        (&a, "installed ", &["init alicloud~oss ok oss a"]),
        (&a, "", &[]),
        (&bad, "ERROR blocks installing: ", &[]),
    ] {
        let (ended_well, text) = finish(node.minimal("run", driver).arg("--once"));
        assert!(ended_well && text.contains(said), "{text}");
        assert!(said.lines().count() == text.lines().count(), "{text}");
        assert_eq!(node.seen_by(&kubelet), expected, "{text}");
    }
    assert_eq!(read(node.driver()).unwrap(), read(&a).unwrap());
    // No kubelet runs that would say where its plugin directory is.
    drop(kubelet);
    let (ended_well, text) = finish(node.full("run", &a).arg("--once"));
    assert!(ended_well && text.contains("blocks installing"), "{text}");
}

#[test]
fn a_directory_without_driver_is_filled() {
    let node = TestHost::new();
    let a = node.make_driver("a", "");
    std::fs::create_dir(node.plugins.join("alicloud~oss")).unwrap();
    std::fs::write(node.plugins.join("alicloud~oss/notes"), "x").unwrap();
    let kubelet = node.start_kubelet(&[]);
    let before = node.seen_by(&kubelet);
    assert_eq!(before.len(), 0, "{before:?}");
    run_once(&node, &a);
    assert_eq!(node.seen_by(&kubelet), ["init alicloud~oss ok oss a"]);
    assert_eq!(node.names(), ["alicloud~oss", "notes", "oss"]);
}

#[test]
fn a_driver_that_does_not_answer_is_never_published() {
    let node = TestHost::new();
    let good = node.make_driver("good", "");
    run_once(&node, &good);
    let kubelet = node.start_kubelet(&[]);
    let watcher = DriverWatcher::start(&node.driver(), std::slice::from_ref(&good));
    for (answer, expected) in [
        (
            "failure",
            "try out the new driver: init answered Failure \"broken\"",
        ),
        ("nothing", "init answered \"\", one JSON object is expected"),
        ("no capabilities", "init answered no capabilities"),
    ] {
        let lines = run_once(&node, &node.make_driver("bad", answer));
        let said = lines.iter().find(|line| line.contains(expected));
        assert!(
            said.is_some_and(|line| line.contains("blocks installing")),
            "{answer}: {lines:#?}"
        );
        assert_eq!(node.names(), ["alicloud~oss", "oss"], "{answer}");
    }
    assert_eq!(node.seen_by(&kubelet).len(), 0);
    watcher.stop();
}

#[test]
fn a_program_for_another_machine_is_refused() {
    let node = TestHost::new();
    let driver = node.make_driver("a", "");
    let mut bytes = read(&driver).unwrap();
    bytes[18..20].copy_from_slice(&[22, 0]);
    std::fs::write(&driver, bytes).unwrap();
    let lines = run_once(&node, &driver).join("\n");
    assert!(
        lines.contains("blocks installing: install ")
            && lines.contains(": try out the new driver: run ")
            && lines.contains(": it is not a program for "),
        "{lines}"
    );
    assert_eq!(node.names(), [""; 0]);
}

#[test]
fn a_program_without_its_loader_is_refused() {
    let node = TestHost::new();
    let driver = node.path("image-a");
    std::fs::write(&driver, "#!/no/such/loader\n").unwrap();
    let lines = run_once(&node, &driver).join("\n");
    assert!(
        lines.contains(
            "the file exists, but the dynamic loader or interpreter that it names does not"
        ),
        "{lines}"
    );
    assert_eq!(node.names(), [""; 0]);
}

#[test]
fn a_driver_that_does_not_work_is_tried_a_few_times_only() {
    let node = TestHost::new();
    let (driver, tries) = (node.path("image-a"), node.path("tries"));
    let script = format!("#!/bin/sh\necho >> {}\nexit 1\n", tries.display());
    std::fs::write(&driver, script).unwrap();
    let mut run = Process::start(&mut node.minimal("run", &driver), Stream::Stderr);
    // Each attempt changes the directory that is watched.
    let lines = run.read_until("installing the driver failed 5 times within 60 s");
    let (ended_well, rest) = run.terminate();
    assert!(ended_well);
    let errors = |line: &&String| line.contains("blocks installing: ");
    assert_eq!(lines.iter().chain(&rest).filter(errors).count(), 1);
    assert_eq!(std::fs::read_to_string(tries).unwrap(), "\n".repeat(5));
    assert_eq!(node.names(), [""; 0]);
}

#[test]
fn a_directory_that_others_write_to_is_refused() {
    let node = TestHost::new();
    let driver = node.make_driver("a", "");
    set_permissions(&node.plugins, Permissions::from_mode(0o777)).unwrap();
    let lines = run_once(&node, &driver).join("\n");
    assert!(lines.contains("only root may write there"), "{lines}");
    assert_eq!(node.names(), [""; 0]);
}

#[test]
fn ready_is_only_what_kubelet_has_loaded() {
    let node = TestHost::new();
    let a = node.make_driver("a", "");
    let (ready, text) = finish(&mut node.minimal("check", &a));
    assert!(
        !ready && text.contains("no driver is installed in"),
        "{text}"
    );
    // Trying the driver out leaves no init record.
    run_once(&node, &a);
    let (ready, text) = finish(&mut node.minimal("check", &a));
    assert!(
        !ready && text.contains("kubelet has not loaded the driver yet"),
        "{text}"
    );
    // Somebody else who runs its init is not kubelet.
    let ran = std::process::Command::new(node.driver())
        .arg("init")
        .output();
    assert!(ran.unwrap().status.success());
    let (ready, text) = finish(&mut node.minimal("check", &a));
    assert!(
        !ready && text.contains("the driver was loaded by ") && text.contains("not by kubelet"),
        "{text}"
    );
    // kubelet loads it when it starts.
    let kubelet = node.start_kubelet(&[]);
    let (ready, text) = finish(&mut node.minimal("check", &a));
    assert!(
        ready && text.contains("kubelet has loaded this driver"),
        "{text}"
    );
    // The record outlives kubelet, and the next kubelet's init replaces it.
    let record = || -> serde_json::Value {
        serde_json::from_slice(&read(node.state.join("init.json")).unwrap()).unwrap()
    };
    assert_eq!(record()["pid"], kubelet.id());
    drop(kubelet);
    assert!(finish(&mut node.minimal("check", &a)).0);
    let kubelet = node.start_kubelet(&[]);
    assert_eq!(record()["pid"], kubelet.id());
    assert!(finish(&mut node.minimal("check", &a)).0);
    // Another image: what is installed is not this build.
    let b = node.make_driver("b", "");
    let (ready, text) = finish(&mut node.minimal("check", &b));
    assert!(
        !ready && text.contains("another driver is installed in"),
        "{text}"
    );
    drop(kubelet);
}

#[test]
fn a_check_of_another_build_leaves_the_init_record_alone() {
    let node = TestHost::new();
    let (a, b) = (node.make_driver("a", ""), node.make_driver("b", ""));
    run_once(&node, &a);
    let _kubelet = node.start_kubelet(&[]);
    let record = read(node.state.join("init.json")).unwrap();
    assert!(!finish(&mut node.minimal("check", &b)).0);
    run_once(&node, &b);
    finish(&mut node.minimal("check", &a));
    let by_kubelet = String::from_utf8(read(node.state.join("init.json")).unwrap()).unwrap();
    assert!(by_kubelet.contains("kubelet"), "{by_kubelet}");
    assert!(String::from_utf8(record).unwrap().contains("kubelet"));
}

#[test]
fn a_drivers_directory_that_others_may_write_to_is_restricted() {
    let node = TestHost::new();
    let a = node.make_driver("a", "");
    run_once(&node, &a);
    let directory = node.plugins.join("alicloud~oss");
    set_permissions(&directory, Permissions::from_mode(0o777)).unwrap();
    let lines = run_once(&node, &a).join("\n");
    assert!(
        lines.contains("before: the driver's directory belongs to user") && lines.contains("0777"),
        "{lines}"
    );
    let mode = directory.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o755);
    assert!(!run_once(&node, &a).join("").contains("installed /"));
}

#[test]
fn what_others_may_have_changed_is_not_run() {
    for (place, mode) in [("alicloud~oss", 0o777), ("alicloud~oss/oss", 0o777)] {
        let node = TestHost::new();
        let a = node.make_driver("a", "");
        run_once(&node, &a);
        let (script, canary) = (node.path("script"), node.path("canary"));
        std::fs::write(&script, format!("#!/bin/sh\ntouch {}\n", canary.display())).unwrap();
        copy_program(&script, &node.driver());
        set_permissions(node.plugins.join(place), Permissions::from_mode(mode)).unwrap();
        run_once(&node, &a);
        assert_eq!(read(node.driver()).unwrap(), read(&a).unwrap());
        assert!(!canary.exists(), "{place}");
    }
}

#[test]
fn the_old_driver_is_named() {
    let node = TestHost::new();
    run_once(&node, &node.make_driver("new", ""));
    copy_program(&node.make_driver("old", "no capabilities"), &node.driver());
    let lines = run_once(&node, &node.path("image-new")).join("\n");
    assert!(
        lines.contains("note: the old driver without capabilities is installed"),
        "{lines}"
    );
}

#[test]
fn the_state_directory_becomes_roots_alone() {
    let node = TestHost::new();
    set_permissions(&node.state, Permissions::from_mode(0o755)).unwrap();
    run_once(&node, &node.make_driver("a", ""));
    let mode = node.state.metadata().unwrap().permissions().mode();
    assert_eq!(mode & 0o7777, 0o700);
}

#[test]
fn the_log_can_be_json() {
    let node = TestHost::new();
    let (_, text) = finish(
        node.minimal("run", &node.make_driver("a", ""))
            .args(["--once", "--log-format=json"]),
    );
    for line in text.lines() {
        let line: serde_json::Value = serde_json::from_str(line).expect(line);
        assert!(line["message"].is_string() && line["time"].is_string());
    }
    assert_eq!(text.lines().count(), 1);
}
