//! Waiting for a change in a directory (inotify(7)), for the end of a period, or for a signal to
//! exit.

use alicloud_oss::sys::deadline::Deadline;
use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::os::fd::{AsFd as _, BorrowedFd};
use std::path::Path;
use std::time::Duration;

/// What changes a driver or its directory; reading and running it is none of them.
const CHANGES: AddWatchFlags = AddWatchFlags::IN_ATTRIB
    .union(AddWatchFlags::IN_CLOSE_WRITE)
    .union(AddWatchFlags::IN_CREATE)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MODIFY)
    .union(AddWatchFlags::IN_MOVE)
    .union(AddWatchFlags::IN_MOVE_SELF)
    .union(AddWatchFlags::IN_ONLYDIR);

/// The stack of the thread that ends this process, in bytes.
const STACK: usize = 128 * 1024;

/// Why a wait returned.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Wake {
    /// SIGTERM or SIGINT.
    Stop,
    /// Something happened to what is watched.
    Changed,
    /// The time has passed.
    Time,
}

/// The signals to exit, blocked and read from a signalfd(2) from here on.
pub(crate) struct Stop(SignalFd);

impl Stop {
    pub(crate) fn catch() -> Result<Self> {
        let signals = SigSet::from_iter([Signal::SIGTERM, Signal::SIGINT]);
        signals.thread_block().context("block signals")?;
        let fd = SignalFd::with_flags(&signals, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
            .context("open a signalfd")?;
        Ok(Self(fd))
    }

    /// Has this process exit with `status` after `last`, `limit` after a signal, if it is still there:
    /// a step that is under way may wait for a program or for a lock. The installer may be killed at any
    /// point, and its next run goes on.
    pub(crate) fn end_within(
        &self,
        limit: Duration,
        status: i32,
        last: impl FnOnce() + Send + 'static,
    ) -> Result<()> {
        let signals = self
            .0
            .as_fd()
            .try_clone_to_owned()
            .context("open a signalfd")?;
        let wait = move || {
            let mut fds = [PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
            while poll(&mut fds, PollTimeout::NONE) == Err(Errno::EINTR) {}
            std::thread::sleep(limit);
            last();
            // The main thread waits for something that does not end.
            std::process::exit(status)
        };
        // One that was entered by `nsenter --pid` cannot have threads (clone(2)): it ends later then.
        if let Err(e) = std::thread::Builder::new().stack_size(STACK).spawn(wait) {
            log::info!("start a thread: {e}: SIGTERM waits for the step that is under way");
        }
        Ok(())
    }

    /// Waits for a signal, for the flags of one of `others`, or until `limit` is over.
    pub(crate) fn wait(&self, others: &[(BorrowedFd, PollFlags)], limit: Duration) -> Result<Wake> {
        let deadline = Deadline::after(limit);
        loop {
            let mut fds = vec![PollFd::new(self.0.as_fd(), PollFlags::POLLIN)];
            fds.extend(others.iter().map(|(fd, flags)| PollFd::new(*fd, *flags)));
            match poll(&mut fds, deadline.poll_timeout()) {
                Ok(0) if deadline.has_passed() => return Ok(Wake::Time),
                Ok(0) | Err(Errno::EINTR) => {}
                Ok(_) if fds[0].any() == Some(true) => return Ok(Wake::Stop),
                Ok(_) => return Ok(Wake::Changed),
                Err(e) => return Err(e).context("wait"),
            }
        }
    }
}

/// Waits for SIGTERM or SIGINT, and does nothing else.
pub(crate) fn wait_for_signal() -> Result<()> {
    let stop = Stop::catch()?;
    while stop.wait(&[], Duration::from_secs(3600))? != Wake::Stop {}
    Ok(())
}

/// Watches on directories.
pub(crate) struct Watch(Inotify);

impl Watch {
    /// None if the node has no instances left (fs.inotify.max_user_instances): then only the period
    /// ends a wait.
    pub(crate) fn new() -> Result<Self> {
        let flags = InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK;
        Inotify::init(flags).map(Self).context("open inotify")
    }

    /// Watches the directory at `path` too; one that is watched already stays so. Nothing happens
    /// where there is none: then the watch on its parent reports its creation.
    pub(crate) fn add(&self, path: &Path) {
        match self.0.add_watch(path, CHANGES) {
            Ok(_) | Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(e) => log::warn!(
                "watch {}: {e}; changes there are noticed only every --period seconds",
                path.display()
            ),
        }
    }

    /// Reads and drops the events so far; which they are does not matter.
    pub(crate) fn drain(&self) {
        while self.0.read_events().is_ok_and(|events| !events.is_empty()) {}
    }

    pub(crate) fn source(&self) -> (BorrowedFd<'_>, PollFlags) {
        (self.0.as_fd(), PollFlags::POLLIN)
    }
}
