//! What the daemon or the kernel still has to answer.

use crate::serve::relay::opcode::Opcode;
use std::time::Instant;

/// Buffers that are kept for the next request, and the largest of them in bytes.
const SPARE: usize = 64;
const SPARE_BYTES: usize = 4096;
/// The bits of a unique that are the slot's number; the lowest bit is the kernel's for INTERRUPT.
const SLOT_BITS: u32 = 16;

/// A request that has not ended.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) origin: Origin,
    pub(super) opcode: Opcode,
    pub(super) node: u64,
    /// The second node of RENAME and LINK, else 0.
    pub(super) other: u64,
    /// The handle that it names.
    pub(super) handle: Option<u64>,
    /// The bytes that it asks for or brings.
    pub(super) size: u32,
    /// The flags of OPEN, OPENDIR and CREATE.
    pub(super) flags: u32,
    /// READDIR: the kernel's position.
    pub(super) position: u64,
    /// READDIR: the daemon's position, when everything before it had been given already.
    pub(super) again: Option<u64>,
    /// READDIR: pages that were left out whole.
    pub(super) pages: u32,
    /// Daemons that died while it was under way.
    pub(super) deaths: u32,
    /// The thread that waits, 0 for none.
    pub(super) tid: u32,
    pub(super) since: Instant,
    /// When the daemon was sent it.
    pub(super) sent: Instant,
    /// When the thread is to be looked at next.
    pub(super) look: Instant,
    pub(super) state: State,
    /// As the kernel sent it, with the kernel's numbers; empty where it is not needed again.
    pub(super) message: Vec<u8>,
    /// Counts the requests: a smaller one came earlier.
    pub(super) serial: u64,
}

/// Who waits for the answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Origin {
    /// The kernel's request of this unique.
    Kernel(u64),
    /// The kernel was answered before the daemon had answered.
    Abandoned,
    /// The relay.
    Own(Purpose),
}

/// What a request of the relay's own is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Purpose {
    Init,
    /// STATFS: does the daemon answer?
    Ping,
    /// LOOKUP of this node in its parent.
    Find(u64),
    /// OPEN or OPENDIR of the request's handle.
    Reopen,
    /// RELEASE or RELEASEDIR of the request's handle.
    Close,
}

/// How far a request is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    /// The daemon has it under this unique.
    Sent(u64),
    /// Waits until a daemon serves.
    Daemon,
    /// Waits until the node has been looked up.
    Node(u64),
    /// Waits until the handle has been opened again.
    Handle(u64),
    /// Waits until abandoned changes of the node's file have ended.
    Settled(u64),
    /// Waits until the daemon has answered others.
    Room,
}

impl Request {
    /// A request that names nothing yet.
    pub(super) fn new(origin: Origin, opcode: Opcode, node: u64, now: Instant) -> Self {
        Self {
            origin,
            opcode,
            node,
            other: 0,
            handle: None,
            size: 0,
            flags: 0,
            position: 0,
            again: None,
            pages: 0,
            deaths: 0,
            tid: 0,
            since: now,
            sent: now,
            look: now,
            state: State::Daemon,
            message: Vec::new(),
            serial: 0,
        }
    }

    pub(super) fn is_sent(&self) -> bool {
        matches!(self.state, State::Sent(_))
    }

    pub(super) fn is_kernels(&self) -> bool {
        matches!(self.origin, Origin::Kernel(_))
    }

    /// Whether its message is needed after it has been sent: to ask another daemon, or because
    /// the names in it say what the answer changes.
    pub(super) fn keeps_message(&self) -> bool {
        self.opcode.only_reads() || self.opcode.name().is_some()
    }
}

/// The table of slots.
#[derive(Debug, Default)]
pub(super) struct Requests {
    slots: Vec<Option<Request>>,
    free: Vec<usize>,
    serial: u64,
    uniques: u64,
    spare: Vec<Vec<u8>>,
    /// Requests of the kernel.
    held: usize,
    /// Requests that are sent.
    sent: usize,
}

impl Requests {
    /// Puts a request into a slot; none when there is none (never with the bounds of the relay).
    pub(super) fn add(&mut self, mut request: Request) -> Option<usize> {
        let slot = match self.free.pop() {
            Some(slot) => slot,
            None if self.slots.len() < 1 << SLOT_BITS => {
                self.slots.push(None);
                self.slots.len() - 1
            }
            None => return None,
        };
        self.serial += 1;
        request.serial = self.serial;
        self.held += usize::from(request.is_kernels());
        self.slots[slot] = Some(request);
        Some(slot)
    }

    pub(super) fn get(&self, slot: usize) -> Option<&Request> {
        self.slots.get(slot)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, slot: usize) -> Option<&mut Request> {
        self.slots.get_mut(slot)?.as_mut()
    }

    /// Ends a request.
    pub(super) fn take(&mut self, slot: usize) -> Option<Request> {
        let request = self.slots.get_mut(slot)?.take()?;
        self.held -= usize::from(request.is_kernels());
        self.sent -= usize::from(request.is_sent());
        self.free.push(slot);
        Some(request)
    }

    /// The slot of the request that the daemon has under `unique`.
    pub(super) fn find(&self, unique: u64) -> Option<usize> {
        let slot = (unique >> 1) as usize & ((1 << SLOT_BITS) - 1);
        (self.get(slot)?.state == State::Sent(unique)).then_some(slot)
    }

    /// The slot of the kernel's request `unique`.
    pub(super) fn of_kernel(&self, unique: u64) -> Option<usize> {
        self.slots()
            .find_map(|(slot, request)| (request.origin == Origin::Kernel(unique)).then_some(slot))
    }

    /// Counts the request as sent, under the unique that is given back: never one a second time.
    pub(super) fn send(&mut self, slot: usize, now: Instant) -> u64 {
        self.uniques += 1;
        let unique = (self.uniques << SLOT_BITS | slot as u64) << 1;
        if let Some(request) = self.slots.get_mut(slot).and_then(Option::as_mut) {
            self.sent += usize::from(!request.is_sent());
            request.state = State::Sent(unique);
            request.sent = now;
        }
        unique
    }

    /// Counts the request as one that waits.
    pub(super) fn wait(&mut self, slot: usize, state: State) {
        if let Some(request) = self.slots.get_mut(slot).and_then(Option::as_mut) {
            self.sent -= usize::from(request.is_sent());
            request.state = state;
        }
    }

    /// The kernel's request has been answered, the daemon's answer is still to come.
    pub(super) fn abandon(&mut self, slot: usize) {
        if let Some(request) = self.slots.get_mut(slot).and_then(Option::as_mut) {
            self.held -= usize::from(request.is_kernels());
            request.origin = Origin::Abandoned;
        }
    }

    /// The requests with their slots, in no order.
    pub(super) fn slots(&self) -> impl Iterator<Item = (usize, &Request)> {
        self.slots
            .iter()
            .enumerate()
            .filter_map(|(slot, request)| Some((slot, request.as_ref()?)))
    }

    /// The slots of the requests that `choose`, the oldest first.
    pub(super) fn choose(&self, choose: impl Fn(&Request) -> bool) -> Vec<usize> {
        let mut chosen: Vec<(u64, usize)> = self
            .slots()
            .filter(|(_, request)| choose(request))
            .map(|(slot, request)| (request.serial, slot))
            .collect();
        chosen.sort_unstable();
        chosen.into_iter().map(|(_, slot)| slot).collect()
    }

    /// The kernel's requests.
    pub(super) fn held(&self) -> usize {
        self.held
    }

    /// The requests that the daemon has.
    pub(super) fn sent(&self) -> usize {
        self.sent
    }

    /// An empty buffer.
    pub(super) fn buffer(&mut self) -> Vec<u8> {
        self.spare.pop().unwrap_or_default()
    }

    /// Takes a buffer back.
    pub(super) fn recycle(&mut self, mut buffer: Vec<u8>) {
        if self.spare.len() < SPARE && (1..=SPARE_BYTES).contains(&buffer.capacity()) {
            buffer.clear();
            self.spare.push(buffer);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::serve::relay::wire::ROOT;

    #[test]
    fn only_what_is_sent_is_found_and_only_under_its_last_unique() {
        let now = Instant::now();
        let mut requests = Requests::default();
        let request = || Request::new(Origin::Kernel(8), Opcode::Getattr, ROOT, now);
        let slot = requests.add(request()).unwrap();
        assert_eq!((requests.held(), requests.sent()), (1, 0));
        let first = requests.send(slot, now);
        assert_eq!(requests.find(first), Some(slot));
        requests.wait(slot, State::Daemon);
        assert_eq!(requests.find(first), None);
        let second = requests.send(slot, now);
        assert_ne!(first, second);
        assert_eq!((first & 1, second & 1), (0, 0));
        assert_eq!(requests.find(first), None);
        assert_eq!(requests.of_kernel(8), Some(slot));
        requests.abandon(slot);
        assert_eq!((requests.held(), requests.sent()), (0, 1));
        assert_eq!(requests.of_kernel(8), None);
        assert_eq!(requests.find(second), Some(slot));
        requests.take(slot).unwrap();
        assert_eq!(requests.find(second), None);
        assert_eq!((requests.held(), requests.sent()), (0, 0));
    }
}
