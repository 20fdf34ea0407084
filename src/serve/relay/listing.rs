//! The positions of an open directory. libfuse 2.9 gives positions in a buffer of its own, which
//! mean nothing to the next daemon; so the kernel gets the number of the entry, and after a death
//! the listing goes on by name: from the start, without the names that were given already.

use crate::serve::relay::wire::{self, u32_at, u64_at};
use std::collections::HashSet;
use std::hash::{BuildHasher as _, RandomState};

/// Entries of one listing that are remembered; a longer one cannot go on after a death.
const MOST: usize = 1_000_000;
/// Added to the daemon's own position past [`MOST`] entries.
const BEYOND: u64 = 1 << 62;

/// What an open directory has given so far.
#[derive(Debug, Default)]
pub(super) struct Listing {
    given: Vec<Given>,
    /// Entries before this one were given by a daemon that is gone.
    known_from: usize,
    /// The names of those, while a listing goes on after a death.
    skip: HashSet<u64>,
    /// A listing past [`MOST`] entries lost its daemon.
    broken: bool,
    hashes: RandomState,
}

#[derive(Debug, Clone, Copy)]
struct Given {
    name: u64,
    /// The daemon's position after the entry.
    offset: u64,
}

/// What of a daemon's answer is for the kernel.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Page {
    /// So many bytes, rewritten at the start of the body. 0: the end.
    Give(usize),
    /// All of it had been given before: ask from this position of the daemon's.
    Again(u64),
}

/// An answer to READDIR that is not a list of entries.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Malformed;

impl Listing {
    /// Another daemon: its positions are other ones.
    pub(super) fn daemon_changed(&mut self) {
        self.known_from = self.given.len();
        self.skip = HashSet::new();
        self.broken |= self.given.len() >= MOST;
    }

    /// The daemon's position for the kernel's `position`; none where it cannot be known any more.
    /// What was given after that position counts as not given.
    pub(super) fn seek(&mut self, position: u64) -> Option<u64> {
        if position == 0 {
            self.given.clear();
            self.known_from = 0;
            self.skip.clear();
            self.broken = false;
            return Some(0);
        }
        if self.broken {
            return None;
        }
        if position >= BEYOND {
            return Some(position - BEYOND);
        }
        let count = usize::try_from(position).ok()?;
        self.given.truncate(count);
        let last = self.given.get(count - 1)?;
        if count > self.known_from {
            return Some(last.offset);
        }
        self.known_from = count;
        self.skip = self.given.iter().map(|given| given.name).collect();
        Some(0)
    }

    /// Rewrites the positions in the daemon's `body` and leaves out what was given before. An
    /// entry that was cut at the end (libfuse 2.9 cuts where the buffer ends) is left out.
    pub(super) fn page(&mut self, body: &mut [u8]) -> Result<Page, Malformed> {
        let (mut from, mut to, mut last) = (0, 0, None);
        while body.len() - from >= wire::DIRENT_NAME {
            let length = u32_at(body, from + 16) as usize;
            if length == 0 || length > wire::NAME_MAX {
                return Err(Malformed);
            }
            let end = from + (wire::DIRENT_NAME + length).next_multiple_of(8);
            let name = from + wire::DIRENT_NAME..from + wire::DIRENT_NAME + length;
            if end > body.len() {
                break;
            }
            if body[name.clone()]
                .iter()
                .any(|byte| matches!(byte, 0 | b'/'))
            {
                return Err(Malformed);
            }
            let hash = self.hashes.hash_one(&body[name]);
            let offset = u64_at(body, from + 8);
            last = Some(offset);
            if !self.skip.contains(&hash) {
                body.copy_within(from..end, to);
                let position = self.give(hash, offset).ok_or(Malformed)?;
                wire::set_u64(body, to + 8, position);
                to += end - from;
            }
            from = end;
        }
        match last {
            Some(offset) if to == 0 => Ok(Page::Again(offset)),
            // Not even one entry fitted: the kernel would take it for the end of the directory.
            None if !body.is_empty() => Err(Malformed),
            _ => Ok(Page::Give(to)),
        }
    }

    /// Remembers an entry and gives the kernel's position after it.
    fn give(&mut self, name: u64, offset: u64) -> Option<u64> {
        if self.given.len() < MOST {
            self.given.push(Given { name, offset });
            return Some(self.given.len() as u64);
        }
        (offset < BEYOND).then_some(BEYOND + offset)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A page of entries, each with the daemon's position after it.
    fn page(entries: &[(&str, u64)]) -> Vec<u8> {
        let mut body = Vec::new();
        for (name, offset) in entries {
            body.extend_from_slice(&7u64.to_ne_bytes());
            body.extend_from_slice(&offset.to_ne_bytes());
            body.extend_from_slice(&(name.len() as u32).to_ne_bytes());
            body.extend_from_slice(&8u32.to_ne_bytes());
            body.extend_from_slice(name.as_bytes());
            body.resize(body.len().next_multiple_of(8), 0);
        }
        body
    }

    fn give(listing: &mut Listing, entries: &[(&str, u64)], expected: &[(&str, u64)]) {
        let mut body = page(entries);
        let Ok(Page::Give(length)) = listing.page(&mut body) else {
            panic!("nothing to give");
        };
        assert_eq!(body[..length], page(expected));
    }

    #[test]
    fn gives_numbers_for_the_daemons_positions() {
        let mut listing = Listing::default();
        assert_eq!(listing.seek(0), Some(0));
        give(
            &mut listing,
            &[("a", 32), ("bcdefghij", 72)],
            &[("a", 1), ("bcdefghij", 2)],
        );
        assert_eq!(listing.seek(2), Some(72));
        give(&mut listing, &[("c", 104)], &[("c", 3)]);
        assert_eq!(listing.page(&mut []), Ok(Page::Give(0)));
        assert_eq!(listing.seek(1), Some(32));
        assert_eq!(listing.seek(3), None, "given back by the seek before");
    }

    #[test]
    fn goes_on_by_name_after_a_death() {
        let mut listing = Listing::default();
        listing.seek(0);
        give(
            &mut listing,
            &[("a", 32), ("b", 64), ("c", 96)],
            &[("a", 1), ("b", 2), ("c", 3)],
        );
        listing.daemon_changed();
        assert_eq!(listing.seek(2), Some(0));
        let mut given = page(&[("b", 1), ("a", 2)]);
        assert_eq!(listing.page(&mut given), Ok(Page::Again(2)));
        give(
            &mut listing,
            &[("new", 3), ("a", 4), ("c", 5)],
            &[("new", 3), ("c", 4)],
        );
        assert_eq!(listing.seek(3), Some(3));
        give(&mut listing, &[("b", 4), ("c", 5)], &[("c", 4)]);
        assert_eq!(listing.seek(1), Some(0), "a position of the daemon before");
        give(&mut listing, &[("a", 1), ("b", 2)], &[("b", 2)]);
        assert_eq!(listing.seek(0), Some(0));
        give(&mut listing, &[("a", 9)], &[("a", 1)]);
    }

    #[test]
    fn leaves_out_an_entry_that_was_cut() {
        let mut listing = Listing::default();
        listing.seek(0);
        let mut body = page(&[("a", 32), ("b", 64)]);
        body.truncate(40);
        assert_eq!(listing.page(&mut body), Ok(Page::Give(32)));
        assert_eq!(listing.page(&mut body[..20]), Err(Malformed));
    }

    #[test]
    fn refuses_what_is_not_a_list() {
        for name in ["", "a/b", "a\0"] {
            let mut body = page(&[(name, 32)]);
            assert_eq!(
                Listing::default().page(&mut body),
                Err(Malformed),
                "{name:?}"
            );
        }
        let mut body = page(&[("a", 32)]);
        wire::set_u32(&mut body, 16, u32::MAX);
        assert_eq!(Listing::default().page(&mut body), Err(Malformed));
    }
}
