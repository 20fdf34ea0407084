//! The control groups a node lives in.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};

use crate::mount_table::Mount;
use crate::process::Pidfd;

/// How long the processes of a group may take to end after they were killed.
const END: Duration = Duration::from_secs(20);

/// One directory in each hierarchy that matters to systemd: its own, and the one of the memory controller. A node
/// that runs containers has one in the hierarchy of every controller.
///
/// Without these, two containers that are not registered with a machine manager share one group.
#[derive(Debug)]
pub(crate) struct Cgroups {
    directories: Vec<PathBuf>,
    legacy_memory: bool,
}

impl Cgroups {
    /// Plans the groups of a new node. Nothing is made yet.
    pub(crate) fn plan(name: &str, every_controller: bool) -> Result<Self> {
        let mounts =
            fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
        let own = fs::read_to_string("/proc/self/cgroup").context("read /proc/self/cgroup")?;
        let planned = Self::plan_from(&mounts, &own, name, every_controller);
        ensure!(
            !planned.directories.is_empty(),
            "no cgroup hierarchy is mounted"
        );
        Ok(planned)
    }

    fn plan_from(mounts: &str, own: &str, name: &str, every_controller: bool) -> Self {
        let mut planned = Self {
            directories: Vec::new(),
            legacy_memory: false,
        };
        for mount in mounts.lines().filter_map(Mount::parse) {
            let parent = match mount.kind.as_str() {
                // A group with processes cannot hand controllers down, so only the root is a sure parent.
                "cgroup2" => PathBuf::from(&mount.point),
                "cgroup"
                    if every_controller || has(&mount, "memory") || has(&mount, "name=systemd") =>
                {
                    match own_group(&mount, own) {
                        Some(group) => group,
                        None => continue,
                    }
                }
                _ => continue,
            };
            planned.legacy_memory |= mount.kind == "cgroup" && has(&mount, "memory");
            planned.directories.push(parent.join(name));
        }
        planned
    }

    /// The groups that [`Cgroups::record`] described.
    pub(crate) fn recorded(record: &str) -> Self {
        Self {
            directories: record.lines().map(PathBuf::from).collect(),
            legacy_memory: false,
        }
    }

    /// Text for [`Cgroups::recorded`].
    pub(crate) fn record(&self) -> String {
        self.directories
            .iter()
            .map(|directory| format!("{}\n", directory.display()))
            .collect()
    }

    pub(crate) fn create(&self) -> Result<()> {
        for directory in &self.directories {
            fs::create_dir(directory)
                .with_context(|| format!("make the cgroup {}", directory.display()))?;
            inherit_cpuset(directory)
                .with_context(|| format!("set up the cgroup {}", directory.display()))?;
        }
        Ok(())
    }

    /// Moves a process into the groups.
    pub(crate) fn adopt(&self, pid: u32) -> Result<()> {
        for directory in &self.directories {
            fs::write(directory.join("cgroup.procs"), pid.to_string()).with_context(|| {
                format!("move process {pid} into the cgroup {}", directory.display())
            })?;
        }
        Ok(())
    }

    /// Whether the memory controller is on a hierarchy of its own (cgroup version 1).
    pub(crate) fn legacy_memory(&self) -> bool {
        self.legacy_memory
    }

    /// Kills what still runs in the groups and removes them. On an error, some of them are left.
    pub(crate) fn remove(&self) -> Result<()> {
        let deadline = Instant::now() + END;
        for directory in self
            .directories
            .iter()
            .filter(|directory| directory.exists())
        {
            remove_tree(directory, deadline)
                .with_context(|| format!("remove the cgroup {}", directory.display()))?;
        }
        Ok(())
    }
}

/// A new cpuset of version 1 is empty, and takes no process until it has processors and memory.
fn inherit_cpuset(directory: &Path) -> Result<()> {
    for name in ["cpuset.cpus", "cpuset.mems"] {
        let own = directory.join(name);
        let legacy = directory.join("cpuset.memory_migrate").exists();
        if let (true, Some(parent)) = (legacy, directory.parent()) {
            fs::write(own, fs::read(parent.join(name))?)?;
        }
    }
    Ok(())
}

fn remove_tree(directory: &Path, deadline: Instant) -> Result<()> {
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_tree(&entry.path(), deadline)?;
        }
    }
    loop {
        let processes = fs::read_to_string(directory.join("cgroup.procs"))?;
        let processes: Vec<_> = processes
            .lines()
            .filter_map(|pid| Pidfd::open(pid.parse().ok()?).ok())
            .collect();
        if processes.is_empty() {
            break;
        }
        processes.iter().for_each(Pidfd::kill);
        let ended = processes
            .iter()
            .all(|process| process.wait(deadline.saturating_duration_since(Instant::now())));
        ensure!(
            ended && Instant::now() < deadline,
            "processes in it do not end"
        );
    }
    match fs::remove_dir(directory) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}

/// Whether the file system of `mount` has `option`.
fn has(mount: &Mount, option: &str) -> bool {
    mount.super_options.split(',').any(|o| o == option)
}

/// The directory of the group that this process is in, on a hierarchy of version 1.
fn own_group(mount: &Mount, own: &str) -> Option<PathBuf> {
    let path = own.lines().find_map(|line| {
        let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
        (!controllers.is_empty() && controllers.split(',').all(|c| has(mount, c))).then_some(path)
    })?;
    let relative = Path::new(path).strip_prefix(&mount.root).ok()?;
    Some(Path::new(&mount.point).join(relative))
}

#[cfg(test)]
mod tests {
    use super::*;

    const UNIFIED: &str =
        "29 23 0:26 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n";
    const HYBRID: &str = "33 31 0:30 / /c/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct\n\
        35 31 0:32 / /c/memory rw - cgroup cgroup rw,memory\n\
        40 31 0:37 / /c/systemd rw - cgroup cgroup rw,xattr,name=systemd\n\
        41 31 0:38 / /c/unified rw - cgroup2 cgroup2 rw\n\
        27 1 254:0 / / rw,relatime - ext4 /dev/vda rw\n";

    #[test]
    fn unified_hierarchy_at_the_root() {
        let planned = Cgroups::plan_from(UNIFIED, "0::/user.slice/a.scope\n", "n", false);
        assert_eq!(planned.record(), "/sys/fs/cgroup/n\n");
        assert!(!planned.legacy_memory());
    }

    #[test]
    fn version_1_below_the_own_group() {
        let own = "4:memory:/job/1\n3:cpu,cpuacct:/\n1:name=systemd:/s\n0::/\n";
        let planned = Cgroups::plan_from(HYBRID, own, "n", false);
        assert_eq!(
            planned.record(),
            "/c/memory/job/1/n\n/c/systemd/s/n\n/c/unified/n\n"
        );
        assert!(planned.legacy_memory());
        assert_eq!(
            Cgroups::plan_from(HYBRID, own, "n", true).record(),
            "/c/cpu,cpuacct/n\n/c/memory/job/1/n\n/c/systemd/s/n\n/c/unified/n\n"
        );
        assert_eq!(
            Cgroups::recorded(&planned.record()).directories,
            planned.directories
        );
    }
}
