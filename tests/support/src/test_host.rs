//! A host in a temporary directory, for the installer's tests: drivers to install and a kubelet that
//! watches.

#![allow(clippy::unwrap_used, reason = "a test ends where it fails")]

use crate::mount_table::{Mount, OWN_TABLE};
use crate::process::{Process, Stream};
use crate::programs::{copy_program, example, installer};

use nix::mount::{MntFlags, umount2};
use serde_json::json;
use std::fs::{Permissions, create_dir_all, hard_link, read, set_permissions, write};
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use tempfile::TempDir;

/// The driver's path below kubelet's plugin directory.
pub const DRIVER: &str = "alicloud~oss/oss";

/// A host with a plugin directory, and what the installer is told about it.
pub struct TestHost {
    directory: TempDir,
    pub plugins: PathBuf,
    pub state: PathBuf,
}

impl TestHost {
    #[allow(
        clippy::new_without_default,
        reason = "a directory is made, which is no default"
    )]
    pub fn new() -> Self {
        let directory = tempfile::Builder::new()
            .prefix("oss-installer-test-")
            .tempdir()
            .expect("a directory");
        let host = Self {
            plugins: directory.path().join("host/plugins"),
            state: directory.path().join("host/run/alicloud-oss"),
            directory,
        };
        create_dir_all(&host.plugins).unwrap();
        create_dir_all(&host.state).unwrap();
        create_dir_all(host.path("proc")).unwrap();
        set_permissions(&host.plugins, Permissions::from_mode(0o755)).unwrap();
        host.show_process("1", std::process::id());
        host
    }

    pub fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub fn host(&self, path: &str) -> PathBuf {
        self.path("host").join(path.trim_start_matches('/'))
    }

    /// The driver's path.
    pub fn driver(&self) -> PathBuf {
        self.plugins.join(DRIVER)
    }

    /// Makes a driver of `build` that answers init with `answer`, and returns its path.
    pub fn make_driver(&self, build: &str, answer: &str) -> PathBuf {
        let mut program = read(example("driver-stand-in")).unwrap();
        let own = json!({"build": build, "answer": answer, "state": self.state});
        program.extend(format!("\nSTAND-IN {own}").bytes());
        let (parts, path) = (self.path("parts"), self.path(&format!("image-{build}")));
        write(&parts, program).unwrap();
        copy_program(&parts, &path);
        path
    }

    /// Shows the process `pid` of this machine in the host's /proc as `name`.
    pub fn show_process(&self, name: &str, pid: u32) {
        let link = self.path("proc").join(name);
        let _ = std::fs::remove_file(&link);
        symlink(format!("/proc/{pid}"), link).unwrap();
    }

    /// The installer, told of the plugin directory and the state directory, for `driver`.
    pub fn minimal(&self, subcommand: &str, driver: &Path) -> Command {
        let mut command = installer(subcommand);
        command
            .arg("--driver")
            .arg(driver)
            .arg("--plugin-dir")
            .arg(&self.plugins)
            .arg("--state-dir")
            .arg(&self.state);
        command
    }

    /// The installer, told of the host's root and /proc.
    pub fn full(&self, subcommand: &str, driver: &Path) -> Command {
        let mut command = installer(subcommand);
        command
            .arg("--driver")
            .arg(driver)
            .arg("--host-root")
            .arg(self.path("host"))
            .arg("--proc")
            .arg(self.path("proc"));
        command
    }

    /// Starts the stand-in for kubelet, with `args`, and shows it in the host's /proc.
    pub fn start_kubelet(&self, args: &[&str]) -> Process {
        let program = self.path("bin/kubelet");
        create_dir_all(program.parent().unwrap()).unwrap();
        if !program.exists() && hard_link(example("kubelet-stand-in"), &program).is_err() {
            copy_program(&example("kubelet-stand-in"), &program);
        }
        let mut command = Command::new(program);
        command.args(args).arg("--watch").arg(&self.plugins);
        let kubelet = Process::start(command.stderr(Stdio::inherit()), Stream::Stdout);
        kubelet.wait_for("watching");
        self.show_process(&kubelet.id().to_string(), kubelet.id());
        kubelet
    }

    /// What `kubelet` did until now, once all that happened before this call has reached it.
    pub fn seen_by(&self, kubelet: &Process) -> Vec<String> {
        kubelet.seen_in(&self.plugins)
    }

    /// The names in the plugin directory and in the driver's.
    pub fn names(&self) -> Vec<String> {
        let mut names = Vec::new();
        for directory in [self.plugins.clone(), self.plugins.join("alicloud~oss")] {
            for entry in std::fs::read_dir(directory).into_iter().flatten() {
                names.push(entry.unwrap().file_name().into_string().unwrap());
            }
        }
        names.sort();
        names
    }
}

impl Drop for TestHost {
    /// Unmounts what the test has mounted in the node, so that its directory can be removed.
    fn drop(&mut self) {
        for mount in Mount::table(OWN_TABLE).iter().rev() {
            if Path::new(&mount.point).starts_with(self.directory.path()) {
                // With one above it, it may be gone already.
                let _ = umount2(mount.point.as_str(), MntFlags::MNT_DETACH);
            }
        }
    }
}
