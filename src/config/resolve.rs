//! The two files together: raw trees to a resolved configuration.
//!
//! Every reader runs, whatever the others have found, so that one run shows all mistakes.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nodepool_drivers::api::{Driver, Problems, Severity, Table, Value};

use super::diskimage::DiskImage;
use super::files::{ConfigFiles, Snapshot};
use super::inherit::Images;
use super::problem::{ConfigError, FileProblem, in_file_order};
use super::providers::{self, Providers};
use super::substitute::{Env, substitute};
use super::zookeeper::{self, Servers, ZooKeeperConfig};
use super::{Config, Loaded, launcher, raw_image, secure, yaml};

const DEFAULT_BUILD_LOG_DIR: &str = "/var/log/nodepool/builds";
const DEFAULT_BUILD_LOG_RETENTION: i64 = 7;

/// Resolves what `snapshot` holds.
pub(super) fn resolve(
    files: &ConfigFiles,
    snapshot: Snapshot,
    drivers: &[&dyn Driver],
) -> Result<Loaded, ConfigError> {
    let mut found = Vec::new();
    let mut draft = parse(files.main(), &snapshot.texts.main, files.env(), &mut found).and_then(|tree| {
        if tree == Value::Null {
            found.push(FileProblem::error(files.main(), "", "is empty"));
            return None;
        }
        read_main(files.main(), &tree, drivers, &mut found)
    });
    if let (Some(path), Some(text)) = (files.secure(), &snapshot.texts.secure) {
        let tree = parse(path, text, files.env(), &mut found);
        // An operator without secrets may leave the file empty.
        if let Some(tree) = tree.filter(|tree| *tree != Value::Null) {
            secure::apply(path, &tree, draft.as_mut(), &mut found);
        }
    }
    let broken = found.iter().any(|problem| problem.problem.severity == Severity::Error);
    match draft {
        Some(Draft { config, .. }) if !broken => Ok(Loaded { config, warnings: found, snapshot }),
        _ => Err(ConfigError::new(found)),
    }
}

/// The tree of one file. `None`, with the problem noted, if it has none.
fn parse(file: &Path, text: &str, env: &Env, found: &mut Vec<FileProblem>) -> Option<Value> {
    let substituted = substitute(text, env);
    match yaml::parse(&substituted.text) {
        Ok(tree) => Some(tree),
        Err(mut problem) => {
            if !substituted.unset.is_empty() {
                let names = substituted.unset.into_iter().collect::<Vec<_>>().join(", ");
                problem
                    .message
                    .push_str(&format!(" (the file uses environment variables that are not set: {names})"));
            }
            found.push(FileProblem { file: file.to_owned(), problem });
            None
        }
    }
}

/// What the main file says.
pub(super) struct Draft {
    pub(super) config: Config,
    /// Tells abstract and unknown images apart.
    pub(super) images: Images,
}

fn read_main(
    file: &Path,
    tree: &Value,
    drivers: &[&dyn Driver],
    found: &mut Vec<FileProblem>,
) -> Option<Draft> {
    let problems = Problems::new();
    let draft = Table::new(tree, "", &problems).map(|top| {
        let draft = read_top(file, &top, drivers);
        top.finish();
        draft
    });
    found.extend(in_file_order(file, tree, problems.into_vec()));
    draft
}

fn read_top(file: &Path, top: &Table<'_>, drivers: &[&dyn Driver]) -> Draft {
    let images = Images::new(raw_image::read_all(top), top.problems());
    let mut diskimages = images.resolve(top.problems());
    let providers = providers::read(top, &images, drivers);
    add_formats(&mut diskimages, &providers);
    let Servers { servers, chroot } = zookeeper::read_servers(top).unwrap_or_default();
    let zookeeper = ZooKeeperConfig {
        servers,
        chroot,
        tls: zookeeper::read_tls(top),
        timeout: zookeeper::read_timeout(top),
    };
    let config = Config {
        file: file.to_owned(),
        elements_dir: top.string("elements-dir").filter(|path| !path.is_empty()),
        images_dir: top.string("images-dir").filter(|path| !path.is_empty()).map(PathBuf::from),
        build_log_dir: top
            .string("build-log-dir")
            .filter(|path| !path.is_empty())
            .map_or_else(|| PathBuf::from(DEFAULT_BUILD_LOG_DIR), PathBuf::from),
        build_log_retention: top.integer("build-log-retention").unwrap_or(DEFAULT_BUILD_LOG_RETENTION),
        zookeeper,
        diskimages: diskimages.into_iter().map(|(name, image)| (name, Arc::new(image))).collect(),
        providers,
        launcher: launcher::read(top),
    };
    Draft { config, images }
}

/// An image is built in the format of each provider that lists it, paused or not.
fn add_formats(diskimages: &mut BTreeMap<String, DiskImage>, providers: &Providers) {
    for images in providers.values().filter_map(|provider| provider.images()) {
        for name in images.diskimages.keys() {
            if let Some(image) = diskimages.get_mut(name) {
                image.formats.insert(images.format.clone());
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::config::DiskImage;
    use crate::config::testing::{EXAMPLE, TempDir, config, load};
    use crate::config::zookeeper::Server;

    #[test]
    fn a_whole_file_is_resolved() {
        let config = config(EXAMPLE, None);
        assert_eq!(config.elements_dir.as_deref(), Some("/e1:/e2"));
        assert_eq!(config.require_images_dir().unwrap(), Path::new("/images"));
        assert_eq!((config.build_log_dir.as_path(), config.build_log_retention), (Path::new("/logs"), -1));
        let zookeeper = config.require_zookeeper().unwrap();
        assert_eq!(zookeeper.servers, [Server { host: "zk01".to_owned(), port: 2181 }]);
        assert_eq!((zookeeper.chroot.as_str(), zookeeper.timeout), ("/np", Duration::from_secs(15)));
        assert_eq!(zookeeper.tls.as_ref().unwrap().cert, Path::new("/c"));
        assert_eq!(config.diskimages.keys().collect::<Vec<_>>(), ["debian", "debian-2"]);
        assert_eq!(config.diskimages["debian-2"].env_vars["A"], "main");
        assert_eq!(config.providers.keys().collect::<Vec<_>>(), ["fake-1"]);
        assert!(config.launcher.labels.contains_key("small"));
    }

    #[test]
    fn an_image_gets_the_format_of_each_provider_that_lists_it() {
        let config = config(
            "diskimages: [{name: a, formats: [tar]}, {name: b}, {name: c}]
providers:
- {name: fake-1, image-format: raw, diskimages: [{name: a}, {name: b, pause: true}]}
- {name: fake-2, image-format: vhd, diskimages: [{name: a}]}",
            None,
        );
        let formats =
            |name: &str| config.diskimages[name].formats.iter().cloned().collect::<Vec<_>>().join(" ");
        assert_eq!([formats("a"), formats("b"), formats("c")], ["raw tar vhd", "raw", ""]);
    }

    #[test]
    fn nothing_is_needed_to_validate_but_servers_and_images_dir_are_needed_to_run() {
        let config = config("labels: []", None);
        assert_eq!(config.build_log_dir, Path::new("/var/log/nodepool/builds"));
        assert_eq!((config.build_log_retention, config.zookeeper.timeout), (7, Duration::from_secs(10)));
        let missing = |what: &str| format!("{}: the required key {what}", config.file.display());
        assert_eq!(
            config.require_zookeeper().unwrap_err().to_string(),
            missing("'zookeeper-servers' is missing; expected a list with at least one 'host'")
        );
        assert_eq!(
            config.require_images_dir().unwrap_err().to_string(),
            missing("'images-dir' is missing; expected the directory to build images in")
        );
    }

    #[test]
    fn mistakes_name_their_file_and_path() {
        let cases: [(&str, Option<&str>, &[&str]); 14] = [
            ("", None, &["n.yaml: is empty"]),
            ("# a comment", Some(""), &["n.yaml: is empty"]),
            ("- a", None, &["n.yaml: expected a mapping, found a list"]),
            (
                "a: [",
                None,
                &[
                    "n.yaml: line 2, column 1: not valid YAML: did not find expected node content, while parsing a flow node",
                ],
            ),
            (
                "a: %(NODEPOOL_NOT_SET)",
                None,
                &[
                    "n.yaml: line 1, column 4: not valid YAML: found character that cannot start any token, while \
                   scanning for the next token (the file uses environment variables that are not set: \
                   NODEPOOL_NOT_SET)",
                ],
            ),
            ("images-dir: [a]", None, &["n.yaml: images-dir: expected a string, found a list"]),
            ("elements-dir: 5", None, &["n.yaml: elements-dir: expected a string, found 5"]),
            ("build-log-dir: {}", None, &["n.yaml: build-log-dir: expected a string, found a mapping"]),
            (
                "build-log-retention: all",
                None,
                &["n.yaml: build-log-retention: expected a whole number, found 'all'"],
            ),
            (
                "diskimages: [{name: debian}, {name: base, abstract: true}]",
                Some(
                    "diskimages: [{name: debain}, {name: base}, {env-vars: {}}, {name: debian, env-vars: 5}]",
                ),
                &[
                    "s.yaml: diskimages[0].name: the image 'debain' is not configured in 'diskimages' of n.yaml; \
                     did you mean 'debian'?",
                    "s.yaml: diskimages[1].name: the image 'base' is abstract: it is only a parent and never built",
                    "s.yaml: diskimages[2]: the required key 'name' is missing",
                    "s.yaml: diskimages[3].env-vars: expected a mapping of names to values, found a whole number",
                ],
            ),
            ("images-dir: a", Some("- a"), &["s.yaml: expected a mapping, found a list"]),
            (
                "a: [",
                Some("zookeeper-tls: {cert: a, key: b}"),
                &[
                    "n.yaml: line 2, column 1: not valid YAML: did not find expected node content, while parsing a flow node",
                    "s.yaml: zookeeper-tls: the required key 'ca' is missing",
                ],
            ),
            // In the order of the file, whatever the order of the checks, and with unknown keys.
            (
                "{webapp: {port: x}, image-dir: a, providers: [{name: p}], diskimages: [{name: a, parent: b}]}",
                Some("images-dir: a"),
                &[
                    "n.yaml: webapp.port: expected a port from 1 to 65535, found 'x'",
                    "n.yaml: image-dir: unknown key, did you mean 'images-dir'?",
                    "n.yaml: providers[0].driver: this version does not have the driver 'openstack' (the default) \
                     of the provider 'p' yet; available: fake, local",
                    "n.yaml: diskimages[0].parent: the parent 'b' of the image 'a' is not configured; did you mean 'a'?",
                    "s.yaml: images-dir: unknown key",
                ],
            ),
            (
                "zookeeper-server: []",
                None,
                &["n.yaml: zookeeper-server: unknown key, did you mean 'zookeeper-servers'?"],
            ),
        ];
        for (main, secure, expected) in cases {
            assert_eq!(load(main, secure).1, expected, "{main} {secure:?}");
        }
    }

    #[test]
    fn unknown_keys_are_warnings_for_a_daemon_and_problems_for_the_validator() {
        let dir = TempDir::new();
        let files = ConfigFiles::new(dir.write("n.yaml", "color: red"), None, Env::default());
        let warnings = files.load().unwrap().warnings;
        assert_eq!(warnings[0].problem.severity, Severity::UnknownKey);
        assert_eq!(files.validate(), warnings);
        dir.write("n.yaml", "images-dir: /images");
        assert_eq!(files.validate(), []);
        dir.write("n.yaml", "images-dir: 5");
        assert_eq!(files.validate(), files.load().unwrap_err().into_problems());
    }

    #[test]
    fn what_has_changed_can_be_seen() {
        let main = |fake_2: &str, element: &str| {
            config(
                &format!(
                    "{{diskimages: [{{name: a, elements: [{element}]}}, {{name: b}}],
                       providers: [{{name: fake-1}}, {{name: fake-2, priority: {fake_2}}}]}}"
                ),
                None,
            )
        };
        let same_file = |config: Config| Config { file: PathBuf::new(), ..config };
        let (old, same, new) = (main("1", "x"), main("1", "x"), main("2", "y"));
        assert_eq!(same_file(old.clone()), same_file(same));
        assert_ne!(same_file(old.clone()), same_file(new.clone()));
        let same = |name| crate::config::same_provider(&*old.providers[name], &*new.providers[name]);
        assert_eq!([same("fake-1"), same("fake-2")], [true, false]);
        assert_ne!(old.diskimages["a"], new.diskimages["a"]);
        assert_eq!(old.diskimages["b"], new.diskimages["b"]);
        assert_eq!(*old.diskimages["b"], DiskImage::new("b"));
    }
}
