//! `nodepool.yaml` and the secure file: read, checked, resolved, and watched for changes.
//!
//! A file goes through two stages. The raw one is its text, with variables substituted, as a tree of values;
//! the resolved one is a [`Config`], which cannot be wrong any more: parents are merged, providers are read
//! by their drivers, whatever refers to something refers to something that exists. All mistakes on the way
//! are collected, with file and path. Nothing here knows ZooKeeper or what the configuration is used for.

mod builder_webapp;
mod directories;
mod diskimage;
mod files;
mod inherit;
mod launcher;
mod likely;
mod problem;
mod providers;
mod raw_image;
mod reload;
mod resolve;
mod secure;
mod settle;
mod size;
mod source;
mod substitute;
mod suggest;
#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;
mod watch;
mod zookeeper;

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use nodepool_drivers::api::ProviderConfig;
pub use nodepool_drivers::api::yaml::Position;

pub use builder_webapp::BuilderWebApp;
pub use diskimage::{DiskImage, KEEP_BUILDS};
pub(crate) use files::read_text;
pub use files::{ConfigFiles, Snapshot};
use files::{Others, Texts};
pub use launcher::{Label, LauncherConfig, WebApp};
pub(crate) use problem::in_file_order;
pub use problem::{ConfigError, FileProblem};
pub use reload::{Refused, Reload};
use resolve::Resolved;
pub use source::Source;
pub use substitute::Env;
pub(crate) use suggest::did_you_mean;
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
    /// How many bytes must be free there before a build begins; 0 for any.
    pub min_free_space: u64,
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
    /// Where the builder's status pages are.
    pub builder_webapp: BuilderWebApp,
    /// What only the launcher uses.
    pub launcher: LauncherConfig,
}

/// A configuration that can be used.
#[derive(Debug, Clone)]
pub struct Loaded {
    /// The configuration.
    pub config: Config,
    /// What is odd about it: unknown keys, which are errors for `config-validate`, and what is hardly meant.
    pub warnings: Vec<FileProblem>,
    /// What the files held; a [`ConfigWatch`] goes on from here.
    pub snapshot: Snapshot,
    /// Files of drivers that were looked into, whether they were there or not.
    others: BTreeSet<PathBuf>,
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
        let message = format!("the required key '{key}' is missing; expected {expected}");
        FileProblem::of_file(&self.file, message).into()
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
            min_free_space,
            build_log_dir,
            build_log_retention,
            zookeeper,
            diskimages,
            providers,
            builder_webapp,
            launcher,
        } = self;
        *file == other.file
            && *elements_dir == other.elements_dir
            && *images_dir == other.images_dir
            && *min_free_space == other.min_free_space
            && *build_log_dir == other.build_log_dir
            && *build_log_retention == other.build_log_retention
            && *zookeeper == other.zookeeper
            && *diskimages == other.diskimages
            && providers.len() == other.providers.len()
            && providers.values().zip(other.providers.values()).all(|(a, b)| same_provider(&**a, &**b))
            && *builder_webapp == other.builder_webapp
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
        self.load_beside(&Others::new())
    }

    /// The same of texts that the files might hold: the configuration and its warnings. None of them is read, only
    /// what drivers look into. `secure` counts only if there is a secure file.
    pub fn parse(
        &self,
        main: impl Into<String>,
        secure: Option<&str>,
    ) -> Result<(Config, Vec<FileProblem>), ConfigError> {
        let texts = Texts { main: main.into(), secure: secure.map(str::to_owned) };
        let resolved = resolve::resolve(self, &texts, None, nodepool_drivers::drivers())?;
        Ok((resolved.config, resolved.warnings))
    }

    /// Reads, checks and resolves, with the files of drivers that were looked into the last time. They are marked
    /// before they are read, so that one that changes meanwhile is seen to have changed afterwards; which there are
    /// is told by reading, so if there are others than known, all is read again.
    fn load_beside(&self, known: &Others) -> Result<Loaded, ConfigError> {
        let load = |others: &Others| {
            let snapshot = self.read(others)?;
            let Snapshot { texts, exposed, .. } = &snapshot;
            let Resolved { config, warnings, others } =
                resolve::resolve(self, texts, exposed.clone(), nodepool_drivers::drivers())?;
            Ok(Loaded { config, warnings, snapshot, others })
        };
        let loaded: Result<_, ConfigError> = load(known);
        let others = match &loaded {
            Ok(loaded) => &loaded.others,
            Err(error) => error.others(),
        };
        if others.is_subset(known) { loaded } else { load(&others.clone()) }
    }

    /// Every problem of the files, errors, unknown keys and warnings: the main file's first, each file's in its
    /// order. This is what `nodepool config-validate` shows.
    pub fn validate(&self) -> Vec<FileProblem> {
        match self.load() {
            Ok(loaded) => loaded.warnings,
            Err(error) => error.into_problems(),
        }
    }
}
