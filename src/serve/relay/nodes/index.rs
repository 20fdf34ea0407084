//! The chains through the table by which a node is found: by its parent and name, and by the
//! daemon's number. The hashes are keyed: neither a bucket's author nor a daemon can choose names
//! or numbers that all fall into one chain.

use crate::serve::relay::nodes::{DAEMON, NAME, NONE, Node, Nodes};
use std::hash::BuildHasher as _;

impl Nodes {
    pub(super) fn name_hash(&self, parent: u64, name: &[u8]) -> u64 {
        self.hashes.hash_one((parent, name))
    }

    fn hash(&self, index: usize, node: &Node) -> u64 {
        match index {
            NAME => self.name_hash(node.parent, &node.name),
            _ => self.hashes.hash_one(node.daemon),
        }
    }

    fn heads(&mut self, index: usize) -> &mut Vec<u32> {
        match index {
            NAME => &mut self.by_name,
            _ => &mut self.by_daemon,
        }
    }

    pub(super) fn chain(&self, index: usize, hash: u64) -> impl Iterator<Item = &Node> {
        let heads = match index {
            NAME => &self.by_name,
            _ => &self.by_daemon,
        };
        let mut at = heads[hash as usize & (heads.len() - 1)];
        std::iter::from_fn(move || {
            if at == NONE {
                return None;
            }
            let node = &self.table[at as usize];
            at = node.next[index];
            Some(node)
        })
    }

    pub(super) fn link(&mut self, index: usize, place: u32) {
        let hash = self.hash(index, &self.table[place as usize]) as usize;
        let heads = self.heads(index);
        let mask = heads.len() - 1;
        let head = std::mem::replace(&mut heads[hash & mask], place);
        self.table[place as usize].next[index] = head;
    }

    /// Takes the node out of the index, if it is there.
    pub(super) fn unlink(&mut self, index: usize, place: u32) {
        let hash = self.hash(index, &self.table[place as usize]) as usize;
        let next = self.table[place as usize].next[index];
        let heads = self.heads(index);
        let mask = heads.len() - 1;
        let mut at = heads[hash & mask];
        if at == place {
            heads[hash & mask] = next;
            return;
        }
        while at != NONE {
            let node = &mut self.table[at as usize];
            if node.next[index] == place {
                node.next[index] = next;
                return;
            }
            at = node.next[index];
        }
    }

    /// Builds both indices anew.
    pub(super) fn index(&mut self) {
        let heads = self.table.len().next_power_of_two().max(16);
        self.by_name = vec![NONE; heads];
        self.by_daemon = vec![NONE; heads];
        for place in 2..self.table.len() {
            let node = &self.table[place];
            let (used, deleted, generation) = (node.id != 0, node.deleted, node.generation);
            if used && !deleted {
                self.link(NAME, place as u32);
            }
            if used && generation == self.generation {
                self.link(DAEMON, place as u32);
            }
        }
    }
}
