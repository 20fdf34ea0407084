//! The nodes that the kernel holds: where each is in the tree, how often the kernel has looked it
//! up, and which number the daemon that runs now has for it.
//!
//! A node's number is given once and never again while anybody can still name it. The daemon's
//! number belongs to one generation of the daemon; after a death every node is unknown to the
//! daemon until its name is looked up again. 80 bytes and the name for each node, and 16 for the
//! two indices.

mod index;

use crate::serve::relay::wire::ROOT;
use std::hash::{BuildHasher as _, RandomState};

/// The bits of a node's number that are its place in the table.
const PLACE_BITS: u32 = 28;
const PLACE_MASK: u64 = (1 << PLACE_BITS) - 1;
/// The depth of a tree that is looked up again after a death; deeper ones give EIO.
const DEEPEST: usize = 4096;
/// No node, in the chains of the indices.
const NONE: u32 = 0;

/// `S_IFDIR >> 12`.
pub(super) const DIRECTORY: u8 = 4;

/// One node.
#[derive(Debug)]
pub(super) struct Node {
    /// Its number for the kernel, 0 for a free place.
    pub(super) id: u64,
    pub(super) parent: u64,
    pub(super) name: Box<[u8]>,
    /// How often the kernel has been told of it and has not forgotten it.
    pub(super) lookups: u64,
    /// The daemon's number in `generation`.
    daemon: u64,
    /// How often that daemon has told us of it.
    told: u32,
    generation: u32,
    /// Nodes that have it as their parent.
    children: u32,
    /// Requests and handles that name it.
    pins: u32,
    /// The next node in the chain of each index.
    next: [u32; 2],
    /// The type, `S_IFMT >> 12`.
    pub(super) kind: u8,
    /// The name is gone or another file's: it cannot be looked up again.
    pub(super) deleted: bool,
    /// A daemon died while it was open for writing.
    pub(super) lost_writes: bool,
    /// Somebody has been told that it is stale, and has looked for it anew.
    pub(super) told_stale: bool,
    /// Pages of before that death may still be in the kernel's cache.
    pub(super) stale_pages: bool,
}

/// What a daemon has to be asked before it knows a node.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Path {
    /// The daemon knows it under this number.
    Known(u64),
    /// This ancestor, or the node itself, is to be looked up in its parent, which is known.
    LookUp(u64),
    /// It has no name any more.
    Lost,
}

/// What became of nodes that nobody names any more.
#[derive(Debug, Default)]
pub(super) struct Settled {
    /// FORGETs for the daemon: its number, and how often it has told us.
    pub(super) forgets: Vec<(u64, u64)>,
    /// Nodes that are not in the table any more.
    pub(super) gone: Vec<u64>,
}

/// The table.
#[derive(Debug)]
pub(super) struct Nodes {
    /// Place 0 is nobody's, place 1 the root's.
    table: Vec<Node>,
    free: Vec<u32>,
    next_id: u64,
    generation: u32,
    by_name: Vec<u32>,
    by_daemon: Vec<u32>,
    hashes: RandomState,
}

const NAME: usize = 0;
const DAEMON: usize = 1;

impl Node {
    fn new(id: u64, parent: u64, name: &[u8], kind: u8) -> Self {
        Self {
            id,
            parent,
            name: name.into(),
            lookups: 0,
            daemon: 0,
            told: 0,
            generation: 0,
            children: 0,
            pins: 0,
            next: [NONE; 2],
            kind,
            deleted: false,
            lost_writes: false,
            stale_pages: false,
            told_stale: false,
        }
    }

    pub(super) fn is_directory(&self) -> bool {
        self.kind == DIRECTORY
    }
}

impl Nodes {
    /// The root alone.
    pub(super) fn new() -> Self {
        let mut root = Node::new(ROOT, ROOT, b"", DIRECTORY);
        // The kernel never forgets it.
        root.lookups = 1;
        Self {
            table: vec![Node::new(0, 0, b"", 0), root],
            free: Vec::new(),
            next_id: 1,
            generation: 1,
            by_name: vec![NONE; 16],
            by_daemon: vec![NONE; 16],
            hashes: RandomState::new(),
        }
    }

    /// The nodes in the table, the root included.
    pub(super) fn len(&self) -> usize {
        self.table.len() - 1 - self.free.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Node> {
        self.table.iter().filter(|node| node.id != 0)
    }

    fn place(&self, id: u64) -> Option<usize> {
        let place = (id & PLACE_MASK) as usize;
        (id != 0 && self.table.get(place)?.id == id).then_some(place)
    }

    pub(super) fn get(&self, id: u64) -> Option<&Node> {
        self.place(id).map(|place| &self.table[place])
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Node> {
        self.place(id).map(|place| &mut self.table[place])
    }

    /// The daemon's number for the node, none when it has to be looked up first.
    pub(super) fn daemon(&self, id: u64) -> Option<u64> {
        if id == ROOT {
            return Some(ROOT);
        }
        let node = self.get(id)?;
        (node.generation == self.generation).then_some(node.daemon)
    }

    /// What has to be asked before the daemon knows the node.
    pub(super) fn path(&self, id: u64) -> Path {
        if let Some(daemon) = self.daemon(id) {
            return Path::Known(daemon);
        }
        let mut at = id;
        for _ in 0..DEEPEST {
            match self.get(at) {
                Some(node) if !node.deleted => {
                    if self.daemon(node.parent).is_some() {
                        return Path::LookUp(at);
                    }
                    at = node.parent;
                }
                _ => return Path::Lost,
            }
        }
        Path::Lost
    }

    /// The node of that name.
    pub(super) fn child(&self, parent: u64, name: &[u8]) -> Option<u64> {
        self.chain(NAME, self.name_hash(parent, name))
            .find(|node| node.parent == parent && *node.name == *name)
            .map(|node| node.id)
    }

    /// The node that the daemon of now knows by that number.
    pub(super) fn of_daemon(&self, daemon: u64) -> Option<u64> {
        if daemon == ROOT {
            return Some(ROOT);
        }
        self.chain(DAEMON, self.hashes.hash_one(daemon))
            .find(|node| node.daemon == daemon)
            .map(|node| node.id)
    }

    /// A new node under `parent`, which is in the table. No other has that name.
    pub(super) fn add(&mut self, parent: u64, name: &[u8], kind: u8) -> Option<u64> {
        let place = match self.free.pop() {
            Some(place) => place,
            None => u32::try_from(self.table.len())
                .ok()
                .filter(|place| u64::from(*place) <= PLACE_MASK)?,
        };
        let id = self.next_id << PLACE_BITS | u64::from(place);
        self.next_id = (self.next_id + 1) & (u64::MAX >> (PLACE_BITS + 1));
        self.insert(place, Node::new(id, parent, name, kind));
        Some(id)
    }

    /// The table that a journal tells of. What has a parent that is not told of has lost its name.
    pub(super) fn restored(nodes: impl IntoIterator<Item = Node>) -> Self {
        let mut all = Self::new();
        for node in nodes {
            let place = (node.id & PLACE_MASK) as usize;
            if place < 2 {
                continue;
            }
            while all.table.len() <= place {
                all.table.push(Node::new(0, 0, b"", 0));
            }
            all.next_id = all.next_id.max((node.id >> PLACE_BITS) + 1);
            all.table[place] = node;
        }
        for place in 2..all.table.len() {
            if all.table[place].id == 0 {
                all.free.push(place as u32);
                continue;
            }
            let parent = all.table[place].parent;
            let parent = all.place(parent).unwrap_or_else(|| {
                all.table[place].parent = ROOT;
                all.table[place].deleted = true;
                ROOT as usize
            });
            all.table[parent].children += 1;
        }
        all.index();
        all
    }

    /// A node for [`Nodes::restored`].
    pub(super) fn record(id: u64, parent: u64, name: &[u8], kind: u8, lookups: u64) -> Node {
        let mut node = Node::new(id, parent, name, kind);
        node.lookups = lookups;
        node
    }

    fn insert(&mut self, place: u32, node: Node) {
        if let Some(parent) = self.get_mut(node.parent) {
            parent.children += 1;
        }
        if place as usize == self.table.len() {
            self.table.push(node);
        } else {
            self.table[place as usize] = node;
        }
        // As many chains as places, at least.
        if self.table.len() > self.by_name.len() {
            self.index();
        } else {
            self.link(NAME, place);
        }
    }

    /// The daemon of now has told us of the node under this number once more.
    pub(super) fn told(&mut self, id: u64, daemon: u64) {
        let generation = self.generation;
        let Some(place) = self.place(id) else { return };
        let node = &mut self.table[place];
        if node.generation == generation {
            node.told = node.told.saturating_add(1);
            return;
        }
        node.generation = generation;
        node.daemon = daemon;
        node.told_stale = false;
        node.told = 1;
        self.link(DAEMON, place as u32);
    }

    /// Gives the node another place in the tree. False, and nothing is changed, where it would
    /// become its own ancestor.
    pub(super) fn moves(&mut self, id: u64, parent: u64, name: &[u8]) -> bool {
        let Some(place) = self.place(id) else {
            return false;
        };
        let mut at = parent;
        for depth in 0.. {
            if at == id || depth == DEEPEST {
                return false;
            }
            match self.get(at) {
                Some(node) if node.id != ROOT => at = node.parent,
                Some(_) => break,
                None => return false,
            }
        }
        self.unlink(NAME, place as u32);
        let before = self.table[place].parent;
        if let Some(before) = self.get_mut(before) {
            before.children -= 1;
        }
        if let Some(parent) = self.get_mut(parent) {
            parent.children += 1;
        }
        let node = &mut self.table[place];
        node.parent = parent;
        node.name = name.into();
        node.deleted = false;
        self.link(NAME, place as u32);
        true
    }

    /// The name is gone, or another file's.
    pub(super) fn delete(&mut self, id: u64) {
        if let Some(place) = self.place(id).filter(|place| *place > 1) {
            self.unlink(NAME, place as u32);
            self.table[place].deleted = true;
        }
    }

    /// Something names the node until [`Nodes::unpin`].
    pub(super) fn pin(&mut self, id: u64) {
        if let Some(node) = self.get_mut(id) {
            node.pins += 1;
        }
    }

    /// The opposite of [`Nodes::pin`]; what that sets free is added to `settled`.
    pub(super) fn unpin(&mut self, id: u64, settled: &mut Settled) {
        if let Some(node) = self.get_mut(id) {
            node.pins = node.pins.saturating_sub(1);
        }
        self.settle(id, settled);
    }

    /// The kernel forgets so many of its lookups.
    pub(super) fn forget(&mut self, id: u64, lookups: u64, settled: &mut Settled) {
        if id == ROOT {
            return;
        }
        if let Some(node) = self.get_mut(id) {
            node.lookups = node.lookups.saturating_sub(lookups);
        }
        self.settle(id, settled);
    }

    /// Drops what nobody names any more: first the daemon's number, then the node, then perhaps
    /// its parent.
    pub(super) fn settle(&mut self, id: u64, settled: &mut Settled) {
        let mut id = id;
        while let Some(place) = self.place(id).filter(|place| *place > 1) {
            let node = &mut self.table[place];
            if node.lookups > 0 || node.pins > 0 {
                return;
            }
            if node.generation == self.generation {
                settled.forgets.push((node.daemon, node.told.into()));
                self.unlink(DAEMON, place as u32);
                let node = &mut self.table[place];
                node.generation = 0;
                node.told = 0;
            }
            let node = &self.table[place];
            if node.children > 0 {
                return;
            }
            settled.gone.push(id);
            let parent = node.parent;
            self.unlink(NAME, place as u32);
            self.table[place] = Node::new(0, 0, b"", 0);
            self.free.push(place as u32);
            if self.free.len() + 2 == self.table.len() && self.free.len() > 1024 {
                // After a peak, its memory goes.
                self.table.truncate(2);
                self.table.shrink_to_fit();
                self.free = Vec::new();
                self.index();
            }
            if let Some(parent) = self.get_mut(parent) {
                parent.children = parent.children.saturating_sub(1);
            }
            id = parent;
        }
    }

    /// Another daemon: it knows no node but the root.
    pub(super) fn daemon_changed(&mut self) {
        self.generation = self.generation.wrapping_add(1).max(1);
        self.by_daemon.fill(NONE);
    }
}

#[cfg(test)]
mod tests;
