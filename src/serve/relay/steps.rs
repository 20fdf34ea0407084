//! What the relay itself asks the daemon: names and handles again after a death, the close of a
//! handle that was still in use, FORGET.

use crate::serve::relay::opcode::{self, Opcode};
use crate::serve::relay::requests::{Origin, Purpose, Request, State};
use crate::serve::relay::send::{EIO, ENOENT, ESTALE};
use crate::serve::relay::wire::{self, set_u32, set_u64};
use crate::serve::relay::{Link, Relay};

/// FORGETs in one message: 16 bytes each.
const MOST_FORGETS: usize = 1024;

impl Relay {
    /// Has the daemon look the node up in its parent, which it knows.
    pub(super) fn look_up(&mut self, id: u64, link: &mut dyn Link) {
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
    pub(super) fn reopen(&mut self, id: u64, link: &mut dyn Link) {
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

    /// The errno of a request that needs the node `lost`, which could not be looked up again:
    /// `error`, with ESTALE for a name that is another file's now. Whoever has it open hears EIO. By
    /// path the kernel is told once that it is stale: it looks the path up anew and finds what is
    /// there now, or nothing, and an open that creates creates.
    pub(super) fn lost(&mut self, slot: usize, lost: u64, error: i32, link: &mut dyn Link) -> i32 {
        let Some(request) = self.requests.get(slot) else {
            return EIO;
        };
        let real = if error == ESTALE { EIO } else { error };
        let (id, is_gone) = (request.node, matches!(error, ENOENT | ESTALE));
        if request.handle.is_some() {
            return EIO;
        }
        if !is_gone || !request.is_kernels() {
            return real;
        }
        if request.opcode.asks_of_open_file()
            && self.handles.iter().any(|(_, open)| open.node == id)
        {
            // It may be fstat(2), which the kernel would not try again.
            return EIO;
        }
        if let Some(node) = self.nodes.get(lost).filter(|node| !node.is_directory()) {
            link.notify(wire::invalidate_entry(node.parent, &node.name));
        }
        let node = self.nodes.get_mut(id);
        match node.map(|node| std::mem::replace(&mut node.told_stale, true)) {
            Some(false) => ESTALE,
            _ => real,
        }
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
                    let error = self.lost(slot, id, error, link);
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
