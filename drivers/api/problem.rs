//! Mistakes in a configuration, each with its place.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt;
use std::path::PathBuf;

/// How grave a problem is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The configuration cannot be used.
    Error,
    /// A key that nothing reads: an error for `config-validate`, a warning for a daemon.
    UnknownKey,
    /// Can be used, but hardly means what it says. Never a reason to refuse anything.
    Warning,
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
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        let kind = if self.severity == Severity::Warning { "warning: " } else { "" };
        write!(f, "{kind}{}", self.message)
    }
}

/// The problems found so far, and the files besides the one at hand that readers have looked into.
#[derive(Debug, Default)]
pub struct Problems {
    found: RefCell<Vec<Problem>>,
    files: RefCell<BTreeSet<PathBuf>>,
}

impl Problems {
    /// None found yet.
    pub fn new() -> Self {
        Self::default()
    }

    /// Notes an error at `path`.
    pub fn error(&self, path: impl Into<String>, message: impl Into<String>) {
        self.note(Severity::Error, path.into(), message.into());
    }

    /// Notes at `path` what deserves a warning.
    pub fn warning(&self, path: impl Into<String>, message: impl Into<String>) {
        self.note(Severity::Warning, path.into(), message.into());
    }

    pub(super) fn note(&self, severity: Severity, path: String, message: String) {
        self.found.borrow_mut().push(Problem { severity, path, message });
    }

    /// Whether an error was noted, so that what follows from it need not be told as well.
    pub fn have_errors(&self) -> bool {
        self.found.borrow().iter().any(|problem| problem.severity == Severity::Error)
    }

    /// Everything that was noted, in the order of the file.
    pub fn into_vec(self) -> Vec<Problem> {
        self.found.into_inner()
    }

    /// Notes a file that was read, or would be read if it were there: when it changes, the configuration does.
    pub fn depends_on(&self, file: impl Into<PathBuf>) {
        self.files.borrow_mut().insert(file.into());
    }

    /// The files that were noted.
    pub fn files(&self) -> BTreeSet<PathBuf> {
        self.files.borrow().clone()
    }
}
