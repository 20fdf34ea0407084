//! The daemons of volumes, and what is done to them.

use crate::world::World;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::path::Path;
use std::sync::Mutex;

/// The daemons that have been stopped and not told to go on.
#[derive(Default)]
pub(crate) struct Stopped(Mutex<Vec<i32>>);

impl Stopped {
    /// Stops the daemon.
    pub(crate) fn stop(&self, pid: i32) {
        let mut stopped = self.0.lock().expect("the stopped");
        if kill(Pid::from_raw(pid), Signal::SIGSTOP).is_ok() {
            stopped.push(pid);
        }
    }

    /// Lets the daemon go on, if it is there still and was stopped.
    pub(crate) fn resume(&self, pid: i32) {
        let mut stopped = self.0.lock().expect("the stopped");
        if let Some(at) = stopped.iter().position(|other| *other == pid) {
            stopped.swap_remove(at);
            // It may have been killed.
            let _ = kill(Pid::from_raw(pid), Signal::SIGCONT);
        }
    }

    /// Lets those go on whose volumes have ended: nothing but the run itself would ever do that.
    pub(crate) fn resume_all(&self) {
        for pid in self.0.lock().expect("the stopped").drain(..) {
            let _ = kill(Pid::from_raw(pid), Signal::SIGCONT);
        }
    }
}

/// The daemon that serves `target`, by what the driver has noted.
pub(crate) fn of_target(world: &World, target: &Path) -> Option<i32> {
    let volumes = std::fs::read_dir(world.paths.state.join("volumes")).ok()?;
    let volume = volumes.flatten().map(|entry| entry.path()).find(|volume| {
        let targets = std::fs::read_dir(volume.join("targets"));
        targets.into_iter().flatten().flatten().any(|file| {
            std::fs::read(file.path())
                .is_ok_and(|text| text == target.as_os_str().as_encoded_bytes())
        })
    })?;
    let note = std::fs::read_to_string(volume.join("daemon")).ok()?;
    let pid: i32 = note.split_whitespace().next()?.parse().ok()?;
    // Not a process that is still on its way to become one.
    let line = std::fs::read_to_string(format!("/proc/{pid}/cmdline")).ok()?;
    line.contains(&format!("{}/staging", volume.display()))
        .then_some(pid)
}

/// Kills the daemon.
pub(crate) fn end(pid: i32) -> bool {
    kill(Pid::from_raw(pid), Signal::SIGKILL).is_ok()
}
