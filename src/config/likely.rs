//! What is right by the letter and hardly meant: a key that stands twice, an image that is never built, a label that
//! no pool has, a secure file that everybody can read. Warnings only, for each of them may be on purpose while a file
//! is being changed.

use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use nodepool_drivers::api::{LabelImage, PoolSettings, Problems, Resources, Value, yaml};

use super::Config;
use super::problem::FileProblem;
use super::providers::{items, text_of};
use super::resolve::Parsed;

/// Notes what is odd in the main file; `config` is what became of it.
pub(super) fn warn(main: &Parsed, config: &Config, problems: &Problems) {
    let tree = &main.tree;
    for key in yaml::repeated_keys(&main.source.text) {
        problems.warning(key, "this key stands more than once, and only the last one counts");
    }
    for (index, name) in names(tree.get("diskimages")) {
        let never_built = config.diskimages.get(name).is_some_and(|image| image.formats.is_empty());
        // Sections of drivers that are not there are looked at, too.
        let listed = || items(tree.get("providers")).any(|provider| lists(provider.get("diskimages"), name));
        if never_built && !listed() {
            let message =
                format!("the image '{name}' is never built: it has no 'formats', and no provider lists it");
            problems.warning(format!("diskimages[{index}]"), message);
        }
    }
    // Of a section whose driver is not there nothing is known.
    let all_known = items(tree.get("providers")).count() == config.providers.len();
    for (index, name) in names(tree.get("labels")) {
        let in_pool = items(tree.get("providers"))
            .flat_map(|provider| items(provider.get("pools")))
            .any(|pool| has_label(pool, name));
        if !in_pool {
            let message =
                format!("no pool of any provider has the label '{name}': nodes of it cannot be had");
            problems.warning(format!("labels[{index}]"), message);
        }
        let min_ready = config.launcher.labels.get(name).map_or(0, |label| label.min_ready);
        let most = if in_pool && all_known { most_nodes(config, name) } else { None };
        let message = if min_ready > 0 && has_machines_only(config, name) {
            format!("is of no effect: the label '{name}' is of machines only, which are ready anyway")
        } else if let Some(most) = most.filter(|most| *most < min_ready) {
            format!(
                "cannot be had: the pools with the label '{name}' may have {most} nodes together ('max-servers')"
            )
        } else {
            continue;
        };
        problems.warning(format!("labels[{index}].min-ready"), message);
    }
    warn_of_shared_machines(tree, problems);
}

/// The pools that have a label.
fn pools_with<'a>(config: &'a Config, label: &'a str) -> impl Iterator<Item = &'a PoolSettings> {
    let nodes = config.providers.values().filter_map(|provider| provider.nodes());
    nodes.flat_map(|nodes| nodes.pools.values()).filter(move |pool| pool.labels.contains_key(label))
}

/// How many nodes the pools that have a label may have together; `None` if one of them has no limit.
fn most_nodes(config: &Config, label: &str) -> Option<u64> {
    let mut limits = pools_with(config, label).map(|pool| pool.limits.get(Resources::INSTANCES));
    limits.try_fold(0, |sum: u64, limit| Some(sum.saturating_add(u64::try_from(limit?).unwrap_or(0))))
}

/// Whether a label is one of pools whose nodes nobody launches, and of no others.
fn has_machines_only(config: &Config, label: &str) -> bool {
    let mut pools = pools_with(config, label).peekable();
    pools.peek().is_some() && pools.all(|pool| pool.labels[label].image == LabelImage::None)
}

/// Warns of a machine that several providers have: each gives it to a job without knowing of the others. What stands
/// twice in one provider is a mistake, of which its driver tells.
fn warn_of_shared_machines(tree: &Value, problems: &Problems) {
    let mut first = BTreeMap::new();
    for (index, provider) in items(tree.get("providers")).enumerate() {
        for (at_pool, pool) in items(provider.get("pools")).enumerate() {
            for (at, machine) in items(pool.get("nodes")).enumerate() {
                let Some(host) = text_of(machine, "name") else { continue };
                let user = text_of(machine, "username").unwrap_or("zuul");
                let port = match machine.get("connection-port").or_else(|| machine.get("ssh-port")) {
                    Some(Value::Int(port)) => *port,
                    _ => 22,
                };
                let path = format!("providers[{index}].pools[{at_pool}].nodes[{at}]");
                let (owner, place) = first.entry((host, user, port)).or_insert((index, path.clone()));
                if *owner != index {
                    let message = format!(
                        "the machine {user}@{host} port {port} stands at {place} of another provider, too: both give it \
                         to jobs at the same time"
                    );
                    problems.warning(format!("{path}.name"), message);
                }
            }
        }
    }
}

/// The names of the entries, with their places in the list.
fn names(list: Option<&Value>) -> impl Iterator<Item = (usize, &str)> {
    items(list).enumerate().filter_map(|(index, entry)| Some((index, text_of(entry, "name")?)))
}

/// Whether a list has an entry of that name, or is one of names.
fn lists(list: Option<&Value>, name: &str) -> bool {
    let is_name = |value: &Value| matches!(value, Value::Str(text) if text == name);
    items(list).any(|entry| is_name(entry) || entry.get("name").is_some_and(is_name))
}

/// Drivers have a pool's labels in different depths, of the pool or of each of its nodes, and one alone as a word.
fn has_label(value: &Value, name: &str) -> bool {
    match value {
        Value::Map(entries) => {
            let only = text_of(value, "labels") == Some(name);
            only || lists(value.get("labels"), name)
                || entries.iter().any(|(_, below)| has_label(below, name))
        }
        Value::List(entries) => entries.iter().any(|entry| has_label(entry, name)),
        _ => false,
    }
}

/// A warning if everybody on the machine may read the secure file.
pub(super) fn exposed(path: &Path, file: &File) -> Option<FileProblem> {
    let mode = file.metadata().ok()?.permissions().mode() & 0o777;
    let message =
        format!("everybody can read the secure file (mode {mode:04o}); try: chmod o= {}", path.display());
    (mode & 0o004 != 0).then(|| FileProblem::warning(path, message))
}

#[cfg(test)]
mod tests {
    use std::fs::{self, Permissions};

    use super::*;
    use crate::config::testing::{TempDir, load};
    use crate::config::{ConfigFiles, Env};

    #[test]
    fn what_is_hardly_meant_is_warned_of() {
        let (loaded, problems) = load(
            "
diskimages:
- name: built
- {name: base, abstract: true}
- {name: nowhere, parent: base}
- {name: by-format, formats: [raw]}
labels: [{name: small}, {name: large}, {name: fixed}, {name: none}, {name: word}]
providers:
- name: fake-1
  diskimages: [{name: built}]
  pools: [{name: a, labels: [{name: small, diskimage: built}]}, {name: b, labels: [{name: large, diskimage: built}]}]
- {name: rack, driver: static, pools: [{name: a, nodes: [{name: host, labels: word}]}]}
",
            None,
        );
        assert!(loaded.is_some());
        assert_eq!(
            problems,
            [
                "n.yaml:5:4: diskimages[2]: warning: the image 'nowhere' is never built: it has no 'formats', and no \
                 provider lists it",
                "n.yaml:7:41: labels[2]: warning: no pool of any provider has the label 'fixed': nodes of it cannot be had",
                "n.yaml:7:56: labels[3]: warning: no pool of any provider has the label 'none': nodes of it cannot be had",
            ]
        );
    }

    #[test]
    fn stock_that_no_pool_has_room_for_is_warned_of() {
        let warned = |min_ready: u32, first: &str, second: &str| {
            let pool = |name: &str, keys: &str| {
                format!("{{name: {name}, labels: [{{name: a, cloud-image: i}}], {keys}}}")
            };
            let (_, problems) = load(
                &format!(
                    "labels: [{{name: a, min-ready: {min_ready}}}]\nproviders: [{{name: p, driver: fake, cloud-images: \
                     [{{name: i}}], pools: [{}, {}]}}]\n",
                    pool("one", first),
                    pool("two", second)
                ),
                None,
            );
            problems
                .iter()
                .any(|problem| problem.contains("the pools with the label 'a' may have 3 nodes together"))
        };
        assert!(warned(4, "max-servers: 2", "max-servers: 1"));
        assert!(!warned(3, "max-servers: 2", "max-servers: 1"));
        assert!(!warned(4, "max-servers: 2", ""));
    }

    #[test]
    fn machines_are_checked_with_their_labels_and_with_each_other() {
        let (_, problems) = load(
            "
labels: [{name: small, min-ready: 2}, {name: large, min-ready: 1}]
providers:
- name: rack
  driver: static
  pools:
  - name: main
    max-servers: 3
    nodes: [{name: host, labels: [small, large]}, {name: other, labels: [small, larg]}, {name: third, labels: lost}]
- {name: shelf, driver: static, pools: [{name: main, nodes: [{name: host, labels: small, username: zuul}]}]}
- name: cloud
  driver: fake
  cloud-images: [{name: image}]
  pools: [{name: main, labels: [{name: large, cloud-image: image}]}]
",
            None,
        );
        assert_eq!(
            problems,
            [
                "n.yaml:2:24: labels[0].min-ready: warning: is of no effect: the label 'small' is of machines only, which \
                 are ready anyway",
                "n.yaml:8:5: providers[0].pools[0].max-servers: warning: is of no effect on machines: a pool has as many \
                 nodes as its machines are configured to have; only 0 disables it",
                "n.yaml:9:81: providers[0].pools[0].nodes[1].labels[1]: the label 'larg' is not configured in 'labels'; \
                 did you mean 'large'?",
                "n.yaml:9:103: providers[0].pools[0].nodes[2].labels: the label 'lost' is not configured in 'labels'",
                "n.yaml:10:63: providers[1].pools[0].nodes[0].name: warning: the machine zuul@host port 22 stands at \
                 providers[0].pools[0].nodes[0] of another provider, too: both give it to jobs at the same time",
            ]
        );
    }

    #[test]
    fn a_key_that_stands_twice_is_told_where_it_stands_last() {
        let (loaded, problems) = load(
            "diskimages: [{name: a}]\nbuild-log-retention: 3\ndiskimages: [{name: b, formats: [raw]}]\n",
            None,
        );
        assert!(loaded.unwrap().config.diskimages.contains_key("b"));
        let why = "this key stands more than once, and only the last one counts";
        assert_eq!(problems, [format!("n.yaml:3:1: diskimages: warning: {why}")]);
    }

    #[test]
    fn a_driver_that_is_not_there_yet_is_the_only_mistake_of_its_section() {
        let text = "
diskimages: [{name: debian}]
labels: [{name: small}, {name: fixed}]
providers:
- {name: cloud, driver: aws, diskimages: [{name: debian}], pools: [{labels: [{name: small}]}]}
- {name: rack, driver: metastatic, pools: [{nodes: [{name: host, labels: [fixed]}]}]}
";
        let (_, problems) = load(text, None);
        let drivers = |line: &String| line.contains("driver: this version does not have the driver");
        assert!(problems.len() == 2 && problems.iter().all(drivers), "{problems:#?}");
    }

    #[test]
    fn a_secure_file_for_everybody_is_warned_of() {
        let dir = TempDir::new();
        let main = dir.write("n.yaml", "images-dir: /images");
        let secure = dir.write("s.yaml", "");
        let files = ConfigFiles::new(main, Some(&secure), Env::default());
        for (mode, expected) in [(0o644, 1), (0o640, 0), (0o600, 0)] {
            fs::set_permissions(&secure, Permissions::from_mode(mode)).unwrap();
            let warnings = files.load().unwrap().warnings;
            assert_eq!(warnings.len(), expected, "{mode:o}: {warnings:?}");
            if let Some(warning) = warnings.first() {
                let shown = secure.display();
                let expected = format!(
                    "{shown}: warning: everybody can read the secure file (mode 0644); try: chmod o= {shown}"
                );
                assert_eq!(warning.to_string(), expected);
            }
        }
    }
}
