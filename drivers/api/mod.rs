//! The interfaces between Nodepool and a cloud, and nothing of either.
//!
//! A [`Driver`] stands for one kind of provider. It reads a provider's section of `nodepool.yaml` into a
//! [`ProviderConfig`], which opens a [`Provider`]. A provider says what it can do by what it returns:
//! [`Images`] where it stores images, [`Nodes`] where it runs nodes, [`Machines`] where nodes stand there already;
//! for each node request that it serves, [`Nodes`] makes a [`NodeRequestHandler`]. All of them are used as trait
//! objects from several threads.
//!
//! Every call that may block takes a [`CallContext`]: its token ends the call, its deadline limits it. A
//! driver knows no ZooKeeper, keeps no records and starts no work of its own; it may keep caches.
//!
//! # Writing a driver
//!
//! 1. Copy the folder of the nearest driver and give it the new name: `fake/` stores images and runs nodes in little
//!    code; `local/` stores images only, and shows how to leave nothing half done; `static/` is for machines that stand
//!    there already.
//! 2. In its `config.rs`, read the section: [`ProviderSettings::read`], [`ImageSettings::read`] for a provider that
//!    stores images, [`NodeSettings::read`] for one that runs nodes, then the driver's own keys from the same
//!    [`Table`]. Note every mistake there and go on; keys that are legal but of no use to the driver go to
//!    [`Table::accept`].
//! 3. Implement [`ProviderConfig`] with the resolved section, [`Provider`] with what it has of [`Images`], [`Nodes`]
//!    and [`Machines`]. In each call, begin with `call.stop.check()?`, wait only with
//!    [`StopToken::wait`](nodepool_threads::StopToken::wait) and its relatives, check the token between the steps of
//!    long work, and undo what was begun when a step fails. Choose each error's [`ErrorKind`] by what the caller should
//!    do next.
//! 4. Add the module and one line to [`crate::drivers`].
//! 5. Run [`contract::check`] on an opened provider in a test of the driver: what the words above leave open,
//!    the suite decides. Put an example configuration into `config-examples/`.

mod call;
pub mod contract;
mod error;
mod machines;
mod name_format;
mod nodes;
mod pools;
mod problem;
mod progress;
mod resources;
mod settings;
mod suggest;
mod table;
mod value;
pub mod yaml;

use std::collections::BTreeMap;
use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use slog::Logger;

pub use call::{CallContext, UNDO_LIMIT};
pub use error::{Error, ErrorKind};
pub use machines::{Machine, MachineId, Machines};
pub use nodes::{
    CleanedUp, Instance, LaunchedNode, NodeRequest, NodeRequestHandler, NodeSpec, Nodes, metadata,
};
pub(crate) use pools::count;
pub use pools::{CloudImage, Connection, LabelImage, NodeSettings, PoolLabel, PoolSettings};
pub use problem::{Problem, Problems, Severity};
pub use progress::Progress;
pub use resources::Resources;
pub use settings::name_mistake;
pub(crate) use settings::seconds;
pub use suggest::nearest;
pub use table::Table;
pub use value::Value;

/// One kind of provider, such as `local`. Stateless; all drivers stand in [`crate::drivers`].
pub trait Driver: Send + Sync {
    /// The word that a provider's `driver:` key names it by.
    fn name(&self) -> &'static str;

    /// Reads a provider's section. Notes every mistake in the table's problems, and returns `None` only
    /// where they leave no usable configuration. The common keys are read by [`ProviderSettings::read`].
    /// Does not call [`Table::finish`]: the caller does, when all readers have asked for their keys.
    fn configure(&self, section: &Table<'_>) -> Option<Arc<dyn ProviderConfig>>;
}

/// The resolved section of one provider: it cannot be wrong any more.
pub trait ProviderConfig: Send + Sync + fmt::Debug {
    /// What all providers have.
    fn settings(&self) -> &ProviderSettings;

    /// How images are uploaded; `None` for a provider that stores none.
    fn images(&self) -> Option<&ImageSettings>;

    /// How nodes are run; `None` for a provider that runs none.
    fn nodes(&self) -> Option<&NodeSettings> {
        None
    }

    /// Opens the provider: checks what can be checked without a call over the network, and takes no longer
    /// than that.
    fn open(&self, log: &Logger) -> Result<Arc<dyn Provider>, Error>;

    /// Opens the provider to ask it only: nothing is prepared or cleaned up there, so that whoever may read
    /// can ask. What the calls that change something do on it is left open.
    fn open_to_ask(&self, log: &Logger) -> Result<Arc<dyn Provider>, Error> {
        self.open(log)
    }
}

/// The part of a provider's section that does not depend on its driver (spec/config.md, `providers[]`).
#[derive(Debug, Clone, PartialEq)]
pub struct ProviderSettings {
    /// The provider's name.
    pub name: String,
    /// The name of its driver.
    pub driver: String,
    /// How many nodes may be launched at once; `None` for as many as the launcher does by itself.
    pub max_concurrency: Option<u64>,
    /// Which provider is preferred among several that could serve a request: the lower number.
    pub priority: Option<i64>,
    /// The section as it was read: a provider is replaced only when this or what is outside has changed.
    pub section: Value,
    /// Stands for what the provider is configured with outside its section, in files of its driver; a digest,
    /// because secrets may be there.
    pub outside: Option<String>,
}

/// What a provider that stores images is configured with.
#[derive(Debug, Clone, PartialEq)]
pub struct ImageSettings {
    /// The format that the provider wants, such as `qcow2`.
    pub format: String,
    /// The images that the provider shall have, by name.
    pub diskimages: BTreeMap<String, ProviderDiskimage>,
    /// How an image is named at the provider, with `{image_name}`, `{timestamp}` and `{upload_id}`.
    pub name_format: String,
    /// A program that is run after each upload with the provider's name, the image's id and its file.
    pub post_upload_hook: Option<PathBuf>,
    /// How long one upload may take.
    pub upload_timeout: Duration,
}

/// An image in a provider's `diskimages` list.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ProviderDiskimage {
    /// Not uploaded while set.
    pub pause: bool,
    /// Properties that the image gets at this provider, over those of the image itself.
    pub meta: BTreeMap<String, String>,
    /// How the nodes that boot it are connected to.
    pub connection: Connection,
    /// Whether they get what the provider tells them on a drive.
    pub config_drive: bool,
}

/// An opened provider, shared by all threads that call it.
pub trait Provider: Send + Sync {
    /// Its ability to store images, if it has it.
    fn images(&self) -> Option<&dyn Images>;

    /// Its ability to run nodes, if it has it.
    fn nodes(&self) -> Option<&dyn Nodes>;

    /// Its ability to offer machines that stand there already, if it has it.
    fn machines(&self) -> Option<&dyn Machines> {
        None
    }
}

/// The ability to store images.
pub trait Images: Send + Sync {
    /// Stores an image and returns the provider's id of it. When this fails, or is stopped, nothing of the
    /// image is left at the provider as far as that can be had; a caller that gets an error still deletes
    /// by name later.
    fn upload(&self, call: &CallContext, image: &ImageUpload) -> Result<String, Error>;

    /// Deletes an image by its id. An image that is not there counts as deleted.
    fn delete(&self, call: &CallContext, external_id: &str) -> Result<(), Error>;

    /// All images at the provider, those of others too.
    fn list(&self, call: &CallContext) -> Result<Vec<StoredImage>, Error>;
}

/// An image that is to be uploaded.
#[derive(Debug, Clone)]
pub struct ImageUpload {
    /// The name that it shall have at the provider.
    pub name: String,
    /// The file to upload.
    pub file: PathBuf,
    /// The file's format, such as `qcow2`.
    pub format: String,
    /// The MD5 digest of the file in lower-case hex, where the build left one.
    pub md5: Option<String>,
    /// The SHA-256 digest of the file in lower-case hex, where the build left one.
    pub sha256: Option<String>,
    /// Properties to store with the image; among them `nodepool_build_id` and `nodepool_upload_id`.
    pub properties: BTreeMap<String, String>,
    /// Where the driver tells how far it is, if it can.
    pub progress: Progress,
}

/// An image at a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredImage {
    /// The provider's id of it.
    pub id: String,
    /// Its name.
    pub name: String,
    /// Its properties.
    pub properties: BTreeMap<String, String>,
}
