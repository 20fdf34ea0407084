//! The time by which a call must have responded: kubelet sets none for its drivers.

use nix::poll::PollTimeout;
use std::time::{Duration, Instant};

/// A fixed point in time, however long the steps of a call take.
#[derive(Clone, Copy)]
pub struct Deadline(Instant);

impl Deadline {
    /// The point `time` from now.
    pub fn after(time: Duration) -> Self {
        Self(Instant::now() + time)
    }

    /// The time left, zero once it has passed.
    pub fn remaining(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// The middle of the time left.
    pub fn half(self) -> Self {
        Self::after(self.remaining() / 2)
    }

    /// Whether no time is left.
    pub fn has_passed(self) -> bool {
        self.remaining().is_zero()
    }

    /// The time left for poll(2), rounded up so that a poll never ends before the deadline.
    pub fn poll_timeout(self) -> PollTimeout {
        let ms = self.remaining().as_micros().div_ceil(1000);
        PollTimeout::from(u16::try_from(ms).unwrap_or(u16::MAX))
    }
}
