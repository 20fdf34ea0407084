//! How often the driver was repaired: a limit, so that two programs do not change it against each other
//! without end.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// More repairs than this within `REPAIR_TIME` are a conflict, with another installer perhaps: kubelet
/// would run init each time. As many that fail are a driver that does not work here.
pub(crate) const MAX_REPAIRS: usize = 5;
pub(crate) const REPAIR_TIME: Duration = Duration::from_secs(60);

/// When the driver was last repaired, or could not be.
#[derive(Default)]
pub(crate) struct Repairs(VecDeque<Instant>);

impl Repairs {
    pub(crate) fn count(&mut self) {
        self.0.push_back(Instant::now());
        if self.0.len() > MAX_REPAIRS {
            self.0.pop_front();
        }
    }

    /// How long to leave the driver as it is, after too many repairs.
    pub(crate) fn pause(&self) -> Option<Duration> {
        let first = self.0.front().filter(|_| self.0.len() == MAX_REPAIRS)?;
        let pause = REPAIR_TIME.saturating_sub(first.elapsed());
        (!pause.is_zero()).then_some(pause)
    }
}

#[cfg(test)]
mod tests {
    use super::{MAX_REPAIRS, Repairs};

    #[test]
    fn a_conflict_makes_a_pause() {
        let mut repairs = Repairs::default();
        for _ in 1..MAX_REPAIRS {
            repairs.count();
            assert_eq!(repairs.pause(), None);
        }
        repairs.count();
        assert!(repairs.pause().is_some());
    }
}
