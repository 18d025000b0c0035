//! What Glance is told of a new image: the same as openstacksdk tells it for the original
//! (`openstack/image/v2/_proxy.py`), plus an id of our choice.
//!
//! Properties are text to Glance but for a few whose types its schema has. The digests and the name that
//! openstacksdk leaves, `owner_specified.openstack.…`, tell tools of today which file an image was made of.

use serde_json::{Map, Value as Json, json};
use uuid::Uuid;

use crate::api::ImageUpload;
use crate::openstack::clouds::Cloud;

const WHOLE_NUMBERS: [&str; 2] = ["min_disk", "min_ram"];
/// Glance's own names, and what openstacksdk calls them.
const BOOLEANS: [(&str, &str); 4] = [
    ("protected", "protected"),
    ("is_protected", "protected"),
    ("os_hidden", "os_hidden"),
    ("is_hidden", "os_hidden"),
];
/// Where openstacksdk would keep images that go through the object store; part of a name it leaves.
const CONTAINER: &str = "images";

/// The body of `POST /v2/images`.
pub(super) fn of(image: &ImageUpload, cloud: &Cloud, id: Uuid) -> Json {
    let mut all = Map::new();
    let mut set = |key: &str, value: Json| drop(all.insert(key.to_owned(), value));
    set("container_format", json!("bare"));
    set("visibility", json!("private"));
    for (key, value) in cloud.image_properties.iter().chain(&image.properties) {
        let (key, value) = typed(key, value);
        set(key, value);
    }
    set("owner_specified.openstack.md5", json!(image.md5.as_deref().unwrap_or_default()));
    set("owner_specified.openstack.sha256", json!(image.sha256.as_deref().unwrap_or_default()));
    set("owner_specified.openstack.object", json!(format!("{CONTAINER}/{}", image.name)));
    set("id", json!(id.to_string()));
    set("name", json!(image.name));
    set("disk_format", json!(image.format));
    Json::Object(all)
}

/// A property as Glance wants it. What does not fit its type stays text, so that Glance says what is wrong.
fn typed<'a>(key: &'a str, value: &str) -> (&'a str, Json) {
    if WHOLE_NUMBERS.contains(&key) {
        return (key, value.parse::<i64>().map_or_else(|_| json!(value), |number| json!(number)));
    }
    if let Some((_, name)) = BOOLEANS.iter().find(|(known, _)| *known == key) {
        let yes = match value.to_ascii_lowercase().as_str() {
            "true" | "yes" | "on" | "1" => json!(true),
            "false" | "no" | "off" | "0" => json!(false),
            _ => json!(value),
        };
        return (name, yes);
    }
    if key == "tags" {
        let tags: Vec<&str> = value.split(',').map(str::trim).filter(|tag| !tag.is_empty()).collect();
        return (key, json!(tags));
    }
    (key, json!(value))
}
