//! What an answer changes in the tables, and in the answer: the kernel's numbers for the daemon's.

use crate::serve::relay::handles::{Closing, Handle};
use crate::serve::relay::nodes::Node;
use crate::serve::relay::opcode::{Body, Opcode};
use crate::serve::relay::requests::{Origin, Purpose, Request, State};
use crate::serve::relay::send::{ENOENT, ESTALE};
use crate::serve::relay::wire::{self, IN_HEADER, OUT_HEADER, set_u32, set_u64, u32_at, u64_at};
use crate::serve::relay::{DaemonFault, Link, Record, Relay};

/// The flags of an open that the kernel is told; others would keep FLUSH from it or let it keep
/// listings.
const OPEN_FLAGS: u32 = wire::FOPEN_DIRECT_IO | wire::FOPEN_KEEP_CACHE | wire::FOPEN_NONSEEKABLE;

impl Relay {
    /// Takes an answer to a request of the kernel's into the tables. What nobody waits for any
    /// more (an abandoned request) is undone at the daemon: its node has no lookup of the kernel's
    /// and is forgotten with the request, its handle is closed.
    pub(super) fn believe(
        &mut self,
        request: &Request,
        error: i32,
        message: &mut [u8],
        link: &mut dyn Link,
    ) -> Result<(), DaemonFault> {
        if request.opcode.closes() {
            if let Some(id) = request.handle {
                self.drop_handle(id, link);
            }
            return Ok(());
        }
        if error != 0 {
            if request.opcode == Opcode::Lookup && error == ENOENT {
                self.name_is_gone(request.node, name(request), link);
            }
            if let Some(node) = self.replaces(request) {
                // It was recorded as gone.
                link.record(&node.to_record());
            }
            return Ok(());
        }
        match request.opcode.body() {
            Body::Entry | Body::Create => self.entry_answered(request, message, link),
            Body::Exact(wire::ATTR_OUT) => {
                let attr = OUT_HEADER + wire::attr::IN_ATTR_OUT;
                wire::clean_attr(message, attr, self.settings.own_uid);
                if request.node == wire::ROOT {
                    self.keep_root(message, link);
                }
                Ok(())
            }
            Body::Exact(wire::STATFS_OUT) => {
                self.keep_statfs(error, message);
                Ok(())
            }
            _ => {
                self.names_changed(request, link);
                if matches!(request.opcode, Opcode::Open | Opcode::Opendir) {
                    self.opened(request, request.node, OUT_HEADER, message, link);
                }
                Ok(())
            }
        }
    }

    fn entry_answered(
        &mut self,
        request: &Request,
        message: &mut [u8],
        link: &mut dyn Link,
    ) -> Result<(), DaemonFault> {
        let daemon = u64_at(message, OUT_HEADER + wire::entry::NODE);
        if daemon == 0 {
            self.name_is_gone(request.node, name(request), link);
            return Ok(());
        }
        let attr = OUT_HEADER + wire::entry::ATTR;
        let kind = kind(u32_at(message, attr + wire::attr::MODE));
        let is_new = !matches!(request.opcode, Opcode::Lookup | Opcode::Link);
        let id = self.intern(request.node, name(request), daemon, kind, is_new, link)?;
        if let (Origin::Kernel(_), Some(node)) = (request.origin, self.nodes.get_mut(id)) {
            node.lookups += 1;
            let lookups = node.lookups;
            link.record(&Record::Lookups { id, lookups });
        }
        set_u64(message, OUT_HEADER + wire::entry::NODE, id);
        set_u64(message, OUT_HEADER + wire::entry::GENERATION, 0);
        wire::clean_attr(message, attr, self.settings.own_uid);
        if request.opcode == Opcode::Create {
            let open = OUT_HEADER + wire::ENTRY_OUT;
            self.opened(request, id, open, message, link);
        }
        self.nodes.settle(id, &mut self.settled);
        self.record_gone(link);
        Ok(())
    }

    /// The node that the daemon has told of under that name and number.
    fn intern(
        &mut self,
        parent: u64,
        name: &[u8],
        daemon: u64,
        kind: u8,
        is_new: bool,
        link: &mut dyn Link,
    ) -> Result<u64, DaemonFault> {
        let of_name = self.nodes.child(parent, name);
        let known = self.nodes.of_daemon(daemon);
        let id = match (known, of_name) {
            (Some(known), Some(named)) if known == named && self.is_kind(known, kind) => {
                self.nodes.told(known, daemon);
                return Ok(known);
            }
            (Some(known), named) => {
                if let Some(named) = named.filter(|named| *named != known) {
                    self.lose_name(named, link);
                }
                if !self.nodes.moves(known, parent, name) {
                    return Err(DaemonFault::Node);
                }
                known
            }
            // Its daemon had died, and it is still there.
            (None, Some(named)) if !is_new && self.is_same(named, kind) => named,
            (None, named) => {
                if let Some(named) = named {
                    self.lose_name(named, link);
                }
                self.nodes
                    .add(parent, name, kind)
                    .ok_or(DaemonFault::Node)?
            }
        };
        self.nodes.told(id, daemon);
        if let Some(node) = self.nodes.get_mut(id) {
            node.kind = kind;
        }
        self.record_node(id, link);
        Ok(id)
    }

    /// Whether the node may be what a daemon calls so now: none of now knows it otherwise.
    fn is_same(&self, id: u64, kind: u8) -> bool {
        self.nodes.daemon(id).is_none() && self.is_kind(id, kind)
    }

    fn is_kind(&self, id: u64, kind: u8) -> bool {
        self.nodes.get(id).is_some_and(|node| node.kind == kind)
    }

    /// The daemon has said that there is no such name. A directory is left as it is: in a bucket it
    /// comes and goes with what is in it.
    fn name_is_gone(&mut self, parent: u64, name: &[u8], link: &mut dyn Link) {
        let Some(id) = self.nodes.child(parent, name) else {
            return;
        };
        if self.nodes.get(id).is_some_and(|node| !node.is_directory()) {
            self.lose_name(id, link);
        }
    }

    fn lose_name(&mut self, id: u64, link: &mut dyn Link) {
        self.nodes.delete(id);
        self.record_node(id, link);
    }

    /// Keeps what a daemon says of the root; the journal has it once, and when its owner or mode
    /// changes.
    fn keep_root(&mut self, message: &[u8], link: &mut dyn Link) {
        let Some(attr) = message[OUT_HEADER..].first_chunk() else {
            return;
        };
        let owner = |attr: &[u8]| {
            let at = wire::attr::IN_ATTR_OUT;
            [wire::attr::MODE, wire::attr::UID, wire::attr::GID]
                .map(|field| u32_at(attr, at + field))
        };
        if self
            .root
            .attr
            .is_none_or(|before| owner(&before) != owner(attr))
        {
            link.record(&Record::Root { attr: *attr });
        }
        self.root.attr = Some(*attr);
    }

    fn keep_statfs(&mut self, error: i32, message: &[u8]) {
        if error == 0 {
            self.root.statfs = message[OUT_HEADER..].first_chunk().copied();
        }
    }

    /// What UNLINK, RMDIR and RENAME change.
    fn names_changed(&mut self, request: &Request, link: &mut dyn Link) {
        let name = name(request);
        let Some(id) = self.nodes.child(request.node, name) else {
            if request.opcode == Opcode::Rename {
                self.replaced(request, link);
            }
            return;
        };
        match request.opcode {
            Opcode::Unlink | Opcode::Rmdir => self.lose_name(id, link),
            Opcode::Rename => {
                let to = new_name(request);
                if self.nodes.child(request.other, to) == Some(id) {
                    return;
                }
                self.replaced(request, link);
                if !self.nodes.moves(id, request.other, to) {
                    self.nodes.delete(id);
                }
                self.record_node(id, link);
            }
            _ => {}
        }
    }

    /// What has the new name of `request`, if that is a RENAME.
    pub(super) fn replaces(&self, request: &Request) -> Option<&Node> {
        if request.opcode != Opcode::Rename {
            return None;
        }
        self.nodes
            .get(self.nodes.child(request.other, new_name(request))?)
    }

    /// What had a RENAME's new name has it no more.
    pub(super) fn replaced(&mut self, request: &Request, link: &mut dyn Link) {
        if let Some(id) = self.nodes.child(request.other, new_name(request)) {
            self.lose_name(id, link);
        }
    }

    /// A file or directory is open; its `fuse_open_out` is at `at`.
    fn opened(
        &mut self,
        request: &Request,
        node: u64,
        at: usize,
        message: &mut [u8],
        link: &mut dyn Link,
    ) {
        let mut handle = match request.opcode {
            Opcode::Opendir => Handle::directory(node, request.flags),
            opcode => Handle::file(node, request.flags, opcode == Opcode::Create),
        };
        handle.daemon = Some(u64_at(message, at));
        let mut flags = u32_at(message, at + 8) & OPEN_FLAGS;
        if let Some(node) = self.nodes.get_mut(node)
            && std::mem::take(&mut node.stale_pages)
        {
            flags &= !wire::FOPEN_KEEP_CACHE;
        }
        let abandoned = request.origin == Origin::Abandoned;
        handle.closing = abandoned.then(|| Closing {
            flags: request.flags,
            ..Closing::default()
        });
        self.nodes.pin(node);
        let id = self.handles.add(handle);
        if let Some(handle) = self.handles.get(id).filter(|_| !abandoned) {
            link.record(&handle.to_record(id));
        }
        set_u64(message, at, id);
        set_u32(message, at + 8, flags);
        self.close_unused(id, link);
    }

    /// An answer to a request of the relay's own.
    pub(super) fn own_answered(
        &mut self,
        purpose: Purpose,
        request: &Request,
        error: i32,
        message: &[u8],
        link: &mut dyn Link,
    ) -> Result<(), DaemonFault> {
        match (purpose, request.handle) {
            (Purpose::Find(id), _) => self.found(id, request, error, message, link),
            (Purpose::Reopen, Some(id)) if error == 0 => {
                if let Some(handle) = self.handles.get_mut(id) {
                    handle.daemon = Some(u64_at(message, OUT_HEADER));
                }
                self.wake(State::Handle(id), link);
            }
            (Purpose::Ping, _) => {
                self.keep_statfs(error, message);
                return self.pulse_felt(link);
            }
            _ => self.own_failed(request.origin, request.handle, error, link),
        }
        Ok(())
    }

    /// The daemon has looked a node up in its parent.
    fn found(
        &mut self,
        id: u64,
        request: &Request,
        error: i32,
        message: &[u8],
        link: &mut dyn Link,
    ) {
        let daemon = u64_at(message, OUT_HEADER + wire::entry::NODE);
        let error = if error == 0 && daemon == 0 {
            ENOENT
        } else {
            error
        };
        if error != 0 {
            if error == ENOENT && self.nodes.get(id).is_some_and(|node| !node.is_directory()) {
                self.lose_name(id, link);
            }
            return self.own_failed(request.origin, None, error, link);
        }
        let mode = u32_at(message, OUT_HEADER + wire::entry::ATTR + wire::attr::MODE);
        let known = self.nodes.of_daemon(daemon);
        // The kernel's own LOOKUP may have found it meanwhile.
        if known == Some(id) || (known.is_none() && self.is_same(id, kind(mode))) {
            self.nodes.told(id, daemon);
            return self.wake(State::Node(id), link);
        }
        // Something else has its name now.
        self.settled.forgets.push((daemon, 1));
        self.own_failed(request.origin, None, ESTALE, link);
    }

    pub(super) fn record_node(&self, id: u64, link: &mut dyn Link) {
        if let Some(node) = self.nodes.get(id) {
            link.record(&node.to_record());
        }
    }
}

impl Node {
    pub(super) fn to_record(&self) -> Record<'_> {
        Record::Node {
            id: self.id,
            parent: self.parent,
            lookups: self.lookups,
            kind: self.kind,
            deleted: self.deleted,
            name: &self.name,
        }
    }

    /// The same, without a name from now on.
    pub(super) fn to_record_gone(&self) -> Record<'_> {
        Record::Node {
            id: self.id,
            parent: self.parent,
            lookups: self.lookups,
            kind: self.kind,
            deleted: true,
            name: &self.name,
        }
    }
}

impl Handle {
    pub(super) fn to_record(&self, id: u64) -> Record<'static> {
        Record::Opened {
            id,
            node: self.node,
            flags: self.flags,
            directory: self.directory,
            writer: self.writer,
            failed: self.failed,
        }
    }
}

/// `S_IFMT >> 12` of a mode.
fn kind(mode: u32) -> u8 {
    (mode >> 12 & 0xf) as u8
}

/// The name in the request's kept message.
fn name(request: &Request) -> &[u8] {
    let offset = request.opcode.name().unwrap_or_default();
    wire::name_at(&request.message, IN_HEADER + offset)
}

/// RENAME's second name.
fn new_name(request: &Request) -> &[u8] {
    let first = IN_HEADER + Opcode::Rename.name().unwrap_or_default();
    wire::name_at(&request.message, first + name(request).len() + 1)
}
