//! SIGTERM and SIGINT as an event that poll(2) knows.

use anyhow::{Context as _, Result};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::os::fd::{AsFd, BorrowedFd};

/// The signals that ask this process to end.
pub(crate) struct Signals(SignalFd);

impl Signals {
    /// Takes the signals from now on, in this thread and those that it starts afterwards.
    pub(crate) fn take() -> Result<Self> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGTERM);
        set.add(Signal::SIGINT);
        set.thread_block().context("block signals")?;
        let flags = SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK;
        let fd = SignalFd::with_flags(&set, flags).context("make a signalfd")?;
        Ok(Self(fd))
    }

    /// Whether one has come since the last look.
    pub(crate) fn came(&self) -> bool {
        let mut came = false;
        while let Ok(Some(_)) = self.0.read_signal() {
            came = true;
        }
        came
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
