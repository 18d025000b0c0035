//! ZooKeeper: a session that survives its connections, locks that exclude kazoo's, a cached tree, and typed
//! stores of the records in [`crate::model`].
//!
//! The `zookeeper` crate is named in `client` only. Everything that is not its own room's business is said
//! in terms of paths, [`Session`] and [`ZkError`].

mod at_once;
mod cache;
mod calls;
mod children;
mod client;
mod component;
mod error;
mod image_data;
mod images;
mod lock;
mod membership;
mod nodes;
mod paths;
mod relay;
mod requests;
mod session;
mod shared;
mod status;
mod supervisor;
mod survey;
mod tree;

pub use cache::{Changes, TreeCache, TreeReader};
pub use children::Children;
pub use client::Stat;
pub use component::{Component, Description, Kind, POOLS, PoolDescription, decode_pool};
pub use error::{ZkError, ZkErrorKind, ZkResult, optional};
pub use image_data::{RecordPath, parse_backup};
pub use images::{IMAGES, Images, decode_image, upload_path};
pub use lock::Lock;
pub use membership::Membership;
pub use nodes::{ListedNode, NODES, Nodes, decode_node};
pub use requests::{REQUESTS, Requests, decode_request};
pub use session::{Interrupter, Session, SessionThread};
pub use status::{Connection, Generation, Status};
pub use survey::{ListedUpload, UploadPlace};
pub use tree::Node;
