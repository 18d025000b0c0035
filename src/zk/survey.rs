//! What the client's listings need of all images, and no more: a listing is looked at by a person who waits.
//!
//! Each znode costs a round trip, so what does not depend on each other is read at the same time.

use super::at_once::at_once;
use super::error::{ZkResult, optional};
use super::images::{Images, build_path, builds_path, upload_path, uploads_path};
use super::lock;
use crate::model::{Image, RecordError, Upload, decode};

/// An upload, and where it belongs.
#[derive(Debug, Clone, PartialEq)]
pub struct ListedUpload {
    /// The image's name.
    pub image: String,
    /// The build's id.
    pub build: String,
    /// When the build's record was made, UNIX seconds.
    pub build_created: f64,
    /// The provider's name.
    pub provider: String,
    /// The upload.
    pub upload: Upload,
}

impl Images {
    /// All images with their builds, without uploads and locks, sorted by name.
    pub fn read_all_builds(&self) -> ZkResult<Vec<Image>> {
        let images = self.clone();
        at_once(self.names()?, move |name| images.read_builds(name))
    }

    /// All images with what tells the state of their requests; builds are read only where there is one.
    pub fn read_all_requests(&self) -> ZkResult<Vec<Image>> {
        let images = self.clone();
        at_once(self.names()?, move |name| images.read_request(name))
    }

    fn read_request(&self, name: &str) -> ZkResult<Image> {
        if self.request_made(name)?.is_none() {
            return Ok(Image { name: name.to_owned(), paused: self.is_paused(name)?, ..Image::default() });
        }
        let lock = format!("{}/lock", builds_path(name));
        let lock_made = self.session().stat(&lock)?.map(|stat| stat.created());
        let contenders = optional(self.session().children(&lock))?.unwrap_or_default();
        let mut image = self.read_builds(name)?;
        image.build_lock_made = lock_made;
        image.build_locked = contenders.iter().any(|name| lock::is_contender(name));
        Ok(image)
    }

    /// The uploads of all builds, in no order. Damaged records are told to `damaged`.
    pub fn read_all_uploads(
        &self,
        damaged: &mut dyn FnMut(&str, &RecordError),
    ) -> ZkResult<Vec<ListedUpload>> {
        self.read_uploads_at(self.upload_places()?, damaged)
    }

    /// Where uploads of builds are, or have been: one for each build and provider, in no order.
    pub fn upload_places(&self) -> ZkResult<Vec<UploadPlace>> {
        let images = self.clone();
        let builds = at_once(self.names()?, move |image| {
            let ids = images.build_ids(image)?;
            Ok(ids.into_iter().map(|id| (image.clone(), id)).collect::<Vec<_>>())
        })?;
        let images = self.clone();
        let places = at_once(builds.concat(), move |(image, build)| images.places_of(image, build))?;
        Ok(places.concat())
    }

    /// The uploads at `places`, in no order. Damaged records are told to `damaged`.
    pub fn read_uploads_at(
        &self,
        places: Vec<UploadPlace>,
        damaged: &mut dyn FnMut(&str, &RecordError),
    ) -> ZkResult<Vec<ListedUpload>> {
        let images = self.clone();
        let uploads = at_once(places, move |place| images.uploads_at(place))?;
        let mut found = Vec::new();
        for upload in uploads.into_iter().flatten() {
            match upload {
                Ok(upload) => found.push(upload),
                Err((path, error)) => damaged(&path, &error),
            }
        }
        Ok(found)
    }

    /// Removes all records of uploads at `places`, and whatever else is there.
    pub fn erase_uploads(&self, places: Vec<UploadPlace>) -> ZkResult<()> {
        let images = self.clone();
        let erase = move |place: &UploadPlace| {
            let build = build_path(&place.image, &place.build);
            images.session().delete_tree(&format!("{build}/providers/{}", place.provider))
        };
        at_once(places, erase).map(drop)
    }

    /// The ids of an image's builds, be their records readable or not.
    pub(super) fn build_ids(&self, image: &str) -> ZkResult<Vec<String>> {
        let ids = optional(self.session().children(&builds_path(image)))?.unwrap_or_default();
        Ok(ids.into_iter().filter(|id| id != "lock").collect())
    }

    fn places_of(&self, image: &str, build: &str) -> ZkResult<Vec<UploadPlace>> {
        let path = build_path(image, build);
        let Some(providers) = optional(self.session().children(&format!("{path}/providers")))? else {
            return Ok(Vec::new());
        };
        let Some(stat) = self.session().stat(&path)? else { return Ok(Vec::new()) };
        let place = |provider| UploadPlace {
            image: image.to_owned(),
            build: build.to_owned(),
            build_created: stat.created(),
            provider,
        };
        Ok(providers.into_iter().map(place).collect())
    }

    /// The ids of the uploads at `place`, be their records readable or not.
    pub(super) fn upload_ids(&self, place: &UploadPlace) -> ZkResult<Vec<String>> {
        let parent = uploads_path(&place.image, &place.build, &place.provider);
        let ids = optional(self.session().children(&parent))?.unwrap_or_default();
        Ok(ids.into_iter().filter(|id| id != "lock").collect())
    }

    fn uploads_at(&self, place: &UploadPlace) -> ZkResult<Vec<Result<ListedUpload, (String, RecordError)>>> {
        let UploadPlace { image, build, build_created, provider } = place;
        let mut uploads = Vec::new();
        for id in self.upload_ids(place)? {
            let path = upload_path(image, build, provider, &id);
            let Some((data, stat)) = optional(self.session().get(&path))? else { continue };
            uploads.push(match decode(&data) {
                Ok(record) => Ok(ListedUpload {
                    image: image.clone(),
                    build: build.clone(),
                    build_created: *build_created,
                    provider: provider.clone(),
                    upload: Upload { id, record, version: stat.version },
                }),
                Err(error) => Err((path, error)),
            });
        }
        Ok(uploads)
    }
}

/// Where the uploads of a build to a provider are.
#[derive(Debug, Clone, PartialEq)]
pub struct UploadPlace {
    /// The image's name.
    pub image: String,
    /// The build's id.
    pub build: String,
    /// The provider's name.
    pub provider: String,
    build_created: f64,
}
