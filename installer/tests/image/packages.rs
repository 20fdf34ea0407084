//! ossfs from packages: the one for the host is chosen, installed by the host's own package manager,
//! and daemons that run keep their program.

use crate::dist::Image;
use crate::host::{self, Host};
use crate::kubelet::Kubelet;
use crate::manifest::PodSpec;
use crate::pod::Pod;
use crate::volume::Volume;
use std::fs::{copy, create_dir_all, write};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use support::node;

const PLUGINS: &str = "/usr/libexec/kubernetes/kubelet-plugins/volume/exec";
const PACKAGES: &str = "/srv/ossfs-packages";
/// As Alibaba Cloud Linux 3 has it, which is like CentOS 8.
const ALINUX: &str = "NAME=\"Alibaba Cloud Linux\"\nVERSION=\"3 (Soaring Falcon)\"\nID=\"alinux\"\n\
    ID_LIKE=\"rhel fedora centos anolis\"\nVERSION_ID=\"3\"\nPLATFORM_ID=\"platform:al8\"\n";
/// About as large as the packages are that are published, in bytes.
const SIZE: usize = 8 << 20;

/// Builds a package of `version` from the tree at `tree` as the file.
type Build = fn(version: &str, tree: &Path, package: &Path);

#[test]
#[ignore = "needs root, /dev/fuse, debootstrap and runc"]
fn dpkg_installs_ossfs_where_it_is_missing_or_older() {
    if host::skip() {
        return;
    }
    let host = Host::bare();
    packages_are_installed(&host, "debian12_amd64.deb", deb);
}

#[test]
#[ignore = "needs root, /dev/fuse, debootstrap, runc and rpm"]
fn rpm_installs_ossfs_where_it_is_missing_or_older() {
    if host::skip() {
        return;
    }
    if !Path::new("/usr/bin/rpmbuild").exists() {
        return node::skip_because("apt-get install rpm");
    }
    let host = Host::bare();
    become_alinux(&host);
    packages_are_installed(&host, "centos8.0_x86_64.rpm", rpm);
    let known = host.run(&["rpm", "--query", "ossfs"]);
    assert_eq!(known, "ossfs-1.91-1.x86_64\n");
}

fn packages_are_installed(host: &Host, suffix: &str, build: Build) {
    host.write(
        "/etc/alicloud-oss/config.json",
        "{\"mountTimeoutSeconds\": 60}\n",
    );
    let _kubelet = Kubelet::start(host, PLUGINS);
    let other = format!("{PACKAGES}/ossfs_1.91_ubuntu18.04_amd64.deb");
    host.write(&other, "for another host");
    let spec = PodSpec::of_overlay("full")
        .host_path(PACKAGES)
        .env("OSS_INSTALLER_OSSFS_PACKAGES", PACKAGES)
        .env("OSS_INSTALLER_PERIOD", "1");
    let pod = Pod::start(host, &spec, &Image::release());
    let log = pod.read_until("the only package in ").join("\n");
    assert!(
        log.contains(&format!(
            "is not for this host: wanted is ossfs_VERSION_{suffix}"
        )),
        "{log}"
    );
    pod.read_until("\"ossfs\" is not installed on the host");

    // Missing, then older than the package.
    let package = |version: &str| {
        let name = format!("ossfs_{version}_{suffix}");
        let directory = tempfile::tempdir().unwrap();
        let (tree, file) = (
            tree(directory.path(), version),
            directory.path().join("package"),
        );
        build(version, &tree, &file);
        // At once, as a ConfigMap or a download has to come, too.
        let part = host.path(format!("{PACKAGES}/.part"));
        copy(file, &part).unwrap();
        std::fs::rename(part, host.path(format!("{PACKAGES}/{name}"))).unwrap();
        pod.read_until(&format!("installed {name} on the host"));
    };
    package("1.80");
    pod.read_until("note: ossfs 1.80 is installed");
    pod.wait_ready();
    let volume = Volume::mount(host, PLUGINS, "uid-1");
    let ossfs = volume.ossfs();
    let program = || std::fs::read_link(host.path(format!("/proc/{ossfs}/exe"))).unwrap();
    assert_eq!(program(), Path::new("/usr/bin/ossfs"));
    package("1.91");
    let log = pod.read_until("note: ossfs 1.91 is installed").join("\n");
    assert!(!log.contains("installed ossfs_"), "{log}");
    assert_eq!(program(), Path::new("/usr/bin/ossfs (deleted)"));
    assert_eq!(volume.ossfs(), ossfs);
    assert_eq!(std::fs::read(volume.file()).unwrap(), b"content");
    pod.assert_within_memory(&spec);
    let (status, log) = pod.terminate();
    assert_eq!(
        (status, log.len()),
        (Some(0), 1),
        "nothing more is installed: {log:#?}"
    );
    volume.unmount();
}

/// What a package of `version` installs: s3fs that calls itself by that version, and as much more
/// as a real one has.
fn tree(directory: &Path, version: &str) -> PathBuf {
    let tree = directory.join("tree");
    create_dir_all(tree.join("usr/bin")).unwrap();
    create_dir_all(tree.join("usr/share/ossfs")).unwrap();
    let mut program = std::fs::read("/usr/bin/s3fs").unwrap();
    let own = b"\x001.90\x00";
    let at = program.windows(own.len()).position(|bytes| bytes == own);
    let at = at.expect("the version of s3fs 1.90") + 1;
    program[at..at + version.len()].copy_from_slice(version.as_bytes());
    let file = tree.join("usr/bin/ossfs");
    write(&file, program).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o755)).unwrap();
    let mut random = std::fs::File::open("/dev/urandom").unwrap();
    let mut filling = vec![0; SIZE];
    std::io::Read::read_exact(&mut random, &mut filling).unwrap();
    write(tree.join("usr/share/ossfs/filling"), filling).unwrap();
    tree
}

fn deb(version: &str, tree: &Path, package: &Path) {
    create_dir_all(tree.join("DEBIAN")).unwrap();
    let control = format!(
        "Package: ossfs\nVersion: {version}\nArchitecture: amd64\nMaintainer: t <t@example.com>\n\
         Description: test\n"
    );
    write(tree.join("DEBIAN/control"), control).unwrap();
    succeed(
        Command::new("dpkg-deb")
            .args(["--root-owner-group", "--build"])
            .arg(tree)
            .arg(package),
    );
}

fn rpm(version: &str, tree: &Path, package: &Path) {
    let top = package.with_file_name("rpmbuild");
    create_dir_all(&top).unwrap();
    let spec = format!(
        "Name: ossfs\nVersion: {version}\nRelease: 1\nSummary: test\nLicense: GPL\nAutoReqProv: no\n\
         %description\ntest\n%install\ncp -a {}/. %{{buildroot}}\n\
         %files\n%attr(0755, root, root) /usr/bin/ossfs\n/usr/share/ossfs\n",
        tree.display()
    );
    write(top.join("ossfs.spec"), spec).unwrap();
    let build = &mut Command::new("rpmbuild");
    build
        .arg("-bb")
        .arg("--define")
        .arg(format!("_topdir {}", top.display()));
    // No change of the files, and a file name that is known.
    for define in [
        "debug_package %{nil}",
        "__os_install_post %{nil}",
        "_rpmfilename built.rpm",
    ] {
        build.args(["--define", define]);
    }
    succeed(build.arg(top.join("ossfs.spec")));
    std::fs::rename(top.join("RPMS/built.rpm"), package).unwrap();
}

fn succeed(command: &mut Command) {
    let output = command.output().unwrap();
    assert!(
        output.status.success(),
        "{command:?}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Makes the host one that has rpm with a database, and no dpkg.
fn become_alinux(host: &Host) {
    std::fs::remove_file(host.path("/etc/os-release")).unwrap();
    host.write("/etc/os-release", ALINUX);
    std::fs::remove_file(host.path("/usr/bin/dpkg")).unwrap();
    for name in ["rpm", "rpmdb"] {
        let program = Path::new("/usr/bin").join(name);
        copy(&program, host.path(&program)).unwrap();
    }
    let output = Command::new("ldd").arg("/usr/bin/rpm").output().unwrap();
    for field in String::from_utf8(output.stdout).unwrap().split_whitespace() {
        if field.starts_with('/') && !host.path(field).exists() {
            copy(field, host.path(field)).unwrap();
        }
    }
    for name in ["macros", "rpmrc", "rpmpopt-4.18.0"] {
        let file = Path::new("/usr/lib/rpm").join(name);
        host.write(
            file.to_str().unwrap(),
            std::fs::read(&file).unwrap_or_default(),
        );
    }
    host.write("/etc/rpm/macros", "%_dbpath /var/lib/rpm\n");
    create_dir_all(host.path("/var/lib/rpm")).unwrap();
    host.run(&["rpm", "--initdb"]);
}
