//! An image with its builds and uploads: what the plan decides on and what the client prints.

use std::collections::{BTreeMap, BTreeSet};

use super::records::{BuildRecord, BuildState, UploadRecord, UploadState};

/// Everything that ZooKeeper has about one image.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Image {
    /// The image's name.
    pub name: String,
    /// Whether builds are paused by a znode.
    pub paused: bool,
    /// When a build was requested by hand, UNIX seconds.
    pub request: Option<f64>,
    /// How often that request was renewed: whoever asks again wants no waiting after a failure.
    pub request_renewed: i32,
    /// Whether somebody holds the build lock.
    pub build_locked: bool,
    /// When the parent of the build lock was made, UNIX seconds; needed to tell a pending request.
    pub build_lock_made: Option<f64>,
    /// The builds whose records can be read, by id.
    pub builds: BTreeMap<String, Build>,
    /// The builds whose records cannot be read. They count as absent, but nothing of them is deleted.
    pub damaged: BTreeSet<String>,
}

/// A build of an image.
#[derive(Debug, Clone, PartialEq)]
pub struct Build {
    /// Its id.
    pub id: String,
    /// Its record.
    pub record: BuildRecord,
    /// The version of the record's znode, for a conditional write.
    pub version: i32,
    /// When the record was made, UNIX seconds.
    pub created: f64,
    /// Its uploads, by provider.
    pub providers: BTreeMap<String, ProviderUploads>,
}

/// The uploads of a build to one provider.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ProviderUploads {
    /// Whether somebody holds the upload lock.
    pub locked: bool,
    /// The uploads whose records can be read, by id.
    pub uploads: BTreeMap<String, Upload>,
    /// Whether there are records that cannot be read. They are never deleted, nor is what they hang on.
    pub damaged: bool,
}

/// An upload of a build to a provider.
#[derive(Debug, Clone, PartialEq)]
pub struct Upload {
    /// Its id.
    pub id: String,
    /// Its record.
    pub record: UploadRecord,
    /// The version of the record's znode, for a conditional write.
    pub version: i32,
}

impl Image {
    /// The `ready` builds, newest first.
    pub fn ready_builds(&self) -> Vec<&Build> {
        let mut ready: Vec<_> =
            self.builds.values().filter(|build| build.record.state == BuildState::Ready).collect();
        ready.sort_by(|a, b| b.record.state_time.total_cmp(&a.record.state_time));
        ready
    }

    /// Whether the request by hand still waits for a build (spec/zookeeper.md): unless the build lock is
    /// held and the newest build was made after the lock.
    pub fn request_pending(&self) -> bool {
        if self.request.is_none() {
            return false;
        }
        let newest = self.builds.values().map(|build| build.created).max_by(f64::total_cmp);
        match (self.build_locked, newest, self.build_lock_made) {
            (true, Some(newest), Some(lock)) => newest < lock,
            _ => true,
        }
    }
}

impl Build {
    /// All its uploads with their providers.
    pub fn uploads(&self) -> impl Iterator<Item = (&str, &Upload)> {
        self.providers
            .iter()
            .flat_map(|(provider, at)| at.uploads.values().map(move |upload| (provider.as_str(), upload)))
    }

    /// Whether the provider has it.
    pub fn is_ready_at(&self, provider: &str) -> bool {
        self.providers
            .get(provider)
            .is_some_and(|at| at.uploads.values().any(|upload| upload.record.state == UploadState::Ready))
    }
}
