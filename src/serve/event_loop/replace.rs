//! The daemon of a volume as the event loop sees it: started, listened to, watched, and replaced when it
//! has ended.

use super::EventLoop;
use crate::sandbox::End;
use crate::serve::daemon::{self, Daemon, Received};
use crate::serve::protocol::State;
use crate::serve::{relay, starts};
use anyhow::{Context as _, Result};
use rustix::event::{PollFd, PollFlags, poll};
use std::os::fd::AsFd as _;
use std::time::{Duration, Instant};

impl EventLoop {
    /// When the daemon is to be killed if it does not answer until then.
    pub(super) fn hung_at(&self, relay: &relay::Status) -> Option<Instant> {
        let daemon = self.ends.daemon.as_ref()?;
        let since = relay.unanswered_since.filter(|_| relay.answered)?;
        match daemon.killed {
            true => None,
            false => since.checked_add(self.hung_after),
        }
    }

    /// Starts a daemon if there is none and it is time.
    pub(super) fn start_if_due(&mut self) {
        let now = Instant::now();
        if self.ends.daemon.is_some() || self.quitting || self.next_start.is_none_or(|at| at > now)
        {
            return;
        }
        self.next_start = None;
        self.status.starts += 1;
        let started = daemon::empty(&self.emptied).and_then(|()| Daemon::start(&self.spec, now));
        match started {
            Ok(daemon) => {
                log::info!(
                    "started {} as process {}",
                    self.spec.program.display(),
                    daemon.pid()
                );
                let lacks = daemon.process().left_out();
                if lacks != self.status.sandbox_lacks {
                    log::warn!("this node's sandbox lacks: {}", lacks.join(", "));
                    self.status.sandbox_lacks = lacks.to_vec();
                }
                self.ends.daemon = Some(daemon);
                self.relay.daemon_started(now, &mut self.ends);
                self.publish();
            }
            Err(e) => {
                log::error!("start {}: {e:#}", self.spec.program.display());
                self.status.state = State::Failed {
                    exit: None,
                    signal: None,
                    output: format!("{e:#}"),
                };
                self.next_start =
                    Some(now + self.starts.ended(Duration::ZERO, starts::AFTER_FAILURE));
                self.publish();
            }
        }
    }

    /// Passes up to `most` answers of the daemon on.
    pub(super) fn take_answers(&mut self, now: Instant, most: usize) {
        for _ in 0..most {
            let Some(daemon) = &mut self.ends.daemon else {
                return;
            };
            if daemon.broken {
                return;
            }
            let fault = match daemon.receive(&mut self.buffer) {
                Received::Nothing => return,
                Received::TooLong(length) => format!("a message of {length} bytes"),
                Received::Message(length) => {
                    let message = &mut self.buffer[..length];
                    match self.relay.from_daemon(message, now, &mut self.ends) {
                        Ok(()) => continue,
                        Err(fault) => fault.to_string(),
                    }
                }
            };
            if let Some(daemon) = &mut self.ends.daemon {
                daemon.broken = true;
            }
            self.kill_daemon(&format!("it broke the protocol: {fault}"));
            return;
        }
    }

    /// Notes a daemon that has begun to serve, and kills one that hangs.
    pub(super) fn look_after_daemon(&mut self, relay: &relay::Status, now: Instant) {
        let hung = self.hung_at(relay).is_some_and(|at| at <= now);
        let Some(daemon) = &mut self.ends.daemon else {
            return;
        };
        if relay.answered && !daemon.has_served() && !daemon.broken {
            daemon.serves(now);
            self.status.state = State::Served;
            self.publish();
        }
        if hung {
            let seconds = self.hung_after.as_secs();
            self.kill_daemon(&format!("it has not answered a statfs for {seconds} s"));
        }
    }

    pub(super) fn kill_daemon(&mut self, why: &str) {
        if let Some(daemon) = &mut self.ends.daemon
            && !daemon.killed
        {
            log::warn!("ending process {}: {why}", daemon.pid());
            self.status.killed += 1;
            daemon.kill();
        }
    }

    /// Deals with a daemon that has ended: takes what it still answered, and has another started.
    pub(super) fn find_end(&mut self, now: Instant) -> Result<()> {
        let Some(daemon) = &mut self.ends.daemon else {
            return Ok(());
        };
        let Some(end) = daemon.find_end()? else {
            return Ok(());
        };
        self.take_answers(now, usize::MAX);
        let Some(mut daemon) = self.ends.daemon.take() else {
            return Ok(());
        };
        daemon.take_output(now);
        let served = daemon.time_in_service(now);
        let longest = match end {
            _ if daemon.has_served() => starts::AFTER_SERVICE,
            End::Killed(_) => starts::AFTER_KILL,
            End::Exited(_) => starts::AFTER_FAILURE,
        };
        let again = std::mem::take(&mut self.start_again) && !daemon.has_served();
        let pause = match self.starts.ended(served, longest) {
            _ if again => Duration::ZERO,
            pause => pause,
        };
        log::warn!(
            "process {} {end} after serving for {} s; the next starts in {} ms",
            daemon.pid(),
            served.as_secs(),
            pause.as_millis()
        );
        self.status.ends += 1;
        self.status.state = match daemon.has_served() || again {
            true => State::Starting,
            false => daemon::failed(&end, daemon.printed()),
        };
        self.next_start = Some(now + pause);
        self.relay.daemon_ended(now, &mut self.ends);
        self.publish();
        Ok(())
    }

    /// Lets the daemon finish and waits for its end, however long it takes: it may be uploading.
    /// A second signal ends it at once.
    pub(super) fn finish(&mut self) -> Result<()> {
        let Some(mut daemon) = self.ends.daemon.take() else {
            return Ok(());
        };
        daemon.hang_up();
        if !daemon.has_served() {
            // Nothing was written through it, and it may wait for a store that does not answer.
            daemon.kill();
        }
        loop {
            if daemon.find_end()?.is_some() {
                daemon.take_output(Instant::now());
                log::info!("process {} ended after the unmount", daemon.pid());
                return Ok(());
            }
            let signals = self.signals.as_fd();
            let mut fds = [
                PollFd::from_borrowed_fd(daemon.ended(), PollFlags::IN),
                PollFd::from_borrowed_fd(daemon.output().unwrap_or(signals), PollFlags::IN),
                PollFd::from_borrowed_fd(signals, PollFlags::IN),
            ];
            match poll(&mut fds, None) {
                Ok(_) | Err(rustix::io::Errno::INTR) => {}
                Err(e) => return Err(e).context("wait for the daemon"),
            }
            daemon.take_output(Instant::now());
            if self.signals.came() {
                daemon.kill();
            }
        }
    }
}
