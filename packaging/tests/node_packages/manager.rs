//! dpkg and rpm: the packages of dist/ and newer ones, and the commands that a person types.

use crate::process::run;
use anyhow::{Context as _, Result};
use std::path::{Path, PathBuf};
use std::process::Command;
use support::node::Node;

const NAME: &str = "alicloud-oss-flexvolume";
/// Where the packages are in the node.
pub(crate) const PACKAGES: &str = "/packages";

/// A package manager at work on a node.
pub(crate) trait Manager {
    /// The package of dist/, and one of a newer version, made in `directory`.
    fn packages(&self, directory: &Path) -> Result<[PathBuf; 2]>;
    fn install(&self, node: &Node, package: &Path) -> Command;
    fn remove(&self, node: &Node) -> Command;
    /// Takes away what stays after `remove`: the log, and dpkg's configuration files.
    fn purge(&self, node: &Node) -> Command;
}

pub(crate) struct Dpkg;

impl Manager for Dpkg {
    fn packages(&self, directory: &Path) -> Result<[PathBuf; 2]> {
        let package = dist(".deb")?;
        let newer = directory.join("newer.deb");
        let tree = directory.join("tree");
        run(Command::new("dpkg-deb").arg("-R").arg(&package).arg(&tree))?;
        let control = tree.join("DEBIAN/control");
        let text = std::fs::read_to_string(&control)?.replace("Version: ", "Version: 1:");
        std::fs::write(control, text)?;
        // Another driver, which runs all the same.
        let driver = tree.join("usr/libexec/alicloud-oss/oss");
        let bytes = [std::fs::read(&driver)?, b"newer".to_vec()].concat();
        std::fs::write(driver, bytes)?;
        run(Command::new("dpkg-deb").arg("-b").arg(&tree).arg(&newer))?;
        Ok([package, newer])
    }

    fn install(&self, node: &Node, package: &Path) -> Command {
        let mut command = node.command("dpkg");
        let name = package.file_name().unwrap_or_default();
        command.arg("-i").arg(Path::new(PACKAGES).join(name));
        command
    }

    fn remove(&self, node: &Node) -> Command {
        let mut command = node.command("dpkg");
        command.args(["-r", NAME]);
        command
    }

    fn purge(&self, node: &Node) -> Command {
        let mut command = node.command("dpkg");
        command.args(["-P", NAME]);
        command
    }
}

/// The machine's own rpm, with the node as its root: Debian's nodes have none.
pub(crate) struct Rpm;

impl Rpm {
    fn command(node: &Node) -> Command {
        let pid = node.pid1().to_string();
        let mut command = Command::new("nsenter");
        // systemd talks to who is in its pid namespace.
        command
            .args(["--pid", "--no-fork", "--target", &pid, "--", "rpm"])
            .args(["--root", &format!("/proc/{pid}/root")])
            .args(["--dbpath", "/var/lib/rpm", "--nodeps"]);
        command
    }
}

impl Manager for Rpm {
    fn packages(&self, directory: &Path) -> Result<[PathBuf; 2]> {
        let newer = directory.join("newer.rpm");
        run(Command::new("cargo-generate-rpm")
            .current_dir(repository())
            .args(["generate-rpm", "--package", "packaging", "--output"])
            .arg(&newer)
            .args(["--set-metadata", "release = \"2\""])
            .args(["--payload-compress", "gzip"]))?;
        Ok([dist(".rpm")?, newer])
    }

    fn install(&self, node: &Node, package: &Path) -> Command {
        let mut command = Self::command(node);
        command.arg("-U").arg(package);
        command
    }

    fn remove(&self, node: &Node) -> Command {
        let mut command = Self::command(node);
        command.args(["-e", NAME]);
        command
    }

    fn purge(&self, node: &Node) -> Command {
        let mut command = node.command("rm");
        command.args(["-r", "/var/log/alicloud"]);
        command
    }
}

/// The only file of dist/ whose name ends with `ending`.
fn dist(ending: &str) -> Result<PathBuf> {
    let directory = repository().join("dist");
    let entries =
        std::fs::read_dir(&directory).context("read dist/: `make node-packages` fills it")?;
    let found: Vec<PathBuf> = entries
        .flatten()
        .map(|entry| entry.path())
        .filter(|path| name(path).ends_with(ending))
        .collect();
    let [package] = found.as_slice() else {
        anyhow::bail!(
            "{} packages {ending} in dist/, one is expected: see `make node-packages`",
            found.len()
        );
    };
    Ok(package.clone())
}

pub(crate) fn name(path: &Path) -> String {
    path.file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .into_owned()
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}
