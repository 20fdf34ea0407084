//! The time since the node was booted, for records that another process reads: nobody can set that
//! clock, and it goes on while the node is suspended (CLOCK_BOOTTIME, clock_gettime(2)).

use rustix::time::{ClockId, clock_gettime};
use std::time::Duration;

/// The time since the boot.
pub fn now() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    // Never negative.
    let part = |part: i64| u64::try_from(part).unwrap_or_default();
    Duration::from_secs(part(time.tv_sec)) + Duration::from_nanos(part(time.tv_nsec))
}

/// The text of a record of `time`.
pub(crate) fn render(time: Duration) -> String {
    format!("{}\n", time.as_nanos())
}

/// How long before `now` the recorded `text` is. `None` for one in the future and for no record at all.
pub(crate) fn age(text: &str, now: Duration) -> Option<Duration> {
    let at = Duration::from_nanos(text.trim().parse().ok()?);
    now.checked_sub(at)
}

#[cfg(test)]
mod tests {
    use super::{age, now, render};
    use std::time::Duration;

    #[test]
    fn a_record_has_an_age_unless_it_is_of_the_future() {
        let at = now();
        let second = Duration::from_secs(1);
        assert_eq!(age(&render(at), at + second), Some(second));
        assert_eq!(age(&render(at), at), Some(Duration::ZERO));
        assert_eq!(age(&render(at + Duration::from_nanos(1)), at), None);
        for text in ["", "x", "-1", "1 2", "99999999999999999999999999"] {
            assert_eq!(age(text, at), None, "{text}");
        }
        assert!(now() >= at && at > Duration::ZERO);
    }
}
