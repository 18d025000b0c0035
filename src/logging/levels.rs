//! Which logger's lines of which level go where, as in the original: a logger without a level has that of the
//! one above it; a line goes to the outputs of its logger and of all above, up to one that does not propagate.

use std::collections::BTreeMap;

use slog::{FilterLevel, Level};

use super::names::{COUNTERPARTS, chain, is_below};

/// What is configured for one logger.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Rule {
    /// The least grave level whose lines are wanted; `None` for that of the logger above.
    pub(super) level: Option<FilterLevel>,
    /// The outputs, by number.
    pub(super) outputs: Vec<usize>,
    /// Whether the outputs of the loggers above get the lines, too.
    pub(super) propagate: bool,
}

/// The rules of all loggers that are configured. The root has the name `""`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Levels(BTreeMap<String, Rule>);

impl Levels {
    /// Sets the rule of a logger.
    pub(super) fn set(&mut self, logger: &str, rule: Rule) {
        self.0.insert(logger.to_owned(), rule);
    }

    /// The outputs that get a line of the logger.
    pub(super) fn outputs(&self, logger: &str, level: Level) -> impl Iterator<Item = usize> + use<> {
        let logger = self.goes_by(logger);
        let rules = || chain(logger).filter_map(|name| self.0.get(name));
        // Where nothing is said anywhere, the original says warnings.
        let wanted = rules().find_map(|rule| rule.level).unwrap_or(FilterLevel::Warning).accepts(level);
        let mut found = Vec::new();
        for rule in rules().take_while(|_| wanted) {
            found.extend_from_slice(&rule.outputs);
            if !rule.propagate {
                break;
            }
        }
        // An output that is reached twice gets the line once.
        found.sort_unstable();
        found.dedup();
        found.into_iter()
    }

    /// The name whose rules hold for the logger: its own, unless there is only a less exact one and a name of
    /// the original is configured that means this logger.
    fn goes_by<'n>(&self, logger: &'n str) -> &'n str {
        let configured = |name: &&str| !name.is_empty() && self.0.contains_key(*name);
        let own = chain(logger).find(configured).map_or(0, str::len);
        let means = |&(theirs, ours): &(&'static str, &'static str)| {
            is_below(logger, ours)
                && ours.len() > own
                && chain(theirs).filter(configured).any(|name| !is_below(logger, name))
        };
        let exact = COUNTERPARTS.iter().copied().filter(means).max_by_key(|(_, ours)| ours.len());
        exact.map_or(logger, |(theirs, _)| theirs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn levels(rules: &[(&str, Option<FilterLevel>, &[usize], bool)]) -> Levels {
        let mut levels = Levels::default();
        for (name, level, outputs, propagate) in rules {
            levels.set(name, Rule { level: *level, outputs: outputs.to_vec(), propagate: *propagate });
        }
        levels
    }

    fn goes_to(levels: &Levels, logger: &str, level: Level) -> Vec<usize> {
        levels.outputs(logger, level).collect()
    }

    #[test]
    fn the_longest_prefix_of_whole_words_counts() {
        let levels = levels(&[
            ("", Some(FilterLevel::Warning), &[0], true),
            ("nodepool", Some(FilterLevel::Info), &[], true),
            ("nodepool.zk", Some(FilterLevel::Debug), &[], true),
        ]);
        for (logger, level, expected) in [
            ("nodepool.zk.session", Level::Debug, true),
            ("nodepool.zk", Level::Debug, true),
            ("nodepool.zk", Level::Trace, false),
            ("nodepool.zkx", Level::Debug, false),
            ("nodepool.builder.janitor", Level::Info, true),
            ("nodepool.builder.janitor", Level::Debug, false),
            ("other", Level::Info, false),
            ("other", Level::Warning, true),
        ] {
            assert_eq!(!goes_to(&levels, logger, level).is_empty(), expected, "{logger} {level}");
        }
    }

    #[test]
    fn lines_go_up_until_a_logger_that_does_not_propagate_and_to_each_output_once() {
        let levels = levels(&[
            ("", Some(FilterLevel::Debug), &[0, 1], true),
            ("nodepool", None, &[1, 2], true),
            ("nodepool.zk", None, &[3], false),
        ]);
        assert_eq!(goes_to(&levels, "nodepool.builder", Level::Info), [0, 1, 2]);
        assert_eq!(goes_to(&levels, "nodepool.zk.session", Level::Info), [3]);
        assert_eq!(goes_to(&levels, "other", Level::Info), [0, 1]);
    }

    #[test]
    fn a_name_of_the_original_means_the_modules_that_do_the_same() {
        let levels = levels(&[
            ("", Some(FilterLevel::Warning), &[0], true),
            ("nodepool", Some(FilterLevel::Debug), &[1], false),
            ("kazoo", Some(FilterLevel::Error), &[2], true),
            ("nodepool.builder.BuildWorker", Some(FilterLevel::Info), &[], true),
            ("nodepool.zk.cache", Some(FilterLevel::Info), &[], true),
        ]);
        assert_eq!(goes_to(&levels, "nodepool.zk.session", Level::Warning), [0; 0]);
        assert_eq!(goes_to(&levels, "nodepool.zk.session", Level::Error), [0, 2]);
        assert_eq!(goes_to(&levels, "nodepool.zk.cache", Level::Info), [1], "our own name is more exact");
        assert_eq!(goes_to(&levels, "nodepool.builder.build_worker", Level::Debug), [0; 0]);
        assert_eq!(goes_to(&levels, "nodepool.builder.build_worker", Level::Info), [1]);
        assert_eq!(goes_to(&levels, "nodepool.builder.janitor", Level::Debug), [1]);
    }

    #[test]
    fn without_any_level_it_is_warnings() {
        let levels = levels(&[("", None, &[0], true)]);
        assert_eq!(goes_to(&levels, "nodepool", Level::Info), [0; 0]);
        assert_eq!(goes_to(&levels, "nodepool", Level::Warning), [0]);
    }
}
