//! The way of a request to the daemon: what the daemon has to be asked first, and the message with
//! its numbers instead of the kernel's.

use crate::serve::relay::nodes::Path;
use crate::serve::relay::opcode::Opcode;
use crate::serve::relay::requests::{Origin, Purpose, Request, State};
use crate::serve::relay::wire::{self, IN_HEADER, set_u64};
use crate::serve::relay::{Daemon, Link, MOST_IN_DAEMON, Record, Relay};

pub(super) const ENOENT: i32 = 2;
pub(super) const EINTR: i32 = 4;
pub(super) const EIO: i32 = 5;
pub(super) const ENOSYS: i32 = 38;
pub(super) const ESTALE: i32 = 116;

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
                Path::Lost => {
                    let error = self.lost(slot, id, ESTALE, link);
                    return self.fail(slot, error, link);
                }
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
        self.record_replaced(slot, link);
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

    /// Before a RENAME is sent, the journal has what it replaces as gone: a successor of this process
    /// does not hear how it ended, and who has that file open must not get another's bytes.
    fn record_replaced(&self, slot: usize, link: &mut dyn Link) {
        if let Some(node) = self.requests.get(slot).and_then(|it| self.replaces(it)) {
            link.record(&node.to_record_gone());
        }
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
