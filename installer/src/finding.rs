//! What was found on a node: one line each, with its remedy.

use std::fmt;

/// What a finding means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Severity {
    /// For information; nothing is kept from working.
    Note,
    /// Somebody should look at it, and the driver works: the Pod stays ready. What one tenant can cause
    /// is no more than this.
    Warning,
    /// The driver works, and what was asked for does not: the Pod stays unready.
    Problem,
    /// The driver can be installed, but no volume can be mounted: the Pod stays unready.
    BlocksMounting,
    /// The driver cannot be installed or must not be: nothing is changed, the Pod stays unready.
    BlocksInstalling,
}

/// One finding. The text has what was found, the value, what is expected and where to look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) severity: Severity,
    pub(crate) text: String,
}

impl Finding {
    pub(crate) fn note(text: impl Into<String>) -> Self {
        Self::new(Severity::Note, text)
    }

    pub(crate) fn warning(text: impl Into<String>) -> Self {
        Self::new(Severity::Warning, text)
    }

    pub(crate) fn problem(text: impl Into<String>) -> Self {
        Self::new(Severity::Problem, text)
    }

    pub(crate) fn blocks_mounting(text: impl Into<String>) -> Self {
        Self::new(Severity::BlocksMounting, text)
    }

    pub(crate) fn blocks_installing(text: impl Into<String>) -> Self {
        Self::new(Severity::BlocksInstalling, text)
    }

    fn new(severity: Severity, text: impl Into<String>) -> Self {
        Self {
            severity,
            text: text.into(),
        }
    }

    /// Writes the finding to the log.
    pub(crate) fn log(&self) {
        match self.severity {
            Severity::Note => log::info!("{self}"),
            Severity::Warning | Severity::BlocksMounting => log::warn!("{self}"),
            Severity::Problem | Severity::BlocksInstalling => log::error!("{self}"),
        }
    }
}

impl fmt::Display for Finding {
    fn fmt(&self, out: &mut fmt::Formatter) -> fmt::Result {
        let what = match self.severity {
            Severity::Note => "note",
            Severity::Warning => "warning",
            Severity::Problem => "problem",
            Severity::BlocksMounting => "blocks mounting",
            Severity::BlocksInstalling => "blocks installing",
        };
        write!(out, "{what}: {}", self.text)
    }
}
