//! "Did you mean …?" for names that refer to something configured.

use nodepool_drivers::api::nearest;

/// The end of an error message that proposes the most similar of `names`; empty if none is similar.
pub(crate) fn did_you_mean<'n>(
    name: &str,
    names: impl IntoIterator<Item = &'n (impl AsRef<str> + ?Sized + 'n)>,
) -> String {
    nearest(name, names).map(|meant| format!("; did you mean '{meant}'?")).unwrap_or_default()
}
