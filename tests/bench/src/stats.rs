//! What is said of repeated measurements: the median, and the spread in which most of them lie.

use serde::{Deserialize, Serialize};
use std::time::Duration;

/// Measurements of one thing.
#[derive(Debug, Default, Clone, Serialize, Deserialize)]
pub(crate) struct Samples(Vec<f64>);

/// The middle of some measurements, and the bounds of the lowest and the highest tenth.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Summary {
    pub(crate) median: f64,
    pub(crate) p10: f64,
    pub(crate) p90: f64,
    /// The bound of the highest hundredth; fewer samples than a hundred have none.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) p99: Option<f64>,
    pub(crate) samples: usize,
}

impl Samples {
    pub(crate) fn add(&mut self, value: f64) {
        self.0.push(value);
    }

    /// Adds a time, in milliseconds.
    pub(crate) fn add_time(&mut self, time: Duration) {
        self.add(time.as_secs_f64() * 1000.0);
    }

    /// The summary; all zero if there is none to summarize.
    pub(crate) fn summary(&self) -> Summary {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        Summary {
            median: quantile(&sorted, 0.5),
            p10: quantile(&sorted, 0.1),
            p90: quantile(&sorted, 0.9),
            p99: (sorted.len() >= 100).then(|| quantile(&sorted, 0.99)),
            samples: sorted.len(),
        }
    }
}

/// The value below which the share `q` of `sorted` lies, between two of them in proportion.
fn quantile(sorted: &[f64], q: f64) -> f64 {
    let Some(last) = sorted.len().checked_sub(1) else {
        return 0.0;
    };
    let place = q * last as f64;
    let low = place.floor() as usize;
    let high = (low + 1).min(last);
    sorted[low] + (sorted[high] - sorted[low]) * (place - low as f64)
}

#[cfg(test)]
mod tests {
    use super::Samples;

    #[test]
    fn summarizes_in_any_order() {
        let mut samples = Samples::default();
        for value in [5.0, 1.0, 4.0, 2.0, 3.0, 6.0, 11.0, 7.0, 8.0, 9.0, 10.0] {
            samples.add(value);
        }
        let summary = samples.summary();
        assert_eq!((summary.p10, summary.median, summary.p90), (2.0, 6.0, 10.0));
        assert_eq!((summary.samples, summary.p99), (11, None));
        assert_eq!(Samples::default().summary().median, 0.0);
        let mut two = Samples::default();
        two.add(1.0);
        two.add(2.0);
        assert_eq!(two.summary().median, 1.5);
        let mut many = Samples::default();
        (0..=200).for_each(|value| many.add(f64::from(value)));
        assert_eq!(many.summary().p99, Some(198.0));
    }
}
