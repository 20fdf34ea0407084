//! `run` repairs what somebody does to the driver while it watches.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use std::fs::{
    File, OpenOptions, Permissions, create_dir, read, read_link, remove_file, rename,
    set_permissions, write,
};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::Path;
use support::{Process, Stream, TestHost};

/// Exchanges `new` and `old` in one step, so that the installer cannot act between.
fn exchange(old: &Path, new: &Path) {
    renameat2(AT_FDCWD, old, AT_FDCWD, new, RenameFlags::RENAME_EXCHANGE).unwrap();
}

/// Does `damage` to the node of an installer that runs with `period`, and waits until it is undone.
#[track_caller]
fn repaired(what: &str, damage: impl FnOnce(&TestHost)) -> (TestHost, String) {
    let node = TestHost::new();
    let driver = node.make_driver("a", "");
    let mut run = Process::start(&mut node.minimal("run", &driver), Stream::Stderr);
    run.wait_for("the host is not reached");
    let kubelet = node.start_kubelet(&[]);
    damage(&node);
    let line = run.wait_for("installed /");
    let (ended_well, rest) = run.terminate();
    assert!(ended_well, "{what}: {rest:#?}");
    assert_eq!(
        read(node.driver()).unwrap(),
        read(&driver).unwrap(),
        "{what}"
    );
    let mode = node
        .driver()
        .symlink_metadata()
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o7777, 0o755, "{what}");
    let seen = node.seen_by(&kubelet);
    assert_eq!(
        seen.last().map(String::as_str),
        Some("init alicloud~oss ok oss a"),
        "{what}: {seen:#?}"
    );
    (node, line)
}

#[test]
fn a_driver_that_is_removed_comes_back() {
    let (_, line) = repaired("removed", |node| remove_file(node.driver()).unwrap());
    assert!(line.contains("before: no driver is installed"), "{line}");
}

#[test]
fn a_driver_that_is_truncated_is_replaced() {
    repaired("truncated", |node| {
        OpenOptions::new()
            .write(true)
            .open(node.driver())
            .unwrap()
            .set_len(1000)
            .unwrap();
    });
    repaired("emptied", |node| drop(File::create(node.driver()).unwrap()));
}

#[test]
fn a_driver_with_another_mode_is_replaced() {
    let (_, line) = repaired("chmod", |node| {
        set_permissions(node.driver(), Permissions::from_mode(0o644)).unwrap();
    });
    assert!(
        line.contains("the driver has mode 0644, not 0755"),
        "{line}"
    );
}

#[test]
fn a_drivers_directory_that_others_may_write_to_is_restricted() {
    let (node, line) = repaired("a directory for all", |node| {
        let directory = node.plugins.join("alicloud~oss");
        set_permissions(directory, Permissions::from_mode(0o777)).unwrap();
    });
    assert!(line.contains("the driver's directory belongs to"), "{line}");
    let directory = node.plugins.join("alicloud~oss").metadata().unwrap();
    assert_eq!(directory.permissions().mode() & 0o7777, 0o755);
}

#[test]
fn a_directory_at_the_drivers_path_is_moved_aside() {
    let (node, line) = repaired("a directory", |node| {
        create_dir(node.path("host/plugins/alicloud~oss/.d")).unwrap();
        write(node.path("host/plugins/alicloud~oss/.d/precious"), "x").unwrap();
        exchange(&node.driver(), &node.path("host/plugins/alicloud~oss/.d"));
    });
    assert!(line.contains("before: the driver is a directory"), "{line}");
    let kept = node
        .names()
        .into_iter()
        .find(|name| name.contains(".replaced-"))
        .unwrap();
    assert!(
        node.plugins
            .join("alicloud~oss")
            .join(kept)
            .join("precious")
            .exists()
    );
}

#[test]
fn links_are_replaced_and_not_followed() {
    let (node, line) = repaired("a link to a file", |node| {
        write(node.path("victim"), "x").unwrap();
        symlink(node.path("victim"), node.path("link")).unwrap();
        rename(node.path("link"), node.driver()).unwrap();
    });
    assert!(line.contains("a link or a special file"), "{line}");
    assert_eq!(read(node.path("victim")).unwrap(), b"x");

    let (node, line) = repaired("a link to a directory", |node| {
        create_dir(node.path("elsewhere")).unwrap();
        symlink(node.path("elsewhere"), node.path("link")).unwrap();
        exchange(&node.plugins.join("alicloud~oss"), &node.path("link"));
    });
    assert!(line.contains("alicloud~oss is not a directory"), "{line}");
    assert!(read_link(node.plugins.join("alicloud~oss")).is_err());
    assert_eq!(node.path("elsewhere").read_dir().unwrap().count(), 0);
}

#[test]
fn the_drivers_directory_comes_back_as_a_whole() {
    repaired("directory removed", |node| {
        rename(node.plugins.join("alicloud~oss"), node.path("away")).unwrap();
    });
}

#[test]
fn a_plugin_directory_that_is_replaced_is_watched() {
    let node = TestHost::new();
    let driver = node.make_driver("a", "");
    let run = Process::start(&mut node.minimal("run", &driver), Stream::Stderr);
    run.wait_for("the host is not reached");
    rename(&node.plugins, node.path("away")).unwrap();
    run.wait_for("installed /");
    assert!(node.driver().exists());
    rename(&node.plugins, node.path("away too")).unwrap();
    run.wait_for("installed /");
    // Still watched, also there.
    remove_file(node.driver()).unwrap();
    run.wait_for("installed /");
    assert_eq!(read(node.driver()).unwrap(), read(&driver).unwrap());
}

#[test]
fn a_conflict_with_another_installer_ends_in_a_pause() {
    let node = TestHost::new();
    let (a, b) = (node.make_driver("a", ""), node.make_driver("b", ""));
    let mut one = Process::start(&mut node.minimal("run", &a), Stream::Stderr);
    one.wait_for("the host is not reached");
    let mut other = Process::start(&mut node.minimal("run", &b), Stream::Stderr);
    one.wait_for("another program changes it");
    other.wait_for("another program changes it");
    assert!(one.terminate().0 && other.terminate().0);
    let build = read(node.driver()).unwrap();
    assert!(build == read(&a).unwrap() || build == read(&b).unwrap());
}
