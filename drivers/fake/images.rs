//! The fake cloud's ability to store images.

use std::fs;

use uuid::Uuid;

use super::FakeProvider;
use crate::api::{CallContext, Error, ErrorKind, ImageUpload, Images, StoredImage};

impl Images for FakeProvider {
    fn upload(&self, call: &CallContext, image: &ImageUpload) -> Result<String, Error> {
        call.stop.check()?;
        let file = image.file.display();
        let found = fs::metadata(&image.file).map_err(|cause| {
            Error::new(ErrorKind::Permanent, format!("cannot read the image file {file}")).caused_by(cause)
        })?;
        if !found.is_file() {
            return Err(Error::new(
                ErrorKind::Permanent,
                format!("the image file {file} is not a regular file"),
            ));
        }
        call.stop.wait(self.cloud.behaviour.upload_delay)?;
        self.cloud.upload_failures.strike(|| format!("the fake cloud refused the image '{}'", image.name))?;
        let id = Uuid::new_v4().to_string();
        let stored =
            StoredImage { id: id.clone(), name: image.name.clone(), properties: image.properties.clone() };
        self.cloud.images.lock().insert(id.clone(), stored);
        Ok(id)
    }

    fn delete(&self, call: &CallContext, external_id: &str) -> Result<(), Error> {
        self.cloud.take_time_to_delete(call, &format!("the image {external_id}"))?;
        self.cloud.images.lock().remove(external_id);
        Ok(())
    }

    fn list(&self, call: &CallContext) -> Result<Vec<StoredImage>, Error> {
        call.stop.check()?;
        Ok(self.cloud.images.lock().values().cloned().collect())
    }
}
