//! The relay's hands: what its decisions do to the kernel, the daemon and the journal.

use crate::serve::connection;
use crate::serve::daemon::Daemon;
use crate::serve::journal::Journal;
use crate::serve::notifier::Notifier;
use crate::serve::relay::{Link, Record};
use nix::errno::Errno;
use std::os::fd::OwnedFd;

/// SIGKILL in a mask of signals as proc_pid_status(5) shows them.
const KILL: u64 = 1 << 8;

/// Where the relay's messages go.
pub(crate) struct Ends {
    pub(crate) fuse: OwnedFd,
    pub(crate) daemon: Option<Daemon>,
    pub(crate) notifier: Notifier,
    pub(crate) journal: Journal,
}

impl Link for Ends {
    fn to_daemon(&mut self, message: &[u8]) -> bool {
        self.journal.flush();
        match &self.daemon {
            Some(daemon) if !daemon.broken => daemon.send(message),
            _ => false,
        }
    }

    fn to_kernel(&mut self, message: &[u8]) {
        self.journal.flush();
        match connection::write(&self.fuse, message) {
            // ENOENT: nobody waits for this answer any more. The others: the end has come, which
            // the next read tells.
            Ok(()) | Err(Errno::ENOENT | Errno::ENODEV | Errno::ECONNABORTED) => {}
            Err(e) => log::warn!(
                "the kernel refused an answer of {} bytes: {e}",
                message.len()
            ),
        }
    }

    fn notify(&mut self, message: Vec<u8>) {
        if !self.notifier.send(message) {
            log::error!("too many files had writers: cached pages of one were not dropped");
        }
    }

    fn is_killed(&mut self, tid: u32) -> bool {
        // Unknown, or of the kernel: no signal tells anything.
        if tid == 0 {
            return false;
        }
        match std::fs::read_to_string(format!("/proc/{tid}/status")) {
            Ok(status) => is_kill_pending(&status),
            Err(e) => matches!(
                e.raw_os_error().map(Errno::from_raw),
                Some(Errno::ENOENT | Errno::ESRCH)
            ),
        }
    }

    fn record(&mut self, record: &Record<'_>) {
        self.journal.record(record);
    }

    fn taken(&mut self, slot: u16, unique: u64) {
        self.journal.taken(slot, unique);
    }
}

/// Whether SIGKILL waits for the thread or its process, by its `/proc/TID/status`.
fn is_kill_pending(status: &str) -> bool {
    status.lines().any(|line| {
        ["SigPnd:", "ShdPnd:"]
            .iter()
            .find_map(|field| line.strip_prefix(field))
            .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
            .is_some_and(|mask| mask & KILL != 0)
    })
}

#[cfg(test)]
mod tests {
    use super::is_kill_pending;

    #[test]
    fn sees_sigkill_and_no_other_signal() {
        for (status, expected) in [
            (
                "Name:\tcat\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000000\n",
                false,
            ),
            (
                "Name:\tcat\nSigPnd:\t0000000000000100\nShdPnd:\t0000000000000000\n",
                true,
            ),
            (
                "Name:\tcat\nSigPnd:\t0000000000000000\nShdPnd:\t0000000000000100\n",
                true,
            ),
            (
                "Name:\tcat\nSigPnd:\t0000000000400000\nShdPnd:\t0000000000010000\nSigBlk:\t0000000000000100\n",
                false,
            ),
            ("Name:\tSigPnd: 100\n", false),
            ("", false),
        ] {
            assert_eq!(is_kill_pending(status), expected, "{status}");
        }
    }
}
