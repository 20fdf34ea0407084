//! The event loop of a volume's process: one thread that waits for the kernel, the daemon, clients
//! and signals, has the relay decide, and replaces a daemon that has ended.

mod replace;

use crate::sandbox::{Group, LiveFiles, Spec};
use crate::serve::connection::{self, Read};
use crate::serve::control::timespec;
use crate::serve::daemon::Daemon;
use crate::serve::daemon_spec::spec;
use crate::serve::ends::Ends;
use crate::serve::lost::{LostRequests, Verdict};
use crate::serve::plan::Plan;
use crate::serve::protocol::{State, Status};
use crate::serve::relay::Relay;
use crate::serve::shared::Shared;
use crate::serve::shutdown;
use crate::serve::signals::Signals;
use crate::serve::starts::Starts;
use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, poll};
use std::os::fd::AsFd as _;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Messages that are taken from one side before the other has its turn.
const BATCH: usize = 64;

/// All that the loop works on.
pub(crate) struct EventLoop {
    pub(crate) spec: Spec,
    /// Directories that are emptied before each start of a daemon.
    pub(crate) emptied: Vec<std::path::PathBuf>,
    pub(crate) staging: PathBuf,
    pub(crate) hung_after: Duration,
    pub(crate) relay: Relay,
    pub(crate) ends: Ends,
    pub(crate) shared: Arc<Shared>,
    pub(crate) signals: Signals,
    pub(crate) live_files: LiveFiles,
    pub(crate) starts: Starts,
    /// When the next daemon is to be started, while there is none.
    pub(crate) next_start: Option<Instant>,
    /// A client asked for a start while a daemon was starting: should that one fail, it says nothing about
    /// the moment of the request, and another is started at once.
    pub(crate) start_again: bool,
    /// When something else is due though no event comes.
    pub(crate) next_look: Option<Instant>,
    pub(crate) status: Status,
    pub(crate) lost: Option<LostRequests>,
    pub(crate) buffer: Vec<u8>,
    pub(crate) quitting: bool,
    /// No Pod uses the volume any more: it ends once nothing is open.
    pub(crate) leaving: bool,
    /// Removed with the last daemon.
    pub(crate) _group: Option<Group>,
}

/// How the mount ended.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Outcome {
    /// It was unmounted, or this process asked to end.
    Ended,
    /// The connection was aborted while it was mounted.
    Aborted,
}

/// What is ready.
struct Ready {
    kernel: bool,
    daemon: bool,
    daemon_writable: bool,
    output: bool,
    ended: bool,
    wishes: bool,
    signals: bool,
    live_files: bool,
    notifier: bool,
}

impl EventLoop {
    /// Serves until the mount ends; the daemon has ended as well then.
    ///
    /// # Errors
    /// What leaves no way to serve on.
    pub(crate) fn run(mut self) -> Result<Outcome> {
        self.publish();
        let outcome = loop {
            if let Some(outcome) = self.round()? {
                break outcome;
            }
        };
        self.status.state = State::Ending;
        self.publish();
        if outcome == Outcome::Aborted {
            // Its callers have their errors, and the next mount is not to wait for what it is at.
            self.kill_daemon("the connection was aborted");
        }
        self.finish()?;
        Ok(outcome)
    }

    /// Waits for something to do, and does it.
    fn round(&mut self) -> Result<Option<Outcome>> {
        self.start_if_due();
        let ready = self.wait()?;
        let now = Instant::now();
        if ready.signals && self.signals.came() {
            log::info!("exiting: received a signal");
            match shutdown::is_under_way() {
                true => shutdown::leave(&self.staging)?,
                false if self.quitting => self.kill_daemon("requested again"),
                false => self.quit(),
            }
        }
        // Before clients: a daemon that had ended when they asked does not serve.
        if ready.ended {
            self.find_end(now)?;
        }
        if ready.wishes {
            self.grant();
        }
        if ready.live_files {
            self.live_files.refresh();
        }
        if ready.notifier {
            self.ends.notifier.flush();
        }
        if ready.output
            && let Some(daemon) = &mut self.ends.daemon
        {
            daemon.take_output(now);
        }
        if ready.daemon {
            self.take_answers(now, BATCH);
        }
        if ready.daemon_writable {
            self.relay.daemon_writable(now, &mut self.ends);
        }
        if ready.kernel && self.take_requests(now)? {
            return Ok(Some(self.outcome()));
        }
        if self.relay.next_tick().is_some_and(|tick| tick <= now) {
            self.relay.tick(now, &mut self.ends);
        }
        self.ends.journal.flush();
        self.ends.journal.compact(&self.relay);
        let relay = self.relay.status();
        self.look_after_daemon(&relay, now);
        let idle = relay.requests == 0;
        if idle && !ready.kernel {
            self.look_for_lost_requests(now)?;
        }
        if self.leaving && !self.quitting && idle && relay.handles == 0 {
            log::info!("exiting: no Pod uses the volume any more, and nothing is open");
            self.quit();
        }
        // Without a daemon nobody answers those that are left: they fail with the connection.
        if self.quitting && (self.ends.daemon.is_none() || idle) {
            return Ok(Some(Outcome::Ended));
        }
        self.next_look = [
            self.relay.next_tick(),
            self.hung_at(&relay),
            self.lost.as_ref().filter(|_| idle).map(LostRequests::next),
        ]
        .into_iter()
        .flatten()
        .min();
        Ok(None)
    }

    fn wait(&self) -> Result<Ready> {
        let none = PollFlags::empty();
        let daemon = self.ends.daemon.as_ref();
        let signals = self.signals.as_fd();
        let wants = |wanted| if wanted { PollFlags::IN } else { none };
        let mut to_daemon = wants(daemon.is_some_and(|daemon| !daemon.broken));
        if self.relay.wants_writable() && !to_daemon.is_empty() {
            to_daemon |= PollFlags::OUT;
        }
        // Without a daemon its places are taken by a descriptor that nothing is asked of.
        let socket = daemon.and_then(Daemon::socket).unwrap_or(signals);
        let output = daemon.and_then(Daemon::output);
        let ended = daemon.map_or(signals, Daemon::ended);
        let with_daemon = wants(daemon.is_some());
        let notifier = self.ends.notifier.wants_writable();
        let to_notifier = match notifier {
            Some(_) => PollFlags::OUT,
            None => none,
        };
        let from_kernel = wants(self.relay.wants_kernel() && !self.quitting);
        let mut fds = [
            PollFd::new(&self.ends.fuse, from_kernel),
            PollFd::from_borrowed_fd(socket, to_daemon),
            PollFd::from_borrowed_fd(output.unwrap_or(signals), wants(output.is_some())),
            PollFd::from_borrowed_fd(ended, with_daemon),
            PollFd::from_borrowed_fd(self.shared.loop_event(), PollFlags::IN),
            PollFd::from_borrowed_fd(signals, PollFlags::IN),
            PollFd::from_borrowed_fd(self.live_files.fd(), PollFlags::IN),
            PollFd::from_borrowed_fd(notifier.unwrap_or(signals), to_notifier),
        ];
        let left = [self.next_look, self.next_start]
            .into_iter()
            .flatten()
            .min()
            .map(|moment| timespec(moment.saturating_duration_since(Instant::now())));
        match poll(&mut fds, left.as_ref()) {
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(e) => return Err(e).context("wait for events"),
        }
        let is = |at: usize, flags: PollFlags| fds[at].revents().intersects(flags);
        let any = PollFlags::IN | PollFlags::HUP | PollFlags::ERR;
        let here = daemon.is_some();
        Ok(Ready {
            kernel: is(0, any),
            daemon: here && is(1, any),
            daemon_writable: here && is(1, PollFlags::OUT),
            output: output.is_some() && is(2, any),
            ended: here && is(3, any),
            wishes: is(4, any),
            signals: is(5, any),
            live_files: is(6, any),
            notifier: notifier.is_some() && !fds[7].revents().is_empty(),
        })
    }

    /// Has the relay take up to `BATCH` requests. True once the connection has ended.
    fn take_requests(&mut self, now: Instant) -> Result<bool> {
        for _ in 0..BATCH {
            match connection::read(&self.ends.fuse, &mut self.buffer)? {
                Read::Empty => break,
                Read::Ended => return Ok(true),
                Read::Message(length) => {
                    let message = &mut self.buffer[..length];
                    self.relay.from_kernel(message, now, &mut self.ends);
                }
            }
            if !self.relay.wants_kernel() || self.quitting {
                break;
            }
        }
        Ok(false)
    }

    /// Does what clients wish.
    fn grant(&mut self) {
        let wishes = self.shared.take_wishes();
        if wishes.start {
            if matches!(self.status.state, State::Failed { .. }) {
                self.status.state = State::Starting;
            }
            if self.next_start.is_some() {
                self.next_start = Some(Instant::now());
            }
            // The first start is the one that the client waits for.
            self.start_again = self.status.starts > 1 && self.ends.daemon.is_some();
        }
        if wishes.reload
            && let Err(e) = self.reload()
        {
            log::error!("read the plan again: {e:#}");
        }
        if wishes.quit {
            log::info!("exiting: requested over the control socket");
            self.quit();
        }
        self.leaving |= wishes.leave;
        if wishes.publish {
            self.publish();
        }
    }

    /// Takes over what can be changed while the volume is mounted.
    fn reload(&mut self) -> Result<()> {
        let volume = self.staging.parent().unwrap_or(&self.staging);
        let plan = Plan::read(volume)?;
        let groups = std::mem::take(&mut self.spec.groups);
        self.spec = spec(&plan, volume)?;
        self.spec.groups = groups;
        self.emptied.clone_from(&plan.emptied);
        self.hung_after = plan.hung_after();
        self.relay.set_request_timeout(plan.request_timeout());
        log::info!("read the plan again");
        Ok(())
    }

    /// Begins to end: no further request is read, those under way are answered.
    fn quit(&mut self) {
        if let Err(e) = connection::unmount_all(&self.staging) {
            log::warn!("{e:#}");
        }
        self.quitting = true;
        self.status.state = State::Ending;
        // Nothing was written through one that has not served, and it may wait for a store that does not
        // answer.
        if self
            .ends
            .daemon
            .as_ref()
            .is_some_and(|daemon| !daemon.has_served())
        {
            self.kill_daemon("the volume is not needed any more");
        }
    }

    fn publish(&mut self) {
        let relay = self.relay.status();
        self.status.daemon = self.ends.daemon.as_ref().map(Daemon::pid);
        if let Some(daemon) = &self.ends.daemon {
            self.status.printed = daemon.printed();
        }
        self.status.in_flight = relay.requests as u64;
        let age = relay
            .oldest
            .map_or(Duration::ZERO, |oldest| oldest.elapsed());
        self.status.oldest_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        self.status.nodes = relay.nodes as u64;
        self.status.handles = relay.handles as u64;
        self.status.writers = Some(relay.writers as u64);
        self.status.lost_writers = relay.failed as u64;
        self.shared.publish(self.status.clone());
    }

    /// Ends a connection that has requests which an earlier process had read and not recorded when it
    /// was killed: their callers would wait for ever.
    fn look_for_lost_requests(&mut self, now: Instant) -> Result<()> {
        match self.lost.as_mut().map(|lost| lost.look(now)) {
            None | Some(Verdict::NotYet) => {}
            Some(Verdict::None) => self.lost = None,
            Some(Verdict::Lost(count)) => {
                log::error!(
                    "{count} requests were lost with the previous process: aborting the FUSE connection"
                );
                if let Some(lost) = self.lost.take() {
                    lost.abort()?;
                }
            }
        }
        Ok(())
    }

    /// Whether the end of the connection is that of the mount.
    fn outcome(&self) -> Outcome {
        match connection::is_mounted(&self.staging) {
            true => Outcome::Aborted,
            false => Outcome::Ended,
        }
    }
}
