//! When the next daemon is started after one has ended: at once as a rule, later and later where
//! starts fail in a row. What counts is the time that daemons served, not that one came up.

use std::time::Duration;

/// Ends that cost nothing.
const FREE: u32 = 4;
/// The wait after the first end that costs something; it doubles with each further one.
const FIRST: Duration = Duration::from_millis(100);
/// The longest wait after a daemon that gave up before it served: its store is away, or its options are
/// wrong.
pub(crate) const AFTER_FAILURE: Duration = Duration::from_secs(60);
/// The longest wait after one that was killed before it served.
pub(crate) const AFTER_KILL: Duration = Duration::from_secs(1);
/// The longest wait after one that has served: callers wait for the next.
pub(crate) const AFTER_SERVICE: Duration = Duration::from_millis(200);
/// So much time in service makes up for one end.
const SERVICE: Duration = Duration::from_millis(100);
/// More ends than this are not told apart.
const MOST: u32 = 32;

/// The ends of a volume's daemons that no time in service has made up for.
#[derive(Debug, Default)]
pub(crate) struct Starts {
    ends: u32,
}

impl Starts {
    /// Counts the end of a daemon that has served for `served` (zero if it never did), and returns
    /// how long to wait before the next one is started, at most `longest`.
    pub(crate) fn ended(&mut self, served: Duration, longest: Duration) -> Duration {
        let made_up = served.as_millis() / SERVICE.as_millis();
        let made_up = u32::try_from(made_up).unwrap_or(u32::MAX);
        self.ends = (self.ends.saturating_sub(made_up) + 1).min(MOST);
        match self.ends.checked_sub(FREE + 1) {
            None => Duration::ZERO,
            Some(doublings) => FIRST.saturating_mul(1 << doublings.min(16)).min(longest),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{AFTER_FAILURE, AFTER_SERVICE, Starts};
    use std::time::Duration;

    #[test]
    fn a_daemon_that_never_serves_is_started_later_and_later() {
        let mut starts = Starts::default();
        let waits: Vec<u128> = (0..16)
            .map(|_| starts.ended(Duration::ZERO, AFTER_FAILURE).as_millis())
            .collect();
        assert_eq!(
            waits,
            [
                0, 0, 0, 0, 100, 200, 400, 800, 1600, 3200, 6400, 12800, 25600, 51200, 60000, 60000
            ]
        );
        // One success changes little, a minute much.
        let short = starts.ended(Duration::from_millis(200), AFTER_FAILURE);
        assert_eq!(short, AFTER_FAILURE);
        let long = starts.ended(Duration::from_secs(60), AFTER_FAILURE);
        assert_eq!(long, Duration::ZERO);
    }

    #[test]
    fn a_daemon_that_is_killed_now_and_then_is_replaced_at_once() {
        let mut starts = Starts::default();
        for _ in 0..1000 {
            let wait = starts.ended(Duration::from_millis(100), AFTER_SERVICE);
            assert_eq!(wait, Duration::ZERO);
        }
        // As soon as it serves: nobody waits for long.
        let waits: Vec<Duration> = (0..1000)
            .map(|_| starts.ended(Duration::from_millis(1), AFTER_SERVICE))
            .collect();
        assert_eq!(waits.last(), Some(&AFTER_SERVICE));
        assert!(waits.iter().all(|wait| *wait <= AFTER_SERVICE));
    }
}
