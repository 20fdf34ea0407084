//! The way of a request to the daemon: what the daemon has to be asked first, and the message with
//! its numbers instead of the kernel's.

use crate::serve::relay::nodes::Path;
use crate::serve::relay::opcode::{self, Opcode};
use crate::serve::relay::requests::{Origin, Purpose, Request, State};
use crate::serve::relay::wire::{self, IN_HEADER, set_u32, set_u64};
use crate::serve::relay::{Daemon, Link, MOST_IN_DAEMON, Record, Relay};

pub(super) const ENOENT: i32 = 2;
pub(super) const EINTR: i32 = 4;
pub(super) const EIO: i32 = 5;
pub(super) const ENOSYS: i32 = 38;
pub(super) const ESTALE: i32 = 116;

/// FORGETs in one message: 16 bytes each.
const MOST_FORGETS: usize = 1024;

impl Relay {
    /// Takes the request into the table; what it names stays until it ends.
    pub(super) fn begin(&mut self, request: Request) -> Option<usize> {
        let named = named(&request);
        let slot = self.requests.add(request)?;
        for id in named {
            self.nodes.pin(id);
        }
        Some(slot)
    }

    /// Ends a request that has been taken out of the table.
    pub(super) fn finish(&mut self, request: Request, link: &mut dyn Link) {
        for id in named(&request) {
            self.nodes.unpin(id, &mut self.settled);
        }
        self.record_gone(link);
        if request.origin == Origin::Abandoned && request.changes_file() {
            self.change_ended(request.node, link);
        }
        self.requests.recycle(request.message);
    }

    /// Does the next step of a request: asks the daemon, or what it has to know before. `fresh` is
    /// the message where the kernel has just given it.
    pub(super) fn advance(&mut self, slot: usize, fresh: Option<&mut [u8]>, link: &mut dyn Link) {
        let Some(request) = self.requests.get(slot) else {
            return;
        };
        let purpose = match request.origin {
            Origin::Own(purpose) => Some(purpose),
            _ => None,
        };
        if matches!(purpose, Some(Purpose::Init | Purpose::Ping)) {
            return self.send(slot, fresh, link);
        }
        if self.daemon != Daemon::Serving {
            return self.wait(slot, State::Daemon, fresh);
        }
        if request.changes_file() && self.unsettled.contains_key(&request.node) {
            let node = request.node;
            return self.wait(slot, State::Settled(node), fresh);
        }
        for id in [request.node, request.other] {
            if id == 0 {
                continue;
            }
            match self.nodes.path(id) {
                Path::Known(_) => {}
                Path::Lost => return self.fail(slot, EIO, link),
                Path::LookUp(ancestor) => {
                    self.wait(slot, State::Node(ancestor), fresh);
                    return self.look_up(ancestor, link);
                }
            }
        }
        if let Some(id) = request.handle {
            let reopens = purpose == Some(Purpose::Reopen);
            match self.handles.get(id) {
                Some(handle) if reopens && handle.closing.is_none() => {}
                Some(handle) if !reopens && handle.daemon.is_some() => {}
                Some(handle) if !reopens && !handle.failed => {
                    self.wait(slot, State::Handle(id), fresh);
                    return self.reopen(id, link);
                }
                _ => return self.fail(slot, EIO, link),
            }
        }
        if self.requests.sent() >= MOST_IN_DAEMON {
            let serial = request.serial;
            self.room.push_back((slot, serial));
            return self.wait(slot, State::Room, fresh);
        }
        self.send(slot, fresh, link);
    }

    /// Lets the request wait, with a copy of its message.
    fn wait(&mut self, slot: usize, state: State, fresh: Option<&mut [u8]>) {
        self.requests.wait(slot, state);
        if let Some(message) = fresh {
            self.keep(slot, message);
        }
    }

    fn keep(&mut self, slot: usize, message: &[u8]) {
        let mut copy = self.requests.buffer();
        copy.extend_from_slice(message);
        if let Some(request) = self.requests.get_mut(slot) {
            request.message = copy;
        }
    }

    /// Sends a request of which the daemon knows all that it names.
    fn send(&mut self, slot: usize, fresh: Option<&mut [u8]>, link: &mut dyn Link) {
        if let Some(message) = fresh {
            if self.requests.get(slot).is_some_and(Request::keeps_message) {
                self.keep(slot, message);
            }
            return self.send_message(slot, message, link);
        }
        let mut message = std::mem::take(&mut self.scratch);
        message.clear();
        if let Some(request) = self.requests.get_mut(slot) {
            message.extend_from_slice(&request.message);
            if !request.keeps_message() {
                request.message = Vec::new();
            }
        }
        self.send_message(slot, &mut message, link);
        // A WRITE that had to wait is no reason to keep so much.
        message.shrink_to(4096);
        self.scratch = message;
    }

    fn send_message(&mut self, slot: usize, message: &mut [u8], link: &mut dyn Link) {
        if self.translate(slot, message).is_none() {
            return self.fail(slot, EIO, link);
        }
        let unique = self.requests.send(slot, self.now);
        set_u64(message, wire::request::UNIQUE, unique);
        if let Some(handle) = self
            .requests
            .get(slot)
            .and_then(|request| self.handles.get_mut(request.handle?))
        {
            handle.users += 1;
        }
        self.post(message, link);
    }

    /// Writes the daemon's numbers into the message; none where one is not known.
    fn translate(&mut self, slot: usize, message: &mut [u8]) -> Option<()> {
        let request = self.requests.get(slot)?;
        if matches!(request.origin, Origin::Own(Purpose::Init)) {
            return Some(());
        }
        set_u64(
            message,
            wire::request::NODE,
            self.nodes.daemon(request.node)?,
        );
        if request.opcode.has_second_node() {
            set_u64(message, IN_HEADER, self.nodes.daemon(request.other)?);
        }
        let (Some(id), Some(offset)) = (request.handle, request.opcode.handle()) else {
            return Some(());
        };
        let handle = self.handles.get_mut(id)?;
        set_u64(message, IN_HEADER + offset, handle.daemon?);
        if request.opcode == Opcode::Readdir {
            let listing = handle.listing.get_or_insert_default();
            let position = match request.again {
                Some(position) => position,
                None => listing.seek(request.position)?,
            };
            set_u64(message, IN_HEADER + 8, position);
        }
        Some(())
    }

    /// Sends the message, or keeps it until the socket has room.
    pub(super) fn post(&mut self, message: &[u8], link: &mut dyn Link) {
        if !self.outgoing.is_empty() || !link.to_daemon(message) {
            self.outgoing.push_back(message.to_vec());
        }
    }

    /// Has the daemon look the node up in its parent, which it knows.
    fn look_up(&mut self, id: u64, link: &mut dyn Link) {
        let purpose = Origin::Own(Purpose::Find(id));
        if self
            .requests
            .slots()
            .any(|(_, other)| other.origin == purpose)
        {
            return;
        }
        let Some(node) = self.nodes.get(id) else {
            return;
        };
        let name = [&node.name[..], b"\0"].concat();
        let mut request = Request::new(purpose, Opcode::Lookup, node.parent, self.now);
        request.message = wire::request(Opcode::Lookup as u32, node.parent, &name);
        self.begin_own(request, link);
    }

    /// Has the daemon open the handle, whose node it knows, as root: the caller's permission was
    /// checked at the first open.
    fn reopen(&mut self, id: u64, link: &mut dyn Link) {
        let purpose = Origin::Own(Purpose::Reopen);
        let same = |other: &Request| other.origin == purpose && other.handle == Some(id);
        if self.requests.slots().any(|(_, other)| same(other)) {
            return;
        }
        let Some(handle) = self.handles.get(id) else {
            return;
        };
        let opcode = match handle.directory {
            true => Opcode::Opendir,
            false => Opcode::Open,
        };
        let mut body = [0; 8];
        set_u32(&mut body, 0, handle.flags_again());
        let mut request = Request::new(purpose, opcode, handle.node, self.now);
        request.handle = Some(id);
        request.message = wire::request(opcode as u32, handle.node, &body);
        self.begin_own(request, link);
    }

    /// Has the daemon close a handle that the kernel has closed, when nothing uses it any more.
    pub(super) fn close_unused(&mut self, id: u64, link: &mut dyn Link) {
        let Some(handle) = self.handles.get(id).filter(|handle| handle.users == 0) else {
            return;
        };
        let Some(closing) = handle.closing else {
            return;
        };
        if handle.daemon.is_none() {
            return self.drop_handle(id, link);
        }
        let opcode = match handle.directory {
            true => Opcode::Releasedir,
            false => Opcode::Release,
        };
        let mut body = [0; 24];
        set_u32(&mut body, 8, closing.flags);
        set_u32(&mut body, 12, closing.release_flags);
        set_u64(&mut body, 16, closing.lock_owner);
        let mut request = Request::new(Origin::Own(Purpose::Close), opcode, handle.node, self.now);
        request.handle = Some(id);
        request.message = wire::request(opcode as u32, handle.node, &body);
        self.begin_own(request, link);
    }

    /// Begins a request of the relay's own.
    pub(super) fn begin_own(&mut self, request: Request, link: &mut dyn Link) {
        let waited_for = (request.origin, request.handle);
        match self.begin(request) {
            Some(slot) => self.advance(slot, None, link),
            None => self.own_failed(waited_for.0, waited_for.1, EIO, link),
        }
    }

    /// Ends a request that the daemon cannot be asked, or that a step before has failed for.
    pub(super) fn fail(&mut self, slot: usize, error: i32, link: &mut dyn Link) {
        let Some(request) = self.requests.take(slot) else {
            return;
        };
        match request.origin {
            Origin::Kernel(unique) => self.answer(unique, error, link),
            Origin::Abandoned => {}
            Origin::Own(_) => self.own_failed(request.origin, request.handle, error, link),
        }
        self.finish(request, link);
    }

    /// What a step of the relay's own was for fails with it.
    pub(super) fn own_failed(
        &mut self,
        origin: Origin,
        handle: Option<u64>,
        error: i32,
        link: &mut dyn Link,
    ) {
        match (origin, handle) {
            (Origin::Own(Purpose::Find(id)), _) => {
                for slot in self.waiting(State::Node(id)) {
                    let by_path = self
                        .requests
                        .get(slot)
                        .is_some_and(|request| request.handle.is_none());
                    // Whoever has it open had it before; ESTALE would make the kernel try again.
                    let error = if by_path && error != ESTALE {
                        error
                    } else {
                        EIO
                    };
                    self.fail(slot, error, link);
                }
            }
            (Origin::Own(Purpose::Reopen), Some(id)) => {
                for slot in self.waiting(State::Handle(id)) {
                    self.fail(slot, EIO, link);
                }
            }
            (Origin::Own(Purpose::Close), Some(id)) => self.drop_handle(id, link),
            _ => {}
        }
    }

    /// The requests that wait for the same, the oldest first.
    pub(super) fn waiting(&self, state: State) -> Vec<usize> {
        self.requests.choose(|request| request.state == state)
    }

    /// Goes on with all that waited for `state`.
    pub(super) fn wake(&mut self, state: State, link: &mut dyn Link) {
        for slot in self.waiting(state) {
            self.advance(slot, None, link);
        }
    }

    /// Sends what waits for room in the daemon, as long as there is some.
    pub(super) fn fill_room(&mut self, link: &mut dyn Link) {
        while self.requests.sent() < MOST_IN_DAEMON {
            let Some((slot, serial)) = self.room.pop_front() else {
                return;
            };
            let same = |request: &Request| request.serial == serial && request.state == State::Room;
            if self.requests.get(slot).is_some_and(same) {
                self.advance(slot, None, link);
            }
        }
    }

    /// An abandoned change of the node's file has ended.
    fn change_ended(&mut self, node: u64, link: &mut dyn Link) {
        if let Some(count) = self.unsettled.get_mut(&node) {
            *count -= 1;
            if *count == 0 {
                self.unsettled.remove(&node);
                self.wake(State::Settled(node), link);
            }
        }
    }

    /// Gives the kernel an answer without a body.
    pub(super) fn answer(&mut self, unique: u64, error: i32, link: &mut dyn Link) {
        self.counts.errors += u64::from(error == EIO);
        link.to_kernel(&wire::answer(unique, error));
    }

    /// Forgets a handle of which the daemon knows nothing any more.
    pub(super) fn drop_handle(&mut self, id: u64, link: &mut dyn Link) {
        if let Some(handle) = self.handles.remove(id) {
            self.nodes.unpin(handle.node, &mut self.settled);
            self.record_gone(link);
        }
    }

    /// Records the nodes that are gone.
    pub(super) fn record_gone(&mut self, link: &mut dyn Link) {
        for id in self.settled.gone.drain(..) {
            link.record(&Record::Gone { id });
        }
    }

    /// Tells the daemon which of its nodes nobody names any more.
    pub(super) fn flush_forgets(&mut self, link: &mut dyn Link) {
        if self.settled.forgets.is_empty() {
            return;
        }
        let forgets = std::mem::take(&mut self.settled.forgets);
        let batches = self.agreed.is_some_and(|agreed| agreed.batches_forgets());
        let at_once = if batches { MOST_FORGETS } else { 1 };
        for some in forgets.chunks(at_once) {
            let message = match some {
                [(node, lookups)] => wire::request(opcode::FORGET, *node, &lookups.to_ne_bytes()),
                _ => {
                    let mut body = vec![0; 8];
                    set_u32(&mut body, 0, some.len() as u32);
                    for (node, lookups) in some {
                        body.extend_from_slice(&node.to_ne_bytes());
                        body.extend_from_slice(&lookups.to_ne_bytes());
                    }
                    wire::request(opcode::BATCH_FORGET, 0, &body)
                }
            };
            self.post(&message, link);
        }
    }
}

/// The nodes that stay while the request is there.
fn named(request: &Request) -> impl Iterator<Item = u64> + use<> {
    let found = match request.origin {
        Origin::Own(Purpose::Find(id)) => id,
        _ => 0,
    };
    [request.node, request.other, found]
        .into_iter()
        .filter(|id| *id != 0)
}
