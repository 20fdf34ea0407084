//! A row of the table: what the driver takes, what stands next to it, and the goal.

use crate::stats::{Bounds, Samples, Summary};
use serde::Serialize;

/// What a row's numbers count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Unit {
    Milliseconds,
    Microseconds,
    Seconds,
    Mebibytes,
    Bytes,
    Count,
}

/// The most that a row may show.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Goal {
    /// Times what stands next to it.
    Ratio(f64),
    /// The median, in the row's unit.
    Value(f64),
    /// Times what stands next to it, or as much as a second bare mount may show by chance, the upper
    /// bound of its own row.
    RatioOrChance(f64, f64),
    /// The median, in the row's unit, above what stands next to it.
    Above(f64),
    /// The bound of the highest hundredth, in the row's unit, above the median of what stands next to
    /// it.
    P99Above(f64),
    /// None: the row explains another one.
    None,
}

/// What the driver is compared with.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Beside {
    pub(crate) name: String,
    #[serde(flatten)]
    pub(crate) summary: Summary,
}

/// One row.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) unit: Unit,
    pub(crate) driver: Summary,
    pub(crate) beside: Option<Beside>,
    /// The driver's median over that beside it.
    pub(crate) ratio: Option<f64>,
    /// How exact that is, where rounds were compared one by one: `ratio` is the median of them then.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) bounds: Option<Bounds>,
    pub(crate) goal: Goal,
    /// Nothing where there is no goal.
    pub(crate) reached: Option<bool>,
}

impl Row {
    /// A row next to something else, with a goal for the ratio of the medians.
    pub(crate) fn ratio(
        name: impl Into<String>,
        unit: Unit,
        driver: Summary,
        beside: (&str, Summary),
        limit: f64,
    ) -> Self {
        // As exact as it is shown.
        let ratio = (driver.median / beside.1.median * 100.0).round() / 100.0;
        Self {
            name: name.into(),
            unit,
            driver,
            beside: Some(Beside {
                name: beside.0.to_owned(),
                summary: beside.1,
            }),
            ratio: Some(ratio),
            bounds: None,
            goal: Goal::Ratio(limit),
            reached: Some(ratio <= limit),
        }
    }

    /// A row whose rounds are compared one by one with those of something else.
    pub(crate) fn paired(
        name: impl Into<String>,
        unit: Unit,
        driver: &Samples,
        beside: (&str, &Samples),
        goal: Goal,
    ) -> Self {
        let bounds = driver.over(beside.1).median_with_bounds();
        let row = Self::ratio(
            name,
            unit,
            driver.summary(),
            (beside.0, beside.1.summary()),
            0.0,
        );
        // As exact as it is shown.
        let ratio = (bounds.value * 100.0).round() / 100.0;
        Self {
            ratio: Some(ratio),
            bounds: Some(bounds),
            goal,
            reached: match goal {
                Goal::Ratio(limit) => Some(ratio <= limit),
                Goal::RatioOrChance(limit, chance) => Some(ratio <= limit.max(chance)),
                _ => None,
            },
            ..row
        }
    }

    /// A row with a goal for the median itself.
    pub(crate) fn value(name: &str, unit: Unit, driver: Summary, limit: f64) -> Self {
        Self {
            name: name.to_owned(),
            unit,
            driver,
            beside: None,
            ratio: None,
            bounds: None,
            goal: Goal::Value(limit),
            reached: Some(driver.median <= limit),
        }
    }

    /// A row with a goal for the median above that of something else.
    pub(crate) fn above(
        name: impl Into<String>,
        unit: Unit,
        driver: Summary,
        beside: (&str, Summary),
        limit: f64,
    ) -> Self {
        Self {
            ratio: None,
            goal: Goal::Above(limit),
            reached: Some(driver.median <= beside.1.median + limit),
            ..Self::ratio(name, unit, driver, beside, limit)
        }
    }

    /// The same for the bound of the highest hundredth; nothing if there are too few samples.
    pub(crate) fn p99_above(
        name: impl Into<String>,
        unit: Unit,
        driver: Summary,
        beside: (&str, Summary),
        limit: f64,
    ) -> Option<Self> {
        let p99 = driver.p99?;
        Some(Self {
            goal: Goal::P99Above(limit),
            reached: Some(p99 <= beside.1.median + limit),
            ..Self::above(name, unit, driver, beside, limit)
        })
    }

    /// The row without its goal.
    pub(crate) fn without_goal(self) -> Self {
        Self {
            goal: Goal::None,
            reached: None,
            ..self
        }
    }

    /// The row with something next to it that is no goal.
    pub(crate) fn next_to(mut self, name: &str, summary: Summary) -> Self {
        self.ratio = Some(self.driver.median / summary.median);
        self.beside = Some(Beside {
            name: name.to_owned(),
            summary,
        });
        self
    }
}
