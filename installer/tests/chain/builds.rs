//! One build of the driver in the place of another, and what running volumes notice of it: nothing.

use crate::readers::Readers;
use crate::world::{World, loaded, on_node, version};
use serde_json::{Value, json};
use std::fs::{Permissions, read, set_permissions, write};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use support::{DriverWatcher, Process, Stream, copy_program, finish, kill_after};

static DATA: [u8; 100_000] = {
    let mut data = [0; 100_000];
    let mut i = 0;
    while i < data.len() {
        data[i] = (i % 251) as u8;
        i += 1;
    }
    data
};

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn from_the_first_install_to_the_removal() {
    on_node(|world| {
        let before = world.files();
        let said = world.install(&world.driver);
        let expected = format!(
            "plugin directory: --volume-plugin-dir of kubelet (pid {})",
            world.watcher.id()
        );
        assert!(said.contains(&expected), "{said}");
        let seen = world.seen();
        assert_eq!(seen, [loaded(&world.driver)]);
        let (ready, said) = world.check(&world.driver);
        assert!(ready, "{said}");
        let record: Value =
            serde_json::from_slice(&read(world.node.state.join("init.json")).unwrap()).unwrap();
        assert_eq!(
            (&record["caller"], &record["pid"], &record["build"]),
            (
                &json!("kubelet"),
                &json!(world.watcher.id()),
                &json!(version(&world.driver))
            )
        );
        let target = world.sandbox.target("pod", "v");
        world.mount(&target, json!({})).success();
        write(target.join("file"), "written").unwrap();
        assert_eq!(read(target.join("file")).unwrap(), b"written");
        world.unmount(&target);
        assert_eq!(
            world.sandbox.store.object("docker", "file").unwrap(),
            b"written"
        );
        world.uninstall();
        assert_eq!(world.seen().last().unwrap(), "removed alicloud~oss");
        world.assert_as_before(&before);
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn volumes_do_not_notice_another_build() {
    on_node(|world| {
        let (one, other) = (world.driver.clone(), world.another_build());
        world.install(&one);
        world.seen();
        let targets = world.mount_many(20, &DATA);
        let daemons = world.sandbox.daemons();
        assert_eq!(daemons.len(), 17);
        let watcher = DriverWatcher::start(&world.node.driver(), &[one.clone(), other.clone()]);
        let readers = Readers::start(&targets, &DATA);
        readers.each_once_more();
        for (what, build, inits) in [
            ("upgrade", &other, 1),
            ("the same again", &other, 0),
            ("downgrade", &one, 1),
            ("upgrade again", &other, 1),
        ] {
            let before = place(world);
            world.install(build);
            let seen = world.seen();
            assert_eq!(seen, vec![loaded(build); inits], "{what}");
            assert_eq!(place(world) == before, inits == 0, "{what}");
            let (ready, said) = world.check(build);
            assert!(ready, "{what}: {said}");
            readers.each_once_more();
            assert_eq!(world.sandbox.daemons(), daemons, "{what}");
        }
        assert!(readers.close() >= 5 * 20);
        watcher.stop();
        // The driver that is there now has mounted none of them.
        for target in &targets {
            world.unmount(target);
        }
        assert_eq!(world.sandbox.daemons(), [0; 0]);
    });
}

/// Which file is in the driver's place, and when it was last changed in any way.
fn place(world: &World) -> (u64, i64, i64) {
    let meta = world.node.driver().metadata().unwrap();
    (meta.ino(), meta.ctime(), meta.ctime_nsec())
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn an_installer_killed_anywhere_harms_no_volume() {
    on_node(|world| {
        let builds = [world.driver.clone(), world.another_build()];
        world.install(&builds[0]);
        world.seen();
        let targets = world.mount_many(5, &DATA);
        let daemons = world.sandbox.daemons();
        let watcher = DriverWatcher::start(&world.node.driver(), &builds);
        let readers = Readers::start(&targets, &DATA);
        let (mut now, mut changes, mut whole_runs) = (0, 0, 0);
        // Every fifth system call; kill.rs comes to all of them.
        for calls in (1..).step_by(10) {
            let mut command = world.installer("run", &builds[1 - now]);
            if !kill_after(&mut command, calls) {
                whole_runs += 1;
            }
            let installed = read(world.node.driver()).unwrap();
            let found = builds.iter().position(|b| read(b).unwrap() == installed);
            let found = found.expect("a whole driver");
            changes += usize::from(found != now);
            now = found;
            if whole_runs == 3 {
                break;
            }
        }
        readers.each_once_more();
        assert_eq!(world.sandbox.daemons(), daemons);
        let seen = world.seen();
        assert!(seen.iter().all(|line| line.contains(" ok ")), "{seen:#?}");
        assert_eq!(seen.len(), changes, "init is run once for each change");
        assert!(changes >= 3);
        readers.close();
        watcher.stop();
        for target in &targets {
            world.unmount(target);
        }
        world.uninstall();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn the_old_drivers_volumes_outlive_it() {
    on_node(|world| {
        let old = world.node.make_driver("old", "no capabilities");
        let made = world.node.plugins.join(".alicloud~oss");
        std::fs::create_dir(&made).unwrap();
        copy_program(&old, &made.join("oss"));
        std::fs::rename(&made, world.node.plugins.join("alicloud~oss")).unwrap();
        assert_eq!(world.seen(), [loaded(&old)]);
        world.sandbox.store.put("docker", "data", DATA);
        let target = world.sandbox.target("pod", "v");
        world.sandbox.mount_as_the_old_driver(&target);
        let watcher = DriverWatcher::start(&world.node.driver(), &[old, world.driver.clone()]);
        let readers = Readers::start(std::slice::from_ref(&target), &DATA);
        let said = world.install(&world.driver);
        assert!(
            said.contains(
                "note: the old driver without capabilities is installed, and one of its volumes is \
                 mounted: they keep working; restart kubelet once"
            ),
            "{said}"
        );
        assert_eq!(world.seen(), [loaded(&world.driver)], "{said}");
        readers.each_once_more();
        // Not while the volume is there, whoever mounted it.
        let (removed, said) = finish(&mut world.installer("uninstall", &world.driver));
        assert!(!removed && said.contains("Pod with uid pod"), "{said}");
        readers.close();
        watcher.stop();
        world.unmount(&target);
        world.uninstall();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn the_minimal_shape_makes_room_for_the_stamp() {
    on_node(|world| {
        // As kubelet makes it for the Pod.
        let state = world.node.state.clone();
        std::fs::create_dir(&state).unwrap();
        set_permissions(&state, Permissions::from_mode(0o755)).unwrap();
        let mut command = world.node.minimal("run", &world.driver);
        let mut run = Process::start(&mut command, Stream::Stderr);
        run.wait_for("the host is not reached");
        assert_eq!(world.seen(), [loaded(&world.driver)]);
        let (ready, said) = finish(&mut world.node.minimal("check", &world.driver));
        assert!(ready, "{said}");
        assert!(run.terminate().0);
        let mode = state.metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o7777, 0o700);
    });
}
