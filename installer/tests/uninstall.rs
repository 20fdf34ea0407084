//! Removing the driver: never while a volume needs it, and without a trace afterwards.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use std::collections::BTreeMap;
use std::fs::{File, create_dir_all, read, write};
use std::os::fd::AsRawFd as _;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;
use support::{
    Mount, OWN_TABLE, Process, Stream, TestHost, finish, kill_after, namespace::with_own_mounts,
};

const VOLUME: &str = "var/lib/kubelet/pods/uid-1/volumes/alicloud~oss/data";

/// Makes the host's first process one that has `mountinfo` as its mount table.
fn with_table(node: &TestHost, mountinfo: &str) {
    let directory = node.path("proc/1");
    std::fs::remove_file(&directory).unwrap();
    create_dir_all(directory.join("ns")).unwrap();
    symlink("pid:[1]", directory.join("ns/pid")).unwrap();
    write(directory.join("mountinfo"), mountinfo).unwrap();
}

/// The installer with `subcommand` for a host with updatedb.
fn command(node: &TestHost, subcommand: &str) -> Command {
    let config = node.path("config.json");
    write(&config, "{\"ossfs\":\"s3fs\"}\n").unwrap();
    let mut command = node.full(subcommand, &node.path("image-a"));
    command
        .args(["--plugin-dir", "/plugins"])
        .arg("--config")
        .arg(config);
    command
}

/// Every file below the host's root with its content.
fn files(node: &TestHost) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut directories = vec![node.path("host")];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).unwrap() {
            let entry = entry.unwrap();
            let name = entry.path().to_str().unwrap().to_owned();
            if entry.file_type().unwrap().is_dir() {
                directories.push(entry.path());
                found.insert(name, Vec::new());
            } else {
                found.insert(name, read(entry.path()).unwrap());
            }
        }
    }
    found
}

fn install(node: &TestHost) {
    let mut run = Process::start(&mut command(node, "run"), Stream::Stderr);
    run.wait_for("installed /etc/alicloud-oss/config.json");
    run.wait_for("/dev/fuse is missing");
    assert!(run.terminate().0);
    assert!(node.driver().exists());
}

/// A host on which nothing of the installer is yet.
fn bare() -> TestHost {
    let node = TestHost::new();
    node.make_driver("a", "");
    std::fs::remove_dir(&node.state).unwrap();
    create_dir_all(node.host("etc")).unwrap();
    write(node.host("etc/updatedb.conf"), "PRUNEFS=\"NFS proc\"\n").unwrap();
    create_dir_all(node.host("var/log/pods/shop_web-0_uid-1")).unwrap();
    node
}

#[test]
fn the_host_is_as_before() {
    let node = bare();
    with_table(&node, "");
    let before = files(&node);
    create_dir_all(&node.state).unwrap();
    install(&node);
    assert!(files(&node).len() > before.len());
    let (removed, text) = finish(&mut command(&node, "uninstall"));
    assert!(
        removed && text.contains("removed the driver from /plugins"),
        "{text}"
    );
    assert_eq!(files(&node), before);
}

#[test]
fn an_administrators_configuration_stays() {
    let node = bare();
    with_table(&node, "");
    create_dir_all(&node.state).unwrap();
    create_dir_all(node.host("etc/alicloud-oss")).unwrap();
    let config = node.host("etc/alicloud-oss/config.json");
    write(&config, "{\"ossfs\":\"mine\"}").unwrap();
    let mut run = Process::start(&mut command(&node, "run"), Stream::Stderr);
    run.wait_for("/dev/fuse is missing");
    assert!(run.terminate().0);
    let (removed, text) = finish(&mut command(&node, "uninstall"));
    assert!(removed && text.contains("config.json stays"), "{text}");
    assert_eq!(read(config).unwrap(), b"{\"ossfs\":\"mine\"}");
}

#[test]
fn refused_where_the_node_configuration_is_broken() {
    let node = bare();
    with_table(&node, "");
    create_dir_all(&node.state).unwrap();
    install(&node);
    // Which state directory the driver has is not known.
    let config = node.host("etc/alicloud-oss/config.json");
    write(&config, "{\"stateDirectory\":\"/run/other\"}").unwrap();
    let expected =
        "node configuration /etc/alicloud-oss/config.json: key \"stateDirectory\": unknown field";
    let (removed, text) = finish(&mut command(&node, "uninstall"));
    assert!(
        !removed && text.contains(&format!("nothing is removed: {expected}")),
        "{text}"
    );
    assert!(node.driver().exists() && !node.state.join("drain").exists());
    let (ready, text) = finish(&mut command(&node, "check"));
    assert!(
        !ready && text.contains(&format!("blocks mounting: {expected}")),
        "{text}"
    );
    std::fs::remove_file(config).unwrap();
    let (removed, text) = finish(&mut command(&node, "uninstall"));
    assert!(removed, "{text}");
}

#[test]
fn a_broken_node_configuration_is_not_installed() {
    let node = bare();
    create_dir_all(&node.state).unwrap();
    for (config, expected) in [
        ("{\"osfs\":\"s3fs\"}", "key \"osfs\": unknown field"),
        ("[]", "it begins with an array: a JSON object is expected"),
    ] {
        let mut command = command(&node, "run");
        write(node.path("config.json"), config).unwrap();
        let mut run = Process::start(&mut command, Stream::Stderr);
        let line = run.wait_for("problem: the new node configuration ");
        assert!(line.contains(expected), "{line}");
        run.wait_for("/dev/fuse is missing");
        assert!(run.terminate().0);
        assert!(!node.host("etc/alicloud-oss/config.json").exists());
    }
}

#[test]
fn refused_while_volumes_are_mounted() {
    let node = bare();
    with_table(
        &node,
        &format!("90 27 0:50 / /{VOLUME} rw - fuse.ossfs ossfs rw\n"),
    );
    create_dir_all(&node.state).unwrap();
    install(&node);
    let (removed, text) = finish(&mut command(&node, "uninstall"));
    assert!(!removed);
    assert!(
        text.contains("1 volume is mounted, and only the driver can unmount it: volume \"data\" of Pod shop/web-0; delete this Pod first, or use --drain"),
        "{text}"
    );
    assert!(node.driver().exists());
    assert!(!node.state.join("drain").exists());
}

#[test]
fn refused_while_a_kubelet_in_a_container_has_volumes() {
    let node = bare();
    with_table(&node, "");
    create_dir_all(&node.state).unwrap();
    install(&node);
    // Its mounts do not show on the host.
    let process = node.path("proc/7");
    create_dir_all(process.join("ns")).unwrap();
    write(
        process.join("cmdline"),
        "kubelet\0--volume-plugin-dir=/plugins\0",
    )
    .unwrap();
    write(process.join("status"), "Uid:\t0\t0\t0\t0\n").unwrap();
    symlink("pid:[1]", process.join("ns/pid")).unwrap();
    symlink("mnt:[2]", process.join("ns/mnt")).unwrap();
    symlink(node.path("host"), process.join("root")).unwrap();
    let line = format!("90 27 0:50 / /{VOLUME} rw - fuse.ossfs ossfs rw\n");
    write(process.join("mountinfo"), line).unwrap();
    let (removed, text) = finish(&mut command(&node, "uninstall"));
    assert!(!removed && text.contains("1 volume is mounted"), "{text}");
}

#[test]
fn a_container_with_a_program_at_the_drivers_path_holds_nothing_up() {
    let node = bare();
    with_table(&node, "");
    create_dir_all(&node.state).unwrap();
    install(&node);
    symlink("mnt:[1]", node.path("proc/1/ns/mnt")).unwrap();
    let process = node.path("proc/77");
    create_dir_all(process.join("ns")).unwrap();
    symlink("mnt:[2]", process.join("ns/mnt")).unwrap();
    symlink("/plugins/alicloud~oss/oss", process.join("exe")).unwrap();
    let (removed, text) = finish(&mut command(&node, "uninstall"));
    assert!(removed, "{text}");
}

#[test]
fn a_call_that_has_its_lock_is_waited_for() {
    let node = bare();
    with_table(&node, "");
    create_dir_all(node.state.join("locks")).unwrap();
    install(&node);
    let lock = File::create(node.state.join("locks/one")).unwrap();
    let held = nix::fcntl::Flock::lock(lock, nix::fcntl::FlockArg::LockExclusive).unwrap();
    let mut uninstall = Process::start(&mut command(&node, "uninstall"), Stream::Stderr);
    uninstall.await_lock();
    // The call mounts, and only then it ends.
    with_volume(&node);
    drop(held);
    let (removed, said) = uninstall.finish();
    assert!(
        !removed && said.join("").contains("1 volume is mounted"),
        "{said:#?}"
    );
    assert!(node.driver().exists());
}

#[test]
fn without_kubelet_the_driver_goes_from_every_known_directory() {
    let node = bare();
    with_table(&node, "");
    let before = files(&node);
    let directories = ["home/kubernetes/flexvolume", "etc/kubernetes/volumeplugins"];
    let uninstall = || {
        let mut command = node.full("uninstall", &node.path("image-a"));
        finish(&mut command)
    };
    for count in 0..=directories.len() {
        for directory in &directories[..count] {
            let driver = node.host(directory).join("alicloud~oss/oss");
            create_dir_all(driver.parent().unwrap()).unwrap();
            std::fs::copy(node.path("image-a"), driver).unwrap();
        }
        let (removed, text) = uninstall();
        assert!(removed, "{text}");
        for directory in &directories[..count] {
            assert!(
                text.contains(&format!("removed the driver from /{directory}")),
                "{text}"
            );
            std::fs::remove_dir(node.host(directory)).unwrap();
        }
        assert_eq!(
            text.contains("no well-known plugin directory has the driver"),
            count == 0,
            "{text}"
        );
        for parent in ["home/kubernetes", "home", "etc/kubernetes"] {
            let _ = std::fs::remove_dir(node.host(parent));
        }
        assert_eq!(files(&node), before);
    }
    // A volume that is mounted keeps it there all the same.
    with_volume(&node);
    let (removed, text) = uninstall();
    assert!(!removed && text.contains("1 volume is mounted"), "{text}");
}

/// Has a volume show in the host's mount table.
fn with_volume(node: &TestHost) {
    let line = format!("90 27 0:50 / /{VOLUME} rw - fuse.ossfs ossfs rw\n");
    write(node.path("proc/1/mountinfo"), line).unwrap();
}

#[test]
fn one_that_is_killed_anywhere_is_finished_by_the_next() {
    let node = bare();
    with_table(&node, "");
    let before = files(&node);
    let (mut killed, mut half_done) = (0, 0);
    for calls in (1..).step_by(8) {
        create_dir_all(node.state.join("volumes/half")).unwrap();
        write(node.state.join("volumes/half/passwd"), "docker:key:secret").unwrap();
        assert!(!kill_after(&mut command(&node, "run"), usize::MAX));
        let went_through = !kill_after(&mut command(&node, "uninstall"), calls);
        if went_through {
            assert_eq!(files(&node), before);
            break;
        }
        killed += 1;
        half_done += usize::from(!node.driver().exists());
        let (removed, text) = finish(&mut command(&node, "uninstall"));
        assert!(removed, "{text}");
        assert_eq!(files(&node), before, "killed after {calls} stops");
    }
    assert!(killed > 10 && half_done > 2, "{killed}, {half_done}");
}

#[test]
fn an_installer_that_was_killed_anywhere_is_taken_away() {
    let node = bare();
    with_table(&node, "");
    let before = files(&node);
    for calls in (1..).step_by(2) {
        let went_through = !kill_after(&mut command(&node, "run"), calls);
        let (removed, text) = finish(&mut command(&node, "uninstall"));
        assert!(removed, "{text}");
        assert_eq!(files(&node), before, "killed after {calls} stops");
        if went_through {
            break;
        }
    }
}

#[test]
fn refused_while_a_run_would_install_the_driver_again() {
    let node = bare();
    with_table(&node, "");
    let mut run = Process::start(&mut command(&node, "run"), Stream::Stderr);
    run.wait_for("/dev/fuse is missing");
    let expected = format!(
        "nothing is removed: oss-installer run (pid {}) would install the driver again: delete its \
         DaemonSet, or stop alicloud-oss-installer.service, first",
        run.id()
    );
    for args in [&[][..], &["--drain"]] {
        let (removed, text) = finish(command(&node, "uninstall").args(args));
        assert!(!removed && text.contains(&expected), "{text}");
    }
    assert!(node.driver().exists() && !node.state.join("drain").exists());
    assert!(run.terminate().0);
    assert!(finish(&mut command(&node, "uninstall")).0);
}

#[test]
fn a_driver_of_somebody_else_stays_and_a_second_run_is_no_error() {
    let node = bare();
    create_dir_all(&node.state).unwrap();
    with_table(&node, "");
    install(&node);
    // The old driver is back, and has a volume.
    let old = node.make_driver("old", "no capabilities");
    support::copy_program(&old, &node.path("host/.old"));
    std::fs::rename(node.path("host/.old"), node.driver()).unwrap();
    with_volume(&node);
    for _ in 0..2 {
        let (removed, text) = finish(command(&node, "uninstall").arg("--drain"));
        assert!(
            removed
                && text.contains("the driver in /plugins/alicloud~oss stays: it is not this one"),
            "{text}"
        );
        assert_eq!(read(node.driver()).unwrap(), read(&old).unwrap());
        assert!(!node.state.exists() && !node.host("etc/alicloud-oss").exists());
    }
    // Without any driver a second run is no error either.
    std::fs::remove_dir_all(node.plugins.join("alicloud~oss")).unwrap();
    with_table_again(&node);
    for _ in 0..2 {
        let (removed, text) = finish(command(&node, "uninstall").arg("--drain"));
        assert!(removed, "{text}");
    }
}

#[test]
fn the_old_driver_can_come_back_after_the_removal() {
    let node = bare();
    create_dir_all(&node.state).unwrap();
    with_table(&node, "");
    let kubelet = node.start_kubelet(&[]);
    install(&node);
    assert_eq!(node.seen_by(&kubelet), ["init alicloud~oss ok oss a"]);
    assert!(finish(command(&node, "uninstall").arg("--drain")).0);
    let seen = node.seen_by(&kubelet);
    assert!(
        seen.contains(&"removed alicloud~oss".to_owned()),
        "{seen:#?}"
    );
    assert!(!node.state.exists() && !node.plugins.join("alicloud~oss").exists());
    // As the old DaemonSet copies it.
    let old = node.make_driver("old", "no capabilities");
    std::fs::create_dir(node.plugins.join("alicloud~oss")).unwrap();
    support::copy_program(&old, &node.driver());
    let seen = node.seen_by(&kubelet);
    let last = seen
        .iter()
        .rfind(|line| line.starts_with("init alicloud~oss"));
    assert!(last.is_some_and(|line| line.contains(" ok ")), "{seen:#?}");
}

/// Has no volume show in the host's mount table any more.
fn with_table_again(node: &TestHost) {
    write(node.path("proc/1/mountinfo"), "").unwrap();
}

#[test]
fn what_cannot_be_undone_does_not_keep_the_rest() {
    let node = bare();
    with_table(&node, "");
    create_dir_all(&node.state).unwrap();
    install(&node);
    write(node.host("etc/updatedb.conf"), b"PRUNEFS=\"\xff\"\n").unwrap();
    let (removed, text) = finish(&mut command(&node, "uninstall"));
    assert!(
        !removed && text.contains("read /etc/updatedb.conf"),
        "{text}"
    );
    assert!(!node.driver().exists() && !node.state.exists());
    assert!(!node.host("etc/alicloud-oss").exists());
}

#[test]
fn refused_where_the_mount_table_is_not_seen() {
    let node = TestHost::new();
    let driver = node.make_driver("a", "");
    let (removed, text) = finish(&mut node.minimal("uninstall", &driver));
    assert!(
        !removed && text.contains("nothing is removed: set --host-root"),
        "{text}"
    );
}

/// A file system of FUSE that nobody serves, as a volume is one to the mount table. It ends with
/// the file.
fn mount_fuse(at: &Path) -> File {
    let device = File::options()
        .read(true)
        .write(true)
        .open("/dev/fuse")
        .unwrap();
    let fd = device.as_raw_fd();
    let data = format!("fd={fd},rootmode=40000,user_id=0,group_id=0");
    mount(
        Some("ossfs"),
        at,
        Some("fuse.ossfs"),
        MsFlags::empty(),
        Some(data.as_str()),
    )
    .unwrap();
    device
}

#[test]
#[ignore = "needs root and /dev/fuse"]
fn draining_ends_with_the_last_volume() {
    with_own_mounts(|| {
        // The volumes of the machine that this runs on are not the node's.
        for mount in Mount::table(OWN_TABLE).into_iter().rev() {
            if mount.kind.starts_with("fuse.") {
                let flags = MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW;
                umount2(mount.point.as_str(), flags).unwrap();
            }
        }
        let node = bare();
        // The table of this thread's namespace.
        std::fs::remove_file(node.path("proc/1")).unwrap();
        let task = nix::unistd::gettid();
        let process = format!("/proc/{}/task/{task}", std::process::id());
        symlink(process, node.path("proc/1")).unwrap();
        let before = files(&node);
        create_dir_all(&node.state).unwrap();
        install(&node);
        let targets = [
            node.host(VOLUME),
            node.host("kubelet/pods/u/volumes/alicloud~oss/b"),
        ];
        let _devices = targets.each_ref().map(|target| {
            create_dir_all(target).unwrap();
            mount_fuse(target)
        });
        let uninstall = Process::start(command(&node, "uninstall").arg("--drain"), Stream::Stderr);
        let line = uninstall.wait_for("waiting for");
        assert!(
            line.contains("of Pod shop/web-0") && line.contains("of Pod with uid u"),
            "{line}"
        );
        assert!(node.state.join("drain").exists() && node.driver().exists());
        umount2(&targets[0], MntFlags::MNT_DETACH).unwrap();
        let line = uninstall.wait_for("waiting for");
        assert!(!line.contains("shop/web-0"), "{line}");
        assert!(node.driver().exists());
        umount2(&targets[1], MntFlags::MNT_DETACH).unwrap();
        uninstall.wait_for("removed the driver");
        for directory in ["var/lib", "kubelet"] {
            std::fs::remove_dir_all(node.host(directory)).unwrap();
        }
        assert_eq!(files(&node), before);
    });
}

#[test]
fn who_installs_again_ends_the_draining() {
    let node = bare();
    with_table(
        &node,
        &format!("90 27 0:50 / /{VOLUME} rw - fuse.ossfs ossfs rw\n"),
    );
    create_dir_all(&node.state).unwrap();
    install(&node);
    let mut uninstall = Process::start(command(&node, "uninstall").arg("--drain"), Stream::Stderr);
    uninstall.wait_for("waiting for");
    let (ended_well, lines) = uninstall.terminate();
    assert!(
        !ended_well
            && lines
                .join("")
                .contains("the driver stays, and only unmounts")
    );
    assert!(node.state.join("drain").exists() && node.driver().exists());
    let run = Process::start(&mut command(&node, "run"), Stream::Stderr);
    run.wait_for("the node is no longer being drained: an uninstall was interrupted");
    assert!(!node.state.join("drain").exists());
}
