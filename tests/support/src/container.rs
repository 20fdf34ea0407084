//! A container as far as mounts go: a real process in a mount namespace of its own, with a volume
//! bound into it as a runtime does it.

use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

/// What the container's mount of the volume is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Propagation {
    /// The default of Kubernetes: nothing that is mounted later shows.
    Private,
    /// `mountPropagation: HostToContainer`.
    Slave,
}

/// A running container; it ends when dropped.
pub struct Container {
    process: Child,
    mount_path: PathBuf,
}

impl Container {
    /// Starts a container in which `source` (a target, or a sub-path of one) shows at `mount_path`,
    /// a directory that exists.
    ///
    /// # Panics
    /// If it does not start.
    pub fn start(
        source: &Path,
        mount_path: &Path,
        propagation: Propagation,
        read_only: bool,
    ) -> Self {
        let kind = match propagation {
            Propagation::Private => "private",
            Propagation::Slave => "slave",
        };
        let read_only = if read_only {
            "mount -o remount,bind,ro \"$2\" &&"
        } else {
            ""
        };
        let mut process = Command::new("unshare")
            .args(["--mount", "--propagation", kind, "sh", "-c"])
            .arg(format!(
                "mount --bind \"$1\" \"$2\" && {read_only} echo ready && exec cat"
            ))
            .arg("container")
            .arg(source)
            .arg(mount_path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start a container");
        let mut line = String::new();
        let output = process.stdout.take().expect("its output");
        BufReader::new(output)
            .read_line(&mut line)
            .expect("its first line");
        assert_eq!(line, "ready\n", "the container has not started");
        Self {
            process,
            mount_path: mount_path.to_owned(),
        }
    }

    /// A path of the volume as the container sees it.
    pub fn path(&self, name: &str) -> PathBuf {
        let inside = self.mount_path.join(name);
        let inside = inside.strip_prefix("/").expect("an absolute path");
        Path::new(&format!("/proc/{}/root", self.process.id())).join(inside)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// The lines of the container's mount table about its volume.
    pub fn mounts(&self) -> Vec<String> {
        let table = std::fs::read_to_string(format!("/proc/{}/mountinfo", self.process.id()))
            .expect("read mountinfo");
        let at = format!(" {} ", self.mount_path.display());
        table
            .lines()
            .filter(|line| line.contains(&at))
            .map(str::to_owned)
            .collect()
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
