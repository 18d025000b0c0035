//! Amounts of what nodes need and clouds limit: `instances`, `cores`, `ram` (in MiB), `volumes`, `volume-gb`, and
//! whatever else a driver counts.

use std::collections::BTreeMap;

/// Amounts by name. As an amount, what is absent is 0; as a limit, there is none of it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Resources(BTreeMap<String, i64>);

impl Resources {
    /// The name of the number of instances.
    pub const INSTANCES: &'static str = "instances";

    /// One instance, of which nothing more is known.
    pub fn one_instance() -> Self {
        [(Self::INSTANCES, 1)].into_iter().collect()
    }

    /// The amount of this name.
    pub fn get(&self, name: &str) -> Option<i64> {
        self.0.get(name).copied()
    }

    /// Sets the amount of this name.
    pub fn set(&mut self, name: &str, amount: i64) {
        self.0.insert(name.to_owned(), amount);
    }

    /// All amounts by name.
    pub fn iter(&self) -> impl Iterator<Item = (&str, i64)> {
        self.0.iter().map(|(name, amount)| (name.as_str(), *amount))
    }

    /// Adds amounts.
    pub fn add(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            match self.0.get_mut(name) {
                Some(own) => *own = own.saturating_add(*amount),
                None => self.set(name, *amount),
            }
        }
    }

    /// Takes amounts away.
    pub fn subtract(&mut self, other: &Self) {
        for (name, amount) in &other.0 {
            match self.0.get_mut(name) {
                Some(own) => *own = own.saturating_sub(*amount),
                None => self.set(name, -*amount),
            }
        }
    }

    /// Takes amounts away from limits: where there is no limit, there is none afterwards.
    pub fn lower_by(&mut self, used: &Self) {
        for (name, limit) in &mut self.0 {
            *limit = limit.saturating_sub(used.get(name).unwrap_or(0));
        }
    }

    /// The name of the first of these limits that `used` and `more` together go beyond.
    pub fn exceeded_by(&self, used: &Self, more: &Self) -> Option<&str> {
        let beyond = |name: &str, limit: i64| {
            let sum = used.get(name).unwrap_or(0).saturating_add(more.get(name).unwrap_or(0));
            sum > limit
        };
        self.iter().find(|(name, limit)| beyond(name, *limit)).map(|(name, _)| name)
    }
}

impl<N: Into<String>> FromIterator<(N, i64)> for Resources {
    fn from_iter<I: IntoIterator<Item = (N, i64)>>(amounts: I) -> Self {
        Self(amounts.into_iter().map(|(name, amount)| (name.into(), amount)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(amounts: &[(&str, i64)]) -> Resources {
        amounts.iter().copied().collect()
    }

    #[test]
    fn what_is_absent_is_nothing_as_an_amount_and_no_limit_as_a_limit() {
        let limit = of(&[("instances", 3), ("cores", 8)]);
        for (used, more, expected) in [
            (of(&[]), of(&[]), None),
            (of(&[("instances", 2)]), of(&[("instances", 1)]), None),
            (of(&[("instances", 3)]), of(&[("instances", 1)]), Some("instances")),
            (of(&[("instances", 1), ("cores", 7)]), of(&[("instances", 1), ("cores", 2)]), Some("cores")),
            (of(&[("ram", 1 << 40)]), of(&[("ram", 1)]), None),
            (of(&[("cores", i64::MAX)]), of(&[("cores", 1)]), Some("cores")),
        ] {
            assert_eq!(limit.exceeded_by(&used, &more), expected, "{used:?} {more:?}");
        }
        assert_eq!(of(&[("cores", -1)]).exceeded_by(&of(&[]), &of(&[])), Some("cores"));
    }

    #[test]
    fn amounts_are_added_and_taken_away_by_name() {
        let mut sum = of(&[("a", 1)]);
        sum.add(&of(&[("a", 2), ("b", 5)]));
        assert_eq!(sum, of(&[("a", 3), ("b", 5)]));
        sum.subtract(&of(&[("b", 5), ("c", 1)]));
        assert_eq!(sum, of(&[("a", 3), ("b", 0), ("c", -1)]));
        let mut limits = of(&[("a", 3)]);
        limits.lower_by(&of(&[("a", 1), ("b", 2)]));
        assert_eq!(limits, of(&[("a", 2)]));
    }
}
