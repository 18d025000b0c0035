//! How a run ends that did not do what it was asked for.

use std::io;
use std::process::ExitCode;

use super::output;
use crate::config::ConfigError;
use crate::zk::ZkError;

/// Why a command could not do its work.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// A sentence for each of the reasons.
    Because(Vec<String>),
    /// The user knows why already.
    Told,
    /// Nobody reads standard output any more, as when `head` has seen enough.
    OutputClosed,
}

impl Failure {
    /// A failure with one reason.
    pub(super) fn because(why: impl Into<String>) -> Self {
        Self::Because(vec![why.into()])
    }

    /// Standard output could not be written.
    pub(super) fn of_output(error: &io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::BrokenPipe => Self::OutputClosed,
            _ => Self::because(format!("cannot write to standard output: {error}")),
        }
    }

    /// Tells the user, and the shell.
    pub(super) fn report(&self) -> ExitCode {
        match self {
            Self::Because(reasons) => {
                for reason in reasons {
                    output::complain(&format!("nodepool: {reason}"));
                }
                ExitCode::FAILURE
            }
            Self::Told => ExitCode::FAILURE,
            // The reader has got what it wanted.
            Self::OutputClosed => ExitCode::SUCCESS,
        }
    }
}

impl From<ZkError> for Failure {
    fn from(error: ZkError) -> Self {
        Self::because(error.to_string())
    }
}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Because(error.problems().iter().map(ToString::to_string).collect())
    }
}
