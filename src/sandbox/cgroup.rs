//! A control group for one volume's ossfs, on nodes where no service manager makes one: its memory is
//! bounded, and what it takes beyond that ends it alone (cgroups(7), the kernel's
//! `admin-guide/cgroup-v1/memory.rst` and `admin-guide/cgroup-v2.rst`).

use crate::mounts::reader::Reader;
use anyhow::{Context as _, Result};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::path::{Path, PathBuf};

/// The directory of all groups made here, at the top of the hierarchy: a caller's own group may be one
/// that must have no children.
const PARENT: &str = "alicloud-oss";

/// A group with a limit. Dropped, it is removed, if all its processes have ended.
pub struct Group {
    directory: PathBuf,
}

/// A hierarchy of groups that can have the memory controller, by its mount point.
#[derive(Debug, PartialEq, Eq)]
enum Hierarchy {
    /// Of the memory controller alone or with others.
    First(PathBuf),
    /// The unified one.
    Second(PathBuf),
}

impl Group {
    /// A group named `name`, which is a file's name, whose processes take at most `memory` bytes; one
    /// of that name that is there already is taken. Nothing where the node has no memory controller
    /// that is mounted.
    pub fn create(name: &str, memory: u64) -> Result<Option<Self>> {
        for hierarchy in hierarchies()? {
            if let Some(group) = hierarchy.create(name, memory)? {
                return Ok(Some(group));
            }
        }
        Ok(None)
    }

    /// Removes the group named `name` that a process which was killed has left, if all its processes have
    /// ended.
    pub fn remove(name: &str) {
        for hierarchy in hierarchies().unwrap_or_default() {
            // As a rule there is none.
            let _ = std::fs::remove_dir(hierarchy.parent().join(name));
        }
    }

    /// The file that takes a process into the group: for [`Spec`](super::spec::Spec).
    pub fn procs(&self) -> PathBuf {
        self.directory.join("cgroup.procs")
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // With a process in it it stays, and is taken by the next of its name.
        let _ = std::fs::remove_dir(&self.directory);
    }
}

impl Hierarchy {
    fn root(&self) -> &Path {
        match self {
            Self::First(root) | Self::Second(root) => root,
        }
    }

    /// The directory of all groups made here.
    fn parent(&self) -> PathBuf {
        self.root().join(PARENT)
    }

    fn create(&self, name: &str, memory: u64) -> Result<Option<Group>> {
        let parent = self.parent();
        let (file, more) = match self {
            Self::First(_) => ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes"),
            Self::Second(_) => ("memory.max", "memory.swap.max"),
        };
        if matches!(self, Self::Second(_)) {
            // It is on already, or the controller is in a hierarchy of its own: then no file is there.
            let _ = std::fs::write(self.root().join("cgroup.subtree_control"), "+memory");
        }
        make(&parent)?;
        if matches!(self, Self::Second(_)) {
            let _ = std::fs::write(parent.join("cgroup.subtree_control"), "+memory");
        }
        let directory = parent.join(name);
        make(&directory)?;
        let group = Group { directory };
        if !group.directory.join(file).exists() {
            return Ok(None);
        }
        std::fs::write(group.directory.join(file), memory.to_string())
            .with_context(|| format!("set {file} of {}", group.directory.display()))?;
        // Memory and swap together (first), swap alone (second); some kernels account for neither.
        let swap = match self {
            Self::First(_) => memory,
            Self::Second(_) => 0,
        };
        let _ = std::fs::write(group.directory.join(more), swap.to_string());
        Ok(Some(group))
    }
}

fn make(directory: &Path) -> Result<()> {
    match std::fs::create_dir(directory) {
        Err(e) if e.kind() != ErrorKind::AlreadyExists => {
            Err(e).with_context(|| format!("make the control group {}", directory.display()))
        }
        _ => Ok(()),
    }
}

/// Where the memory controller may be, the likelier first.
fn hierarchies() -> Result<Vec<Hierarchy>> {
    let path = "/proc/self/mountinfo";
    File::open(path)
        .map_err(anyhow::Error::from)
        .and_then(hierarchies_in)
        .with_context(|| format!("read {path}"))
}

/// The same, from the text of a mount table (proc_pid_mountinfo(5)).
fn hierarchies_in(mounts: impl Read) -> Result<Vec<Hierarchy>> {
    let mut all = Vec::new();
    Reader::default().lines(mounts, |line| all.extend(hierarchy(line)))?;
    all.sort_by_key(|hierarchy| matches!(hierarchy, Hierarchy::Second(_)));
    Ok(all)
}

fn hierarchy(line: &str) -> Option<Hierarchy> {
    let (mount, file_system) = line.split_once(" - ")?;
    // Mount points of control groups have no character that is escaped there.
    let path = PathBuf::from(mount.split(' ').nth(4)?);
    let mut words = file_system.split(' ');
    match words.next()? {
        "cgroup2" => Some(Hierarchy::Second(path)),
        "cgroup" => {
            let mut options = words.nth(1)?.split(',');
            options
                .any(|option| option == "memory")
                .then_some(Hierarchy::First(path))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::Hierarchy::{First, Second};
    use super::hierarchies_in;

    #[test]
    fn finds_the_memory_controller() {
        let cpu = "31 28 0:26 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuacct";
        let memory =
            "32 28 0:27 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory";
        let hybrid = "33 28 0:28 / /sys/fs/cgroup/unified rw,nsdelegate - cgroup2 cgroup2 rw";
        let unified = "33 28 0:28 / /sys/fs/cgroup rw,nsdelegate - cgroup2 cgroup2 rw";
        let first = || First("/sys/fs/cgroup/memory".into());
        let cases = [
            ("the first version", vec![cpu, memory], vec![first()]),
            (
                "both",
                vec![hybrid, cpu, memory],
                vec![first(), Second("/sys/fs/cgroup/unified".into())],
            ),
            (
                "the second",
                vec![unified],
                vec![Second("/sys/fs/cgroup".into())],
            ),
            (
                "none",
                vec![cpu, "24 23 0:5 / /dev rw - devtmpfs dev rw"],
                vec![],
            ),
            (
                "garbage",
                vec!["", " - ", "a - cgroup", "a - cgroup2 b"],
                vec![],
            ),
        ];
        for (case, lines, expected) in cases {
            let table = lines.join("\n");
            assert_eq!(
                hierarchies_in(table.as_bytes()).unwrap(),
                expected,
                "{case}"
            );
        }
    }
}
