//! The control socket of a volume's process, in a thread of its own: root's alone, a few clients at
//! a time, bounded lines, and never in the way of file system requests.

use crate::serve::protocol::{self, Answer, Call, MAX_LINE, SOCKET, State};
use crate::serve::shared::{Shared, Wishes};
use crate::sys::root_only;
use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags, open};
use std::io::{ErrorKind, Read as _, Write as _};
use std::os::fd::{AsRawFd as _, OwnedFd};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Clients that are listened to at once; further ones wait in the socket's queue.
const CLIENTS: usize = 8;
/// Time for a client to send its line.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time for the event loop to publish its counters; older ones are given after that.
const FRESH: Duration = Duration::from_millis(500);
/// The thread's stack, in bytes.
const STACK: usize = 256 * 1024;

/// A path by which the file `name` in the directory `directory` can be bound or connected to,
/// however long the directory's own is (a socket's address holds 108 bytes), and what must stay open
/// for as long as the path is used.
pub(crate) fn short_path(directory: &Path, name: &str) -> Result<(PathBuf, OwnedFd)> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let fd = open(directory, flags, Mode::empty())
        .with_context(|| format!("open {}", directory.display()))?;
    let path = format!("/proc/self/fd/{}/{name}", fd.as_raw_fd());
    Ok((path.into(), fd))
}

/// Starts to listen in the directory `volume`, in place of an earlier process of it. The socket
/// appears under its name once it listens. To be called while no other thread makes files: the
/// umask is changed for a moment.
pub(crate) fn listen(volume: &Path, shared: Arc<Shared>) -> Result<()> {
    let fresh = format!("{SOCKET}.new");
    let path = volume.join(&fresh);
    root_only::remove(&path)?;
    let (short, _directory) = short_path(volume, &fresh)?;
    let umask = rustix::process::umask(Mode::from_raw_mode(0o177));
    let bound = UnixListener::bind(&short);
    rustix::process::umask(umask);
    let listener = bound.with_context(|| format!("listen on {}", path.display()))?;
    listener.set_nonblocking(true).context("listen")?;
    std::fs::rename(&path, volume.join(SOCKET))
        .with_context(|| format!("rename {}", path.display()))?;
    std::thread::Builder::new()
        .name("control".to_owned())
        .stack_size(STACK)
        .spawn(move || {
            let mut control = Control {
                listener,
                shared,
                clients: Vec::new(),
            };
            loop {
                control.round();
            }
        })
        .context("start a thread")?;
    Ok(())
}

struct Control {
    listener: UnixListener,
    shared: Arc<Shared>,
    clients: Vec<Client>,
}

struct Client {
    stream: UnixStream,
    line: Vec<u8>,
    /// What it asked for, once its line is there, and the number of the wish that came of it.
    call: Option<(Call, u64)>,
    /// Until when it is waited for, or counters are.
    until: Option<Instant>,
    over: bool,
}

impl Control {
    /// Waits for something to do, and does it.
    fn round(&mut self) {
        let ready = self.wait();
        if ready.first() == Some(&true) {
            self.accept();
        }
        for (client, ready) in self.clients.iter_mut().zip(ready.iter().skip(1)) {
            if *ready && client.call.is_none() {
                client.read(&self.shared);
            } else if *ready {
                // It has hung up, or says more than one line.
                client.over = true;
            }
        }
        let (status, known) = self.shared.status();
        let now = Instant::now();
        for client in &mut self.clients {
            let late = client.until.is_some_and(|until| until <= now);
            let due = match client.call {
                None => {
                    client.over |= late;
                    false
                }
                Some((Call::Wait, wish)) => {
                    known >= wish && !matches!(status.state, State::Starting)
                }
                Some((_, wish)) => known >= wish || late,
            };
            if due && !client.over {
                client.answer(Answer::Status(status.clone()));
            }
        }
        self.clients.retain(|client| !client.over);
    }

    /// Which of the listener and the clients are ready, once one is, or something was published.
    fn wait(&self) -> Vec<bool> {
        let room = self.clients.len() < CLIENTS;
        let listen = if room {
            PollFlags::IN
        } else {
            PollFlags::empty()
        };
        let control_event = self.shared.control_event();
        let mut fds = vec![
            PollFd::from_borrowed_fd(control_event, PollFlags::IN),
            PollFd::new(&self.listener, listen),
        ];
        fds.extend(
            self.clients
                .iter()
                .map(|client| PollFd::new(&client.stream, PollFlags::IN)),
        );
        let now = Instant::now();
        let until = self.clients.iter().filter_map(|client| client.until).min();
        let timeout = until.map(|until| timespec(until.saturating_duration_since(now)));
        if poll(&mut fds, timeout.as_ref()).is_err() {
            // Interrupted; without memory for a moment.
            return Vec::new();
        }
        let ready = fds.iter().skip(1).map(|fd| !fd.revents().is_empty());
        ready.collect()
    }

    fn accept(&mut self) {
        let Ok((stream, _)) = self.listener.accept() else {
            // It has gone again.
            return;
        };
        if stream.set_nonblocking(true).is_ok() {
            self.clients.push(Client {
                stream,
                line: Vec::new(),
                call: None,
                until: Some(Instant::now() + PATIENCE),
                over: false,
            });
        }
    }
}

impl Client {
    fn read(&mut self, shared: &Shared) {
        let mut bytes = [0; 1024];
        loop {
            match self.stream.read(&mut bytes) {
                Ok(0) => self.over = true,
                Ok(count) => {
                    self.line.extend_from_slice(&bytes[..count]);
                    if let Some(end) = self.line.iter().position(|byte| *byte == b'\n') {
                        self.begin(end, shared);
                    } else if self.line.len() >= MAX_LINE {
                        self.answer(Answer::Error(format!(
                            "a request has at most {MAX_LINE} bytes"
                        )));
                    } else {
                        continue;
                    }
                }
                Err(e) if e.kind() == ErrorKind::Interrupted => continue,
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                Err(_) => self.over = true,
            }
            return;
        }
    }

    /// Begins what the line of `end` bytes asks for.
    fn begin(&mut self, end: usize, shared: &Shared) {
        match protocol::parse_request(&self.line[..end]) {
            Err(error) => self.answer(Answer::Error(error)),
            Ok(call) => {
                self.until = match call {
                    Call::Wait => None,
                    _ => Some(Instant::now() + FRESH),
                };
                let wish = shared.wish(Wishes {
                    publish: true,
                    start: matches!(call, Call::Wait | Call::Try),
                    reload: call == Call::Reload,
                    quit: call == Call::Quit,
                    leave: call == Call::Leave,
                });
                self.call = Some((call, wish));
                self.line = Vec::new();
            }
        }
    }

    /// Answers, and is done with this client.
    fn answer(&mut self, answer: Answer) {
        // It fits what a socket holds; who does not read is not waited for.
        let _ = self.stream.write_all(&protocol::render(answer));
        self.over = true;
    }
}

/// `time` for poll(2).
pub(crate) fn timespec(time: Duration) -> Timespec {
    Timespec {
        tv_sec: i64::try_from(time.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: time.subsec_nanos().into(),
    }
}
