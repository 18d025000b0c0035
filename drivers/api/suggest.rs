//! The name that was probably meant.

/// The most similar of `names`, if one is similar enough to be a slip of the fingers.
pub fn nearest<'n>(
    name: &str,
    names: impl IntoIterator<Item = &'n (impl AsRef<str> + ?Sized + 'n)>,
) -> Option<&'n str> {
    // More changes than that make another word of it.
    let most = (name.chars().count() / 3).max(1);
    let scored = names.into_iter().map(|other| (strsim::osa_distance(name, other.as_ref()), other.as_ref()));
    scored.filter(|(distance, _)| *distance <= most).min().map(|(_, meant)| meant)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_names_are_proposed_and_others_are_not() {
        let names = ["debian-bookworm", "fake", "local"];
        let cases = [
            ("debian-bokworm", Some("debian-bookworm")),
            ("lcoal", Some("local")),
            ("fak", Some("fake")),
            ("Fake", Some("fake")),
            ("ubuntu", None),
            ("x", None),
            ("", None),
        ];
        for (name, expected) in cases {
            assert_eq!(nearest(name, names), expected, "{name}");
        }
    }
}
