//! What the installer does on the host itself, on a real Debian root: it asks ossfs for its version,
//! installs a package with dpkg, and knows what to do where there is none.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use std::fs::{Permissions, create_dir_all, read_to_string, set_permissions, write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::{
    Process, Stream, TestHost, finish,
    namespace::{overlay, with_own_mounts},
    node,
};

/// Runs `test` on a host with Debian as its root, over which it may write.
fn on_debian(test: impl FnOnce(&TestHost) + Send) {
    if node::skip() {
        return;
    }
    let image = node::image().unwrap();
    with_own_mounts(|| {
        let node = TestHost::new();
        let memory = node.path("memory");
        create_dir_all(&memory).unwrap();
        overlay(&image, &node.path("host"), &memory).unwrap();
        create_dir_all(&node.plugins).unwrap();
        create_dir_all(&node.state).unwrap();
        test(&node);
    });
}

/// A directory with a package `name` of ossfs, which is s3fs under another name.
fn package(node: &TestHost, name: &str, depends: &str) -> PathBuf {
    let tree = node.path(&format!("tree-{name}"));
    create_dir_all(tree.join("DEBIAN")).unwrap();
    create_dir_all(tree.join("usr/bin")).unwrap();
    std::os::unix::fs::symlink("s3fs", tree.join("usr/bin/ossfs")).unwrap();
    let control = format!(
        "Package: ossfs\nVersion: 1.80\nArchitecture: amd64\nDepends: {depends}\nMaintainer: t <t@example.com>\nDescription: test\n"
    );
    write(tree.join("DEBIAN/control"), control).unwrap();
    let directory = node.path(&format!("packages-{name}"));
    create_dir_all(&directory).unwrap();
    let built = Command::new("dpkg-deb")
        .arg("--build")
        .arg(&tree)
        .arg(directory.join(name))
        .stdout(Stdio::null())
        .status()
        .unwrap();
    assert!(built.success());
    directory
}

/// What the installer says until it has looked at the whole host once.
fn said_by_run(node: &TestHost, packages: &Path) -> String {
    let driver = node.make_driver("a", "");
    let mut command = node.full("run", &driver);
    command
        .args(["--plugin-dir", "/plugins"])
        .arg("--ossfs-packages")
        .arg(packages);
    Process::start(&mut command, Stream::Stderr).end_at("/dev/fuse ")
}

#[test]
#[ignore = "needs root"]
fn an_ossfs_that_cannot_be_started_is_told_from_a_missing_one() {
    let node = TestHost::new();
    let driver = node.make_driver("a", "");
    let mut check = node.full("check", &driver);
    check.args(["--plugin-dir", "/plugins"]);
    create_dir_all(node.host("usr/bin")).unwrap();
    let ossfs = node.host("usr/bin/ossfs");
    for (program, expected) in [
        (
            None,
            "\"ossfs\" is not installed on the host: install the package ossfs",
        ),
        (
            Some("#!/no/such/interpreter\n"),
            "\"ossfs\" does not run on the host (exit status 126: ossfs: the file exists, but the \
             dynamic loader or interpreter that it names does not: use a build for this system)",
        ),
        (
            // execvp(3) would give it to a shell.
            Some("exit 0\n"),
            "\"ossfs\" does not run on the host (exit status 126: ossfs: it is not a program for ",
        ),
    ] {
        if let Some(text) = program {
            write(&ossfs, text).unwrap();
            set_permissions(&ossfs, Permissions::from_mode(0o755)).unwrap();
        }
        let (ready, text) = finish(&mut check);
        let expected = format!("blocks mounting: {expected}");
        assert!(!ready && text.contains(&expected), "{text}");
    }
}

/// The name of the node's distribution in those of packages of ossfs.
fn system(node: &TestHost) -> String {
    let os = read_to_string(node.host("etc/os-release")).unwrap();
    let number = os
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_ID="))
        .unwrap();
    format!("debian{}", number.trim_matches('"'))
}

#[test]
#[ignore = "needs root and debootstrap"]
fn ossfs_comes_from_a_package_where_it_is_missing() {
    on_debian(|node| {
        let system = system(node);
        let name = format!("ossfs_1.80_{system}_amd64.deb");
        let (_, text) = finish(
            node.full("check", &node.make_driver("a", ""))
                .args(["--plugin-dir", "/plugins"]),
        );
        assert!(
            text.contains("blocks mounting: \"ossfs\" is not installed on the host"),
            "{text}"
        );

        let other = package(node, "ossfs_1.80_ubuntu22.04_amd64.deb", "s3fs");
        let said = said_by_run(node, &other);
        assert!(said.contains(&format!("the only package in {} is not for this host: wanted is ossfs_VERSION_{system}_amd64.deb", other.display())), "{said}");

        // In a container that does nothing else, whose failure does not keep the others from starting.
        let mut once = node.full("install-ossfs", &node.path("image-a"));
        once.args(["--plugin-dir", "/plugins"]);
        let (ended_well, text) = finish(once.arg("--ossfs-packages").arg(&other));
        assert!(
            ended_well && text.contains("WARN  warning: ossfs: the only package in "),
            "{text}"
        );

        let packages = package(node, &name, "s3fs");
        let said = said_by_run(node, &packages);
        assert!(
            said.contains(&format!("installed {name} on the host")),
            "{said}"
        );
        assert!(said.contains("note: ossfs 1."), "{said}");
        assert!(node.host("usr/bin/ossfs").exists());
        assert!(!node.state.join("ossfs-package.deb").exists());

        // What is there is new enough: nothing is installed again.
        let said = said_by_run(node, &packages);
        assert!(!said.contains("installed ossfs"), "{said}");
    });
}

#[test]
#[ignore = "needs root and debootstrap"]
fn a_package_whose_dependencies_are_missing_leaves_nothing() {
    on_debian(|node| {
        let name = format!("ossfs_1.80_{}_amd64.deb", system(node));
        let packages = package(node, &name, "no-such-package, no-such-other");
        let said = said_by_run(node, &packages);
        assert!(
            said.contains(&format!(
                "warning: ossfs: install {name}: dpkg: it needs no-such-package, no-such-other, which are missing: install that first"
            )),
            "{said}"
        );
        assert!(!node.host("usr/bin/ossfs").exists());
    });
}

#[test]
#[ignore = "needs root and debootstrap"]
fn what_ossfs_needs_comes_from_the_repositories_where_that_is_wanted() {
    on_debian(|node| {
        let name = format!("ossfs_1.80_{}_amd64.deb", system(node));
        let packages = package(node, &name, "s3fs, needed");
        // A repository with what it needs, of which apt has no list yet.
        let tree = node.path("tree-needed");
        create_dir_all(tree.join("DEBIAN")).unwrap();
        let control = "Package: needed\nVersion: 1\nArchitecture: all\nMaintainer: t <t@example.com>\nDescription: test\n";
        write(tree.join("DEBIAN/control"), control).unwrap();
        let repository = node.host("repository");
        create_dir_all(&repository).unwrap();
        let built = Command::new("dpkg-deb")
            .arg("--build")
            .arg(&tree)
            .arg(repository.join("needed.deb"))
            .stdout(Stdio::null())
            .status();
        assert!(built.unwrap().success());
        let sum = Command::new("sha256sum")
            .arg(repository.join("needed.deb"))
            .output()
            .unwrap();
        let sum = String::from_utf8(sum.stdout).unwrap();
        let size = repository.join("needed.deb").metadata().unwrap().len();
        let index = format!(
            "{control}Filename: ./needed.deb\nSize: {size}\nSHA256: {}\n",
            sum.split_whitespace().next().unwrap()
        );
        write(repository.join("Packages"), index).unwrap();
        let _ = std::fs::remove_dir_all(node.host("etc/apt/sources.list.d"));
        write(
            node.host("etc/apt/sources.list"),
            "deb [trusted=yes] file:/repository ./\n",
        )
        .unwrap();
        let mut once = node.full("install-ossfs", &node.make_driver("a", ""));
        once.args(["--plugin-dir", "/plugins", "--ossfs-packages"])
            .arg(&packages)
            .arg("--ossfs-dependencies=repositories");
        let (ended_well, text) = finish(&mut once);
        assert!(
            ended_well && text.contains(&format!("installed {name} on the host")),
            "{text}"
        );
        assert!(node.host("var/lib/dpkg/info/needed.list").exists());
        assert!(node.host("usr/bin/ossfs").exists());
    });
}
