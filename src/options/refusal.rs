//! Why an option of a volume is refused, as `kubectl describe pod` shows it.

use crate::text::quote;
use std::fmt;

/// One option that was refused, and why.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    option: String,
    problem: String,
}

impl Refusal {
    /// A refusal of `option`; `problem` goes on after its name and holds no secret.
    pub(crate) fn new(option: &str, problem: impl Into<String>) -> Self {
        Self {
            option: option.to_owned(),
            problem: problem.into(),
        }
    }

    /// A refusal of `option` because of its `value`, which is shown.
    pub(crate) fn of_value(option: &str, value: &str, problem: &str) -> Self {
        Self::new(option, format!("{} {problem}", quote(value)))
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "option {}: {}", quote(&self.option), self.problem)
    }
}

impl std::error::Error for Refusal {}
