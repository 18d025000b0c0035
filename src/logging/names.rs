//! The names of loggers: the modules' own, and the original's that stand for modules of ours.

use std::borrow::Cow;

use slog::Record;

/// What the original calls a logger, and whose lines of ours an operator means by it. Where several loggers of
/// ours stand for one of theirs there are several lines. The original's numbers and provider names at the end
/// (`nodepool.builder.BuildWorker.0`) have no counterpart.
pub(super) const COUNTERPARTS: [(&str, &str); 15] = [
    ("kazoo.client", "nodepool.zk"),
    ("nodepool.zk.ZooKeeperClient", "nodepool.zk.supervisor"),
    ("nodepool.zk.ZooKeeper", "nodepool.zk.images"),
    ("nodepool.zk.cache.event", "nodepool.zk.cache"),
    ("nodepool.Component", "nodepool.builder.membership"),
    ("nodepool.ComponentRegistry", "nodepool.builder.membership"),
    ("nodepool.builder.NodePoolBuilder", "nodepool.builder.manager"),
    ("nodepool.builder.NodePoolBuilder", "nodepool.builder.app"),
    ("nodepool.builder.NodePoolBuilder", "nodepool.builder.outcomes"),
    ("nodepool.builder.BuildWorker", "nodepool.builder.build_worker"),
    ("nodepool.builder.UploadWorker", "nodepool.builder.upload_worker"),
    ("nodepool.builder.CleanupWorker", "nodepool.builder.janitor"),
    ("nodepool.builder.CleanupWorker", "nodepool.builder.abandoned"),
    ("nodepool.ProviderManager", "nodepool.builder.providers"),
    ("nodepool.OpenStackAdapter", "nodepool.driver.openstack"),
];

/// The name and then all that it is below, `""` for the root last: `a.b`, `a`, ``.
pub(super) fn chain(name: &str) -> impl Iterator<Item = &str> {
    std::iter::successors(Some(name), |name| {
        (!name.is_empty()).then(|| name.rsplit_once('.').map_or("", |(above, _)| above))
    })
}

/// Whether `name` is `above`, or below it.
pub(super) fn is_below(name: &str, above: &str) -> bool {
    name.strip_prefix(above).is_some_and(|rest| above.is_empty() || rest.is_empty() || rest.starts_with('.'))
}

/// The record's logger: its tag, or else the module that it comes from with dots.
pub(super) fn logger_of<'r>(record: &'r Record<'_>) -> Cow<'r, str> {
    match record.tag() {
        "" => of_module(record.module()),
        tag => Cow::Borrowed(tag),
    }
}

/// The crates below have names of their own; to an operator all of it is `nodepool`.
fn of_module(module: &'static str) -> Cow<'static, str> {
    let (krate, rest) = module.split_once("::").unwrap_or((module, ""));
    let krate = match krate {
        "nodepool_drivers" => "nodepool.driver",
        "nodepool_threads" => "nodepool.threads",
        other => other,
    };
    match rest {
        "" => Cow::Borrowed(krate),
        rest => Cow::Owned(format!("{krate}.{}", rest.replace("::", "."))),
    }
}

/// Whether any line of ours can be meant by a name in a logging configuration.
pub(super) fn is_known(name: &str) -> bool {
    // Our modules are all lower case, the classes after which the original names its loggers are not.
    let ours = is_below(name, "nodepool") && !name.contains(|letter: char| letter.is_uppercase());
    ours || name.is_empty() || COUNTERPARTS.iter().any(|(theirs, _)| is_below(theirs, name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_logger_is_named_after_its_module() {
        for (module, name) in [
            ("nodepool::builder::janitor", "nodepool.builder.janitor"),
            ("nodepool_drivers::local::journal", "nodepool.driver.local.journal"),
            ("nodepool", "nodepool"),
            ("somebody_elses::thing", "somebody_elses.thing"),
        ] {
            assert_eq!(of_module(module), name);
        }
    }

    #[test]
    fn names_without_a_counterpart_are_told_from_the_others() {
        for known in ["", "kazoo", "kazoo.client", "nodepool", "nodepool.zk", "nodepool.builder.BuildWorker"]
        {
            assert!(is_known(known), "{known}");
        }
        for unknown in
            ["nodepol", "requests", "nodepool.builder.BuildWorker.0", "nodepool.Launcher", "kazoo.x"]
        {
            assert!(!is_known(unknown), "{unknown}");
        }
    }

    /// The modules move; the table must move with them.
    #[test]
    fn every_counterpart_is_a_module_that_exists() {
        let sources = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        for (theirs, ours) in COUNTERPARTS {
            let path = ours.trim_start_matches("nodepool.").replace('.', "/");
            let there = [format!("src/{path}.rs"), format!("src/{path}/mod.rs")]
                .iter()
                .any(|file| sources.join(file).exists());
            // The driver is another part of the project.
            assert!(there || ours == "nodepool.driver.openstack", "{theirs}: {ours}");
        }
    }
}
