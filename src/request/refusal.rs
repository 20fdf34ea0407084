//! Why an option of a volume is refused, in the words that `kubectl describe pod` will show.

use std::fmt;

/// The longest part of a value that a message repeats, in characters.
const MAX_SHOWN: usize = 64;

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

/// `value` in quotes, escaped and cut to a length that a message can bear.
pub(crate) fn quote(value: &str) -> String {
    match value.char_indices().nth(MAX_SHOWN) {
        Some((end, _)) => format!("{:?}…", &value[..end]),
        None => format!("{value:?}"),
    }
}
