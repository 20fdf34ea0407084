//! Finds requests that nobody can answer any more: read by an earlier process of the volume that was
//! killed before it had recorded them. The kernel counts them among those that wait.

use crate::serve::connection::Control;
use anyhow::Result;
use std::time::{Duration, Instant};

/// Time between two looks: there is no event for it.
const PAUSE: Duration = Duration::from_secs(1);
/// Looks in a row that must find requests waiting. One that the kernel is about to hand over is
/// counted for a moment, too.
const LOOKS: u32 = 3;

/// The search, which ends with the first look that finds none.
pub(crate) struct LostRequests {
    control: Control,
    looks: u32,
    next: Instant,
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

    /// When to look again, if this process is idle then.
    pub(crate) fn next(&self) -> Instant {
        self.next
    }

    /// Looks if it is time to. Only to be called while no request is held here and the kernel has none
    /// to hand over: it keeps some to itself while many are under way.
    pub(crate) fn look(&mut self, now: Instant) -> Verdict {
        if now < self.next {
            return Verdict::NotYet;
        }
        self.next = now + PAUSE;
        // None: the mount has gone.
        let missing = self.control.waiting().unwrap_or(0);
        if missing == 0 {
            return Verdict::None;
        }
        self.looks += 1;
        match self.looks >= LOOKS {
            true => Verdict::Lost(missing),
            false => Verdict::NotYet,
        }
    }

    /// Ends the connection.
    pub(crate) fn abort(&self) -> Result<()> {
        self.control.abort()
    }
}
