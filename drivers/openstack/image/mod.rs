//! Glance: images are created, filled, looked at, listed and deleted.
//!
//! [`upload`] is the way of an image there, with everything that can go wrong; [`description`] is what Glance is
//! told of it; [`stream`] moves its bytes; [`list`] reads what there is.

mod description;
mod find;
mod list;
mod stream;
mod upload;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Instant;

use nodepool_threads::Mutex;
use serde_json::Value as Json;

use super::clouds::Cloud;
use super::service::{Deleted, Service, can_be_id};
use crate::api::{CallContext, Error};

/// The image service of a cloud.
#[derive(Debug)]
pub(super) struct Glance {
    service: Service,
    cloud: Arc<Cloud>,
    /// The ids of images that were looked for, by the names that they were looked for by.
    found: Mutex<BTreeMap<String, (Instant, String)>>,
}

impl Glance {
    pub(super) fn new(service: Service, cloud: Arc<Cloud>) -> Self {
        Self { service, cloud, found: Mutex::new("images of a cloud", BTreeMap::new()) }
    }

    /// Deletes an image; one that is not there counts as deleted. One that is in use is an error that asks to
    /// try again later.
    pub(super) fn delete(&self, call: &CallContext, id: &str) -> Result<(), Error> {
        delete(&self.service, call, id).map(drop)
    }

    /// What Glance says of an image.
    fn look(&self, call: &CallContext, id: &str) -> Result<Json, Error> {
        self.service.get(call, &format!("/images/{id}"))
    }
}

fn delete(service: &Service, call: &CallContext, id: &str) -> Result<Deleted, Error> {
    call.stop.check()?;
    if !can_be_id(id) {
        return Ok(Deleted::NotThere);
    }
    service.delete(call, &format!("/images/{id}"))
}
