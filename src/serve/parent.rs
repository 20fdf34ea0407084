//! The parent of a volume's process on nodes without systemd: it keeps the FUSE descriptor and
//! starts the process again when it was killed. It does nothing else, so that nothing ends it.

use crate::serve::control::timespec;
use crate::serve::descriptors::{self, pair, send};
use crate::serve::keeper::{END, FORGET, KEEP};
use crate::serve::role::{CHILD, GIVE_UP};
use crate::serve::signals::Signals;
use crate::serve::starts::{self, Starts};
use anyhow::{Context as _, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use rustix::event::{PollFd, PollFlags, poll};
use rustix::net::SendFlags;
use std::collections::BTreeMap;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Starts the process of the volume at `volume`, again and again until it ends with status 0, which
/// says that the volume is unmounted, or gives up. Signals that ask to end are passed on to it.
///
/// # Errors
/// The process cannot be started, or has given up.
pub(crate) fn run(volume: &Path) -> Result<()> {
    let signals = Signals::take()?;
    let mut kept: BTreeMap<String, OwnedFd> = BTreeMap::new();
    let mut counted = Starts::default();
    loop {
        let begun = Instant::now();
        let status = run_once(volume, &signals, &mut kept)?;
        if status.success() {
            return Ok(());
        }
        if status.code() == Some(i32::from(GIVE_UP)) {
            anyhow::bail!(
                "the process of {} could not start serving",
                volume.display()
            );
        }
        let pause = counted.ended(begun.elapsed(), starts::AFTER_FAILURE);
        log::warn!(
            "the process of {} ended ({status}); the next starts in {} ms",
            volume.display(),
            pause.as_millis()
        );
        if wait_for_signal(&signals, pause)? {
            return Ok(());
        }
    }
}

/// Starts one process, hands it what is kept, and waits for its end.
fn run_once(
    volume: &Path,
    signals: &Signals,
    kept: &mut BTreeMap<String, OwnedFd>,
) -> Result<ExitStatus> {
    let (ours, theirs) = pair().context("make a socket pair")?;
    let mut child = Command::new("/proc/self/exe")
        .args(["serve".as_ref(), CHILD.as_ref(), volume.as_os_str()])
        .stdin(Stdio::from(theirs))
        .spawn()
        .context("start the volume's process")?;
    for (name, fd) in kept.iter() {
        // Should it have ended already, the next one gets them.
        let _ = send(ours.as_fd(), name, fd.as_raw_fd());
    }
    let _ = rustix::net::send(&ours, END.as_bytes(), SendFlags::NOSIGNAL);
    loop {
        let mut fds = [
            PollFd::new(&ours, PollFlags::IN),
            PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e).context("wait for the volume's process"),
        }
        if signals.came() {
            terminate(&child);
        }
        if fds[0].revents().is_empty() {
            continue;
        }
        // Its end of the socket is its own alone: the end of the stream is its end.
        match descriptors::receive(ours.as_fd()) {
            Ok(Some((text, fd))) => take(kept, &text, fd),
            Ok(None) | Err(_) => {
                return child.wait().context("wait for the volume's process");
            }
        }
    }
}

/// Does what the process asks for.
fn take(kept: &mut BTreeMap<String, OwnedFd>, text: &str, fd: Option<OwnedFd>) {
    if let (Some(name), Some(fd)) = (text.strip_prefix(KEEP), fd) {
        if kept.len() < descriptors::MAX || kept.contains_key(name) {
            kept.insert(name.to_owned(), fd);
        }
    } else if let Some(name) = text.strip_prefix(FORGET) {
        kept.remove(name);
    }
}

fn terminate(child: &Child) {
    // It has not been waited for, so the number is its own.
    let _ = kill(Pid::from_raw(child.id().cast_signed()), Signal::SIGTERM);
}

/// Whether a signal that asks to end comes within `time`.
fn wait_for_signal(signals: &Signals, time: Duration) -> Result<bool> {
    let until = Instant::now() + time;
    loop {
        let left = until.saturating_duration_since(Instant::now());
        let mut fds = [PollFd::from_borrowed_fd(signals.as_fd(), PollFlags::IN)];
        match poll(&mut fds, Some(&timespec(left))) {
            Ok(0) if left.is_zero() => return Ok(false),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e).context("wait"),
        }
        if signals.came() {
            return Ok(true);
        }
    }
}
