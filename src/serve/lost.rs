//! Finds requests that nobody can answer any more: read by an earlier process of the volume that was
//! killed before it had recorded them. The kernel counts them among those that wait.

use crate::serve::connection::Control;
use anyhow::Result;
use std::time::{Duration, Instant};

/// Time between two looks: there is no event for it.
const PAUSE: Duration = Duration::from_secs(1);
/// Looks in a row that must find more requests waiting than are held here. Requests that the kernel
/// is just about to hand over are counted too.
const LOOKS: u32 = 30;

/// The search, which ends with the first look that finds none missing.
pub(crate) struct LostRequests {
    control: Control,
    looks: u32,
    pub(crate) next: Instant,
}

/// What a look found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// None is missing.
    None,
    /// It is too early to tell.
    NotYet,
    /// So many are missing.
    Lost(u64),
}

impl LostRequests {
    pub(crate) fn new(control: Control, now: Instant) -> Self {
        Self {
            control,
            looks: 0,
            next: now,
        }
    }

    /// Looks if it is time to, while `held` requests are held here.
    pub(crate) fn look(&mut self, held: u64, now: Instant) -> Verdict {
        if now < self.next {
            return Verdict::NotYet;
        }
        self.next = now + PAUSE;
        let Some(waiting) = self.control.waiting() else {
            // The mount has gone.
            return Verdict::None;
        };
        match waiting.checked_sub(held) {
            None | Some(0) => Verdict::None,
            Some(missing) => {
                self.looks += 1;
                match self.looks >= LOOKS {
                    true => Verdict::Lost(missing),
                    false => Verdict::NotYet,
                }
            }
        }
    }

    /// Ends the connection.
    pub(crate) fn abort(&self) -> Result<()> {
        self.control.abort()
    }
}
