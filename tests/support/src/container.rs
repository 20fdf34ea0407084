//! A container as far as mounts go: a real process in a mount namespace of its own, with a volume
//! bound into it as a runtime does it.

use crate::mount_table::Mount;
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

/// What else a container differs in.
#[derive(Clone, Copy, Debug, Default)]
pub struct ContainerOptions {
    pub read_only: bool,
    /// Who it runs as; root by default.
    pub user: Option<u32>,
}

/// A running container; it ends when dropped.
pub struct Container {
    process: Child,
    /// Its process in /proc.
    proc: PathBuf,
    mount_path: PathBuf,
}

impl Container {
    /// Starts a container in which `source` (a target, or a sub-path of one) shows at `mount_path`,
    /// a directory that exists.
    ///
    /// # Panics
    /// If it does not start.
    #[track_caller]
    pub fn start(
        source: &Path,
        mount_path: &Path,
        propagation: Propagation,
        read_only: bool,
    ) -> Self {
        let options = ContainerOptions {
            read_only,
            user: None,
        };
        let unshare = Command::new("unshare");
        Self::start_on(
            unshare,
            "/proc".into(),
            source,
            mount_path,
            propagation,
            options,
        )
    }

    /// Starts a container by `unshare`, the program unshare(1) where the container is to be, of
    /// which this process sees `proc` as its /proc.
    ///
    /// # Panics
    /// If it does not start.
    #[track_caller]
    pub fn start_on(
        mut unshare: Command,
        proc: PathBuf,
        source: &Path,
        mount_path: &Path,
        propagation: Propagation,
        options: ContainerOptions,
    ) -> Self {
        let propagation = match propagation {
            Propagation::Private => "private",
            Propagation::Slave => "slave",
        };
        let read_only = match options.read_only {
            true => "mount -o remount,bind,ro \"$2\" &&",
            false => "",
        };
        let user = options.user.map_or(String::new(), |user| {
            format!("setpriv --reuid={user} --regid={user} --clear-groups")
        });
        let mut process = unshare
            .args(["--mount", "--propagation", propagation, "sh", "-c"])
            .arg(format!(
                "mount --bind \"$1\" \"$2\" && {read_only} echo $$ && exec {user} cat"
            ))
            .arg("container")
            .arg(source)
            .arg(mount_path)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("start a container");
        let mut pid = String::new();
        let output = process.stdout.take().expect("its output");
        BufReader::new(output)
            .read_line(&mut pid)
            .expect("its first line");
        assert!(pid.ends_with('\n'), "the container has not started");
        Self {
            process,
            proc: proc.join(pid.trim()),
            mount_path: mount_path.to_owned(),
        }
    }

    /// A path of the volume as the container sees it.
    pub fn path(&self, name: &str) -> PathBuf {
        let inside = self.mount_path.join(name);
        let inside = inside.strip_prefix("/").expect("an absolute path");
        self.proc.join("root").join(inside)
    }

    /// Its process.
    pub fn pid(&self) -> u32 {
        self.process.id()
    }

    /// Its mounts of the volume, the oldest first.
    pub fn mounts(&self) -> Vec<Mount> {
        let mut mounts = Mount::table(self.proc.join("mountinfo"));
        mounts.retain(|mount| mount.is_at(&self.mount_path));
        mounts
    }
}

impl Drop for Container {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}
