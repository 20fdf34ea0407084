//! INIT: what the kernel offers, what a daemon makes of it, and that the next daemon makes the
//! same of it. The kernel hears one answer for as long as the mount lives.

use crate::serve::relay::opcode::Opcode;
use crate::serve::relay::wire::{self, IN_HEADER, set_u32, u32_at};

/// The protocol of `linux/fuse.h` that is offered to a daemon at most.
const NEWEST_MINOR: u32 = 31;
/// Before 7.12 requests and answers have other lengths.
const OLDEST_MINOR: u32 = 12;
/// BATCH_FORGET.
const BATCH_FORGET_MINOR: u32 = 16;

/// The flags of INIT that are passed on, either way (`FUSE_*`): what is not here would splice from
/// the descriptor, hide opens or saved data from the relay (`WRITEBACK_CACHE`,
/// `NO_OPEN_SUPPORT`), bring requests that it answers with ENOSYS (locks, `READDIRPLUS`), let
/// messages grow (`MAX_PAGES`), or is newer than what it knows.
const PASSED_ON: u32 = ASYNC_READ
    | ATOMIC_O_TRUNC
    | BIG_WRITES
    | DONT_MASK
    | AUTO_INVAL_DATA
    | ASYNC_DIO
    | CACHE_SYMLINKS;
const ASYNC_READ: u32 = 1;
const ATOMIC_O_TRUNC: u32 = 1 << 3;
const BIG_WRITES: u32 = 1 << 5;
const DONT_MASK: u32 = 1 << 6;
const AUTO_INVAL_DATA: u32 = 1 << 12;
const ASYNC_DIO: u32 = 1 << 15;
const CACHE_SYMLINKS: u32 = 1 << 23;

/// What the kernel offered, as a daemon hears it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Offer {
    minor: u32,
    max_readahead: u32,
    flags: u32,
}

/// What a daemon agreed to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Agreed {
    minor: u32,
    max_readahead: u32,
    flags: u32,
    background: u32,
    max_write: u32,
    time_gran: u32,
}

impl Offer {
    /// From the body of the kernel's INIT; none for another protocol than 7.12 and later.
    pub(super) fn parse(body: &[u8]) -> Option<Self> {
        let (major, minor) = (u32_at(body, 0), u32_at(body, 4));
        (major == 7 && minor >= OLDEST_MINOR).then(|| Self {
            minor: minor.min(NEWEST_MINOR),
            max_readahead: u32_at(body, 8),
            flags: u32_at(body, 12) & PASSED_ON,
        })
    }

    /// The INIT for a daemon; its unique is still 0.
    pub(super) fn request(&self) -> Vec<u8> {
        wire::request(Opcode::Init as u32, 0, &self.to_bytes())
    }

    /// `struct fuse_init_in` before 7.36.
    pub(super) fn to_bytes(self) -> [u8; wire::INIT_IN] {
        let mut body = [0; wire::INIT_IN];
        set_u32(&mut body, 0, 7);
        set_u32(&mut body, 4, self.minor);
        set_u32(&mut body, 8, self.max_readahead);
        set_u32(&mut body, 12, self.flags);
        body
    }
}

impl Agreed {
    /// From the body of a daemon's answer to `offer`; none for one that makes no sense.
    pub(super) fn parse(offer: &Offer, body: &[u8]) -> Option<Self> {
        let (major, minor) = (u32_at(body, 0), u32_at(body, 4));
        if !matches!(body.len(), wire::INIT_OUT_OLD | wire::INIT_OUT)
            || major != 7
            || minor < OLDEST_MINOR
        {
            return None;
        }
        Some(Self {
            minor: minor.min(offer.minor),
            max_readahead: u32_at(body, 8).min(offer.max_readahead),
            flags: u32_at(body, 12) & offer.flags,
            background: u32_at(body, 16),
            max_write: u32_at(body, 20).clamp(4096, wire::MAX_DATA),
            time_gran: u32_at(body, 24).min(1_000_000_000),
        })
    }

    /// The answer for the kernel.
    pub(super) fn answer(&self, unique: u64) -> Vec<u8> {
        wire::answer_with(unique, &self.to_bytes())
    }

    /// `struct fuse_init_out`.
    pub(super) fn to_bytes(self) -> [u8; wire::INIT_OUT] {
        let mut body = [0; wire::INIT_OUT];
        set_u32(&mut body, 0, 7);
        set_u32(&mut body, 4, self.minor);
        set_u32(&mut body, 8, self.max_readahead);
        set_u32(&mut body, 12, self.flags);
        set_u32(&mut body, 16, self.background);
        set_u32(&mut body, 20, self.max_write);
        set_u32(&mut body, 24, self.time_gran);
        body
    }

    /// Whether it knows BATCH_FORGET.
    pub(super) fn batches_forgets(&self) -> bool {
        self.minor >= BATCH_FORGET_MINOR
    }
}

/// The kernel's offer from its whole INIT message.
pub(super) fn offer_of(message: &[u8]) -> Option<Offer> {
    Offer::parse(message.get(IN_HEADER..)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn init_in(minor: u32, flags: u32) -> Vec<u8> {
        let numbers = [7, minor, 131_072, flags];
        numbers.iter().flat_map(|n: &u32| n.to_ne_bytes()).collect()
    }

    fn init_out(minor: u32, flags: u32, max_write: u32, length: usize) -> Vec<u8> {
        let numbers = [7, minor, 1 << 20, flags, 12, max_write];
        let mut body: Vec<u8> = numbers.iter().flat_map(|n: &u32| n.to_ne_bytes()).collect();
        body.resize(length, 0);
        body
    }

    #[test]
    fn offers_no_splice_no_writeback_and_no_version_it_does_not_know() {
        let offer = Offer::parse(&init_in(45, u32::MAX)).unwrap();
        assert_eq!(offer.minor, 31);
        for flag in [
            1 << 1,
            1 << 7,
            1 << 8,
            1 << 9,
            1 << 13,
            1 << 16,
            1 << 17,
            1 << 22,
            1 << 30,
        ] {
            assert_eq!(offer.flags & flag, 0, "{flag:x}");
        }
        assert_eq!(Offer::parse(&offer.to_bytes()), Some(offer));
        assert_eq!(offer.request().len(), 56);
        assert_eq!(Offer::parse(&init_in(11, 0)), None);
        assert_eq!(Offer::parse(b""), None);
    }

    #[test]
    fn an_answer_is_bounded_by_the_offer() {
        let offer = Offer::parse(&init_in(31, BIG_WRITES)).unwrap();
        let agreed = Agreed::parse(&offer, &init_out(40, u32::MAX, 1 << 30, 64)).unwrap();
        assert_eq!(agreed.minor, 31);
        assert_eq!(agreed.flags, BIG_WRITES);
        assert_eq!(agreed.max_write, 131_072);
        assert_eq!(agreed.max_readahead, 131_072);
        let answer = agreed.answer(2);
        assert_eq!(answer.len(), 80);
        assert_eq!(Agreed::parse(&offer, &answer[16..]), Some(agreed));
    }

    #[test]
    fn answers_of_libfuse_2_and_3_are_known_and_others_are_not() {
        let offer = Offer::parse(&init_in(31, 0)).unwrap();
        for (minor, length, known) in [
            (19, 24, true),
            (31, 64, true),
            (19, 8, false),
            (31, 65, false),
            (11, 24, false),
        ] {
            let body = init_out(minor, 0, 4096, length);
            assert_eq!(
                Agreed::parse(&offer, &body).is_some(),
                known,
                "{minor} {length}"
            );
        }
    }
}
