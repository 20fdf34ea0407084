//! What calls of the driver that were killed have left when it is removed.

use crate::world::{World, on_node};
use serde_json::json;
use std::fs::{create_dir_all, read_dir, read_to_string, remove_dir, remove_file, write};
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use support::{copy_program, finish};

/// Where a mount may end before it shows at its target.
const MOUNT: [&str; 4] = [
    "mount: registered",
    "mount: recorded",
    "serve: started",
    "serve: served",
];
/// Where an unmount may be killed after that.
const UNMOUNT: [&str; 5] = [
    "unmount: target unmounted",
    "release: unregistered",
    "remove: about to end",
    "remove: staging unmounted",
    "remove: ended",
];

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_mount_that_was_killed_leaves_nothing_behind_the_removal() {
    on_node(|world| {
        let before = world.files();
        for point in MOUNT {
            world.install(&world.driver);
            let target = world.sandbox.target("pod", "v");
            create_dir_all(&target).unwrap();
            let options = world.sandbox.options(json!({})).to_string();
            world
                .kubelet()
                .killed_at(point, &["mount", target.to_str().unwrap(), &options]);
            assert!(has_locks(world) && has_volumes(world), "{point}");
            world.uninstall();
            world.assert_as_before(&before);
            remove_dir(&target).unwrap();
        }
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn an_unmount_that_was_killed_leaves_nothing_behind_the_removal() {
    on_node(|world| {
        let before = world.files();
        for point in UNMOUNT {
            world.install(&world.driver);
            let target = world.sandbox.target("pod", "v");
            world.mount(&target, json!({})).success();
            write(target.join("file"), point).unwrap();
            world
                .kubelet()
                .killed_at(point, &["unmount", target.to_str().unwrap()]);
            world.uninstall();
            world.assert_as_before(&before);
            // What the Pod wrote has come to the bucket.
            let written = world.sandbox.store.object("docker", "file").unwrap();
            assert_eq!(written, point.as_bytes(), "{point}");
            remove_dir(&target).unwrap();
        }
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn half_written_files_go_and_strangers_stay() {
    on_node(|world| {
        let before = world.files();
        world.install(&world.driver);
        let state = world.node.state.clone();
        let target = world.sandbox.target("pod", "v");
        world.mount(&target, json!({})).success();
        world.unmount(&target);
        // As calls leave them that are killed while they write.
        let volume = state.join("volumes/0123456789abcdef0123456789abcdef");
        create_dir_all(volume.join("targets")).unwrap();
        for name in [
            "volumes/0123456789abcdef0123456789abcdef/passwd.new",
            "volumes/0123456789abcdef0123456789abcdef/targets/0123.new",
            "locks/0123456789abcdef0123456789abcdef",
            "init.new",
            "boot.new",
            ".drain.new",
            "ossfs-package.deb",
        ] {
            write(state.join(name), "docker:key:secret\n").unwrap();
        }
        // And a link that leads out of there.
        let outside = world.node.path("outside");
        create_dir_all(&outside).unwrap();
        write(outside.join("lock"), "").unwrap();
        symlink(&outside, state.join("volumes/link")).unwrap();
        write(state.join("note"), "an administrator's").unwrap();
        world.uninstall();
        assert!(outside.join("lock").exists());
        assert_eq!(
            read_to_string(state.join("note")).unwrap(),
            "an administrator's"
        );
        remove_file(state.join("note")).unwrap();
        remove_dir(&state).unwrap();
        world.assert_as_before(&before);
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_mount_that_the_driver_cannot_end_keeps_it_there() {
    on_node(|world| {
        world.install(&world.driver);
        let target = world.sandbox.target("pod", "v");
        world.mount(&target, json!({})).success();
        let unmount = ["unmount", target.to_str().unwrap()];
        world
            .kubelet()
            .killed_at("unmount: target unmounted", &unmount);
        // A driver that supports no command.
        let driver = world.node.driver();
        let broken = world.node.make_driver("broken", "failure");
        let aside: PathBuf = world.node.path("aside");
        std::fs::rename(&driver, &aside).unwrap();
        copy_program(&broken, &driver);
        let (removed, said) = finish(&mut world.installer("uninstall", &world.driver));
        assert!(
            !removed && said.contains("have left mounts that the driver did not end: "),
            "{said}"
        );
        assert!(driver.exists() && !world.node.state.join("drain").exists());
        assert_eq!(world.sandbox.daemons().len(), 1);
        std::fs::rename(&aside, &driver).unwrap();
        world.uninstall();
        remove_dir(&target).unwrap();
    });
}

fn has_locks(world: &World) -> bool {
    read_dir(world.node.state.join("locks")).unwrap().count() > 0
}

fn has_volumes(world: &World) -> bool {
    read_dir(world.node.state.join("volumes")).unwrap().count() > 0
}
