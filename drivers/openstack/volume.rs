//! Cinder, where the cloud has it: how large volumes are, and how many there may be.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use super::limits;
use super::service::Service;
use crate::api::{CallContext, Error, Resources};

/// The volume service of a cloud.
#[derive(Debug, Clone)]
pub(super) struct Cinder {
    service: Service,
}

impl Cinder {
    pub(super) fn new(service: Service) -> Self {
        Self { service }
    }

    /// What the project may have of volumes; nothing is limited where there are none.
    pub(super) fn limits(&self, call: &CallContext) -> Result<Resources, Error> {
        if !self.service.is_there(call)? {
            return Ok(Resources::default());
        }
        Ok(limits::read(&self.service.get(call, "/limits")?, &limits::VOLUME))
    }

    /// The sizes of the project's volumes in GiB, by their ids.
    pub(super) fn sizes(&self, call: &CallContext) -> Result<BTreeMap<String, i64>, Error> {
        if !self.service.is_there(call)? {
            return Ok(BTreeMap::new());
        }
        let volumes = self.service.list(call, "/volumes/detail", "volumes")?;
        let size = |volume: &Json| {
            Some((volume.get("id")?.as_str()?.to_owned(), volume.get("size").and_then(Json::as_i64)?))
        };
        Ok(volumes.iter().filter_map(size).collect())
    }
}
