//! One daemon of a volume: the process, its end of the message socket, and what it prints.

use crate::sandbox::{self, End, Sandboxed, Spec};
use crate::serve::descriptors;
use crate::serve::output::Output;
use crate::serve::protocol::State;
use crate::sys::tree;
use anyhow::{Context as _, Result};
use rustix::net::sockopt::{
    set_socket_recv_buffer_size, set_socket_recv_buffer_size_force, set_socket_send_buffer_size,
    set_socket_send_buffer_size_force,
};
use rustix::net::{RecvFlags, SendFlags, recv, send};
use rustix::pipe::{PipeFlags, pipe_with};
use std::os::fd::{AsFd as _, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Room for messages that wait in a socket, in bytes: some dozens of the largest.
const SOCKET_BUFFER: usize = 8 << 20;
/// The same where only what the node allows everybody can be had.
const SMALL_SOCKET_BUFFER: usize = 416 * 1024;
/// Reads of a daemon's output at one time.
const OUTPUT_READS: usize = 16;

/// A running daemon, or one whose end has not been dealt with.
pub(crate) struct Daemon {
    process: Sandboxed,
    pid: u32,
    /// Our end of the message socket; None where the daemon has the FUSE descriptor itself.
    socket: Option<OwnedFd>,
    /// Its end. While this is open, answers that a dead daemon had sent can be read: without it the
    /// socket would give ECONNRESET before them where requests were left unread.
    _theirs: Option<OwnedFd>,
    /// None once it is closed at the other end.
    output: Option<OwnedFd>,
    printed: Output,
    served_since: Option<Instant>,
    /// It was killed from here.
    pub(crate) killed: bool,
    /// It broke the protocol, and is not listened to any more.
    pub(crate) broken: bool,
    hung_up: bool,
}

/// What a receive brought.
pub(crate) enum Received {
    Message(usize),
    Nothing,
    /// A packet of this many bytes, more than any message has.
    TooLong(usize),
}

/// Empties the directories `paths`, which a daemon that died may have written into. Symbolic links in
/// them are removed and not followed.
///
/// # Errors
/// What cannot be removed; the next daemon would take it for what is in the store.
pub(crate) fn empty(paths: &[PathBuf]) -> Result<()> {
    for path in paths {
        tree::empty(path).with_context(|| format!("empty {}", path.display()))?;
    }
    Ok(())
}

impl Daemon {
    /// Starts one that gets messages over a socket.
    ///
    /// # Errors
    /// What the sandbox says. Nothing is left running.
    pub(crate) fn start(spec: &Spec, now: Instant) -> Result<Self> {
        let (ours, theirs) = descriptors::pair().context("make a socket pair")?;
        for socket in [&ours, &theirs] {
            make_room(socket.as_fd());
        }
        rustix::io::ioctl_fionbio(&ours, true).context("set a socket non-blocking")?;
        let kept = theirs.try_clone().context("duplicate a socket")?;
        Self::spawn(spec, theirs, Some((ours, kept)), now)
    }

    /// Starts one that gets the FUSE descriptor itself.
    ///
    /// # Errors
    /// As those of `start`.
    pub(crate) fn start_on(spec: &Spec, fuse: OwnedFd, now: Instant) -> Result<Self> {
        Self::spawn(spec, fuse, None, now)
    }

    fn spawn(
        spec: &Spec,
        fuse: OwnedFd,
        sockets: Option<(OwnedFd, OwnedFd)>,
        now: Instant,
    ) -> Result<Self> {
        let (output, theirs) = pipe_with(PipeFlags::CLOEXEC).context("make a pipe")?;
        rustix::io::ioctl_fionbio(&output, true).context("set a pipe non-blocking")?;
        let process = sandbox::spawn(spec, fuse, theirs)?;
        let (socket, kept) = sockets.unzip();
        Ok(Self {
            pid: process.daemon_pid().unwrap_or(process.pid()),
            process,
            socket,
            _theirs: kept,
            output: Some(output),
            printed: Output::new(now),
            served_since: None,
            killed: false,
            broken: false,
            hung_up: false,
        })
    }

    /// The process to name to people.
    pub(crate) fn pid(&self) -> u32 {
        self.pid
    }

    pub(crate) fn process(&self) -> &Sandboxed {
        &self.process
    }

    pub(crate) fn socket(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(OwnedFd::as_fd)
    }

    /// Readable when it has printed something; None once nothing more can come.
    pub(crate) fn output(&self) -> Option<BorrowedFd<'_>> {
        self.output.as_ref().map(OwnedFd::as_fd)
    }

    /// Readable once it has ended.
    pub(crate) fn ended(&self) -> BorrowedFd<'_> {
        self.process.ended_fd()
    }

    /// Sends one message as one packet. False if it would have to wait, or nobody is there.
    pub(crate) fn send(&self, message: &[u8]) -> bool {
        let Some(socket) = &self.socket else {
            return false;
        };
        loop {
            match send(socket, message, SendFlags::DONTWAIT | SendFlags::NOSIGNAL) {
                Ok(_) => return true,
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return false,
            }
        }
    }

    /// Receives one message into `buffer`.
    pub(crate) fn receive(&self, buffer: &mut [u8]) -> Received {
        let Some(socket) = &self.socket else {
            return Received::Nothing;
        };
        let most = buffer.len();
        loop {
            match recv(socket, &mut *buffer, RecvFlags::DONTWAIT | RecvFlags::TRUNC) {
                Ok((_, length)) if length > most => return Received::TooLong(length),
                Ok((_, length)) => return Received::Message(length),
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return Received::Nothing,
            }
        }
    }

    /// Takes what it has printed, and logs it.
    pub(crate) fn take_output(&mut self, now: Instant) {
        let mut bytes = [0; 4096];
        let pid = self.pid();
        // libfuse finds fault with the end of its socket, and the mount is not its own to remove.
        let level = match self.hung_up {
            true => log::Level::Debug,
            false => log::Level::Info,
        };
        for _ in 0..OUTPUT_READS {
            let Some(output) = &self.output else {
                return;
            };
            match rustix::io::read(output, &mut bytes) {
                Ok(0) => self.output = None,
                Ok(count) => self.printed.take(&bytes[..count], now, |line| {
                    log::log!(level, "[{pid}] {line}");
                }),
                Err(rustix::io::Errno::INTR) => {}
                Err(_) => return,
            }
        }
    }

    /// The end of what it has printed.
    pub(crate) fn printed(&self) -> String {
        self.printed.tail()
    }

    /// How it ended, if it has.
    pub(crate) fn find_end(&mut self) -> Result<Option<End>> {
        self.process.try_wait().context("wait for the daemon")
    }

    /// Ends it with SIGKILL; its end is still to be waited for.
    pub(crate) fn kill(&mut self) {
        self.killed = true;
        self.process.kill();
    }

    /// Closes the socket: the daemon finishes what it is at, and ends as after an unmount.
    pub(crate) fn hang_up(&mut self) {
        self.hung_up = true;
        self.socket = None;
        self._theirs = None;
    }

    /// It has answered.
    pub(crate) fn serves(&mut self, now: Instant) {
        self.served_since.get_or_insert(now);
    }

    pub(crate) fn has_served(&self) -> bool {
        self.served_since.is_some()
    }

    /// For how long it has served.
    pub(crate) fn time_in_service(&self, now: Instant) -> Duration {
        self.served_since
            .map_or(Duration::ZERO, |since| now.saturating_duration_since(since))
    }
}

/// Gives a socket room for many messages; with less it works more slowly.
fn make_room(socket: BorrowedFd<'_>) {
    if set_socket_send_buffer_size_force(socket, SOCKET_BUFFER).is_err() {
        let _ = set_socket_send_buffer_size(socket, SMALL_SOCKET_BUFFER);
    }
    if set_socket_recv_buffer_size_force(socket, SOCKET_BUFFER).is_err() {
        let _ = set_socket_recv_buffer_size(socket, SMALL_SOCKET_BUFFER);
    }
}

/// The state after a daemon ended so without having served.
pub(crate) fn failed(end: &End, output: String) -> State {
    let (exit, signal) = match *end {
        End::Exited(status) => (Some(status), None),
        End::Killed(signal) => (None, Some(signal)),
    };
    State::Failed {
        exit,
        signal,
        output,
    }
}
