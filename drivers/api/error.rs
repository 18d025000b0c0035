//! What a driver answers when a call fails: a small stable kind that tells the caller what to do next, and
//! a sentence for people.

use std::fmt;

/// What the caller should do about a failed call.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// The named thing does not exist. A deletion treats this as done.
    NotFound,
    /// A quota is used up: try again once something has been released.
    Quota,
    /// The provider asks for fewer calls: try again later, not at once.
    RateLimited,
    /// The call's deadline passed.
    Timeout,
    /// The caller's stop token ended the call.
    Cancelled,
    /// The same call would fail again: only a changed configuration, image or request helps.
    Permanent,
    /// Nobody was there to do it: the provider as a whole may be out of order. Try again later, not at once.
    Unavailable,
    /// The same call may well succeed later.
    Transient,
}

impl ErrorKind {
    /// Whether the same call may soon succeed, with nothing else changed.
    pub fn may_pass(self) -> bool {
        matches!(self, Self::RateLimited | Self::Unavailable | Self::Transient)
    }
}

/// A failed driver call.
#[derive(Debug)]
pub struct Error {
    kind: ErrorKind,
    message: String,
    source: Option<Box<dyn std::error::Error + Send + Sync>>,
    leaves_something: bool,
}

impl Error {
    /// An error of `kind`; `message` names the thing and what is wrong with it.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self { kind, message: message.into(), source: None, leaves_something: false }
    }

    /// The same error with what caused it.
    #[must_use]
    pub fn caused_by(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }

    /// The same error of a call that could not take back what it had begun.
    #[must_use]
    pub fn leaving_something(mut self) -> Self {
        self.leaves_something = true;
        self
    }

    /// Whether something may be left at the provider that the call has told the id of.
    pub fn leaves_something(&self) -> bool {
        self.leaves_something
    }

    /// What the caller should do.
    pub fn kind(&self) -> ErrorKind {
        self.kind
    }
}

impl fmt::Display for Error {
    /// The message, then the whole chain of causes: it is printed once, at the edge.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)?;
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            write!(f, ": {error}")?;
            cause = error.source();
        }
        Ok(())
    }
}

impl std::error::Error for Error {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn std::error::Error + 'static))
    }
}

impl From<nodepool_threads::Interrupted> for Error {
    fn from(why: nodepool_threads::Interrupted) -> Self {
        match why {
            nodepool_threads::Interrupted::Stopped => Self::new(ErrorKind::Cancelled, "cancelled"),
            nodepool_threads::Interrupted::DeadlinePassed => {
                Self::new(ErrorKind::Timeout, "did not finish before its deadline")
            }
        }
    }
}
