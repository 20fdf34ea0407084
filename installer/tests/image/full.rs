//! The full shape: the host is reached through the root of its first process.

use crate::dist::Image;
use crate::host::{self, Host};
use crate::kubelet::{self, Kubelet};
use crate::manifest::PodSpec;
use crate::oci;
use crate::pod::{self, Pod};
use crate::volume::{CONFIG, Volume};
use nix::errno::Errno;
use std::collections::BTreeSet;
use support::{Container, Propagation};

const PLUGINS: &str = "/var/lib/kubelet/volumeplugins";
/// What the installer and the driver may change, and nobody else does.
const WATCHED: [&str; 7] = [
    "/etc",
    "/opt",
    "/run/alicloud-oss",
    "/run/systemd/system",
    "/usr",
    "/var/lib/alicloud-oss",
    PLUGINS,
];

/// The Pod with a node configuration for the host.
fn spec(host: &Host) -> PodSpec {
    let directory = oci::config_map("node");
    host.write(&format!("{directory}/config.json"), CONFIG);
    PodSpec::of_overlay("full")
        .config_map("node", "/node")
        .env("OSS_INSTALLER_CONFIG", "/node/config.json")
}

#[test]
#[ignore = "needs root, /dev/fuse, debootstrap and runc"]
fn the_full_pod_serves_a_node_with_systemd_and_leaves_it_as_it_was() {
    if host::skip() {
        return;
    }
    let host = Host::systemd();
    let node = host.node();
    kubelet::install(&host);
    host.write("/etc/updatedb.conf", "PRUNEFS=\"NFS proc\"\n");
    let unit = format!(
        "[Service]\nExecStartPre=/bin/mkdir -p {PLUGINS}\n\
         ExecStart=/usr/bin/kubelet --volume-plugin-dir={PLUGINS} --watch {PLUGINS}\n"
    );
    node.write_unit("kubelet.service", &unit).unwrap();
    node.systemctl(&["start", "kubelet"]).unwrap();
    // systemctl runs within the Pod's memory.
    let unit = "[Service]\nExecStart=/bin/true %i\n";
    host.write(
        &format!("{}/image-test@.service", oci::config_map("node")),
        unit,
    );
    let spec = spec(&host).env("OSS_INSTALLER_UNIT", "/node/image-test@.service");
    let before = host.files(&WATCHED);

    let image = Image::release();
    let pod = Pod::start(&host, &spec, &image);
    let log = pod.read_until("note: s3fs ").join("\n");
    pod.wait_ready();
    assert!(
        log.contains(&format!("installed {PLUGINS}/alicloud~oss/oss")),
        "{log}"
    );
    assert!(
        log.contains("--volume-plugin-dir of kubelet (pid "),
        "{log}"
    );
    assert!(
        log.contains("installed /etc/alicloud-oss/config.json"),
        "{log}"
    );
    assert!(log.contains("changed /etc/updatedb.conf"), "{log}");
    assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");

    let state = node.property("image-test@x.service", "LoadState");
    assert_eq!(state.unwrap(), "loaded");

    // The installed driver serves a volume, and systemd its daemon.
    let volume = Volume::mount(&host, PLUGINS, "uid-1");
    let containers = [Propagation::Private, Propagation::Slave].map(|kind| volume.container(kind));
    let units = || {
        node.systemctl(&["list-units", "--plain", "--no-legend", "alicloud-oss@*"])
            .unwrap()
    };
    assert!(units().contains("active running"), "{}", units());
    let unit = units().split_whitespace().next().unwrap().to_owned();
    let serve = || node.property(&unit, "MainPID").unwrap();
    let (before_death, ossfs) = (serve(), volume.ossfs());
    // The mount outlives ossfs, and what is in the containers.
    volume.kill(&ossfs);
    assert_reads(&containers);
    assert_ne!(volume.ossfs(), ossfs);
    assert_eq!(serve(), before_death);
    // And the process that serves it, which systemd starts again.
    volume.kill(&before_death);
    assert_reads(&containers);
    host.wait_until("the unit is active", || units().contains("active running"));
    assert_ne!(serve(), before_death);
    // One that was stopped is served anew, for all who see what is mounted later.
    node.systemctl(&["stop", &unit]).unwrap();
    pod.read_until("a new process serves it");
    assert_reads(&containers[1..]);
    drop(containers);
    pod.assert_within_memory(&spec);
    let (status, log) = pod.terminate();
    assert_eq!(status, Some(0), "{log:#?}");

    // With a volume the driver stays, or is removed after the last one.
    let (status, log) = Pod::start(&host, &spec.clone().args(&["uninstall"]), &image).wait();
    let log = log.join("\n");
    assert_eq!(status, Some(1), "{log}");
    assert!(
        log.contains("1 volume is mounted, and only the driver can unmount it"),
        "{log}"
    );
    assert_eq!(std::fs::read(volume.file()).unwrap(), b"content");
    let draining = Pod::start(&host, &spec.args(&["uninstall", "--drain"]), &image);
    draining.read_until("waiting for volume \"data\" of Pod with uid uid-1");
    volume.unmount();
    let (status, log) = draining.wait();
    assert_eq!(status, Some(0), "{log:#?}");
    assert!(
        log.last().unwrap().contains("removed the driver"),
        "{log:#?}"
    );
    assert_eq!(units(), "");
    let after = host.files(&WATCHED);
    let all: BTreeSet<_> = before.keys().chain(after.keys()).collect();
    let differ = all
        .iter()
        .filter(|path| before.get(**path) != after.get(**path));
    let differ: Vec<_> = differ.collect();
    assert!(differ.is_empty(), "{differ:#?}");
}

#[test]
#[ignore = "needs root, /dev/fuse, debootstrap and runc"]
fn the_full_pod_heals_where_no_systemd_runs() {
    if host::skip() {
        return;
    }
    let host = Host::bare();
    let kubelet = Kubelet::start(&host, PLUGINS);
    let spec = spec(&host).env("OSS_INSTALLER_PERIOD", "1");
    let pod = Pod::start(&host, &spec, &Image::release());
    kubelet.process.wait_for("init alicloud~oss ok");
    pod.wait_ready();
    let volume = Volume::mount(&host, PLUGINS, "uid-1");
    let containers = [Propagation::Private, Propagation::Slave].map(|kind| volume.container(kind));
    // Neither the end of ossfs nor that of its parent has to be healed.
    for pid in [volume.ossfs(), volume.child()] {
        volume.kill(&pid);
        assert_reads(&containers);
    }
    for _ in 0..2 {
        volume.kill_all();
        let log = pod.read_until("a new process serves it").join("\n");
        assert!(!log.contains("WARN") && !log.contains("ERROR"), "{log}");
        assert_reads(&containers[1..]);
        assert_reads(&[volume.container(Propagation::Private)]);
        // Who was there before and sees nothing that is mounted later has to be started again.
        let dead = std::fs::read(containers[0].path("file")).unwrap_err();
        assert_eq!(dead.raw_os_error(), Some(Errno::ENOTCONN as i32));
    }
    // Its processes are the host's, not the Pod's.
    let of = |pid: &str, name: &str| host.path(format!("/proc/{pid}/{name}"));
    let cgroup = |pid: &str| std::fs::read_to_string(of(pid, "cgroup")).unwrap();
    let serve = [volume.parent(), volume.child()];
    for pid in &serve {
        assert_eq!(cgroup(pid), cgroup("1"));
        for name in ["cgroup", "ipc", "mnt", "net", "pid", "user", "uts"] {
            let namespace = |pid: &str| std::fs::read_link(of(pid, &format!("ns/{name}"))).unwrap();
            assert_eq!(namespace(pid), namespace("1"), "{name}");
        }
    }
    let ossfs = volume.ossfs();
    for pid in serve.iter().chain([&ossfs]) {
        assert!(!cgroup(pid).contains(pod::PREFIX), "{}", cgroup(pid));
        let score = std::fs::read_to_string(of(pid, "oom_score_adj")).unwrap();
        assert_eq!(
            score.trim(),
            "0",
            "the Pod's protection from the out-of-memory killer is its own"
        );
    }
    pod.assert_within_memory(&spec);
    let (status, log) = pod.terminate();
    assert_eq!(status, Some(0), "{log:#?}");
    assert_eq!(volume.ossfs(), ossfs);
    assert_eq!(std::fs::read(volume.file()).unwrap(), b"content");
    drop(containers);
    volume.unmount();
}

#[test]
#[ignore = "needs root, /dev/fuse, debootstrap and runc"]
fn the_full_pod_needs_each_of_its_capabilities() {
    if host::skip() {
        return;
    }
    let host = Host::bare();
    let kubelet = Kubelet::start(&host, PLUGINS);
    let (spec, image) = (spec(&host), Image::release());
    let pod = Pod::start(&host, &spec, &image);
    kubelet.process.wait_for("init alicloud~oss ok");
    pod.wait_ready();
    drop(pod);
    let volume = Volume::mount_with_cache(&host, PLUGINS, "uid-1");
    volume.kill_all();
    let needed = [
        // To look into /proc/PID/root.
        ("SYS_PTRACE", "the capability SYS_PTRACE is needed"),
        // To enter namespaces; a mount namespace needs both.
        ("SYS_ADMIN", "enter /proc/1/ns/mnt: EPERM"),
        ("SYS_CHROOT", "enter /proc/1/ns/mnt: EPERM"),
        // To serve a volume without systemd.
        ("DAC_OVERRIDE", "empty /var/cache/oss/alicloud-oss-"),
        ("CHOWN", "write /run/oss/key in the sandbox: EPERM"),
        ("SETUID", "/uid_map: Operation not permitted"),
        ("SETGID", "/gid_map: Operation not permitted"),
    ];
    assert_eq!(spec.added(), needed.map(|(capability, _)| capability));
    for (capability, text) in needed {
        let pod = Pod::start(&host, &spec.clone().without(capability), &image);
        pod.read_until(text);
        host.wait_until("what cannot serve does not stay", || {
            volume.processes().is_empty()
        });
    }
    let pod = Pod::start(&host, &spec, &image);
    pod.read_until("a new process serves it");
    drop(pod);
    volume.unmount();
}

/// Checks that the file of the volume is there for each of them.
#[track_caller]
fn assert_reads(containers: &[Container]) {
    for container in containers {
        assert_eq!(std::fs::read(container.path("file")).unwrap(), b"content");
    }
}
