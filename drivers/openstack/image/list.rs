//! The list of images.

use std::collections::BTreeMap;

use serde_json::{Map, Value as Json};

use super::Glance;
use crate::api::{CallContext, Error, StoredImage};

/// What Glance itself says of an image; whatever else there is are properties.
const OWN_KEYS: [&str; 26] = [
    "checksum",
    "container_format",
    "created_at",
    "direct_url",
    "disk_format",
    "file",
    "id",
    "locations",
    "min_disk",
    "min_ram",
    "name",
    "os_hash_algo",
    "os_hash_value",
    "os_hidden",
    "owner",
    "protected",
    "schema",
    "self",
    "size",
    "status",
    "stores",
    "tags",
    "updated_at",
    "url",
    "virtual_size",
    "visibility",
];

impl Glance {
    /// All images that the project sees, those of others too.
    pub(in crate::openstack) fn list(&self, call: &CallContext) -> Result<Vec<StoredImage>, Error> {
        let images = self.service.list(call, "/images", "images")?;
        Ok(images.iter().filter_map(|image| image.as_object().and_then(stored)).collect())
    }
}

fn stored(image: &Map<String, Json>) -> Option<StoredImage> {
    let text = |key: &str| image.get(key).and_then(Json::as_str).map(str::to_owned);
    let own = |key: &&String| OWN_KEYS.contains(&key.as_str());
    let properties: BTreeMap<String, String> = image
        .iter()
        .filter(|(key, _)| !own(key))
        .filter_map(|(key, value)| {
            let value = match value {
                Json::String(text) => text.clone(),
                Json::Bool(yes) => yes.to_string(),
                Json::Number(number) => number.to_string(),
                Json::Null | Json::Array(_) | Json::Object(_) => return None,
            };
            Some((key.clone(), value))
        })
        .collect();
    Some(StoredImage { id: text("id")?, name: text("name").unwrap_or_default(), properties })
}
