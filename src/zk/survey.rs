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
        let images = self.clone();
        let builds = at_once(self.names()?, move |image| {
            let ids = optional(images.session().children(&builds_path(image)))?.unwrap_or_default();
            let ids = ids.into_iter().filter(|id| id != "lock");
            Ok(ids.map(|id| (image.clone(), id)).collect::<Vec<_>>())
        })?;
        let images = self.clone();
        let places = at_once(builds.concat(), move |(image, build)| images.upload_places(image, build))?;
        let images = self.clone();
        let uploads = at_once(places.concat(), move |place| images.uploads_at(place))?;
        let mut found = Vec::new();
        for upload in uploads.into_iter().flatten() {
            match upload {
                Ok(upload) => found.push(upload),
                Err((path, error)) => damaged(&path, &error),
            }
        }
        Ok(found)
    }

    fn upload_places(&self, image: &str, build: &str) -> ZkResult<Vec<Place>> {
        let path = build_path(image, build);
        let Some(providers) = optional(self.session().children(&format!("{path}/providers")))? else {
            return Ok(Vec::new());
        };
        let Some(stat) = self.session().stat(&path)? else { return Ok(Vec::new()) };
        let place = |provider| Place {
            image: image.to_owned(),
            build: build.to_owned(),
            build_created: stat.created(),
            provider,
        };
        Ok(providers.into_iter().map(place).collect())
    }

    fn uploads_at(&self, place: &Place) -> ZkResult<Vec<Result<ListedUpload, (String, RecordError)>>> {
        let Place { image, build, build_created, provider } = place;
        let ids = optional(self.session().children(&uploads_path(image, build, provider)))?;
        let mut uploads = Vec::new();
        for id in ids.unwrap_or_default().into_iter().filter(|id| id != "lock") {
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

/// The uploads of a build to a provider.
#[derive(Clone)]
struct Place {
    image: String,
    build: String,
    build_created: f64,
    provider: String,
}
