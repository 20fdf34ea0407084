//! Requests that take long: whether their thread is being killed, whether the daemon still answers,
//! and how long they may wait without one.
//!
//! The kernel sends INTERRUPT once for a request, for any signal that the caller handles, and no
//! second one for a SIGKILL that follows; so the thread itself is looked at.

use crate::serve::relay::kernel::FIRST_LOOK;
use crate::serve::relay::opcode::Opcode;
use crate::serve::relay::requests::{Origin, Purpose, Request};
use crate::serve::relay::send::{EINTR, EIO};
use crate::serve::relay::wire::{self, ROOT};
use crate::serve::relay::{Daemon, Link, Relay};
use std::time::{Duration, Instant};

/// Between two looks at a request's thread.
const LOOK_AGAIN: Duration = Duration::from_millis(250);
/// A daemon that has not answered a request for so long is asked whether it answers at all.
const SILENT: Duration = Duration::from_secs(2);

impl Relay {
    /// Looks at what has waited for long. Harmless at any time.
    pub fn tick(&mut self, now: Instant, link: &mut dyn Link) {
        self.now = now;
        self.soonest = None;
        let mut silent = false;
        for slot in self.requests.choose(|_| true) {
            let Some(request) = self.requests.get(slot) else {
                continue;
            };
            let ours = matches!(request.origin, Origin::Own(Purpose::Init | Purpose::Ping));
            silent |= request.is_sent() && !ours && now >= request.sent + SILENT;
            if !request.is_kernels() {
                if !ours {
                    self.watch(now + LOOK_AGAIN.max(SILENT));
                }
                continue;
            }
            if now >= request.look {
                self.look(slot, link);
            }
            if let Some(request) = self
                .requests
                .get(slot)
                .filter(|request| request.is_kernels())
            {
                self.watch(request.look);
            }
        }
        if silent && self.ping.is_none() && self.answer_is_old() {
            self.ask_whether_it_answers(link);
        }
        self.fill_room(link);
        self.flush_forgets(link);
    }

    /// Asks for a tick then, or earlier.
    pub(super) fn watch(&mut self, at: Instant) {
        self.soonest = Some(self.soonest.map_or(at, |soonest| soonest.min(at)));
    }

    /// The kernel says that the caller of `unique` has got a signal.
    pub(super) fn interrupt(&mut self, unique: u64, link: &mut dyn Link) {
        if let Some(slot) = self.requests.of_kernel(unique) {
            self.look(slot, link);
            if let Some(request) = self
                .requests
                .get(slot)
                .filter(|request| request.is_kernels())
            {
                self.watch(request.look);
            }
        }
    }

    /// Lets a caller go that is being killed, or has waited for too long without a daemon.
    fn look(&mut self, slot: usize, link: &mut dyn Link) {
        let now = self.now;
        let Some(request) = self.requests.get_mut(slot) else {
            return;
        };
        request.look = now + LOOK_AGAIN;
        let (tid, since, opcode) = (request.tid, request.since, request.opcode);
        // What FLUSH saves is saved for others too; its caller hears the truth while there is one.
        let may_go = self.daemon == Daemon::Gone || !(opcode == Opcode::Flush || opcode.closes());
        if tid != 0 && may_go && link.is_killed(tid) {
            return self.let_go(slot, EINTR, link);
        }
        let too_long = |timeout| now >= since + timeout && !self.answers(timeout);
        if self.settings.request_timeout.is_some_and(too_long) {
            self.let_go(slot, if opcode.closes() { 0 } else { EIO }, link);
        }
    }

    /// Answers a request before the daemon does. What the daemon has of it goes on there, and is
    /// undone when it ends.
    fn let_go(&mut self, slot: usize, error: i32, link: &mut dyn Link) {
        let Some(request) = self.requests.get(slot) else {
            return;
        };
        if !request.is_sent() {
            return self.fail(slot, error, link);
        }
        let Origin::Kernel(unique) = request.origin else {
            return;
        };
        if request.changes_file() {
            *self.unsettled.entry(request.node).or_default() += 1;
        }
        self.counts.abandoned += 1;
        self.requests.abandon(slot);
        self.answer(unique, error, link);
    }

    /// Whether the daemon answers: it serves, and no question whether it does has been out for long.
    fn answers(&self, timeout: Duration) -> bool {
        self.daemon == Daemon::Serving
            && self
                .ping
                .is_none_or(|since| self.now < since + timeout.min(SILENT))
    }

    /// Whether the last answer to such a question is not of just now.
    fn answer_is_old(&self) -> bool {
        self.answered
            .is_none_or(|answered| self.now >= answered + FIRST_LOOK)
    }

    /// Sends a STATFS of the relay's own, even where the daemon has all that it may have.
    pub(super) fn ask_whether_it_answers(&mut self, link: &mut dyn Link) {
        let has_begun = self.daemon == Daemon::Serving || self.proposed.is_some();
        if has_begun && self.ping.is_none() {
            self.ping = Some(self.now);
            let purpose = Origin::Own(Purpose::Ping);
            let mut request = Request::new(purpose, Opcode::Statfs, ROOT, self.now);
            request.message = wire::request(Opcode::Statfs as u32, ROOT, &[]);
            self.begin_own(request, link);
        }
    }
}
