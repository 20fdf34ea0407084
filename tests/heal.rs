//! Daemons that die under running containers, and are replaced without their noticing more than a
//! moment: `oss heal` without systemd.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;
use std::fs;
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::{
    Container, Fault, Propagation, Sandbox, Settings, mounter, with_sandbox, with_settings,
};

const DRIVER: &str = env!("CARGO_BIN_EXE_oss");

/// Kills the node's only daemon.
fn kill_daemon(node: &Sandbox) -> i32 {
    let daemons = node.daemons();
    assert_eq!(daemons.len(), 1);
    kill(Pid::from_raw(daemons[0]), Signal::SIGKILL).unwrap();
    // Ended when its mount is: the kernel aborts the connection as it closes the daemon's files.
    while Path::new(&format!("/proc/{}/fd/0", daemons[0])).exists() {
        std::thread::yield_now();
    }
    daemons[0]
}

fn directory(node: &Sandbox, name: &str) -> PathBuf {
    let path = node.path(name);
    fs::create_dir_all(&path).unwrap();
    path
}

/// Binds a sub-directory of `target` where kubelet does for a container's subPath.
fn sub_path(node: &Sandbox, target: &Path, name: &str) -> PathBuf {
    let path = directory(
        node,
        &format!("kubelet/pods/u1/volume-subpaths/oss1/main/{name}"),
    );
    mount(
        Some(&target.join(name)),
        &path,
        None::<&str>,
        MsFlags::MS_BIND,
        None::<&str>,
    )
    .unwrap();
    path
}

/// What of each container kind there is on one volume, and a file of it. That of the whole volume is not
/// in the directory of the sub-paths: looking up that one in vain has the kernel take it for deleted, on
/// a machine so slow that what it knew has expired.
fn containers(node: &Sandbox, target: &Path) -> Vec<(&'static str, Container, &'static str)> {
    let sub = sub_path(node, target, "sub");
    let at = |name: &str| directory(node, &format!("containers/{name}"));
    vec![
        (
            "private",
            Container::start(target, &at("private"), Propagation::Private, false),
            "file",
        ),
        (
            "slave",
            Container::start(target, &at("slave"), Propagation::Slave, false),
            "file",
        ),
        (
            "read-only",
            Container::start(target, &at("ro"), Propagation::Private, true),
            "file",
        ),
        (
            "read-only slave",
            Container::start(target, &at("ros"), Propagation::Slave, true),
            "file",
        ),
        (
            "sub-path",
            Container::start(&sub, &at("sub"), Propagation::Private, false),
            "file",
        ),
        (
            "sub-path slave",
            Container::start(&sub, &at("subs"), Propagation::Slave, false),
            "file",
        ),
        (
            "read-only sub-path",
            Container::start(&sub, &at("subro"), Propagation::Private, true),
            "file",
        ),
    ]
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn every_running_container_has_the_bucket_again_and_no_layers_pile_up() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "oss1");
        node.store.put("docker", "sub/", "");
        node.store.put("docker", "sub/file", "content");
        node.store.put("docker", "file", "content");
        node.mount(&target, &node.options(json!({}))).success();
        let containers = containers(node, &target);
        for round in 0..5 {
            for (kind, container, file) in &containers {
                assert_eq!(
                    fs::read(container.path(file)).unwrap(),
                    b"content",
                    "{kind}"
                );
            }
            kill_daemon(node);
            for (kind, container, file) in &containers {
                let error = fs::read(container.path(file)).unwrap_err();
                // "Not connected", or aborted in the middle of a request.
                assert!(
                    matches!(error.raw_os_error(), Some(103 | 107)),
                    "{kind}: {error}"
                );
            }
            let said = node.heal().unwrap();
            assert!(said.contains("a new daemon serves it"), "{said}");
            for (kind, container, file) in &containers {
                let found = fs::read(container.path(file));
                assert_eq!(
                    found.ok().as_deref(),
                    Some(&b"content"[..]),
                    "{kind} in round {round}: {:#?}",
                    container.mounts()
                );
                let written = fs::write(container.path(file), "content");
                assert_eq!(written.is_ok(), !kind.starts_with("read-only"), "{kind}");
                assert!(
                    container.mounts().len() <= 2,
                    "{kind}: {:#?}",
                    container.mounts()
                );
            }
            assert_eq!(fs::read(target.join("sub/file")).unwrap(), b"content");
            let layers = node.mounts();
            assert!(layers.len() <= 5, "{layers:#?}");
            assert_eq!(node.heal().unwrap(), "", "nothing is left to do");
        }
        drop(containers);
        // As kubelet does before it has the volume unmounted.
        nix::mount::umount(&node.path("kubelet/pods/u1/volume-subpaths/oss1/main/sub")).unwrap();
        node.unmount(&target).success();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn all_pods_of_a_volume_are_healed_and_other_volumes_left_alone() {
    with_sandbox(DRIVER, |node| {
        let targets: Vec<_> = (0..3).map(|n| node.target(&format!("u{n}"), "v")).collect();
        for target in &targets {
            node.mount(target, &node.options(json!({}))).success();
        }
        let daemon = node.daemons()[0];
        let other = node.target("u9", "other");
        node.mount(&other, &node.options(json!({"shareMount": "false"})))
            .success();
        let others: Vec<_> = node
            .daemons()
            .into_iter()
            .filter(|pid| *pid != daemon)
            .collect();
        assert_eq!(others.len(), 1);
        kill(Pid::from_raw(daemon), Signal::SIGKILL).unwrap();
        node.heal().unwrap();
        for target in &targets {
            fs::write(target.join("again"), "x").unwrap();
        }
        assert_eq!(node.daemons().len(), 2);
        assert!(node.daemons().contains(&others[0]));
        for target in targets.iter().chain([&other]) {
            node.unmount(target).success();
        }
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn the_next_pod_that_mounts_a_dead_volume_heals_it_for_all() {
    with_sandbox(DRIVER, |node| {
        let (one, two) = (node.target("u1", "v"), node.target("u2", "v"));
        node.mount(&one, &node.options(json!({}))).success();
        let container = Container::start(&one, &directory(node, "c"), Propagation::Private, false);
        kill_daemon(node);
        node.mount(&two, &node.options(json!({}))).success();
        let written = fs::write(container.path("from-the-container"), "x");
        assert!(written.is_ok(), "{written:?}: {}", node.log());
        assert_eq!(fs::read(one.join("from-the-container")).unwrap(), b"x");
        drop(container);
        node.unmount(&one).success();
        node.unmount(&two).success();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_store_that_is_away_is_waited_for_with_growing_patience() {
    let settings = Settings::config(json!({"mountTimeoutSeconds": 4}));
    with_settings(DRIVER, &settings, |node| {
        let target = node.target("u1", "v");
        node.mount(&target, &node.options(json!({}))).success();
        let container =
            Container::start(&target, &directory(node, "c"), Propagation::Private, false);
        let fault = node.store.inject("docker", Fault::Hang);
        kill_daemon(node);
        let said = node.heal().unwrap_err();
        assert!(said.contains(mounter().silent), "{said}");
        assert_eq!(node.daemons(), [] as [i32; 0]);
        let said = node.heal().unwrap_err();
        assert!(
            said.contains("1 starts of its daemon have failed in a row"),
            "{said}"
        );
        node.store.remove_fault(fault);
        // The wait is over when it is: it is a matter of two seconds here.
        let healed = loop {
            match node.heal() {
                Ok(said) => break said,
                Err(said) => assert!(said.contains("in a row"), "{said}"),
            }
        };
        assert!(healed.contains("a new daemon serves it"), "{healed}");
        fs::write(container.path("again"), "x").unwrap();
        drop(container);
        node.unmount(&target).success();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_hung_daemon_is_reported_and_aborted_where_the_configuration_says_so() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "v");
        node.mount(&target, &node.options(json!({}))).success();
        let container =
            Container::start(&target, &directory(node, "c"), Propagation::Private, false);
        let hung = node.daemons()[0];
        kill(Pid::from_raw(hung), Signal::SIGSTOP).unwrap();
        let said = node.heal().unwrap_err();
        assert!(
            said.contains("its daemon has not answered for")
                && said.contains("abortHungAfterSeconds"),
            "{said}"
        );
        assert_eq!(node.daemons(), [hung]);
        node.configure(json!({"abortHungAfterSeconds": 1}).as_object().unwrap());
        let said = node.heal().unwrap();
        assert!(said.contains("a new daemon serves it"), "{said}");
        assert_ne!(node.daemons(), [hung]);
        fs::write(container.path("again"), "x").unwrap();
        drop(container);
        node.unmount(&target).success();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn unmount_copes_with_whatever_healing_has_left() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "v");
        let options = node.options(json!({}));
        for _ in 0..3 {
            node.mount(&target, &options).success();
            kill_daemon(node);
            node.heal().unwrap();
            kill_daemon(node);
            node.unmount(&target).success();
            node.assert_clean();
        }
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn heal_without_volumes_or_for_unknown_ones_has_nothing_to_do() {
    with_sandbox(DRIVER, |node| {
        assert_eq!(node.heal().unwrap(), "");
        let target = node.target("u1", "v");
        node.mount(&target, &node.options(json!({}))).success();
        let output = std::process::Command::new(DRIVER)
            .args(["heal", "0123456789abcdef0123456789abcdef"])
            .envs(node.kubelet.environment.iter().cloned())
            .output()
            .unwrap();
        assert!(output.status.success() && output.stdout.is_empty());
        node.unmount(&target).success();
    });
}

/// The configuration of a container with `volume` at `/data`, for runc.
fn bundle(volume: &Path) -> serde_json::Value {
    json!({
        "ociVersion": "1.0.2",
        "process": {
            "terminal": false, "user": {"uid": 0, "gid": 0}, "cwd": "/", "env": ["PATH=/bin"],
            "args": ["/bin/busybox", "sh", "-c", "echo ready; exec /bin/busybox cat"],
        },
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/data", "type": "bind", "source": volume, "options": ["rbind", "rprivate"]},
        ],
        "linux": {"namespaces": [{"type": "pid"}, {"type": "mount"}, {"type": "ipc"}, {"type": "uts"}]},
    })
}

#[test]
#[ignore = "needs root, /dev/fuse, s3fs, runc and busybox"]
fn a_container_of_runc_is_healed_like_any_other() {
    use std::io::{BufRead as _, BufReader};
    use std::process::{Command, Stdio};
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "v");
        node.mount(&target, &node.options(json!({}))).success();
        fs::write(target.join("file"), "content").unwrap();
        for name in ["bin", "data", "proc"] {
            directory(node, &format!("bundle/rootfs/{name}"));
        }
        fs::copy("/bin/busybox", node.path("bundle/rootfs/bin/busybox")).unwrap();
        fs::write(node.path("bundle/config.json"), bundle(&target).to_string()).unwrap();
        let name = format!("oss-test-{}", std::process::id());
        let runc = || {
            let mut command = Command::new("runc");
            command.arg("--root").arg(node.path("bundle/state"));
            command
        };
        let mut run = runc()
            .args(["run", "--bundle"])
            .arg(node.path("bundle"))
            .arg(&name)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let output = run.stdout.take().unwrap();
        BufReader::new(output).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n");
        let state = runc().args(["state", &name]).output().unwrap().stdout;
        let state: serde_json::Value = serde_json::from_slice(&state).unwrap();
        let pid = &state["pid"];
        let file = PathBuf::from(format!("/proc/{pid}/root/data/file"));
        for _ in 0..3 {
            assert_eq!(fs::read(&file).unwrap(), b"content");
            kill_daemon(node);
            assert!(fs::read(&file).is_err());
            node.heal().unwrap();
            assert_eq!(fs::read(&file).unwrap(), b"content");
        }
        // Its stdin closes, and with it the container ends.
        drop(run.stdin.take());
        assert!(run.wait().unwrap().success());
        node.unmount(&target).success();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn layers_stay_only_for_containers_that_started_between_heals() {
    with_sandbox(DRIVER, |node| {
        let target = node.target("u1", "oss1");
        node.store.put("docker", "file", "content");
        node.mount(&target, &node.options(json!({}))).success();
        let kinds = [Propagation::Private, Propagation::Slave];
        let mut containers: Vec<(Propagation, Container)> = Vec::new();
        for round in 0..5 {
            for kind in kinds {
                let path = directory(node, &format!("containers/{kind:?}{round}"));
                containers.push((kind, Container::start(&target, &path, kind, false)));
            }
            kill_daemon(node);
            node.heal().unwrap();
            for (kind, container) in &containers {
                assert_eq!(fs::read(container.path("file")).unwrap(), b"content");
                let layers = container.mounts();
                // What follows the target has the layers that this keeps for the others.
                let most = match kind {
                    Propagation::Private => 2,
                    Propagation::Slave => 2 + round,
                };
                assert!(
                    layers.len() <= most,
                    "{kind:?} in round {round}: {layers:#?}"
                );
            }
        }
        let layers = || node.mounts_at(&target);
        assert!(layers() <= 6, "{}", layers());
        drop(containers);
        kill_daemon(node);
        node.heal().unwrap();
        assert_eq!(layers(), 2);
        node.unmount(&target).success();
        node.assert_clean();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_kubelet_directory_that_is_bound_on_itself_below_a_shared_mount_is_healed_too() {
    with_sandbox(DRIVER, |node| {
        // As on nodes whose kubelet is in a container: every mount below it is there twice then, once
        // hidden below the bind.
        let (none, pods) = (None::<&str>, directory(node, "kubelet/pods"));
        mount(Some(&pods), &pods, none, MsFlags::MS_BIND, none).unwrap();
        let target = node.target("u1", "oss1");
        node.store.put("docker", "file", "content");
        node.mount(&target, &node.options(json!({}))).success();
        let seen = node.mounts_at(&target);
        assert_eq!(seen, 2, "one of them hidden");
        let path = directory(node, "container");
        let container = Container::start(&target, &path, Propagation::Private, false);
        for round in 0..3 {
            kill_daemon(node);
            node.heal().unwrap();
            assert_eq!(
                fs::read(target.join("file")).unwrap(),
                b"content",
                "{round}"
            );
            assert_eq!(
                fs::read(container.path("file")).unwrap(),
                b"content",
                "{round}"
            );
        }
        drop(container);
        node.unmount(&target).success();
        umount2(&pods, MntFlags::MNT_DETACH).unwrap();
        node.assert_clean();
    });
}

#[test]
#[ignore = "needs root, /dev/fuse and s3fs"]
fn a_file_system_that_lives_is_never_replaced_whatever_its_number() {
    with_sandbox(DRIVER, |node| {
        node.store.create_bucket("other");
        node.store.put("docker", "file", "content");
        node.store.put("other", "file", "other content");
        let [target, other] = ["oss1", "oss2"].map(|name| node.target("u1", name));
        node.mount(&target, &node.options(json!({}))).success();
        node.mount(&other, &node.options(json!({"bucket": "other"})))
            .success();
        let path = directory(node, "container");
        let container = Container::start(&other, &path, Propagation::Private, false);
        // As if the other volume had been given the number of a dead one just now.
        let line_of = |path: &str| {
            let mounts = node.mounts();
            let mount = mounts
                .iter()
                .find(|mount| format!(" {} ", mount.point) == path)
                .unwrap();
            (mount.device.clone(), mount.point.clone())
        };
        let (dead, _) = line_of(&format!(" {} ", other.display()));
        let (live, _) = line_of(&format!(" {} ", target.display()));
        let stagings = fs::read_dir(node.state_directory().join("volumes")).unwrap();
        let staging = stagings
            .map(|entry| entry.unwrap().path().join("staging"))
            .find(|path| line_of(&format!(" {} ", path.display())).0 == live)
            .unwrap();
        let output = Command::new(DRIVER)
            .arg0("oss-replace")
            .arg(
                json!({
                    "staging": staging,
                    "namespace": container.pid(),
                    "succession": {
                        "live": live, "dead": [dead], "options": "", "kept": [], "left_to": []
                    },
                })
                .to_string(),
            )
            .output()
            .unwrap();
        let output = String::from_utf8_lossy(&output.stdout).into_owned();
        assert_eq!(output, r#"{"Ok":[]}"#);
        let found = fs::read(container.path("file")).unwrap();
        assert_eq!(found, b"other content");
        assert_eq!(container.mounts().len(), 1);
        drop(container);
        for target in [&target, &other] {
            node.unmount(target).success();
        }
    });
}
