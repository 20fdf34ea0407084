//! The whole chain on a node with a real systemd: the old driver's daemon is taken over, volumes are
//! units, and all of it goes again.

use crate::world::{another_build, driver};
use serde_json::json;
use std::collections::BTreeMap;
use std::fs::{create_dir_all, read, read_dir, set_permissions, write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use support::{
    Answer, Process, Store, Stream, TestHost as Image, beside, copy_program, finish,
    node::{self, Config, Node},
    volume_options,
};

const PLUGINS: &str = "/etc/kubernetes/volumeplugins";
const TARGET: &str = "/var/lib/kubelet/pods/u1/volumes/alicloud~oss/v";

/// The files of the node that are the installer's or the driver's concern.
fn files(node: &Node) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut found = BTreeMap::new();
    let concerned = [
        "/etc/systemd/system",
        "/run/systemd/system",
        "/run/alicloud-oss",
        PLUGINS,
    ];
    let mut directories: Vec<PathBuf> = concerned.iter().map(|path| node.path(path)).collect();
    for file in ["/etc/updatedb.conf", "/etc/alicloud-oss/config.json"] {
        found.insert(node.path(file), read(node.path(file)).unwrap());
    }
    while let Some(directory) = directories.pop() {
        for entry in read_dir(directory).into_iter().flatten() {
            let entry = entry.unwrap();
            let kind = entry.file_type().unwrap();
            if kind.is_dir() {
                directories.push(entry.path());
            }
            let content = kind.is_file().then(|| read(entry.path()).unwrap());
            found.insert(entry.path(), content.unwrap_or_default());
        }
    }
    found
}

/// Runs the installer until it has looked at everything once, and returns what it said.
#[track_caller]
fn install(node: &Node, image: &Image, driver: &Path) -> String {
    let run = Process::start(&mut beside(node, image, "run", driver), Stream::Stderr);
    run.end_at("note: s3fs 1.")
}

/// Calls the driver that is installed, within the node.
fn call(node: &Node, args: &[&str]) -> Answer {
    let driver = format!("{PLUGINS}/alicloud~oss/oss");
    Answer::parse(&node.run(&[&[&*driver], args].concat()).unwrap())
}

#[test]
#[ignore = "needs root, /dev/fuse and debootstrap"]
fn the_old_drivers_daemon_is_taken_over_and_all_goes_again() {
    if node::skip() {
        return;
    }
    let (node, image, driver) = (Node::boot(Config::new()).unwrap(), Image::new(), driver());
    let store = Store::start();
    store.create_bucket("docker");
    store.add_key("key", "sEcrEt");
    create_dir_all(node.path(PLUGINS)).unwrap();
    create_dir_all(node.path("/etc/alicloud-oss")).unwrap();
    let config = json!({"ossfs": "s3fs", "mountTimeoutSeconds": 60}).to_string();
    write(node.path("/etc/alicloud-oss/config.json"), config).unwrap();
    write(node.path("/etc/updatedb.conf"), "PRUNEFS=\"proc\"\n").unwrap();
    start_the_old_drivers_kubelet(&node, &store);
    let before = files(&node);

    let place = node.path(PLUGINS).join("alicloud~oss/oss");
    create_dir_all(place.parent().unwrap()).unwrap();
    copy_program(&image.make_driver("old", "no capabilities"), &place);
    let said = install(&node, &image, &driver);
    assert!(
        said.contains("the old driver without capabilities is installed, and one of its volumes"),
        "{said}"
    );
    assert!(
        said.contains("adopt: moved process ") && said.contains("to alicloud-oss.slice"),
        "{said}"
    );
    // kubelet has to be restarted once, and the volume outlives that.
    node.systemctl(&["stop", "kubelet"]).unwrap();
    write(node.path(TARGET).join("file"), "content").unwrap();
    call(&node, &["unmount", TARGET]).success();
    assert_eq!(store.object("docker", "file").unwrap(), b"content");

    let more = json!({"otherOpts": "-o use_path_request_style"});
    let options = volume_options("docker", &store.url(), "key", "sEcrEt", &more);
    call(&node, &["mount", TARGET, &options.to_string()]).success();
    let daemon = daemon(&node);
    let said = install(&node, &image, &another_build(&driver, &image));
    assert!(said.contains("installed /etc/kubernetes"), "{said}");
    assert_eq!(read(node.path(TARGET).join("file")).unwrap(), b"content");
    assert_eq!(self::daemon(&node), daemon);
    let (removed, said) = finish(&mut beside(&node, &image, "uninstall", &driver));
    assert!(!removed && said.contains("Pod with uid u1"), "{said}");
    call(&node, &["unmount", TARGET]).success();
    let (removed, said) = finish(&mut beside(&node, &image, "uninstall", &driver));
    assert!(removed, "{said}");
    assert_eq!(files(&node), before);
    let units = ["list-unit-files", "--no-legend", "alicloud-oss*"];
    let known = node.command("systemctl").args(units).output().unwrap();
    assert_eq!(String::from_utf8_lossy(&known.stdout), "");
}

/// The only daemon's unit and process.
fn daemon(node: &Node) -> (String, String) {
    let units = ["list-units", "--plain", "--no-legend", "alicloud-oss@*"];
    let list = node.systemctl(&units).unwrap();
    let unit = list.split_whitespace().next().expect("a unit").to_owned();
    let pid = node.property(&unit, "MainPID").unwrap();
    (unit, pid)
}

/// A unit in whose cgroup a daemon of the old driver's runs.
fn start_the_old_drivers_kubelet(node: &Node, store: &Store) {
    create_dir_all(node.path(TARGET)).unwrap();
    let passwd = node.path("/etc/passwd-ossfs");
    write(&passwd, "docker:key:sEcrEt\n").unwrap();
    set_permissions(&passwd, std::fs::Permissions::from_mode(0o600)).unwrap();
    let url = store.url();
    let options = "-opasswd_file=/etc/passwd-ossfs -ouse_path_request_style -oallow_other";
    let text = format!(
        "[Service]\nExecStartPre=mkfifo /run/old.done\nExecStart=/bin/sh -c 's3fs docker {TARGET} \
         -ourl={url} {options} && echo mounted >/run/old.done; exec sleep infinity'\n"
    );
    node.write_unit("kubelet.service", &text).unwrap();
    node.systemctl(&["start", "kubelet"]).unwrap();
    let said = std::fs::read_to_string(node.path("/run/old.done")).unwrap();
    assert_eq!(said, "mounted\n");
}
