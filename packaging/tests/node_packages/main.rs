//! The .deb and the .rpm of dist/ on a node with a real systemd: installed, upgraded, kept while a
//! volume is mounted, removed without a trace.

mod manager;
mod process;

use anyhow::{Context as _, Result, ensure};
use manager::{Dpkg, Manager, PACKAGES, Rpm, name};
use process::{output, run, text};
use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;
use support::node::{self, Config, Node};

const PATIENCE: Duration = Duration::from_secs(60);
const SERVICE: &str = "alicloud-oss-installer.service";
const PLUGINS: &str = "/usr/libexec/kubernetes/kubelet-plugins/volume/exec";
const VOLUME: &str = "/var/lib/kubelet/pods/uid-1/volumes/alicloud~oss/data";

#[test]
#[ignore = "needs root, /dev/fuse, debootstrap and the packages in dist/"]
fn dpkg_installs_upgrades_and_removes() -> Result<()> {
    lives_on_a_node(&Dpkg)
}

#[test]
#[ignore = "needs root, /dev/fuse, debootstrap, rpm, cargo-generate-rpm and the packages in dist/"]
fn rpm_installs_upgrades_and_removes() -> Result<()> {
    lives_on_a_node(&Rpm)
}

#[test]
#[ignore = "needs root, /dev/fuse, debootstrap and the packages in dist/"]
fn a_node_that_never_had_a_kubelet_is_left_as_it_was() -> Result<()> {
    if node::skip() {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let [package, _] = Dpkg.packages(directory.path())?;
    std::fs::copy(&package, directory.path().join(name(&package)))?;
    let node = Node::boot(Config::new().bind_read_only(directory.path(), PACKAGES))?;
    let before = files(&node)?;
    run(&mut Dpkg.install(&node, &package))?;
    // It waits for one.
    node.wait_for_journal(SERVICE, PATIENCE, |line| line.contains("no kubelet runs"))?;
    run(&mut Dpkg.purge(&node))?;
    assert_unchanged(&node, &before)
}

fn lives_on_a_node(manager: &dyn Manager) -> Result<()> {
    if node::skip() {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let [package, newer] = manager.packages(directory.path())?;
    std::fs::copy(&package, directory.path().join(name(&package)))?;
    let node = Node::boot(Config::new().bind_read_only(directory.path(), PACKAGES))?;
    // As kubelet makes it, and every distribution of rpm's.
    std::fs::create_dir_all(node.path(PLUGINS))?;
    std::fs::create_dir_all(node.path("/usr/share/licenses"))?;
    node.run(&["ln", "-s", "/usr/bin/s3fs", "/usr/bin/ossfs"])?;
    // What a container of the DaemonSet has.
    node.write_unit(
        &format!("{SERVICE}.d/memory.conf"),
        "[Service]\nMemoryMax=16M\nMemorySwapMax=0\n",
    )?;
    let before = files(&node)?;

    run(&mut manager.install(&node, &package))?;
    wait_for_driver(&node, 1)?;
    let driver = node.path(PLUGINS).join("alicloud~oss/oss");
    assert_eq!(std::fs::read(&driver)?, shipped(&node)?);
    check_files(&node)?;
    // Its first look at the node is over, a look at ossfs included.
    node.wait_for_journal(SERVICE, PATIENCE, |line| line.contains("note: ossfs 1."))?;

    run(&mut manager.install(&node, &newer))?;
    wait_until_same(&node, &driver)?;

    // A volume whose daemon has died is mounted all the same, and only the driver can unmount it.
    node.run(&["mkdir", "-p", VOLUME])?;
    let options = "fd=3,rootmode=40000,user_id=0,group_id=0";
    let mount =
        format!("exec 3<>/dev/fuse; exec mount -i -t fuse.ossfs -o {options} ossfs {VOLUME}");
    node.run(&["bash", "-c", &mount])?;
    let refused = output(&mut manager.remove(&node))?;
    let said = text(&refused);
    assert!(!refused.status.success(), "{said}");
    assert!(
        said.contains("volume \"data\" of Pod with uid uid-1"),
        "{said}"
    );
    assert!(
        driver.exists(),
        "a volume is mounted, and the driver is gone"
    );
    assert_eq!(node.property(SERVICE, "ActiveState")?, "active");
    assert_eq!(
        node.property(SERVICE, "NRestarts")?,
        "0",
        "16 MiB are enough"
    );

    node.run(&["umount", VOLUME])?;
    node.run(&["rm", "-r", "/var/lib/kubelet"])?;
    run(&mut manager.remove(&node))?;
    assert!(
        !driver.exists(),
        "the package is gone, and the driver is there"
    );
    run(&mut manager.purge(&node))?;
    assert_eq!(node.property(SERVICE, "LoadState")?, "not-found");
    assert_unchanged(&node, &before)
}

fn assert_unchanged(node: &Node, before: &BTreeSet<String>) -> Result<()> {
    let after = files(node)?;
    let difference: Vec<&String> = before.symmetric_difference(&after).collect();
    assert!(difference.is_empty(), "left behind or gone: {difference:?}");
    Ok(())
}

/// What is in the package besides the programs is right.
fn check_files(node: &Node) -> Result<()> {
    let driver = format!("{PLUGINS}/alicloud~oss/oss");
    // The driver takes the configuration as it comes.
    node.run(&[&driver, "heal"])?;
    let units = "/usr/lib/systemd/system";
    let found = node
        .command("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(format!("{units}/alicloud-oss@.service"))
        .arg(format!("{units}/{SERVICE}"))
        .args(["alicloud", "alicloud-oss"].map(|name| format!("{units}/{name}.slice")))
        .output()?;
    ensure!(
        found.status.success() && !text(&found).contains("alicloud"),
        "systemd-analyze: {}",
        text(&found)
    );
    // It starts with the node.
    let wants = node.property("multi-user.target", "Wants")?;
    ensure!(wants.contains(SERVICE), "multi-user.target wants {wants}");
    Ok(())
}

fn wait_for_driver(node: &Node, times: usize) -> Result<()> {
    let mut seen = 0;
    node.wait_for_journal(SERVICE, PATIENCE, |line| {
        seen += usize::from(line.contains("installed ") && line.contains("alicloud~oss/oss"));
        seen == times
    })?;
    Ok(())
}

/// Waits until the installer has put the driver of the package into its place, unless it is there.
fn wait_until_same(node: &Node, driver: &Path) -> Result<()> {
    if std::fs::read(driver)? != shipped(node)? {
        wait_for_driver(node, 2)?;
    }
    assert_eq!(std::fs::read(driver)?, shipped(node)?);
    Ok(())
}

/// The driver in the package that is installed.
fn shipped(node: &Node) -> Result<Vec<u8>> {
    std::fs::read(node.path("/usr/libexec/alicloud-oss/oss")).context("the package's driver")
}

/// The names of all files that a package could leave behind.
fn files(node: &Node) -> Result<BTreeSet<String>> {
    let found = node.run(&["find", "/etc", "/opt", "/usr", "/var", "-xdev"])?;
    // What the package managers know, the journal, and what systemd's own services write.
    let moving = [
        "/var/lib/dpkg",
        "/var/lib/rpm",
        "/var/log/journal",
        "/var/log/dpkg.log",
        "/var/lib/systemd",
        "/var/tmp",
    ];
    Ok(found
        .lines()
        .filter(|name| !moving.iter().any(|start| name.starts_with(start)))
        .map(str::to_owned)
        .collect())
}
