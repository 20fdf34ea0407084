//! A row of the table: what the driver takes, what stands next to it, and the goal.

use crate::stats::Summary;
use serde::Serialize;

/// What a row's numbers count.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Unit {
    Milliseconds,
    Mebibytes,
    Daemons,
}

/// The most that a row may show.
#[derive(Debug, Clone, Copy, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Goal {
    /// Times what stands next to it.
    Ratio(f64),
    /// The median, in the row's unit.
    Value(f64),
    /// The bound of the highest hundredth, in the row's unit.
    P99(f64),
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
            goal: Goal::Ratio(limit),
            reached: Some(ratio <= limit),
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
            goal: Goal::Value(limit),
            reached: Some(driver.median <= limit),
        }
    }

    /// A row with a goal for the bound of the highest hundredth; nothing if there are too few samples.
    pub(crate) fn p99(name: &str, unit: Unit, driver: Summary, limit: f64) -> Option<Self> {
        let p99 = driver.p99?;
        Some(Self {
            goal: Goal::P99(limit),
            reached: Some(p99 <= limit),
            ..Self::value(name, unit, driver, limit)
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
