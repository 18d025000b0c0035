//! Mistakes in a configuration, each with its place.

use std::cell::RefCell;
use std::fmt;

/// How grave a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// A key that nothing reads: an error for `config-validate`, a warning for a daemon.
    UnknownKey,
}

/// One mistake in a configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// How grave it is.
    pub severity: Severity,
    /// Where in the file, such as `diskimages[2].parent`; empty for the file as a whole.
    pub path: String,
    /// What is wrong and what was expected.
    pub message: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.path.as_str() {
            "" => f.write_str(&self.message),
            path => write!(f, "{path}: {}", self.message),
        }
    }
}

/// The problems found so far.
#[derive(Debug, Default)]
pub struct Problems(RefCell<Vec<Problem>>);

impl Problems {
    /// None found yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes an error at `path`.
    pub fn error(&self, path: impl Into<String>, message: impl Into<String>) {
        self.note(Severity::Error, path.into(), message.into());
    }

    pub(super) fn note(&self, severity: Severity, path: String, message: String) {
        self.0.borrow_mut().push(Problem { severity, path, message });
    }

    /// Everything that was noted, in the order of the file.
    pub fn into_vec(self) -> Vec<Problem> {
        self.0.into_inner()
    }
}
