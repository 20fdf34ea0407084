//! The processes of volumes, and what is done to them.

use crate::plan::Victim;
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

/// The process of the volume at `target`, by what the driver has noted.
pub(crate) fn of_target(world: &World, target: &Path, victim: Victim) -> Option<i32> {
    let volumes = std::fs::read_dir(world.paths.state.join("volumes")).ok()?;
    let volume = volumes.flatten().map(|entry| entry.path()).find(|volume| {
        let targets = std::fs::read_dir(volume.join("targets"));
        targets.into_iter().flatten().flatten().any(|file| {
            std::fs::read(file.path())
                .is_ok_and(|text| text == target.as_os_str().as_encoded_bytes())
        })
    })?;
    let place = volume.display();
    let part = match victim {
        Victim::Ossfs => format!("passwd_file={place}/passwd"),
        Victim::Child => format!("serve\0--child\0{place}"),
        Victim::Parent => format!("serve\0--parent\0{place}"),
    };
    let processes = std::fs::read_dir("/proc").ok()?.flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.find(|pid: &i32| {
        std::fs::read_to_string(format!("/proc/{pid}/cmdline"))
            .is_ok_and(|line| line.contains(&part))
    })
}

/// Sends the signal to the process.
pub(crate) fn end(pid: i32, signal: Signal) -> bool {
    kill(Pid::from_raw(pid), signal).is_ok()
}
