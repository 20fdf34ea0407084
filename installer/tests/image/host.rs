//! The hosts that Pods run on: a node with a real systemd, and a bare one. Both have runc.

use crate::bare::Bare;
use std::collections::BTreeMap;
use std::fs::{create_dir_all, read, read_link, symlink_metadata, write};
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use support::{PATIENCE, node};

/// What the tests need besides what `node` asks for: a program, and Debian's package of it.
const NEEDED: [(&str, &str); 3] = [
    ("/usr/sbin/runc", "runc"),
    ("/usr/bin/busybox", "busybox-static"),
    (crate::seccomp::PROFILE, "golang-github-containers-common"),
];

/// A running host; all of it ends when it is dropped.
pub struct Host {
    pub pid1: u32,
    systemd: Option<node::Node>,
    _bare: Option<Bare>,
}

/// Whether a test must return because this machine lacks something, which is said.
pub fn skip() -> bool {
    let missing: Vec<_> = NEEDED
        .iter()
        .filter(|(file, _)| !Path::new(file).exists())
        .map(|(_, package)| *package)
        .collect();
    if !missing.is_empty() {
        node::skip_because(&format!("apt-get install {}", missing.join(" ")));
    }
    !missing.is_empty() || node::skip()
}

impl Host {
    /// A Debian root with nothing but a small init.
    pub fn bare() -> Self {
        sweep();
        let bare = Bare::boot();
        Self {
            pid1: bare.pid1(),
            systemd: None,
            _bare: Some(bare),
        }
    }

    /// A node with a booted systemd.
    pub fn systemd() -> Self {
        sweep();
        let config = node::Config::new().bind_read_only("/usr/sbin/runc", "/usr/sbin/runc");
        let node = node::Node::boot(config).unwrap();
        // systemd-nspawn hands the hierarchies of cgroup version 1 down read-only.
        let mounts = node.run(&["cat", "/proc/self/mounts"]).unwrap();
        for line in mounts.lines().filter(|line| line.starts_with("cgroup ")) {
            let point = line.split(' ').nth(1).unwrap();
            node.run(&["mount", "-o", "remount,bind,rw", point])
                .unwrap();
        }
        Self {
            pid1: node.pid1(),
            systemd: Some(node),
            _bare: None,
        }
    }

    /// The node's systemd.
    pub fn node(&self) -> &node::Node {
        self.systemd.as_ref().expect("a node with systemd")
    }

    /// Where the host's `path` is seen by this process.
    pub fn path(&self, path: impl AsRef<Path>) -> PathBuf {
        let path = path.as_ref();
        Path::new("/proc")
            .join(self.pid1.to_string())
            .join("root")
            .join(path.strip_prefix("/").unwrap())
    }

    /// A program of the host, as root; it ends with this thread.
    pub fn command(&self, program: &str) -> Command {
        let mut command = node::command_in(self.pid1, program);
        command.stdin(Stdio::null());
        command
    }

    /// What the program with these arguments prints, if it succeeds.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> String {
        let output = self.command(args[0]).args(&args[1..]).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{args:?}: {}: {text}{errors}",
            output.status
        );
        text
    }

    /// Writes a file of the host, its directory included.
    pub fn write(&self, path: &str, content: impl AsRef<[u8]>) {
        let file = self.path(path);
        create_dir_all(file.parent().unwrap()).unwrap();
        write(file, content).unwrap();
    }

    /// What there is below `directories`: of a file its content, of a link its target.
    pub fn files(&self, directories: &[&str]) -> BTreeMap<PathBuf, (u32, Vec<u8>)> {
        let mut found = BTreeMap::new();
        let mut left: Vec<PathBuf> = directories.iter().map(|path| self.path(path)).collect();
        while let Some(path) = left.pop() {
            let Ok(meta) = symlink_metadata(&path) else {
                continue;
            };
            let content = match meta.file_type() {
                kind if kind.is_dir() => {
                    left.extend(path.read_dir().unwrap().map(|entry| entry.unwrap().path()));
                    Vec::new()
                }
                kind if kind.is_symlink() => read_link(&path)
                    .unwrap()
                    .into_os_string()
                    .into_encoded_bytes(),
                kind if kind.is_file() => read(&path).unwrap(),
                _ => Vec::new(),
            };
            found.insert(path, (meta.permissions().mode(), content));
        }
        found
    }

    /// Waits until `done` holds: for what another process does without telling.
    #[track_caller]
    pub fn wait_until(&self, what: &str, mut done: impl FnMut() -> bool) {
        let begun = std::time::Instant::now();
        while !done() {
            assert!(
                begun.elapsed() < PATIENCE,
                "{what}: not within {PATIENCE:?}"
            );
            std::thread::yield_now();
        }
    }
}

/// Removes the control groups that Pods of killed test processes have left.
fn sweep() {
    for hierarchy in Path::new("/sys/fs/cgroup").read_dir().unwrap().flatten() {
        for group in hierarchy.path().read_dir().into_iter().flatten().flatten() {
            let name = group.file_name().into_string().unwrap_or_default();
            let owner = name
                .strip_prefix(crate::pod::PREFIX)
                .and_then(|rest| rest.split_once('-'));
            if owner.is_some_and(|(pid, _)| !Path::new("/proc").join(pid).exists()) {
                // Another process may be sweeping, too.
                let _ = std::fs::remove_dir(group.path());
            }
        }
    }
}
