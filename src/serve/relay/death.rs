//! The end of a daemon and the start of the next: who is answered what, and what is kept.

use crate::serve::relay::agreement::{Agreed, Offer};
use crate::serve::relay::handles::Handle;
use crate::serve::relay::journal::{self, JournalError};
use crate::serve::relay::nodes::Nodes;
use crate::serve::relay::opcode::Opcode;
use crate::serve::relay::requests::{Origin, Purpose, Request, State};
use crate::serve::relay::send::EIO;
use crate::serve::relay::wire::{self, OUT_HEADER, ROOT, u32_at};
use crate::serve::relay::{Daemon, DaemonFault, Link, Record, Relay, Settings};
use std::time::Instant;

/// A request that was under way when so many daemons died is asked of no other: it may be what
/// they die of.
const MOST_DEATHS: u32 = 5;

impl Relay {
    /// The relay that a journal tells of, after the process that kept it has ended. Call
    /// [`Relay::daemon_ended`] next: what was in flight (uniques of the kernel's) gets EIO then,
    /// and who had a file open for writing fails. Where the kernel hands over again what was in flight
    /// ([`resend`](super::resend)), none is to be named.
    pub fn restore(
        settings: Settings,
        journal: &[u8],
        in_flight: &[u64],
    ) -> Result<Self, JournalError> {
        let told = journal::read(journal)?;
        let mut relay = Self::new(settings);
        if let Some((offer, answer)) = told.agreed
            && let Some(offer) = Offer::parse(&offer)
        {
            relay.offer = Some(offer);
            relay.agreed = Agreed::parse(&offer, &answer);
        }
        relay.root.attr = told.root;
        relay.nodes = Nodes::restored(told.nodes.values().filter_map(|record| match *record {
            Record::Node {
                id,
                parent,
                lookups,
                kind,
                deleted,
                name,
            } => {
                let mut node = Nodes::record(id, parent, name, kind, lookups);
                node.deleted = deleted;
                Some(node)
            }
            _ => None,
        }));
        for record in told.handles.values() {
            let Record::Opened {
                id,
                node,
                flags,
                directory,
                writer,
                failed,
            } = *record
            else {
                continue;
            };
            let mut handle = match directory {
                true => Handle::directory(node, flags),
                false => Handle::file(node, flags, writer),
            };
            handle.failed = failed;
            relay.nodes.pin(node);
            relay.handles.restore(id, handle);
        }
        // What only a request that has ended now had kept.
        let unheld = relay.nodes.iter().filter(|node| node.lookups == 0);
        for id in unheld.map(|node| node.id).collect::<Vec<_>>() {
            relay.nodes.settle(id, &mut relay.settled);
        }
        relay.orphans = in_flight.to_vec();
        Ok(relay)
    }

    /// A daemon has been started and its socket is there.
    pub fn daemon_started(&mut self, now: Instant, link: &mut dyn Link) {
        self.now = now;
        self.daemon = Daemon::Starting;
        self.offer_init(link);
    }

    /// Sends INIT, when the kernel has.
    pub(super) fn offer_init(&mut self, link: &mut dyn Link) {
        if let Some(offer) = &self.offer {
            let purpose = Origin::Own(Purpose::Init);
            let mut request = Request::new(purpose, Opcode::Init, ROOT, self.now);
            request.message = offer.request();
            self.begin_own(request, link);
        }
    }

    /// The daemon has answered INIT: what waited goes on, if it agrees with the one before.
    pub(super) fn init_answered(
        &mut self,
        slot: usize,
        message: &[u8],
        link: &mut dyn Link,
    ) -> Result<(), DaemonFault> {
        let agreed = self
            .offer
            .filter(|_| u32_at(message, wire::answer::ERROR) == 0)
            .and_then(|offer| Agreed::parse(&offer, &message[OUT_HEADER..]));
        let agreed = agreed.ok_or(DaemonFault::Init)?;
        if let Some(request) = self.requests.take(slot) {
            self.finish(request, link);
        }
        self.proposed = Some(agreed);
        self.ask_whether_it_answers(link);
        Ok(())
    }

    /// The daemon has answered a STATFS. After INIT what waited goes on, if it agrees with the
    /// daemon before.
    pub(super) fn pulse_felt(&mut self, link: &mut dyn Link) -> Result<(), DaemonFault> {
        self.ping = None;
        self.answered = Some(self.now);
        let (Some(offer), Some(agreed)) = (self.offer, self.proposed.take()) else {
            return Ok(());
        };
        match &self.agreed {
            Some(before) if *before != agreed => return Err(DaemonFault::LimitsDiffer),
            Some(_) => {}
            None => {
                self.agreed = Some(agreed);
                link.record(&Record::Agreed {
                    offer: offer.to_bytes(),
                    answer: agreed.to_bytes(),
                });
            }
        }
        self.daemon = Daemon::Serving;
        if let Some(unique) = self.init.take() {
            link.to_kernel(&agreed.answer(unique));
        }
        self.wake(State::Daemon, link);
        Ok(())
    }

    /// Sends what the daemon's socket had no room for.
    pub fn daemon_writable(&mut self, now: Instant, link: &mut dyn Link) {
        self.now = now;
        while let Some(message) = self.outgoing.front() {
            if !link.to_daemon(message) {
                return;
            }
            self.outgoing.pop_front();
        }
    }

    /// The daemon has ended and all that it had answered has been taken.
    pub fn daemon_ended(&mut self, now: Instant, link: &mut dyn Link) {
        self.now = now;
        self.daemon = Daemon::Gone;
        self.counts.deaths += 1;
        self.proposed = None;
        self.nodes.daemon_changed();
        self.outgoing.clear();
        self.room.clear();
        self.unsettled.clear();
        self.settled.forgets.clear();
        self.ping = None;
        self.answered = None;
        for unique in std::mem::take(&mut self.orphans) {
            self.answer(unique, EIO, link);
        }
        self.handles_ended(link);
        // Every request first becomes one that waits, and then what waits for nothing ends.
        for slot in self.requests.choose(|_| true) {
            self.request_ended(slot, link);
        }
        self.record_gone(link);
    }

    /// Who could write fails; who only reads has nothing but his place.
    fn handles_ended(&mut self, link: &mut dyn Link) {
        let mut closed = Vec::new();
        for (id, handle) in self.handles.iter_mut() {
            handle.daemon = None;
            handle.users = 0;
            if let Some(listing) = &mut handle.listing {
                listing.daemon_changed();
            }
            if handle.closing.is_some() {
                closed.push(id);
            }
            let Some(node) = self.nodes.get_mut(handle.node).filter(|_| handle.writer) else {
                continue;
            };
            node.lost_writes = true;
            if std::mem::replace(&mut handle.failed, true) {
                continue;
            }
            if handle.closing.is_none() {
                link.record(&handle.to_record(id));
            }
            if !std::mem::replace(&mut node.stale_pages, true) {
                link.notify(wire::invalidate_inode(handle.node));
                // It may never have been saved: then an open that creates has to hear so.
                if !node.deleted {
                    link.notify(wire::invalidate_entry(node.parent, &node.name));
                }
            }
        }
        self.handles.all_failed();
        for id in closed {
            self.drop_handle(id, link);
        }
    }

    /// Ends a request, or lets it wait for the next daemon.
    fn request_ended(&mut self, slot: usize, link: &mut dyn Link) {
        let Some(request) = self.requests.get_mut(slot) else {
            return;
        };
        request.again = None;
        let was_sent = request.is_sent();
        let in_step = matches!(request.state, State::Node(_) | State::Handle(_));
        request.deaths += u32::from(was_sent || in_step);
        let is_poison = request.deaths >= MOST_DEATHS;
        self.requests.wait(slot, State::Daemon);
        let Some(request) = self.requests.get(slot) else {
            return;
        };
        if let Origin::Kernel(unique) = request.origin {
            let alone = match request.handle {
                _ if request.opcode.closes() => Some(0),
                Some(id) => self.handle_alone(request, id),
                None => None,
            };
            let error = match alone {
                Some(error) => error,
                None if is_poison => EIO,
                // It never began.
                None if !was_sent => return,
                None if request.may_be_repeated() => {
                    self.counts.repeated += 1;
                    return;
                }
                None => EIO,
            };
            self.answer(unique, error, link);
        }
        let Some(request) = self.requests.take(slot) else {
            return;
        };
        if was_sent && request.opcode == Opcode::Rename {
            // What had the new name may have lost it: who has it open must not get other bytes.
            self.replaced(&request, link);
        }
        if let (true, Some(id)) = (request.opcode.closes(), request.handle) {
            self.drop_handle(id, link);
        }
        self.finish(request, link);
    }
}
