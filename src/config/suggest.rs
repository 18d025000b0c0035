//! "Did you mean …?" for names that refer to something configured.

/// The end of an error message that proposes the most similar of `names`; empty if none is similar.
pub(super) fn did_you_mean<'n>(
    name: &str,
    names: impl IntoIterator<Item = &'n (impl AsRef<str> + ?Sized + 'n)>,
) -> String {
    let scored = names.into_iter().map(|other| (distance(name, other.as_ref()), other.as_ref()));
    // More changes than that make another word of it.
    let most = (name.chars().count() / 3).max(1);
    match scored.filter(|(distance, _)| *distance <= most).min() {
        Some((_, meant)) => format!("; did you mean '{meant}'?"),
        None => String::new(),
    }
}

/// How many characters must be added, removed or replaced, or swapped with the next one, to make `a` of `b`.
fn distance(a: &str, b: &str) -> usize {
    let (a, b): (Vec<_>, Vec<_>) = (a.chars().collect(), b.chars().collect());
    let mut rows = vec![(0..=b.len()).collect::<Vec<_>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let replaced = rows[i - 1][j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut best = replaced.min(rows[i - 1][j] + 1).min(row[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_names_are_proposed_and_others_are_not() {
        let names = ["debian-bookworm", "fake", "local"];
        let cases = [
            ("debian-bokworm", "; did you mean 'debian-bookworm'?"),
            ("lcoal", "; did you mean 'local'?"),
            ("fak", "; did you mean 'fake'?"),
            ("Fake", "; did you mean 'fake'?"),
            ("ubuntu", ""),
            ("x", ""),
            ("", ""),
        ];
        for (name, expected) in cases {
            assert_eq!(did_you_mean(name, names), expected, "{name}");
        }
    }
}
