//! What the kernel asks.

use crate::serve::relay::agreement;
use crate::serve::relay::handles::{Closing, truncates};
use crate::serve::relay::opcode::{self, Opcode};
use crate::serve::relay::requests::{Origin, Request};
use crate::serve::relay::send::{EIO, ENOSYS};
use crate::serve::relay::wire::{self, IN_HEADER, ROOT, u32_at, u64_at};
use crate::serve::relay::{Daemon, Link, MOST_HELD, Record, Relay};
use std::time::{Duration, Instant};

/// After this a request's thread is looked at, and the daemon is asked whether it still answers.
pub(super) const FIRST_LOOK: Duration = Duration::from_secs(1);

impl Relay {
    /// Takes one message as read(2) of /dev/fuse gave it. It is rewritten in place where it can
    /// be passed on at once.
    pub fn from_kernel(&mut self, message: &mut [u8], now: Instant, link: &mut dyn Link) {
        self.now = now;
        if message.len() >= IN_HEADER
            && u32_at(message, wire::request::LEN) as usize == message.len()
        {
            self.take(message, link);
            self.flush_forgets(link);
        }
    }

    fn take(&mut self, message: &mut [u8], link: &mut dyn Link) {
        let unique = u64_at(message, wire::request::UNIQUE);
        let node = u64_at(message, wire::request::NODE);
        match u32_at(message, wire::request::OPCODE) {
            opcode::FORGET => self.forget(node, u64_at(message, IN_HEADER), link),
            opcode::BATCH_FORGET => {
                let (pairs, _) = message[IN_HEADER..].as_chunks::<8>();
                let number = |at: usize| pairs.get(at).map(|bytes| u64::from_ne_bytes(*bytes));
                let count = u32_at(message, IN_HEADER) as usize;
                // The first eight bytes are the count.
                for at in (1..pairs.len()).step_by(2).take(count) {
                    if let (Some(node), Some(lookups)) = (number(at), number(at + 1)) {
                        self.forget(node, lookups, link);
                    }
                }
            }
            opcode::INTERRUPT => self.interrupt(u64_at(message, IN_HEADER), link),
            opcode::NOTIFY_REPLY => {}
            opcode::DESTROY => self.answer(unique, 0, link),
            number => match Opcode::of(number) {
                Some(Opcode::Init) => self.init_asked(unique, message, link),
                Some(opcode) => self.ask(opcode, unique, node, message, link),
                // The kernel does without, or does it by other requests.
                None => self.answer(unique, ENOSYS, link),
            },
        }
    }

    fn init_asked(&mut self, unique: u64, message: &[u8], link: &mut dyn Link) {
        let Some(offer) = agreement::offer_of(message) else {
            return self.answer(unique, EIO, link);
        };
        if let Some(agreed) = &self.agreed {
            return link.to_kernel(&agreed.answer(unique));
        }
        self.offer = Some(offer);
        self.init = Some(unique);
        if self.daemon == Daemon::Starting {
            self.offer_init(link);
        }
    }

    fn ask(
        &mut self,
        opcode: Opcode,
        unique: u64,
        node: u64,
        message: &mut [u8],
        link: &mut dyn Link,
    ) {
        let body = &message[IN_HEADER..];
        if body.len() < opcode.least() || self.requests.held() >= 2 * MOST_HELD {
            return self.answer(unique, EIO, link);
        }
        let mut request = Request::new(Origin::Kernel(unique), opcode, node, self.now);
        request.tid = u32_at(message, wire::request::TID);
        request.look = self.now + FIRST_LOOK;
        request.read(body);
        if let Some(body) = self.known_of_root(&request) {
            return link.to_kernel(&wire::answer_with(unique, body));
        }
        if let Some(error) = self.answer_alone(&request, body, link) {
            return self.answer(unique, error, link);
        }
        if unique & wire::UNIQUE_RESEND != 0 && !request.may_be_repeated() {
            if opcode == Opcode::Rename {
                request.message = message.to_vec();
                self.replaced(&request, link);
            }
            return self.answer(unique, EIO, link);
        }
        let Some(slot) = self.begin(request) else {
            return self.answer(unique, EIO, link);
        };
        self.watch(self.now + FIRST_LOOK);
        link.taken(slot as u16, unique);
        self.advance(slot, Some(message), link);
    }

    /// What is known of the root, while no daemon serves.
    fn known_of_root(&self, request: &Request) -> Option<&[u8]> {
        if self.daemon == Daemon::Serving || request.node != ROOT || request.handle.is_some() {
            return None;
        }
        match request.opcode {
            Opcode::Getattr => self.root.attr.as_ref().map(<[u8; _]>::as_slice),
            Opcode::Statfs => self.root.statfs.as_ref().map(<[u8; _]>::as_slice),
            _ => None,
        }
    }

    /// The errno, or 0, of what needs no daemon.
    fn answer_alone(&mut self, request: &Request, body: &[u8], link: &mut dyn Link) -> Option<i32> {
        if request.opcode.closes() {
            return self.close(request.handle, body, link);
        }
        if self.nodes.get(request.node).is_none()
            || (request.opcode.has_second_node() && self.nodes.get(request.other).is_none())
            || (matches!(request.opcode, Opcode::Read | Opcode::Readdir)
                && request.size > wire::MAX_DATA)
        {
            return Some(EIO);
        }
        request.handle.and_then(|id| self.handle_alone(request, id))
    }

    /// The same for a request that names a handle.
    pub(super) fn handle_alone(&self, request: &Request, id: u64) -> Option<i32> {
        let Some(handle) = self.handles.get(id).filter(|handle| !handle.failed) else {
            return Some(EIO);
        };
        match request.opcode {
            // Nothing of this handle's can be unsaved, and ossfs would let it wait for reads that
            // wait for the store.
            Opcode::Flush if !handle.writer => Some(0),
            Opcode::Fsync if handle.daemon.is_none() => {
                let lost = self
                    .nodes
                    .get(handle.node)
                    .is_none_or(|node| node.lost_writes);
                Some(if lost { EIO } else { 0 })
            }
            // Names are changed at once, or not at all.
            Opcode::Fsyncdir if handle.daemon.is_none() => Some(0),
            _ => None,
        }
    }

    /// Closes a handle. 0 where the daemon does not know it, or need not hear of it yet: then it
    /// does when all that it was asked on this handle has ended.
    fn close(&mut self, id: Option<u64>, body: &[u8], link: &mut dyn Link) -> Option<i32> {
        let id = id?;
        let Some(handle) = self.handles.get_mut(id) else {
            return Some(0);
        };
        // Closed it is, whatever becomes of this request.
        link.record(&Record::Closed { id });
        handle.closing = Some(Closing {
            flags: u32_at(body, 8),
            release_flags: u32_at(body, 12),
            lock_owner: u64_at(body, 16),
        });
        match (handle.users, handle.daemon) {
            (0, Some(_)) => return None,
            (0, None) => self.drop_handle(id, link),
            _ => {}
        }
        Some(0)
    }

    fn forget(&mut self, id: u64, lookups: u64, link: &mut dyn Link) {
        self.nodes.forget(id, lookups, &mut self.settled);
        if let Some(node) = self.nodes.get(id) {
            let lookups = node.lookups;
            link.record(&Record::Lookups { id, lookups });
        }
        self.record_gone(link);
    }
}

impl Request {
    /// Takes what the relay has to know from the request's body, which is long enough.
    fn read(&mut self, body: &[u8]) {
        let has_handle = match self.opcode {
            Opcode::Getattr => u32_at(body, 0) & wire::GETATTR_FH != 0,
            Opcode::Setattr => u32_at(body, 0) & wire::FATTR_FH != 0,
            _ => true,
        };
        self.handle = self
            .opcode
            .handle()
            .filter(|_| has_handle)
            .map(|offset| u64_at(body, offset));
        match self.opcode {
            // It asks about the whole volume; the root is always known.
            Opcode::Statfs => self.node = ROOT,
            Opcode::Rename | Opcode::Link => self.other = u64_at(body, 0),
            Opcode::Read | Opcode::Readdir | Opcode::Write => {
                self.position = u64_at(body, 8);
                self.size = u32_at(body, 16);
            }
            Opcode::Getxattr | Opcode::Listxattr => self.size = u32_at(body, 0),
            Opcode::Open | Opcode::Opendir | Opcode::Create => self.flags = u32_at(body, 0),
            _ => {}
        }
    }

    /// Whether a second daemon may be asked it: it changes nothing, whatever the first made of it.
    pub(super) fn may_be_repeated(&self) -> bool {
        self.opcode.only_reads() && !self.changes_file()
    }

    /// Whether it changes or saves a file's bytes.
    pub(super) fn changes_file(&self) -> bool {
        self.opcode.changes_file() || (self.opcode == Opcode::Open && truncates(self.flags))
    }
}
