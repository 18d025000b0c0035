//! The records of the ZooKeeper contract (spec/zookeeper.md): typed states, and every key that another
//! program wrote kept through a read-modify-write. Nothing here knows how records are stored.

mod image;
mod node;
mod records;
mod request;
mod time;

pub use image::{Build, Image, ProviderUploads, Upload};
pub use node::{NodeRecord, NodeState};
pub use records::{BuildRecord, BuildState, RecordError, UploadRecord, UploadState, decode, encode};
pub use request::{NodeRequest, RequestRecord, RequestState};
pub use time::{Age, now};
