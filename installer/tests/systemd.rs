//! The installer beside a node with a real systemd, reached as from a Pod with hostPID: through the
//! root of the node's first process.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::fs::{create_dir_all, read_to_string, write};
use support::{
    Process, Stream, TestHost as Host, beside,
    node::{self, Config, Node},
};

#[test]
#[ignore = "needs root, /dev/fuse and debootstrap"]
fn a_node_is_reached_through_its_first_process() {
    if node::skip() {
        return;
    }
    let node = Node::boot(Config::new()).unwrap();
    create_dir_all(node.path("/etc/kubernetes/volumeplugins")).unwrap();
    create_dir_all(node.path("/etc/alicloud-oss")).unwrap();
    write(
        node.path("/etc/alicloud-oss/config.json"),
        "{\"ossfs\":\"s3fs\"}",
    )
    .unwrap();
    write(node.path("/etc/updatedb.conf"), "PRUNEFS=\"proc\"\n").unwrap();

    // The image's side: a driver, a unit, and the node's /proc.
    let image = Host::new();
    let unit = image.path("installer-test@.service");
    write(&unit, "[Service]\nExecStart=/bin/true %i\n").unwrap();
    image.make_driver("a", "");
    let command = |subcommand: &str| {
        let mut command = beside(&node, &image, subcommand, &image.path("image-a"));
        command.arg("--unit").arg(&unit);
        command
    };
    let mut run = Process::start(&mut command("run"), Stream::Stderr);
    let lines = run.read_until("note: s3fs 1.").join("\n");
    let (ended_well, _) = run.terminate();
    assert!(ended_well);
    assert!(
        lines.contains("of the well-known directories only this one exists (AKS)"),
        "{lines}"
    );
    assert!(
        lines.contains("installed /etc/systemd/system/installer-test@.service"),
        "{lines}"
    );
    assert!(
        !lines.contains("WARN") && !lines.contains("ERROR"),
        "{lines}"
    );
    assert!(
        node.path("/etc/kubernetes/volumeplugins/alicloud~oss/oss")
            .exists()
    );
    // systemd knows it: it was told to read its units again.
    let state = node
        .property("installer-test@x.service", "LoadState")
        .unwrap();
    assert_eq!(state.trim(), "loaded");
    let updatedb = read_to_string(node.path("/etc/updatedb.conf")).unwrap();
    assert!(
        updatedb.contains("PRUNEFS=\"proc fuse.ossfs fuse.s3fs\""),
        "{updatedb}"
    );

    let (removed, text) = support::finish(&mut command("uninstall"));
    assert!(removed, "{text}");
    assert!(
        !node
            .path("/etc/kubernetes/volumeplugins/alicloud~oss")
            .exists()
    );
    assert!(
        !node
            .path("/etc/systemd/system/installer-test@.service")
            .exists()
    );
    let updatedb = read_to_string(node.path("/etc/updatedb.conf")).unwrap();
    assert_eq!(updatedb, "PRUNEFS=\"proc\"\n");
}
