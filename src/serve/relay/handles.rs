//! Open files and directories: the kernel's number for each, the daemon's, and what a death made
//! of it.

use crate::serve::relay::listing::Listing;
use std::collections::HashMap;

/// `O_ACCMODE` and `O_TRUNC` of asm-generic/fcntl.h, the same on x86-64 and arm64.
const O_ACCMODE: u32 = 3;
const O_CREAT: u32 = 0o100;
const O_EXCL: u32 = 0o200;
const O_TRUNC: u32 = 0o1000;

/// An open file or directory.
#[derive(Debug)]
pub(super) struct Handle {
    pub(super) node: u64,
    /// The flags of open(2).
    pub(super) flags: u32,
    pub(super) directory: bool,
    /// It could write, or its open changed the file.
    pub(super) writer: bool,
    /// It was open for writing when a daemon died: EIO until it is closed.
    pub(super) failed: bool,
    /// The number that the daemon of now has for it.
    pub(super) daemon: Option<u64>,
    /// Requests on it that the daemon has not answered.
    pub(super) users: u32,
    /// The kernel has closed it; the daemon hears of it when `users` is 0.
    pub(super) closing: Option<Closing>,
    pub(super) listing: Option<Box<Listing>>,
}

/// `struct fuse_release_in` without the handle.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Closing {
    pub(super) flags: u32,
    pub(super) release_flags: u32,
    pub(super) lock_owner: u64,
}

impl Handle {
    pub(super) fn file(node: u64, flags: u32, created: bool) -> Self {
        Self {
            node,
            flags,
            directory: false,
            writer: created || writes(flags),
            failed: false,
            daemon: None,
            users: 0,
            closing: None,
            listing: None,
        }
    }

    pub(super) fn directory(node: u64, flags: u32) -> Self {
        Self {
            directory: true,
            writer: false,
            ..Self::file(node, flags, false)
        }
    }

    /// The flags to open it again with: what made or emptied the file is left out.
    pub(super) fn flags_again(&self) -> u32 {
        self.flags & !(O_CREAT | O_EXCL | O_TRUNC)
    }
}

/// Whether an open with `flags` can change the file.
pub(super) fn writes(flags: u32) -> bool {
    flags & O_ACCMODE != 0 || truncates(flags)
}

/// Whether an open with `flags` empties the file.
pub(super) fn truncates(flags: u32) -> bool {
    flags & O_TRUNC != 0
}

/// The table; the kernel's number is given once.
#[derive(Debug, Default)]
pub(super) struct Handles {
    open: HashMap<u64, Handle>,
    last: u64,
    /// Those open for writing that work, and those that have failed.
    writers: usize,
    failed: usize,
}

impl Handles {
    pub(super) fn add(&mut self, handle: Handle) -> u64 {
        self.last += 1;
        self.restore(self.last, handle);
        self.last
    }

    pub(super) fn restore(&mut self, id: u64, handle: Handle) {
        self.last = self.last.max(id);
        self.failed += usize::from(handle.failed);
        self.writers += usize::from(handle.writer && !handle.failed);
        self.open.insert(id, handle);
    }

    pub(super) fn get(&self, id: u64) -> Option<&Handle> {
        self.open.get(&id)
    }

    pub(super) fn get_mut(&mut self, id: u64) -> Option<&mut Handle> {
        self.open.get_mut(&id)
    }

    pub(super) fn remove(&mut self, id: u64) -> Option<Handle> {
        let handle = self.open.remove(&id)?;
        self.failed -= usize::from(handle.failed);
        self.writers -= usize::from(handle.writer && !handle.failed);
        Some(handle)
    }

    /// Those open for writing that work.
    pub(super) fn writers(&self) -> usize {
        self.writers
    }

    /// Those that have failed.
    pub(super) fn failed(&self) -> usize {
        self.failed
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (u64, &Handle)> {
        self.open.iter().map(|(id, handle)| (*id, handle))
    }

    /// All of them, for [`Handles::all_failed`] after what is done to them.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (u64, &mut Handle)> {
        self.open.iter_mut().map(|(id, handle)| (*id, handle))
    }

    /// Every handle that can write has failed.
    pub(super) fn all_failed(&mut self) {
        self.failed += std::mem::take(&mut self.writers);
    }

    pub(super) fn len(&self) -> usize {
        self.open.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_writer_is_whoever_may_have_changed_the_file() {
        for (flags, created, writer) in [
            (0, false, false),
            (0o100_000, false, false),
            (1, false, true),
            (2, false, true),
            (0, true, true),
            (O_TRUNC, false, true),
        ] {
            assert_eq!(Handle::file(2, flags, created).writer, writer, "{flags:o}");
        }
        assert!(!Handle::directory(2, 0o200_000).writer);
        assert_eq!(Handle::file(2, 0o101_302, true).flags_again(), 0o100_002);
    }
}
