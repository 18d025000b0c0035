//! The two files together: raw trees to a resolved configuration.
//!
//! Every reader runs, whatever the others have found, so that one run shows all mistakes.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nodepool_drivers::api::{Driver, Problems, Severity, Table, Value, yaml};

use super::diskimage::DiskImage;
use super::files::{ConfigFiles, Others, Texts};
use super::inherit::Images;
use super::problem::{ConfigError, FileProblem, in_file_order};
use super::providers::{self, Providers};
use super::source::Source;
use super::substitute::Env;
use super::zookeeper::{self, Servers, ZooKeeperConfig};
use super::{Config, builder_webapp, launcher, likely, raw_image, secure, size};

const DEFAULT_BUILD_LOG_DIR: &str = "/var/log/nodepool/builds";
const DEFAULT_BUILD_LOG_RETENTION: i64 = 7;

/// What the files came to.
pub(super) struct Resolved {
    pub(super) config: Config,
    pub(super) warnings: Vec<FileProblem>,
    /// Files that drivers have looked into.
    pub(super) others: Others,
}

/// Resolves what the files hold, to a configuration with its warnings; `exposed` is one more of these.
pub(super) fn resolve(
    files: &ConfigFiles,
    texts: &Texts,
    exposed: Option<FileProblem>,
    drivers: &[&dyn Driver],
) -> Result<Resolved, ConfigError> {
    let mut found = Vec::new();
    let mut others = Others::new();
    let main = parse(files.main(), &texts.main, files.env(), &mut found);
    let mut unset = main.as_ref().map(|main| main.source.unset.clone()).unwrap_or_default();
    let mut draft = main.and_then(|main| {
        if main.tree == Value::Null {
            found.push(FileProblem::of_file(files.main(), "is empty"));
            return None;
        }
        let (draft, looked_into) = read_main(files.main(), &main, drivers, &mut found);
        others = looked_into;
        draft
    });
    if let (Some(path), Some(text)) = (files.secure(), &texts.secure) {
        let secure = parse(path, text, files.env(), &mut found);
        // An operator without secrets may leave the file empty.
        if let Some(secure) = secure.filter(|secure| secure.tree != Value::Null) {
            secure::apply(path, &secure, draft.as_mut(), &mut found);
            unset.extend(secure.source.unset);
        }
    }
    found.iter_mut().for_each(|problem| name_unset(problem, &unset));
    found.extend(exposed);
    let broken = found.iter().any(|problem| problem.problem.severity == Severity::Error);
    match draft {
        Some(Draft { config, .. }) if !broken => Ok(Resolved { config, warnings: found, others }),
        _ => Err(ConfigError::new(found).beside(others)),
    }
}

/// A file with its variables substituted.
pub(super) struct Parsed<'t> {
    pub(super) source: Source<'t>,
    pub(super) tree: Value,
}

/// Parses one file. `None`, with the problem noted, if it cannot be.
fn parse<'t>(file: &Path, text: &'t str, env: &Env, found: &mut Vec<FileProblem>) -> Option<Parsed<'t>> {
    let source = env.substitute(text);
    match yaml::parse(&source.text) {
        Ok(tree) => Some(Parsed { source, tree }),
        Err(mut error) => {
            if !source.unset.is_empty() {
                let names = source.unset.iter().map(String::as_str).collect::<Vec<_>>().join(", ");
                error
                    .message
                    .push_str(&format!(" (the file uses environment variables that are not set: {names})"));
            }
            found.push(FileProblem::of_syntax(file, &source, error));
            None
        }
    }
}

/// Says of a value that is wrong because of a variable that is not set that it is.
fn name_unset(found: &mut FileProblem, unset: &BTreeSet<String>) {
    let message = &mut found.problem.message;
    let named = |name: &&String| message.contains(&format!("%({name})"));
    let names: Vec<&str> = unset.iter().filter(named).map(String::as_str).collect();
    if !names.is_empty() {
        message.push_str(&format!(" (environment variables that are not set: {})", names.join(", ")));
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
    main: &Parsed<'_>,
    drivers: &[&dyn Driver],
    found: &mut Vec<FileProblem>,
) -> (Option<Draft>, Others) {
    let problems = Problems::new();
    let draft = Table::new(&main.tree, "", &problems).map(|top| {
        let draft = read_top(file, &top, drivers);
        top.finish();
        likely::warn(main, &draft.config, &problems);
        draft
    });
    let looked_into = problems.files();
    found.extend(in_file_order(file, &main.source, problems.into_vec()));
    (draft, looked_into)
}

fn read_top(file: &Path, top: &Table<'_>, drivers: &[&dyn Driver]) -> Draft {
    let images = Images::new(raw_image::read_all(top), top.problems());
    let mut diskimages = images.resolve(top.problems());
    let providers = providers::read(top, &images, drivers);
    add_formats(&mut diskimages, &providers);
    let launcher = launcher::read(top);
    providers::check_labels(top, &providers, &launcher.labels);
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
        min_free_space: size::read(top, "min-free-space").unwrap_or(0),
        build_log_dir: top
            .string("build-log-dir")
            .filter(|path| !path.is_empty())
            .map_or_else(|| PathBuf::from(DEFAULT_BUILD_LOG_DIR), PathBuf::from),
        build_log_retention: top.integer("build-log-retention").unwrap_or(DEFAULT_BUILD_LOG_RETENTION),
        zookeeper,
        diskimages: diskimages.into_iter().map(|(name, image)| (name, Arc::new(image))).collect(),
        providers,
        builder_webapp: builder_webapp::read(top),
        launcher,
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
    use super::*;
    use crate::config::DiskImage;
    use crate::config::testing::{TempDir, config, load};

    #[test]
    fn a_pools_labels_must_be_declared_and_their_images_listed() {
        let (_, problems) = load(
            "diskimages: [{name: a, formats: [raw]}, {name: b, formats: [raw]}]
labels: [{name: small}]
providers:
- name: fake-1
  diskimages: [{name: a}]
  pools:
  - name: main
    labels: [{name: smal, diskimage: a}, {name: small, diskimage: b}]
",
            None,
        );
        let expected = [
            "n.yaml:8:15: providers[0].pools[0].labels[0].name: the label 'smal' is not configured in 'labels'; did \
             you mean 'small'?",
            "n.yaml:8:56: providers[0].pools[0].labels[1].diskimage: the image 'b' is not in the provider's \
             'diskimages'",
        ];
        assert_eq!(problems, expected);
    }

    #[test]
    fn mistakes_name_their_file_and_path() {
        let cases: [(&str, Option<&str>, &[&str]); 15] = [
            ("", None, &["n.yaml: is empty"]),
            ("# a comment", Some(""), &["n.yaml: is empty"]),
            ("- a", None, &["n.yaml: expected a mapping, found a list"]),
            (
                "a: [",
                None,
                &[
                    "n.yaml:1:5: not valid YAML: did not find expected node content, while parsing a flow node",
                ],
            ),
            (
                "a: %(NODEPOOL_NOT_SET)",
                None,
                &["n.yaml:1:4: not valid YAML: found character that cannot start any token, while \
                   scanning for the next token (the file uses environment variables that are not set: \
                   NODEPOOL_NOT_SET)"],
            ),
            (
                "build-log-retention: '%(NODEPOOL_NOT_SET) days'",
                None,
                &[
                    "n.yaml:1:1: build-log-retention: expected a whole number, found '%(NODEPOOL_NOT_SET) days' \
                   (environment variables that are not set: NODEPOOL_NOT_SET)",
                ],
            ),
            ("images-dir: [a]", None, &["n.yaml:1:1: images-dir: expected a string, found a list"]),
            ("elements-dir: 5", None, &["n.yaml:1:1: elements-dir: expected a string, found 5"]),
            ("build-log-dir: {}", None, &["n.yaml:1:1: build-log-dir: expected a string, found a mapping"]),
            (
                "build-log-retention: all",
                None,
                &["n.yaml:1:1: build-log-retention: expected a whole number, found 'all'"],
            ),
            (
                "diskimages: [{name: debian, formats: [raw]}, {name: base, abstract: true}]",
                Some(
                    "diskimages: [{name: debain}, {name: base}, {env-vars: {}}, {name: debian, env-vars: 5}]",
                ),
                &[
                    "s.yaml:1:15: diskimages[0].name: the image 'debain' is not configured in 'diskimages' of n.yaml; \
                     did you mean 'debian'?",
                    "s.yaml:1:31: diskimages[1].name: the image 'base' is abstract: it is only a parent and never built",
                    "s.yaml:1:45: diskimages[2]: the required key 'name' is missing",
                    "s.yaml:1:75: diskimages[3].env-vars: expected a mapping of names to values, found a whole number",
                ],
            ),
            ("images-dir: a", Some("- a"), &["s.yaml: expected a mapping, found a list"]),
            (
                "a: [",
                Some("zookeeper-tls: {cert: a, key: b}"),
                &[
                    "n.yaml:1:5: not valid YAML: did not find expected node content, while parsing a flow node",
                    "s.yaml:1:1: zookeeper-tls: the required key 'ca' is missing",
                ],
            ),
            // In the order of the file, whatever the order of the checks, and with unknown keys.
            (
                "{webapp: {port: x}, image-dir: a, providers: [{name: p}], diskimages: [{name: a, parent: b}]}",
                Some("images-dir: a"),
                &[
                    "n.yaml:1:11: webapp.port: expected a port from 0 to 65535, found 'x'",
                    "n.yaml:1:21: image-dir: unknown key, did you mean 'images-dir'?",
                    "n.yaml:1:48: providers[0]: the required key 'cloud' is missing",
                    "n.yaml:1:82: diskimages[0].parent: the parent 'b' of the image 'a' is not configured; did you mean 'a'?",
                    "s.yaml:1:1: images-dir: unknown key",
                ],
            ),
            (
                "zookeeper-server: []",
                None,
                &["n.yaml:1:1: zookeeper-server: unknown key, did you mean 'zookeeper-servers'?"],
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
