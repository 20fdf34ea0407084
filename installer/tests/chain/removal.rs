//! Removing the driver from a node with volumes.

use crate::world::on_node;
use serde_json::{Value, json};
use std::ffi::OsStr;
use std::fs::{create_dir_all, read, read_to_string, write};
use std::path::Path;
use std::process::{Command, Stdio};
use support::{Fault, PATIENCE, Process, Stream, copy_program, finish};

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn refused_while_pods_have_volumes() {
    on_node(|world| {
        world.install(&world.driver);
        let targets = ["one", "two"].map(|pod| world.sandbox.target(pod, "v"));
        for target in &targets {
            world.mount(target, json!({})).success();
        }
        let (removed, said) = finish(&mut world.installer("uninstall", &world.driver));
        assert!(!removed);
        assert!(
            said.contains(
                "2 volumes are mounted, and only the driver can unmount them: volume \"v\" of Pod \
                 with uid one, volume \"v\" of Pod with uid two; delete these Pods first, or use \
                 --drain"
            ),
            "{said}"
        );
        // All as before: more can be mounted.
        let third = world.sandbox.target("three", "v");
        world.mount(&third, json!({})).success();
        for target in targets.iter().chain([&third]) {
            write(target.join("file"), "x").unwrap();
            world.unmount(target);
        }
        world.uninstall();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn draining_lets_volumes_end_and_none_begin() {
    on_node(|world| {
        let before = world.files();
        world.install(&world.driver);
        let targets = world.mount_many(5, b"data");
        let mut command = world.installer("uninstall", &world.driver);
        let mut uninstall = Process::start(command.arg("--drain"), Stream::Stderr);
        uninstall.wait_for("waiting for");
        let refused = world.mount(&world.sandbox.target("new", "v"), json!({}));
        let expected = format!(
            "this driver is being removed from the node and mounts nothing any more ({}): see \
             oss-installer uninstall",
            world.node.state.join("drain").display()
        );
        assert_eq!(refused.failure(), expected);
        for target in &targets {
            assert_eq!(read(target.join("data")).unwrap(), b"data");
            write(target.join("written"), "while draining").unwrap();
            world.unmount(target);
        }
        let (ended_well, rest) = uninstall.finish();
        assert!(ended_well, "{rest:#?}");
        assert_eq!(
            world.sandbox.store.object("docker", "written").unwrap(),
            b"while draining"
        );
        world.assert_as_before(&before);
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_mount_that_has_begun_is_waited_for() {
    on_node(|world| {
        world.install(&world.driver);
        let target = world.sandbox.target("pod", "v");
        create_dir_all(&target).unwrap();
        world.sandbox.store.inject_everywhere(Fault::Hang);
        let options = world.sandbox.options(json!({})).to_string();
        let mount = world.kubelet().start(&[
            OsStr::new("mount"),
            target.as_os_str(),
            OsStr::new(&options),
        ]);
        // Its daemon asks the store, so it has the lock for long.
        assert!(world.sandbox.store.wait_for_request(PATIENCE, |_| true));
        let mut command = world.installer("uninstall", &world.driver);
        let mut uninstall = Process::start(&mut command, Stream::Stderr);
        uninstall.await_lock();
        world.sandbox.store.clear_faults();
        mount.finish().unwrap().success();
        let (removed, said) = uninstall.finish();
        assert!(
            !removed && said.join("").contains("1 volume is mounted"),
            "{said:#?}"
        );
        world.unmount(&target);
        world.uninstall();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn another_state_directory_is_not_overlooked() {
    on_node(|world| {
        world.install(&world.driver);
        let config = "/etc/alicloud-oss/config.json";
        let text = read_to_string(config).unwrap();
        let mut other: Value = serde_json::from_str(&text).unwrap();
        other["stateDir"] = json!("/run/other");
        write(config, other.to_string()).unwrap();
        let (removed, said) = finish(&mut world.installer("uninstall", &world.driver));
        let expected = "nothing is removed: stateDir in /etc/alicloud-oss/config.json is \"/run/other\", and --state-dir is";
        assert!(!removed && said.contains(expected), "{said}");
        let (ready, said) = world.check(&world.driver);
        assert!(!ready && said.contains("they must be the same"), "{said}");
        write(config, text).unwrap();
        assert!(world.node.driver().exists());
        world.uninstall();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_call_without_a_lock_is_waited_for() {
    on_node(|world| {
        let before = world.files();
        world.install(&world.driver);
        // It takes as long as this test wants.
        let driver = world.node.driver();
        copy_program(Path::new("/bin/cat"), &world.node.path("cat"));
        std::fs::rename(world.node.path("cat"), &driver).unwrap();
        let mut call = Command::new(&driver).stdin(Stdio::piped()).spawn().unwrap();
        world.node.show_process(&call.id().to_string(), call.id());
        // The driver is replaced meanwhile: one that is not this driver would stay.
        copy_program(&world.driver, &world.node.path("driver"));
        std::fs::rename(world.node.path("driver"), &driver).unwrap();
        let mut command = world.installer("uninstall", &world.driver);
        let mut uninstall = Process::start(&mut command, Stream::Stderr);
        let descriptors = format!("/proc/{}/fd", uninstall.id());
        let is_pidfd = |entry: std::io::Result<std::fs::DirEntry>| {
            entry
                .and_then(|entry| std::fs::read_link(entry.path()))
                .is_ok_and(|link| link.to_string_lossy().contains("pidfd"))
        };
        uninstall.wait_until("it waits for a process", || {
            std::fs::read_dir(&descriptors).is_ok_and(|mut entries| entries.any(is_pidfd))
        });
        // The driver is gone, and whoever has started it before mounts nothing.
        assert!(!driver.exists() && world.node.state.join("drain").exists());
        drop(call.stdin.take());
        call.wait().unwrap();
        let (removed, said) = uninstall.finish();
        assert!(removed, "{said:#?}");
        world.assert_as_before(&before);
    });
}
