//! A volume without a relay: the daemon has the FUSE descriptor itself, and this process only starts
//! it and waits. The end of the daemon is the end of the mount.

use crate::sandbox::{Group, LiveFiles, Spec};
use crate::serve::connection::{self, Control};
use crate::serve::daemon::{self, Daemon};
use crate::serve::event_loop::Outcome;
use crate::serve::protocol::{State, Status};
use crate::serve::shared::Shared;
use crate::serve::shutdown;
use crate::serve::signals::Signals;
use anyhow::{Context as _, Result};
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

/// The stack of the thread that asks the mount, in bytes.
const STACK: usize = 64 * 1024;

/// All that the wait works on.
pub(crate) struct Bare {
    pub(crate) spec: Spec,
    pub(crate) staging: PathBuf,
    pub(crate) shared: Arc<Shared>,
    pub(crate) signals: Signals,
    pub(crate) live_files: LiveFiles,
    pub(crate) status: Status,
    /// Removed with the last daemon.
    pub(crate) _group: Option<Group>,
}

impl Bare {
    /// Has the daemon serve the connection `fuse` until it ends.
    ///
    /// # Errors
    /// The daemon could not be started.
    pub(crate) fn run(mut self, fuse: OwnedFd) -> Result<Outcome> {
        let now = Instant::now();
        let answered = self.ask_mount()?;
        self.status.starts = 1;
        let mut daemon = match Daemon::start_on(&self.spec, fuse, now) {
            Ok(daemon) => daemon,
            Err(e) => {
                self.publish(State::Failed {
                    exit: None,
                    signal: None,
                    output: format!("{e:#}"),
                });
                // Its client has the answer of this process for as long as the mount stays.
                return self.stay();
            }
        };
        log::info!(
            "started {} as process {}, without the relay",
            self.spec.program.display(),
            daemon.pid()
        );
        self.status.daemon = Some(daemon.pid());
        self.status.sandbox_lacks = daemon.process().left_out().to_vec();
        self.publish(State::Starting);
        let mut served = false;
        let end = loop {
            self.wait(Some(&daemon), (!served).then_some(&answered))?;
            let now = Instant::now();
            daemon.take_output(now);
            if !served && rustix::io::read(&answered, &mut [0; 8]).is_ok() {
                served = true;
                daemon.serves(now);
                self.publish(State::Served);
            }
            if self.attend() {
                daemon.kill();
            }
            if let Some(end) = daemon.find_end()? {
                daemon.take_output(Instant::now());
                break end;
            }
        };
        log::warn!("process {} {end}", daemon.pid());
        self.status.daemon = None;
        self.status.ends = 1;
        match (served, connection::is_mounted(&self.staging)) {
            (_, false) => Ok(Outcome::Ended),
            (true, true) => Ok(Outcome::Aborted),
            (false, true) => {
                self.publish(daemon::failed(&end, daemon.printed()));
                self.stay()
            }
        }
    }

    /// Answers clients until the mount, which nobody serves, is taken away.
    fn stay(mut self) -> Result<Outcome> {
        let signal =
            std::fs::File::open("/proc/thread-self/mountinfo").context("watch the mount table")?;
        while connection::is_mounted(&self.staging) {
            let mut fds = [
                PollFd::new(&signal, PollFlags::PRI),
                PollFd::from_borrowed_fd(self.shared.loop_event(), PollFlags::IN),
                PollFd::from_borrowed_fd(self.signals.as_fd(), PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e).context("wait for the unmount"),
            }
            self.attend();
        }
        Ok(Outcome::Ended)
    }

    fn wait(&self, daemon: Option<&Daemon>, answered: Option<&OwnedFd>) -> Result<()> {
        let signals = self.signals.as_fd();
        let answered = answered.map_or(signals, |fd| fd.as_fd());
        let mut fds = [
            PollFd::from_borrowed_fd(signals, PollFlags::IN),
            PollFd::from_borrowed_fd(self.shared.loop_event(), PollFlags::IN),
            PollFd::from_borrowed_fd(self.live_files.fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(daemon.map_or(signals, Daemon::ended), PollFlags::IN),
            PollFd::from_borrowed_fd(
                daemon.and_then(Daemon::output).unwrap_or(signals),
                PollFlags::IN,
            ),
            PollFd::from_borrowed_fd(answered, PollFlags::IN),
        ];
        match poll(&mut fds, None) {
            Ok(_) | Err(rustix::io::Errno::INTR) => Ok(()),
            Err(e) => Err(e).context("wait for events"),
        }
    }

    /// Does what clients and signals ask for. True if the daemon is to be ended at once: it was asked
    /// to end, and asked again.
    fn attend(&mut self) -> bool {
        self.live_files.refresh();
        let wishes = self.shared.take_wishes();
        let asked = self.signals.came() || wishes.quit;
        let again = asked && self.status.state == State::Ending;
        if asked {
            if let Err(e) = self.unmount() {
                log::warn!("{e:#}");
            }
            self.status.state = State::Ending;
        }
        if wishes.publish || asked {
            self.publish(self.status.state.clone());
        }
        again
    }

    /// Takes the mount away. Containers that still have it keep it at the shutdown of a node, until they
    /// end; otherwise theirs is dead from here on, or the daemon would serve them for ever.
    fn unmount(&self) -> Result<()> {
        if shutdown::is_under_way() {
            return shutdown::leave(&self.staging);
        }
        let control = Control::find(&self.staging);
        connection::unmount_all(&self.staging)?;
        match control.filter(Control::exists) {
            Some(control) => control.abort(),
            None => Ok(()),
        }
    }

    fn publish(&mut self, state: State) {
        self.status.state = state;
        self.shared.publish(self.status.clone());
    }

    /// An event that comes once the mount answers a statfs. It is asked in a thread: the answer may
    /// take for ever, or until the daemon ends.
    fn ask_mount(&self) -> Result<OwnedFd> {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let event = eventfd(0, flags).context("make an eventfd")?;
        let (staging, own) = (
            self.staging.clone(),
            event.try_clone().context("duplicate an eventfd")?,
        );
        std::thread::Builder::new()
            .name("probe".to_owned())
            .stack_size(STACK)
            .spawn(move || {
                if rustix::fs::statvfs(&staging).is_ok() {
                    let _ = rustix::io::write(&own, &1_u64.to_ne_bytes());
                }
            })
            .context("start a thread")?;
        Ok(event)
    }
}
