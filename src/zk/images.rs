//! Images, builds and uploads in ZooKeeper: where they are, and how they are read and written
//! (spec/zookeeper.md, Images).

use std::collections::BTreeMap;

use uuid::Uuid;

use super::error::{ZkError, ZkErrorKind, ZkResult, optional};
use super::lock::Lock;
use super::session::Session;
use super::tree::Node;
use crate::model::{
    Build, BuildRecord, Image, ProviderUploads, RecordError, Upload, UploadRecord, decode, encode,
};

/// The parent of all images.
pub const IMAGES: &str = "/nodepool/images";

/// The store of images, in a session. Below a [`Lock`], use one made with [`Images::under`].
#[derive(Clone)]
pub struct Images {
    session: Session,
    holder: String,
}

impl Images {
    /// The store in `session`; `holder` is left in the locks that are taken, for people to read.
    pub fn new(session: &Session, holder: &str) -> Self {
        Self { session: session.clone(), holder: holder.to_owned() }
    }

    /// The same store, which works only as long as `lock` is held.
    pub fn under(&self, lock: &Lock) -> Self {
        Self { session: lock.session().clone(), holder: self.holder.clone() }
    }

    /// The same store, whose calls wait for a connection as long as the session may live: see
    /// [`Session::patient`].
    #[must_use]
    pub fn patient(&self) -> Self {
        Self { session: self.session.patient(), holder: self.holder.clone() }
    }

    /// The session that it works in.
    pub(super) fn session(&self) -> &Session {
        &self.session
    }

    /// The names of all images that have a znode, sorted.
    pub fn names(&self) -> ZkResult<Vec<String>> {
        let mut names = optional(self.session.children(IMAGES))?.unwrap_or_default();
        names.sort();
        Ok(names)
    }

    /// Whether an image has a znode.
    pub fn exists(&self, image: &str) -> ZkResult<bool> {
        self.session.stat(&image_path(image)).map(|stat| stat.is_some())
    }

    /// An image with its builds as they are now, without their uploads: for a decision under the build lock.
    pub fn read_builds(&self, image: &str) -> ZkResult<Image> {
        let mut found = Image { name: image.to_owned(), ..Image::default() };
        found.paused = self.is_paused(image)?;
        found.request = self.request_made(image)?;
        let ids = optional(self.session.children(&builds_path(image)))?.unwrap_or_default();
        for id in ids.into_iter().filter(|id| id != "lock") {
            let Some((data, stat)) = optional(self.session.get(&build_path(image, &id)))? else { continue };
            match decode(&data) {
                Ok(record) => {
                    let (version, created) = (stat.version, stat.created());
                    let build =
                        Build { id: id.clone(), record, version, created, providers: BTreeMap::new() };
                    found.builds.insert(id, build);
                }
                Err(_) => drop(found.damaged.insert(id)),
            }
        }
        Ok(found)
    }

    /// Whether a build has a record, be it readable or not.
    pub fn has_build(&self, image: &str, id: &str) -> ZkResult<bool> {
        self.session.stat(&build_path(image, id)).map(|stat| stat.is_some())
    }

    /// A build's record with its version, if both exist and can be read.
    pub fn read_build(&self, image: &str, id: &str) -> ZkResult<Option<(BuildRecord, i32)>> {
        self.read_record(&build_path(image, id))
    }

    /// An upload's record with its version, if both exist and can be read.
    pub fn read_upload(
        &self,
        image: &str,
        build: &str,
        provider: &str,
        id: &str,
    ) -> ZkResult<Option<(UploadRecord, i32)>> {
        self.read_record(&upload_path(image, build, provider, id))
    }

    fn read_record<R: serde::de::DeserializeOwned>(&self, path: &str) -> ZkResult<Option<(R, i32)>> {
        let found = optional(self.session.get(path))?;
        Ok(found.and_then(|(data, stat)| Some((decode(&data).ok()?, stat.version))))
    }

    /// The uploads of a build to a provider as they are now: for a decision under the upload lock.
    pub fn read_uploads(&self, image: &str, build: &str, provider: &str) -> ZkResult<Vec<Upload>> {
        let parent = uploads_path(image, build, provider);
        let mut uploads = Vec::new();
        for id in optional(self.session.children(&parent))?.unwrap_or_default() {
            if let Some((record, version)) = self.read_upload(image, build, provider, &id)? {
                uploads.push(Upload { id, record, version });
            }
        }
        Ok(uploads)
    }

    /// Makes the record of a new build and returns the build's id. The caller holds the build lock.
    pub fn create_build(&self, image: &str, record: &BuildRecord) -> ZkResult<String> {
        let id = Uuid::new_v4().simple().to_string();
        // Its parent is there: the caller holds the build lock, which is below it too.
        self.session.create(&build_path(image, &id), &encode(record))?;
        Ok(id)
    }

    /// Replaces a build's record if it still has `version`, and returns its new version.
    pub fn write_build(&self, image: &str, id: &str, record: &BuildRecord, version: i32) -> ZkResult<i32> {
        self.session.set(&build_path(image, id), &encode(record), version)
    }

    /// Removes a build that has no uploads left. Returns false, and removes nothing, if it has.
    pub fn delete_build(&self, image: &str, id: &str) -> ZkResult<bool> {
        let providers = format!("{}/providers", build_path(image, id));
        for provider in optional(self.session.children(&providers))?.unwrap_or_default() {
            let uploads = optional(self.session.children(&uploads_path(image, id, &provider)))?;
            for upload in uploads.unwrap_or_default().iter().filter(|name| *name != "lock") {
                let found = optional(self.session.get(&upload_path(image, id, &provider, upload)))?;
                // Without any data it is no record but what a lock has left of one.
                if found.is_some_and(|(data, _)| !data.is_empty()) {
                    return Ok(false);
                }
            }
        }
        self.session.delete_tree(&build_path(image, id)).map(|()| true)
    }

    /// Makes the record of a new upload and returns the upload's id. The caller holds the upload lock, so
    /// nobody else makes one at the same time.
    pub fn create_upload(
        &self,
        image: &str,
        build: &str,
        provider: &str,
        record: &UploadRecord,
    ) -> ZkResult<String> {
        let parent = uploads_path(image, build, provider);
        let data = encode(record);
        let mut at_least = 0;
        loop {
            let Some(stat) = self.session.stat(&parent)? else {
                let below = format!("providers/{provider}/images");
                if !self.session.ensure_below(&build_path(image, build), &below)? {
                    let why = format!("the build {image}-{build} has been deleted");
                    return Err(ZkError::new(ZkErrorKind::NoNode, why));
                }
                continue;
            };
            // The number that the server would give. If it did, a lost answer would leave a record whose name nobody
            // knows.
            let number = stat.next_sequence.max(at_least);
            let id = format!("{number:010}");
            match self.session.create(&format!("{parent}/{id}"), &data) {
                // Made by hand with a number that the server had not reached yet.
                Err(error) if error.is(ZkErrorKind::NodeExists) => at_least = number.wrapping_add(1),
                other => return other.map(|()| id),
            }
        }
    }

    /// Replaces an upload's record if it still has `version`, and returns its new version.
    pub fn write_upload(&self, image: &str, build: &str, provider: &str, upload: &Upload) -> ZkResult<i32> {
        let path = upload_path(image, build, provider, &upload.id);
        self.session.set(&path, &encode(&upload.record), upload.version)
    }

    /// Removes an upload's record.
    pub fn delete_upload(&self, image: &str, build: &str, provider: &str, id: &str) -> ZkResult<()> {
        self.session.delete_tree(&upload_path(image, build, provider, id))
    }

    /// Whether builds of an image are paused by a znode.
    pub fn is_paused(&self, image: &str) -> ZkResult<bool> {
        self.session.stat(&pause_path(image)).map(|stat| stat.is_some())
    }

    /// When a build was requested by hand, UNIX seconds.
    pub fn request_made(&self, image: &str) -> ZkResult<Option<f64>> {
        self.session.stat(&request_path(image)).map(|stat| stat.map(|stat| stat.created()))
    }

    /// Asks for a build by hand. Asking again renews the request, so that a builder that waits after a
    /// failure does not wait any longer.
    pub fn request_build(&self, image: &str) -> ZkResult<()> {
        let path = request_path(image);
        match self.session.stat(&path)? {
            None => self.session.ensure_path(&path),
            Some(stat) => match self.session.set(&path, b"", stat.version) {
                // It is gone, or somebody else has renewed it.
                Err(error) if error.is(ZkErrorKind::NoNode) => self.session.ensure_path(&path),
                Err(error) if error.is(ZkErrorKind::BadVersion) => Ok(()),
                other => other.map(|_| ()),
            },
        }
    }

    /// Removes the request by hand, if there is one.
    pub fn remove_request(&self, image: &str) -> ZkResult<()> {
        optional(self.session.delete(&request_path(image), None)).map(|_| ())
    }

    /// Pauses builds of an image, or lets them go on.
    pub fn set_paused(&self, image: &str, paused: bool) -> ZkResult<()> {
        if paused {
            self.session.ensure_path(&pause_path(image))
        } else {
            optional(self.session.delete(&pause_path(image), None)).map(|_| ())
        }
    }

    /// Takes the lock under which the image may be built.
    pub fn lock_builds(&self, image: &str) -> ZkResult<Option<Lock>> {
        self.lock("", &format!("{}/lock", &builds_path(image)[1..]))
    }

    /// Takes the lock under which a build's record may be marked or removed.
    pub fn lock_build(&self, image: &str, id: &str) -> ZkResult<Option<Lock>> {
        self.lock(&build_path(image, id), "lock")
    }

    /// Takes the lock under which a build may be uploaded to a provider.
    pub fn lock_uploads(&self, image: &str, build: &str, provider: &str) -> ZkResult<Option<Lock>> {
        self.lock(&build_path(image, build), &format!("providers/{provider}/images/lock"))
    }

    /// Takes the lock under which an upload's record may be marked or removed.
    pub fn lock_upload(&self, image: &str, build: &str, provider: &str, id: &str) -> ZkResult<Option<Lock>> {
        self.lock(&upload_path(image, build, provider, id), "lock")
    }

    /// The lock at `below` of a record, which is empty for what is no part of a record.
    fn lock(&self, record: &str, below: &str) -> ZkResult<Option<Lock>> {
        Lock::try_acquire(&self.session, record, below, &self.holder)
    }
}

fn image_path(image: &str) -> String {
    format!("{IMAGES}/{image}")
}

pub(super) fn pause_path(image: &str) -> String {
    format!("{IMAGES}/{image}/pause")
}

fn request_path(image: &str) -> String {
    format!("{IMAGES}/{image}/request-build")
}

pub(super) fn builds_path(image: &str) -> String {
    format!("{IMAGES}/{image}/builds")
}

pub(super) fn build_path(image: &str, id: &str) -> String {
    format!("{IMAGES}/{image}/builds/{id}")
}

pub(super) fn uploads_path(image: &str, build: &str, provider: &str) -> String {
    format!("{IMAGES}/{image}/builds/{build}/providers/{provider}/images")
}

/// Where the record of an upload is (spec/zookeeper.md).
pub fn upload_path(image: &str, build: &str, provider: &str, id: &str) -> String {
    format!("{}/{id}", uploads_path(image, build, provider))
}

/// An image from its part of the tree. Damaged records count as absent and are told to `damaged` with
/// their paths.
pub fn decode_image(name: &str, node: &Node, damaged: &mut dyn FnMut(&str, &RecordError)) -> Image {
    let mut image = Image {
        name: name.to_owned(),
        paused: node.at("pause").is_some(),
        request: node.at("request-build").map(|request| request.created),
        request_renewed: node.at("request-build").map_or(0, |request| request.version),
        ..Image::default()
    };
    let Some(builds) = node.at("builds") else { return image };
    image.build_locked = builds.is_locked("lock");
    image.build_lock_made = builds.at("lock").map(|lock| lock.created);
    for (id, node) in builds.children.iter().filter(|(id, _)| *id != "lock") {
        match decode(&node.data) {
            Ok(record) => {
                let providers = decode_providers(name, id, node, damaged);
                let (version, created) = (node.version, node.created);
                image
                    .builds
                    .insert(id.to_owned(), Build { id: id.to_owned(), record, version, created, providers });
            }
            Err(error) => {
                damaged(&build_path(name, id), &error);
                image.damaged.insert(id.to_owned());
            }
        }
    }
    image
}

fn decode_providers(
    image: &str,
    build: &str,
    node: &Node,
    damaged: &mut dyn FnMut(&str, &RecordError),
) -> BTreeMap<String, ProviderUploads> {
    let mut providers = BTreeMap::new();
    for (provider, node) in node.at("providers").into_iter().flat_map(|parent| parent.children.iter()) {
        let Some(node) = node.at("images") else { continue };
        let mut at = ProviderUploads { locked: node.is_locked("lock"), ..ProviderUploads::default() };
        for (id, node) in node.children.iter().filter(|(id, _)| *id != "lock") {
            match decode(&node.data) {
                Ok(record) => {
                    let upload = Upload { id: id.to_owned(), record, version: node.version };
                    at.uploads.insert(id.to_owned(), upload);
                }
                Err(error) => {
                    damaged(&upload_path(image, build, provider, id), &error);
                    // Without any data it is no record but what a lock has left of one: nothing hangs on it.
                    at.damaged |= !node.data.is_empty();
                }
            }
        }
        providers.insert(provider.to_owned(), at);
    }
    providers
}
