//! Writes notifications to the kernel in a process that does nothing else, this program as
//! `oss-notify`. Dropping the pages of a file waits for reads of it that are under way, uninterruptibly, and those
//! wait for the volume's process: that one must be able to end meanwhile, so that its successor can
//! answer them.

use crate::serve::connection;
use crate::serve::descriptors::pair;
use anyhow::{Context as _, Result};
use nix::errno::Errno;
use nix::sys::prctl;
use nix::sys::signal::Signal;
use rustix::net::{RecvFlags, SendFlags, recv, send};
use std::collections::VecDeque;
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::os::unix::process::CommandExt as _;
use std::process::{Child, Command, Stdio};

/// `argv[0]` of the process.
pub(crate) const NOTIFY: &str = "oss-notify";
/// How many notifications may wait. One is due for each file that had a writer when its daemon
/// ended.
const MOST: usize = 1 << 20;
/// The longest notification: a header and a name, in bytes.
const LONGEST: usize = 4096;

/// The process, as its parent sees it.
pub(crate) struct Notifier {
    fuse: OwnedFd,
    process: Option<(Child, OwnedFd)>,
    /// What did not fit into the socket.
    waiting: VecDeque<Vec<u8>>,
}

impl Notifier {
    /// For the connection `fuse`. The process is started with the first notification.
    pub(crate) fn new(fuse: OwnedFd) -> Self {
        Self {
            fuse,
            process: None,
            waiting: VecDeque::new(),
        }
    }

    /// Has `message` written soon. False if too many wait: then it is lost.
    #[must_use]
    pub(crate) fn send(&mut self, message: Vec<u8>) -> bool {
        if self.waiting.len() >= MOST {
            return false;
        }
        self.waiting.push_back(message);
        self.flush();
        true
    }

    /// Writable when `flush` can go on; None while nothing waits.
    pub(crate) fn wants_writable(&self) -> Option<BorrowedFd<'_>> {
        match &self.process {
            Some((_, socket)) if !self.waiting.is_empty() => Some(socket.as_fd()),
            _ => None,
        }
    }

    /// Hands over as much as the process takes now.
    pub(crate) fn flush(&mut self) {
        while let Some(message) = self.waiting.front() {
            let Some((_, socket)) = &self.process else {
                match self.start() {
                    Ok(process) => self.process = Some(process),
                    Err(e) => {
                        log::error!("cached pages of files that had writers stay: {e:#}");
                        self.waiting.clear();
                    }
                }
                continue;
            };
            match send(socket, message, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(_) => {
                    self.waiting.pop_front();
                }
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return,
                Err(_) => {
                    // It was killed. The same message again: dropping pages twice does no harm.
                    if let Some((mut child, _)) = self.process.take() {
                        let _ = child.kill();
                        let _ = child.wait();
                    }
                }
            }
        }
    }

    fn start(&self) -> Result<(Child, OwnedFd)> {
        let (ours, theirs) = pair().context("make a socket pair")?;
        let fuse = self.fuse.try_clone().context("duplicate a descriptor")?;
        let child = Command::new("/proc/self/exe")
            .arg0(NOTIFY)
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::from(fuse))
            .stderr(Stdio::null())
            .spawn()
            .context("start the process that notifies the kernel")?;
        Ok((child, ours))
    }
}

/// What the process does: each message from stdin becomes one write to stdout, a FUSE connection,
/// until there will be none.
///
/// # Errors
/// stdin is not a socket.
pub(crate) fn run() -> Result<()> {
    prctl::set_pdeathsig(Signal::SIGKILL).context("set the parent-death signal")?;
    let (stdin, stdout) = (std::io::stdin(), std::io::stdout());
    let mut message = [0; LONGEST];
    loop {
        match recv(stdin.as_fd(), &mut message[..], RecvFlags::empty()) {
            Ok((0, _)) => return Ok(()),
            Ok((length, _)) => {
                let written = connection::write(stdout.as_fd(), &message[..length]);
                // ENOENT: the kernel has forgotten the file, and so its pages. Nobody could do
                // anything about another refusal.
                if let Err(Errno::ENODEV | Errno::ECONNABORTED) = written {
                    return Ok(());
                }
            }
            Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e).context("receive a notification"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::Notifier;
    use crate::serve::descriptors::pair;
    use std::process::Command;

    #[test]
    fn what_the_process_does_not_take_waits() {
        let (fuse, _) = pair().unwrap();
        let (ours, _theirs) = pair().unwrap();
        let mut notifier = Notifier::new(fuse);
        let child = Command::new("true").spawn().unwrap();
        notifier.process = Some((child, ours));
        assert!(notifier.wants_writable().is_none());
        while notifier.wants_writable().is_none() {
            assert!(notifier.send(vec![1; 1024]));
        }
        assert_eq!(notifier.waiting.len(), 1);
        if let Some((child, _)) = &mut notifier.process {
            child.wait().unwrap();
        }
    }
}
