//! The records of the ZooKeeper contract (spec/zookeeper.md): typed states, and every key that another
//! program wrote kept through a read-modify-write. Nothing here knows how records are stored.

mod image;
mod records;
mod time;

pub use image::{Build, Image, ProviderUploads, Upload};
pub use records::{BuildRecord, BuildState, RecordError, UploadRecord, UploadState, decode, encode};
pub use time::{Age, now};
