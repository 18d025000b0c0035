//! ZooKeeper: a session that survives its connections, locks that exclude kazoo's, a cached tree, and typed
//! stores of the records in [`crate::model`].
//!
//! The `zookeeper` crate is named in `client` only. Everything that is not its own room's business is said
//! in terms of paths, [`Session`] and [`ZkError`].

mod at_once;
mod cache;
mod client;
mod component;
mod error;
mod images;
mod lock;
mod paths;
mod relay;
mod session;
mod shared;
mod status;
mod supervisor;
mod survey;
mod tree;

pub use cache::{Changes, TreeCache};
pub use client::Stat;
pub use component::Component;
pub use error::{ZkError, ZkErrorKind, ZkResult, optional};
pub use images::{IMAGES, Images, decode_image};
pub use lock::Lock;
pub use session::{Interrupter, Session, SessionThread};
pub use status::{Connection, Generation, Status};
pub use survey::ListedUpload;
pub use tree::Node;
