//! `nodepool.yaml` and the secure file: read, checked, resolved, and watched for changes.
//!
//! A file goes through two stages. The raw one is its text, with variables substituted, as a tree of values;
//! the resolved one is a [`Config`], which cannot be wrong any more: parents are merged, providers are read
//! by their drivers, whatever refers to something refers to something that exists. All mistakes on the way
//! are collected, with file and path. Nothing here knows ZooKeeper or what the configuration is used for.

mod diskimage;
mod files;
mod inherit;
mod launcher;
mod problem;
mod providers;
mod raw_image;
mod resolve;
mod secure;
mod settle;
mod substitute;
mod suggest;
#[cfg(test)]
mod testing;
mod watch;
pub(crate) mod yaml;
mod yaml_numbers;
mod zookeeper;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nodepool_drivers::api::ProviderConfig;

pub use diskimage::DiskImage;
pub(crate) use files::read_text;
pub use files::{ConfigFiles, Snapshot};
pub use launcher::{Label, LauncherConfig, WebApp};
pub(crate) use problem::in_file_order;
pub use problem::{ConfigError, FileProblem};
pub use substitute::Env;
pub use watch::ConfigWatch;
pub use zookeeper::{Server, Tls, ZooKeeperConfig};

/// The resolved configuration.
#[derive(Debug, Clone)]
pub struct Config {
    /// The main file that it comes from, for messages.
    pub file: PathBuf,
    /// Where the elements of diskimage-builder are; a list with `:` between, as it is exported.
    pub elements_dir: Option<String>,
    /// Where images are built. The builder needs it: see [`Config::require_images_dir`].
    pub images_dir: Option<PathBuf>,
    /// Where the builds' logs are.
    pub build_log_dir: PathBuf,
    /// How many logs of an image are kept; -1 for all.
    pub build_log_retention: i64,
    /// How ZooKeeper is reached. Daemons and the client need servers: see [`Config::require_zookeeper`].
    pub zookeeper: ZooKeeperConfig,
    /// The disk images that are built, by name. One that compares equal has not changed.
    pub diskimages: BTreeMap<String, Arc<DiskImage>>,
    /// The providers by name. [`same_provider`] tells whether one has changed.
    pub providers: BTreeMap<String, Arc<dyn ProviderConfig>>,
    /// What only the launcher uses.
    pub launcher: LauncherConfig,
}

/// A configuration that can be used.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What is odd about it: unknown keys. For `config-validate` they are errors.
    pub warnings: Vec<FileProblem>,
    /// What the files held; a [`ConfigWatch`] goes on from here.
    pub snapshot: Snapshot,
}

impl Config {
    /// How ZooKeeper is reached, or the error that the file names no server.
    pub fn require_zookeeper(&self) -> Result<&ZooKeeperConfig, ConfigError> {
        if self.zookeeper.servers.is_empty() {
            return Err(self.missing("zookeeper-servers", "a list with at least one 'host'"));
        }
        Ok(&self.zookeeper)
    }

    /// Where images are built, or the error that the file does not say.
    pub fn require_images_dir(&self) -> Result<&Path, ConfigError> {
        self.images_dir
            .as_deref()
            .ok_or_else(|| self.missing("images-dir", "the directory to build images in"))
    }

    fn missing(&self, key: &str, expected: &str) -> ConfigError {
        FileProblem::error(
            &self.file,
            "",
            format!("the required key '{key}' is missing; expected {expected}"),
        )
        .into()
    }
}

/// Providers are compared by [`same_provider`].
impl PartialEq for Config {
    fn eq(&self, other: &Self) -> bool {
        // Taken apart, so that a new field cannot be forgotten here.
        let Self {
            file,
            elements_dir,
            images_dir,
            build_log_dir,
            build_log_retention,
            zookeeper,
            diskimages,
            providers,
            launcher,
        } = self;
        *file == other.file
            && *elements_dir == other.elements_dir
            && *images_dir == other.images_dir
            && *build_log_dir == other.build_log_dir
            && *build_log_retention == other.build_log_retention
            && *zookeeper == other.zookeeper
            && *diskimages == other.diskimages
            && providers.len() == other.providers.len()
            && providers.values().zip(other.providers.values()).all(|(a, b)| same_provider(&**a, &**b))
            && *launcher == other.launcher
    }
}

/// Whether two configurations of a provider come from the same section.
pub fn same_provider(a: &dyn ProviderConfig, b: &dyn ProviderConfig) -> bool {
    a.settings() == b.settings()
}

impl ConfigFiles {
    /// Reads, checks and resolves the configuration.
    pub fn load(&self) -> Result<Loaded, ConfigError> {
        resolve::resolve(self, self.read()?, nodepool_drivers::drivers())
    }

    /// Every problem of the files, errors and unknown keys alike: the main file's first, each file's in its
    /// order. This is what `nodepool config-validate` shows.
    pub fn validate(&self) -> Vec<FileProblem> {
        match self.load() {
            Ok(loaded) => loaded.warnings,
            Err(error) => error.into_problems(),
        }
    }
}
