//! Processes of the host, held by a file descriptor: such a handle never means another process with the same id.

use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};

#[derive(Debug)]
pub(crate) struct Process(OwnedFd);

impl Process {
    /// Takes hold of a process; an error if there is none with this id.
    pub(crate) fn open(pid: u32) -> Result<Self> {
        let id = i32::try_from(pid)
            .ok()
            .and_then(Pid::from_raw)
            .with_context(|| format!("{pid} is no process id"))?;
        let handle =
            pidfd_open(id, PidfdFlags::empty()).with_context(|| format!("open process {pid}"))?;
        Ok(Self(handle))
    }

    /// Kills the process; nothing happens if it has ended.
    pub(crate) fn kill(&self) {
        pidfd_send_signal(&self.0, Signal::KILL).ok();
    }

    /// Waits for the end of the process and tells whether it came in time.
    pub(crate) fn wait(&self, timeout: Duration) -> bool {
        let deadline = Instant::now() + timeout;
        loop {
            let left = Timespec::try_from(deadline.saturating_duration_since(Instant::now())).ok();
            match poll(&mut [PollFd::new(&self.0, PollFlags::IN)], left.as_ref()) {
                Err(Errno::INTR) => {}
                ready => return ready.is_ok_and(|count| count > 0),
            }
        }
    }
}
