//! What serves the volumes of a [`Sandbox`]: processes `oss serve`, and ossfs below each.

use crate::process::{PATIENCE, Pidfd, wait_until};
use crate::sandbox::Sandbox;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};

impl Sandbox {
    /// The node's only daemon, once there is one.
    ///
    /// # Panics
    /// If there is none, or more than one, for long.
    #[track_caller]
    pub fn daemon(&self) -> i32 {
        only(|| self.daemons())
    }

    /// The daemon of the volume that is bound to `target`, once there is one.
    ///
    /// # Panics
    /// As [`Self::daemon`], or if there is no such volume.
    #[track_caller]
    pub fn daemon_of(&self, target: &Path) -> i32 {
        let file = self.volume_of(target).join("passwd");
        only(|| self.processes(&format!("passwd_file={}", file.display())))
    }

    /// The directory of the volume that is bound to `target`.
    ///
    /// # Panics
    /// If there is none.
    #[track_caller]
    pub fn volume_of(&self, target: &Path) -> PathBuf {
        let volumes = self.state_directory().join("volumes");
        let is_bound = |directory: &PathBuf| {
            let targets = std::fs::read_dir(directory.join("targets"));
            targets.into_iter().flatten().flatten().any(|entry| {
                std::fs::read(entry.path()).is_ok_and(|path| path == target.as_os_str().as_bytes())
            })
        };
        let mut directories = self.volumes().into_iter().map(|id| volumes.join(id));
        directories.find(is_bound).expect("a volume")
    }

    /// Sends `signal` to the node's only daemon, and returns its number once it has ended.
    ///
    /// # Panics
    /// If it does not end.
    #[track_caller]
    pub fn end_daemon(&self, signal: Signal) -> i32 {
        let pid = self.daemon();
        kill(Pid::from_raw(pid), signal).expect("send a signal");
        assert!(Pidfd::wait_for_end(pid, PATIENCE), "{signal}");
        pid
    }

    /// The processes that serve volumes of this node: `oss serve` in the part `part` ("--parent" or
    /// "--child").
    pub fn servers(&self, part: &str) -> Vec<i32> {
        let volumes = self.state_directory().join("volumes");
        self.processes(&format!("serve\0{part}\0{}/", volumes.display()))
    }

    /// Kills all that serves volumes of this node, with what keeps their connections, and returns
    /// once it has ended: their mounts are dead.
    ///
    /// # Panics
    /// If one does not end.
    #[track_caller]
    pub fn kill_all_that_serves(&self) {
        self.kill_with_children(&self.servers("--parent"));
    }

    /// Kills the processes `parents` of volumes, with which their children and ossfs end, and returns
    /// once all have.
    ///
    /// # Panics
    /// If one does not end.
    #[track_caller]
    pub fn kill_with_children(&self, parents: &[i32]) {
        let mut all = parents.to_vec();
        let mut next = 0;
        while let Some(pid) = all.get(next) {
            all.extend(children(*pid));
            next += 1;
        }
        for pid in parents {
            // It may have ended already.
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        for pid in all {
            assert!(Pidfd::wait_for_end(pid, PATIENCE), "process {pid}");
        }
    }
}

/// The one process among those that `find` finds, once there is one.
#[track_caller]
fn only(find: impl Fn() -> Vec<i32>) -> i32 {
    let mut found = None;
    wait_until("one daemon", || {
        // Between two of them there is none.
        found = match find().as_slice() {
            [pid] => Some(*pid),
            _ => None,
        };
        found.is_some()
    });
    found.expect("a daemon")
}

/// The processes that `pid` has started (proc_pid_task(5)).
fn children(pid: i32) -> Vec<i32> {
    let tasks = std::fs::read_dir(format!("/proc/{pid}/task"));
    tasks
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|task| std::fs::read_to_string(task.path().join("children")).ok())
        .flat_map(|text| {
            let pids = text.split_whitespace();
            pids.filter_map(|pid| pid.parse().ok())
                .collect::<Vec<i32>>()
        })
        .collect()
}
