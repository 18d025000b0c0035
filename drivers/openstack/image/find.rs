//! Images that are in the cloud anyway, by their names.

use std::time::Instant;

use serde_json::Value as Json;

use super::Glance;
use crate::api::{CallContext, Error, ErrorKind};
use crate::openstack::service::{can_be_id, encoded};
use crate::openstack::shared::SELDOM;

impl Glance {
    /// The id of the active image of this name or id, if there is one.
    pub(in crate::openstack) fn find(&self, call: &CallContext, name: &str) -> Result<Option<String>, Error> {
        call.stop.check()?;
        let known = self.found.lock().get(name).filter(|(at, _)| at.elapsed() < SELDOM).cloned();
        if let Some((_, id)) = known {
            return Ok(Some(id));
        }
        let at = Instant::now();
        let found = match self.named(call, name)? {
            None if can_be_id(name) => self.of_id(call, name)?,
            found => found,
        };
        let mut all = self.found.lock();
        match &found {
            Some(id) => all.insert(name.to_owned(), (at, id.clone())),
            // It may come at any moment.
            None => all.remove(name),
        };
        Ok(found)
    }

    /// Has all images looked for again.
    pub(in crate::openstack) fn forget(&self) {
        self.found.lock().clear();
    }

    fn named(&self, call: &CallContext, name: &str) -> Result<Option<String>, Error> {
        let path = format!("/images?name={}&status=active", encoded(name));
        let images = self.service.list(call, &path, "images")?;
        let ids: Vec<_> = images.iter().filter_map(|image| image.get("id")?.as_str()).collect();
        match ids.as_slice() {
            [] => Ok(None),
            [id] => Ok(Some((*id).to_owned())),
            ids => {
                let what = format!(
                    "there are {} images '{name}': name the one by 'image-id', {}",
                    ids.len(),
                    ids.join(" or ")
                );
                Err(self.service.error(ErrorKind::Permanent, what))
            }
        }
    }

    fn of_id(&self, call: &CallContext, id: &str) -> Result<Option<String>, Error> {
        match self.look(call, id) {
            Ok(image) => {
                let is_active = image.get("status").and_then(Json::as_str) == Some("active");
                Ok(is_active.then(|| id.to_owned()))
            }
            // Some Glances call what cannot be an id a mistake.
            Err(error) if matches!(error.kind(), ErrorKind::NotFound | ErrorKind::Permanent) => Ok(None),
            Err(error) => Err(error),
        }
    }
}
