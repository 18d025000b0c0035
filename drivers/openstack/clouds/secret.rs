//! Text that must not show anywhere.

use std::fmt;

/// A password or a token.
#[derive(Clone, PartialEq, Eq)]
pub(in crate::openstack) struct Secret(String);

impl Secret {
    /// Keeps `text` from being shown.
    pub(in crate::openstack) fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the one place that sends it.
    pub(in crate::openstack) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("(secret)")
    }
}
