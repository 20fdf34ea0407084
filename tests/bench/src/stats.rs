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

/// A value, and the bounds that it lies between.
#[derive(Debug, Clone, Copy, Serialize)]
pub(crate) struct Bounds {
    pub(crate) low: f64,
    pub(crate) value: f64,
    pub(crate) high: f64,
}

impl Samples {
    pub(crate) fn add(&mut self, value: f64) {
        self.0.push(value);
    }

    /// Adds a time, in milliseconds.
    pub(crate) fn add_time(&mut self, time: Duration) {
        self.add(time.as_secs_f64() * 1000.0);
    }

    /// The quotients of these samples and those of `others`, each by the one of the same round.
    pub(crate) fn over(&self, others: &Self) -> Self {
        Self(self.0.iter().zip(&others.0).map(|(a, b)| a / b).collect())
    }

    /// The median, and the bounds between which a repeated run has it with some 95 % certainty:
    /// 1.58 quartile distances over the root of the number of samples to both sides (McGill, Tukey
    /// and Larsen, Variations of box plots, 1978).
    pub(crate) fn median_with_bounds(&self) -> Bounds {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let median = quantile(&sorted, 0.5);
        let distance = quantile(&sorted, 0.75) - quantile(&sorted, 0.25);
        let reach = 1.58 * distance / (sorted.len().max(1) as f64).sqrt();
        Bounds {
            low: median - reach,
            value: median,
            high: median + reach,
        }
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

    #[test]
    fn quotients_are_of_the_same_round() {
        let [mut driver, mut bare] = [Samples::default(), Samples::default()];
        for (of_driver, of_bare) in [(2.0, 1.0), (30.0, 10.0), (4.0, 4.0), (5.0, 2.0)] {
            driver.add(of_driver);
            bare.add(of_bare);
        }
        let quotients = driver.over(&bare);
        assert_eq!(quotients.summary().median, 2.25);
        let bounds = quotients.median_with_bounds();
        assert_eq!(bounds.value, 2.25);
        // The quartiles are 1.75 and 2.625.
        assert!((bounds.high - 2.25 - 1.58 * 0.875 / 2.0).abs() < 1e-9);
        assert!((bounds.high + bounds.low - 4.5).abs() < 1e-9);
    }
}
