//! The plugin directory of each platform, from a kubelet's arguments and files as that platform has
//! them.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::fs::{Permissions, create_dir_all, set_permissions, write};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::process::Command;
use support::{Process, Stream, TestHost, finish, installer};

const DEFAULT: &str = "/usr/libexec/kubernetes/kubelet-plugins/volume/exec";

/// A process in the host's /proc.
struct Shown {
    pid: u32,
    argv: String,
    cwd: &'static str,
    pid_namespace: u32,
    mount_namespace: u32,
    root: &'static str,
    uid: u32,
}

/// A kubelet on the host with `argv`, its arguments separated by spaces.
fn kubelet(pid: u32, argv: &str) -> Shown {
    Shown {
        pid,
        argv: argv.to_owned(),
        cwd: "/",
        pid_namespace: 1,
        mount_namespace: 1,
        root: "host",
        uid: 0,
    }
}

/// Adds `process` to the /proc of `node`, as far as the installer reads it.
fn show(node: &TestHost, process: &Shown) {
    let directory = node.path("proc").join(process.pid.to_string());
    let _ = std::fs::remove_file(&directory);
    create_dir_all(directory.join("ns")).unwrap();
    let cmdline = process.argv.replace(' ', "\0") + "\0";
    write(directory.join("cmdline"), cmdline).unwrap();
    let uid = process.uid;
    write(
        directory.join("status"),
        format!("Name:\tx\nUid:\t{uid}\t{uid}\t{uid}\t{uid}\n"),
    )
    .unwrap();
    symlink(process.cwd, directory.join("cwd")).unwrap();
    symlink(node.path(process.root), directory.join("root")).unwrap();
    symlink(
        format!("pid:[{}]", process.pid_namespace),
        directory.join("ns/pid"),
    )
    .unwrap();
    symlink(
        format!("mnt:[{}]", process.mount_namespace),
        directory.join("ns/mnt"),
    )
    .unwrap();
}

/// A node with these processes and files.
fn node(processes: &[Shown], files: &[(&str, &str)]) -> TestHost {
    let node = TestHost::new();
    show(&node, &kubelet(1, "/sbin/init"));
    for process in processes {
        create_dir_all(node.path(process.root)).unwrap();
        show(&node, process);
    }
    for (path, text) in files {
        create_dir_all(node.host(path).parent().unwrap()).unwrap();
        write(node.host(path), text).unwrap();
    }
    node
}

fn find(node: &TestHost) -> Command {
    let mut command = installer("find");
    command
        .arg("--host-root")
        .arg(node.path("host"))
        .arg("--proc")
        .arg(node.path("proc"));
    command
}

#[test]
fn every_platform_has_its_directory() {
    let config = |directory: &str| {
        format!(
            "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\n\
             evictionHard:\n  memory.available: 100Mi\nvolumePluginDir: {directory}\n"
        )
    };
    let plain = "apiVersion: kubelet.config.k8s.io/v1beta1\nkind: KubeletConfiguration\ncgroupDriver: systemd\n";
    for (platform, argv, files, expected, how) in [
        (
            "kubeadm",
            "/usr/bin/kubelet --bootstrap-kubeconfig=/etc/kubernetes/bootstrap-kubelet.conf --kubeconfig=/etc/kubernetes/kubelet.conf --config=/var/lib/kubelet/config.yaml --container-runtime-endpoint=unix:///var/run/containerd/containerd.sock",
            vec![("/var/lib/kubelet/config.yaml", plain.to_owned())],
            DEFAULT,
            "the default of kubelet (pid 812), which names no other",
        ),
        (
            "kubespray",
            "/usr/local/bin/kubelet --v=2 --node-ip=10.0.0.2 --config=/etc/kubernetes/kubelet-config.yaml --volume-plugin-dir=/usr/libexec/kubernetes/kubelet-plugins/volume/exec",
            vec![],
            DEFAULT,
            "--volume-plugin-dir of kubelet (pid 812)",
        ),
        (
            "k3s server, which hides its arguments",
            "/usr/local/bin/k3s\u{1}server",
            vec![],
            DEFAULT,
            "the default of k3s (pid 812), which names no other",
        ),
        (
            "k3s agent with kubelet's argument",
            "/usr/local/bin/k3s agent --kubelet-arg volume-plugin-dir=/var/lib/k3s-flex",
            vec![],
            "/var/lib/k3s-flex",
            "--volume-plugin-dir of k3s (pid 812)",
        ),
        (
            "k3s with its own configuration",
            "/usr/local/bin/k3s server",
            vec![("/etc/rancher/k3s/config.yaml", "kubelet-arg:\n- v=2\n- volume-plugin-dir=/var/lib/k3s-flex\n".to_owned())],
            "/var/lib/k3s-flex",
            "--volume-plugin-dir of k3s (pid 812)",
        ),
        (
            "Flatcar",
            "/opt/bin/kubelet --config=/var/lib/kubelet/config.yaml",
            vec![("/var/lib/kubelet/config.yaml", config("/opt/libexec/kubernetes/kubelet-plugins/volume/exec/"))],
            "/opt/libexec/kubernetes/kubelet-plugins/volume/exec/",
            "volumePluginDir in /var/lib/kubelet/config.yaml of kubelet (pid 812)",
        ),
        (
            "Fedora CoreOS",
            "/usr/bin/kubelet --config=/var/lib/kubelet/config.yaml --volume-plugin-dir /opt/libexec/kubernetes/kubelet-plugins/volume/exec",
            vec![("/var/lib/kubelet/config.yaml", config("/not/this"))],
            "/opt/libexec/kubernetes/kubelet-plugins/volume/exec",
            "--volume-plugin-dir of kubelet (pid 812)",
        ),
        (
            "GKE",
            "/home/kubernetes/bin/kubelet --v=2 --cloud-provider=external --config /home/kubernetes/kubelet-config.yaml --kubeconfig=/var/lib/kubelet/kubeconfig",
            vec![("/home/kubernetes/kubelet-config.yaml", config("/home/kubernetes/flexvolume"))],
            "/home/kubernetes/flexvolume",
            "volumePluginDir in /home/kubernetes/kubelet-config.yaml of kubelet (pid 812)",
        ),
        (
            "AKS",
            "/usr/local/bin/kubelet --enable-server --node-labels=agentpool=a,kubernetes.azure.com/role=agent --v=2 --volume-plugin-dir=/etc/kubernetes/volumeplugins --kubeconfig /var/lib/kubelet/kubeconfig",
            vec![],
            "/etc/kubernetes/volumeplugins",
            "--volume-plugin-dir of kubelet (pid 812)",
        ),
        (
            "OpenShift",
            "/usr/bin/kubelet --config=/etc/kubernetes/kubelet.conf --bootstrap-kubeconfig=/etc/kubernetes/kubeconfig --kubeconfig=/var/lib/kubelet/kubeconfig --node-labels=node-role.kubernetes.io/worker",
            vec![("/etc/kubernetes/kubelet.conf", "{\"kind\":\"KubeletConfiguration\",\"volumePluginDir\":\"/etc/kubernetes/kubelet-plugins/volume/exec\"}".to_owned())],
            "/etc/kubernetes/kubelet-plugins/volume/exec",
            "volumePluginDir in /etc/kubernetes/kubelet.conf of kubelet (pid 812)",
        ),
        (
            "OpenShift 3",
            "/usr/bin/hyperkube kubelet --v=2 --volume-plugin-dir=/etc/kubernetes/kubelet-plugins/volume/exec",
            vec![],
            "/etc/kubernetes/kubelet-plugins/volume/exec",
            "--volume-plugin-dir of kubelet (pid 812)",
        ),
        (
            "MicroK8s",
            "/snap/microk8s/6000/kubelite --scheduler-args-file=/a --kubelet-args-file=/var/snap/microk8s/6000/args/kubelet",
            vec![("/var/snap/microk8s/6000/args/kubelet", "--root-dir=/var/snap/microk8s/common/var/lib/kubelet\n--fail-swap-on=false\n".to_owned())],
            DEFAULT,
            "the default of kubelite (pid 812), which names no other",
        ),
        (
            "MicroK8s with a directory of its own",
            "/snap/microk8s/6000/kubelite --kubelet-args-file=/args/kubelet",
            vec![("/args/kubelet", "--volume-plugin-dir=/var/lib/flex\n".to_owned())],
            "/var/lib/flex",
            "--volume-plugin-dir of kubelite (pid 812)",
        ),
        (
            "RKE1",
            "kubelet --cloud-provider= --root-dir=/var/lib/kubelet --volume-plugin-dir=/var/lib/kubelet/volumeplugins --read-only-port=0",
            vec![],
            "/var/lib/kubelet/volumeplugins",
            "--volume-plugin-dir of kubelet (pid 812)",
        ),
        (
            "Typhoon",
            "/usr/local/bin/kubelet --bootstrap-kubeconfig=/etc/kubernetes/kubeconfig --config=/etc/kubernetes/kubelet.yaml --kubeconfig=/var/lib/kubelet/kubeconfig --node-labels=node.kubernetes.io/node",
            vec![("/etc/kubernetes/kubelet.yaml", config("/var/lib/kubelet/volumeplugins"))],
            "/var/lib/kubelet/volumeplugins",
            "volumePluginDir in /etc/kubernetes/kubelet.yaml of kubelet (pid 812)",
        ),
        (
            "RKE2",
            "kubelet --volume-plugin-dir=/var/lib/kubelet/volumeplugins --file-check-frequency=5s --address=0.0.0.0 --read-only-port=0",
            vec![],
            "/var/lib/kubelet/volumeplugins",
            "--volume-plugin-dir of kubelet (pid 812)",
        ),
        (
            "Gardener",
            "/opt/bin/kubelet --bootstrap-kubeconfig=/var/lib/kubelet/kubeconfig-bootstrap --config=/var/lib/kubelet/config/kubelet --v=2",
            vec![("/var/lib/kubelet/config/kubelet", config("/var/lib/kubelet/volumeplugins"))],
            "/var/lib/kubelet/volumeplugins",
            "volumePluginDir in /var/lib/kubelet/config/kubelet of kubelet (pid 812)",
        ),
        (
            "k0s",
            "/var/lib/k0s/bin/kubelet --root-dir=/var/lib/k0s/kubelet --config=/run/k0s/kubelet/config.yaml --v=1",
            vec![("/run/k0s/kubelet/config.yaml", config("/usr/libexec/k0s/kubelet-plugins/volume/exec"))],
            "/usr/libexec/k0s/kubelet-plugins/volume/exec",
            "volumePluginDir in /run/k0s/kubelet/config.yaml of kubelet (pid 812)",
        ),
        (
            "Bottlerocket",
            "/usr/bin/kubelet --cloud-provider external --kubeconfig /etc/kubernetes/kubelet/kubeconfig --config /etc/kubernetes/kubelet/config --root-dir /var/lib/kubelet",
            vec![("/etc/kubernetes/kubelet/config", "---\nkind: KubeletConfiguration\nvolumePluginDir: \"/var/lib/kubelet/plugins/volume/exec\"\n".to_owned())],
            "/var/lib/kubelet/plugins/volume/exec",
            "volumePluginDir in /etc/kubernetes/kubelet/config of kubelet (pid 812)",
        ),
        (
            "MicroShift",
            "microshift run",
            vec![],
            "/var/lib/microshift/kubelet-plugins/volume/exec",
            "the default of microshift (pid 812), which names no other",
        ),
        (
            "drop-in files",
            "/usr/bin/kubelet --config=/etc/k.yaml --config-dir=/etc/k.d",
            vec![
                ("/etc/k.yaml", config("/first")),
                ("/etc/k.d/20.conf", config("relative")),
                ("/etc/k.d/10.conf", config("/second")),
                ("/etc/k.d/99.yaml", config("/no")),
            ],
            "/etc/relative",
            "volumePluginDir in /etc/k.d/20.conf of kubelet (pid 812)",
        ),
    ] {
        let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_str())).collect();
        let node = node(&[kubelet(812, argv)], &files);
        if argv.contains('\u{1}') {
            let title = argv.replace('\u{1}', " ") + "\0\0\0";
            write(node.path("proc/812/cmdline"), title).unwrap();
        }
        let (found, text) = finish(&mut find(&node));
        assert!(found, "{platform}: {text}");
        assert_eq!(text, format!("{expected}\t{how}\n"), "{platform}");
    }
}

#[test]
fn a_relative_path_is_meant_from_where_kubelet_works() {
    let mut process = kubelet(7, "kubelet --config=conf/k.yaml");
    process.cwd = "/srv";
    let node = node(
        &[process],
        &[("/srv/conf/k.yaml", "volumePluginDir: plugins\n")],
    );
    let (_, text) = finish(&mut find(&node));
    assert!(
        text.starts_with("/srv/conf/plugins\tvolumePluginDir in /srv/conf/k.yaml"),
        "{text}"
    );
}

#[test]
fn a_kubelet_in_a_container_is_recognised() {
    // As RKE1 runs it: the host's directory is mounted at the same path.
    let mut process = kubelet(
        7,
        "kubelet --volume-plugin-dir=/var/lib/kubelet/volumeplugins",
    );
    process.mount_namespace = 2;
    let same = node(&[process], &[("/var/lib/kubelet/volumeplugins/x", "")]);
    let (found, text) = finish(&mut find(&same));
    assert!(
        found && text.starts_with("/var/lib/kubelet/volumeplugins\t"),
        "{text}"
    );

    let mut process = kubelet(7, "kubelet --volume-plugin-dir=/plugins-inside");
    process.mount_namespace = 2;
    process.root = "container";
    let other = node(&[process], &[]);
    create_dir_all(other.path("container/plugins-inside")).unwrap();
    let (found, text) = finish(&mut find(&other));
    assert!(
        !found && text.contains("runs in a container, where \"/plugins-inside\" is not the host's"),
        "{text}"
    );
    assert!(text.contains("set --plugin-dir"), "{text}");
}

#[test]
fn a_kubelet_in_a_container_without_the_directory_is_not_followed() {
    let mut process = kubelet(7, "kubelet --volume-plugin-dir=/plugins-nowhere");
    process.mount_namespace = 2;
    process.root = "container";
    let node = node(&[process], &[]);
    let (found, text) = finish(&mut find(&node));
    assert!(
        !found && text.contains("runs in a container, where \"/plugins-nowhere\""),
        "{text}"
    );
}

#[test]
fn a_process_that_cannot_be_read_is_not_taken_for_one_of_the_host() {
    let shown = node(&[kubelet(812, "kubelet --volume-plugin-dir=/right")], &[]);
    std::fs::remove_file(shown.path("proc/1/ns/pid")).unwrap();
    let (found, text) = finish(&mut find(&shown));
    assert!(
        !found && text.contains("proc/1/ns/pid") && text.contains("SYS_PTRACE is needed"),
        "{text}"
    );
    // One whose own namespace cannot be read is none.
    let shown = node(&[kubelet(812, "kubelet --volume-plugin-dir=/evil")], &[]);
    std::fs::remove_file(shown.path("proc/812/ns/pid")).unwrap();
    let (found, text) = finish(&mut find(&shown));
    assert!(!found && text.contains("no kubelet runs"), "{text}");
}

#[test]
fn the_containers_own_root_is_not_taken_for_the_hosts() {
    let (found, text) = finish(installer("find").args(["--host-root", "/proc/self/root"]));
    assert!(
        !found && text.contains("is this process's own root: set hostPID: true"),
        "{text}"
    );
}

#[test]
fn a_process_that_only_calls_itself_kubelet_is_not_believed() {
    let mut in_a_pod = kubelet(900, "kubelet --volume-plugin-dir=/evil");
    in_a_pod.pid_namespace = 2;
    in_a_pod.mount_namespace = 2;
    let mut somebody = kubelet(901, "/tmp/kubelet --volume-plugin-dir=/evil");
    somebody.uid = 12345;
    let rootless = kubelet(902, "kubelet --volume-plugin-dir=/evil");
    let real = kubelet(812, "/usr/bin/kubelet --volume-plugin-dir=/right");
    let node = node(&[in_a_pod, somebody, rootless, real], &[]);
    for (pid, namespace) in [("1", 1), ("812", 1), ("902", 2)] {
        let path = node.path("proc").join(pid).join("ns/user");
        symlink(format!("user:[{namespace}]"), path).unwrap();
    }
    let (_, text) = finish(&mut find(&node));
    assert!(text.starts_with("/right\t"), "{text}");
}

#[test]
fn of_a_command_line_without_an_end_the_beginning_is_read() {
    let node = node(&[kubelet(812, "kubelet --volume-plugin-dir=/right")], &[]);
    let line = std::fs::OpenOptions::new()
        .write(true)
        .open(node.path("proc/812/cmdline"))
        .unwrap();
    // More than any machine has memory for, and nothing on the disk.
    line.set_len(1 << 42).unwrap();
    let (_, text) = finish(&mut find(&node));
    assert!(text.starts_with("/right\t"), "{text}");
}

#[test]
fn an_uncertain_directory_is_an_error() {
    for (what, processes, files, expected) in [
        (
            "two kubelets",
            vec![
                kubelet(5, "kubelet --volume-plugin-dir=/a"),
                kubelet(6, "kubelet --volume-plugin-dir=/b"),
            ],
            vec![],
            "two kubelets read different plugin directories, \"/a\"",
        ),
        (
            "a missing file",
            vec![kubelet(5, "kubelet --config=/etc/k.yaml")],
            vec![],
            "read /etc/k.yaml, the configuration of kubelet (pid 5): No such file",
        ),
        (
            "a broken file",
            vec![kubelet(5, "kubelet --config=/etc/k.yaml")],
            vec![("/etc/k.yaml", "a: [")],
            "it is neither YAML nor JSON",
        ),
        (
            "nothing at all",
            vec![],
            vec![],
            "no kubelet runs, and no well-known plugin directory exists: set --plugin-dir",
        ),
        (
            "two directories",
            vec![],
            vec![
                ("/etc/kubernetes/volumeplugins/x", ""),
                ("/home/kubernetes/flexvolume/x", ""),
            ],
            "more than one well-known plugin directory exists (\"/home/kubernetes/flexvolume\", \"/etc/kubernetes/volumeplugins\"): set --plugin-dir",
        ),
    ] {
        let node = node(&processes, &files);
        let (found, text) = finish(&mut find(&node));
        assert!(!found && text.contains(expected), "{what}: {text}");
        assert_eq!(text.lines().count(), 1, "{what}: {text}");
    }
}

#[test]
fn without_kubelet_the_only_known_directory_is_found() {
    let node = node(&[], &[("/etc/kubernetes/volumeplugins/x", "")]);
    let (_, text) = finish(&mut find(&node));
    assert_eq!(
        text,
        "/etc/kubernetes/volumeplugins\tno kubelet runs; of the well-known directories only this \
         one exists (AKS)\n"
    );
}

#[test]
fn a_real_process_is_found_through_proc() {
    let node = TestHost::new();
    let kubelet = node.start_kubelet(&["--volume-plugin-dir=/plugins"]);
    let (found, text) = finish(&mut find(&node));
    assert!(found, "{text}");
    let pid = kubelet.id();
    assert_eq!(
        text,
        format!("/plugins\t--volume-plugin-dir of kubelet (pid {pid})\n")
    );
}

#[test]
fn while_kubelet_restarts_its_directory_stays() {
    let node = TestHost::new();
    create_dir_all(node.host("etc/kubernetes/volumeplugins")).unwrap();
    let driver = node.make_driver("a", "");
    let mut kubelet = node.start_kubelet(&["--volume-plugin-dir=/plugins"]);
    let mut command = node.full("run", &driver);
    let run = Process::start(command.arg("--period=1"), Stream::Stderr);
    run.wait_for("installed /plugins/alicloud~oss/oss");
    run.wait_for("/dev/fuse");
    kubelet.kill();
    std::fs::remove_file(node.driver()).unwrap();
    let line = run.wait_for("installed /");
    assert!(
        line.contains("/plugins/alicloud~oss/oss") && line.contains("kubelet is not running"),
        "{line}"
    );
    assert!(
        !node
            .host("etc/kubernetes/volumeplugins/alicloud~oss")
            .exists()
    );
}

#[test]
fn a_directory_given_is_compared_with_kubelets_flag() {
    let node = TestHost::new();
    let driver = node.make_driver("a", "");
    let _kubelet = node.start_kubelet(&["--volume-plugin-dir=/elsewhere"]);
    let (ready, text) = finish(
        node.full("check", &driver)
            .args(["--plugin-dir", "/plugins"]),
    );
    assert!(
        !ready && text.contains("--plugin-dir is \"/plugins\", but kubelet reads \"/elsewhere\""),
        "{text}"
    );
}

#[test]
fn the_way_to_kubelets_root_directory_is_checked() {
    let node = node(
        &[kubelet(
            812,
            "/usr/bin/kubelet --root-dir=/var/lib/kubelet --volume-plugin-dir=/plugins",
        )],
        &[("/data/kubelet/x", ""), ("/var/lib/x", "")],
    );
    let driver = node.make_driver("a", "");
    let check = || finish(&mut node.full("check", &driver)).1;
    assert!(!check().contains("the root directory"));
    symlink("/data/kubelet", node.host("var/lib/kubelet")).unwrap();
    let text = check();
    assert!(
        text.contains(
            "note: the root directory \"/var/lib/kubelet\" of kubelet (pid 812) is a symbolic link to \
             \"/data/kubelet\""
        ),
        "{text}"
    );
    set_permissions(node.host("data"), Permissions::from_mode(0o777)).unwrap();
    let text = check();
    assert!(
        text.contains(
            "blocks mounting: the root directory \"/var/lib/kubelet\" of kubelet (pid 812): /data is \
             on the way through a symbolic link and can be written by others than root"
        ),
        "{text}"
    );
}

#[test]
fn a_configuration_that_kubelets_environment_names_is_told() {
    let node = node(&[kubelet(812, "kubelet --volume-plugin-dir=/plugins")], &[]);
    let driver = node.make_driver("a", "");
    let environ = "PATH=/bin\0OSS_FLEXVOLUME_CONFIG=/etc/oss.json\0";
    write(node.path("proc/812/environ"), environ).unwrap();
    let (_, text) = finish(&mut node.full("check", &driver));
    assert!(
        text.contains("kubelet (pid 812) has OSS_FLEXVOLUME_CONFIG=\"/etc/oss.json\""),
        "{text}"
    );
}
