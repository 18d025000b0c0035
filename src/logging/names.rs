//! The names of loggers: the modules' own, and the original's that stand for modules of ours.
//!
//! All of them are listed, so that a slip in a name can be told from a logger that only says nothing now.

use std::borrow::Cow;

use nodepool_drivers::api::nearest;
use slog::Record;

/// All loggers that log anything.
const LOGGERS: [&str; 52] = [
    "nodepool.builder.abandoned",
    "nodepool.builder.app",
    "nodepool.builder.build_worker",
    "nodepool.builder.free_space",
    "nodepool.builder.janitor",
    "nodepool.builder.manager",
    "nodepool.builder.outcomes",
    "nodepool.builder.providers",
    "nodepool.builder.upload_worker",
    "nodepool.config.directories",
    "nodepool.config.reload",
    "nodepool.daemon.program",
    "nodepool.daemon.stack_dump",
    "nodepool.daemon.stop_limit",
    "nodepool.driver.fake.nodes",
    "nodepool.driver.local.journal",
    "nodepool.driver.local.store",
    "nodepool.driver.openstack",
    "nodepool.driver.openstack.http.send",
    "nodepool.driver.openstack.image.upload",
    "nodepool.driver.openstack.node.clean_up",
    "nodepool.driver.openstack.node.floating",
    "nodepool.driver.openstack.node.launch",
    "nodepool.driver.openstack.node.quantities",
    "nodepool.driver.openstack.node.removal",
    "nodepool.launcher.errands",
    "nodepool.launcher.handler",
    "nodepool.launcher.handler.declining",
    "nodepool.launcher.handler.ending",
    "nodepool.launcher.jobs",
    "nodepool.launcher.launch",
    "nodepool.launcher.leader",
    "nodepool.launcher.manager",
    "nodepool.launcher.manager.following",
    "nodepool.launcher.manager.knowing",
    "nodepool.launcher.manager.stocking",
    "nodepool.launcher.provider_worker",
    "nodepool.launcher.provider_worker.orders",
    "nodepool.launcher.provider_worker.returns",
    "nodepool.launcher.provider_worker.stop",
    "nodepool.launcher.standing.keeper",
    "nodepool.launcher.standing.working",
    "nodepool.launcher.survey",
    "nodepool.logging",
    "nodepool.panic",
    "nodepool.stack_dump",
    "nodepool.stats",
    "nodepool.web.core.http.server",
    "nodepool.web.core.pages",
    "nodepool.zk.cache",
    "nodepool.zk.membership",
    "nodepool.zk.supervisor",
];

/// The libraries of the original, whose loggers its files name. Nobody expects a line of theirs here.
const LIBRARIES: [&str; 8] =
    ["boto3", "botocore", "keystoneauth", "openstack", "requests", "shade", "stevedore", "urllib3"];

/// What the original calls a logger, and whose lines of ours an operator means by it. Where several loggers of
/// ours stand for one of theirs there are several lines. The original's numbers and provider names at the end
/// (`nodepool.builder.BuildWorker.0`) have no counterpart, nor has what only logs there, as `nodepool.zk.ZooKeeper`.
pub(super) const COUNTERPARTS: [(&str, &str); 22] = [
    ("kazoo.client", "nodepool.zk"),
    ("nodepool.zk.ZooKeeperClient", "nodepool.zk.supervisor"),
    ("nodepool.zk.cache.event", "nodepool.zk.cache"),
    ("nodepool.Component", "nodepool.zk.membership"),
    ("nodepool.ComponentRegistry", "nodepool.zk.membership"),
    ("nodepool.builder.NodePoolBuilder", "nodepool.builder.manager"),
    ("nodepool.builder.NodePoolBuilder", "nodepool.builder.app"),
    ("nodepool.builder.NodePoolBuilder", "nodepool.builder.outcomes"),
    ("nodepool.builder.BuildWorker", "nodepool.builder.build_worker"),
    ("nodepool.builder.UploadWorker", "nodepool.builder.upload_worker"),
    ("nodepool.builder.CleanupWorker", "nodepool.builder.janitor"),
    ("nodepool.builder.CleanupWorker", "nodepool.builder.abandoned"),
    ("nodepool.ProviderManager", "nodepool.builder.providers"),
    ("nodepool.NodePool", "nodepool.launcher.manager"),
    ("nodepool.PoolWorker", "nodepool.launcher.provider_worker"),
    ("nodepool.CleanupWorker", "nodepool.launcher.errands"),
    ("nodepool.DeletedNodeWorker", "nodepool.launcher.jobs"),
    ("nodepool.StatsWorker", "nodepool.launcher.leader"),
    ("nodepool.StateMachineNodeLauncher", "nodepool.launcher.launch"),
    ("nodepool.StateMachineNodeDeleter", "nodepool.launcher.jobs"),
    ("nodepool.driver.NodeRequestHandler", "nodepool.launcher.handler"),
    ("nodepool.driver.static.StaticNodeProvider", "nodepool.launcher.standing"),
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

/// All names that mean something, without those above them.
fn known() -> impl Iterator<Item = &'static str> {
    LOGGERS.into_iter().chain(COUNTERPARTS.map(|(theirs, _)| theirs)).chain(LIBRARIES)
}

/// Whether a name in a logging configuration means any logger, or all below some name.
pub(super) fn is_known(name: &str) -> bool {
    known().any(|known| is_below(known, name)) || LIBRARIES.iter().any(|library| is_below(name, library))
}

/// The next word of a name below `above`, and what follows.
fn step<'n>(name: &'n str, above: &str) -> Option<(&'n str, &'n str)> {
    let rest = name.get(above.len()..)?.trim_start_matches('.');
    let (word, rest) = rest.split_once('.').unwrap_or((rest, ""));
    (!word.is_empty()).then_some((word, rest))
}

/// The known name that an unknown one probably means: one word is a slip, or nothing is below that logger.
pub(super) fn meant(name: &str) -> Option<String> {
    let above = chain(name).skip(1).find(|above| is_known(above))?;
    let (word, rest) = step(name, above)?;
    let words = known().filter(|known| is_below(known, above)).filter_map(|known| step(known, above));
    let full = match nearest(word, words.map(|(word, _)| word)) {
        Some(word) => {
            [above, word, rest].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(".")
        }
        None if known().any(|known| known == above) => above.to_owned(),
        None => return None,
    };
    chain(&full).find(|name| is_known(name)).map(str::to_owned)
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
    fn names_that_mean_something_are_told_from_the_others() {
        for known in [
            "",
            "kazoo",
            "kazoo.client",
            "nodepool",
            "nodepool.zk",
            "nodepool.builder.BuildWorker",
            "requests.x",
        ] {
            assert!(is_known(known), "{known}");
        }
        for unknown in [
            "nodepol",
            "nodepoolx",
            "nodepool.builder.nothing",
            "nodepool.builder.BuildWorker.0",
            "nodepool.Scheduler",
            "nodepool.zk.images",
            "nodepool.zk.ZooKeeper",
            "nodepool.driver.aws",
            "kazoo.x",
        ] {
            assert!(!is_known(unknown), "{unknown}");
        }
    }

    #[test]
    fn a_slip_in_one_word_is_seen_and_other_words_are_not_guessed() {
        for (name, expected) in [
            ("nodepol", Some("nodepool")),
            ("nodepol.zk.cache", Some("nodepool.zk.cache")),
            ("nodepool.bulder", Some("nodepool.builder")),
            ("nodepool.bulder.janitor.x", Some("nodepool.builder.janitor")),
            ("nodepool.builder.BuildWorkr", Some("nodepool.builder.BuildWorker")),
            ("nodepool.zk.suprevisor", Some("nodepool.zk.supervisor")),
            ("request", Some("requests")),
            ("nodepool.Scheduler", None),
            ("nodepool.builder.BuildWorker.0", Some("nodepool.builder.BuildWorker")),
            ("something.else", None),
        ] {
            assert_eq!(meant(name).as_deref(), expected, "{name}");
        }
    }

    /// The modules that log, found in their sources.
    fn modules_that_log(folder: &std::path::Path, name: &str, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let stem = path.file_stem().unwrap().to_str().unwrap();
            let name = if stem == "mod" { name.to_owned() } else { format!("{name}.{stem}") };
            if path.is_dir() {
                modules_that_log(&path, &name, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = std::fs::read_to_string(&path).unwrap();
                let code = text.split("mod tests {").next().unwrap();
                let tagged =
                    |rest: &str| rest.split(',').nth(1).is_some_and(|second| second.contains("# \""));
                for level in ["trace", "debug", "info", "warn", "error", "crit"] {
                    let begin = format!("{level}!(");
                    let mut calls = code.split(begin.as_str()).skip(1).filter(|rest| !tagged(rest));
                    if calls.next().is_some() && !found.contains(&name) {
                        found.push(name.clone());
                    }
                }
            }
        }
    }

    /// The modules move; the table must move with them.
    #[test]
    fn every_module_that_logs_is_listed() {
        let sources = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let mut found: Vec<String> =
            ["logging", "panic", "stack_dump"].map(|tag| format!("nodepool.{tag}")).into();
        for (folder, name) in
            [("src", "nodepool"), ("drivers", "nodepool.driver"), ("threads", "nodepool.threads")]
        {
            modules_that_log(&sources.join(folder), name, &mut found);
        }
        found.sort();
        assert_eq!(found, LOGGERS, "the list in this file is to be as on the left");
    }

    /// Or else an operator would be told nothing of a name that has no effect.
    #[test]
    fn every_counterpart_logs() {
        for (theirs, ours) in COUNTERPARTS {
            assert!(LOGGERS.iter().any(|logger| is_below(logger, ours)), "{theirs}: {ours}");
        }
    }
}
