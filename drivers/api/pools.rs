//! The pools of a provider that runs nodes, and the readers of what they have in common (spec/config.md,
//! `providers[].pools[]`).

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::time::Duration;

use super::settings::required_name;
use super::{Resources, Table, Value, seconds};

const DEFAULT_BOOT_TIMEOUT: Duration = Duration::from_secs(60);
const DEFAULT_LAUNCH_TIMEOUT: Duration = Duration::from_secs(3600);
const DEFAULT_LAUNCH_RETRIES: u32 = 3;

/// What a provider that runs nodes is configured with.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeSettings {
    /// The pools by name.
    pub pools: BTreeMap<String, PoolSettings>,
    /// The images that the provider has of its own, by the name that labels use.
    pub cloud_images: BTreeMap<String, CloudImage>,
    /// How long a new node may take until it can be connected to.
    pub boot_timeout: Duration,
    /// How long a launch may take.
    pub launch_timeout: Duration,
    /// How often a launch is tried.
    pub launch_retries: u32,
}

/// A pool: labels, and a share of the provider's capacity.
#[derive(Debug, Clone, PartialEq)]
pub struct PoolSettings {
    /// The pool's name.
    pub name: String,
    /// What its nodes may need in all.
    pub limits: Resources,
    /// Among pools that can serve a request the lowest number does; `None` for the provider's.
    pub priority: Option<i64>,
    /// What each node's record says besides.
    pub node_attributes: Option<Value>,
    /// Whether jobs reach the nodes by their private addresses.
    pub use_internal_ip: bool,
    /// Whether the provider's own limits are not asked for.
    pub ignore_provider_quota: bool,
    /// Where its nodes may run; empty for anywhere.
    pub zones: Vec<String>,
    /// The labels that it has nodes of, by name.
    pub labels: BTreeMap<String, PoolLabel>,
}

/// A label of a pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolLabel {
    /// The label's name.
    pub name: String,
    /// What its nodes boot.
    pub image: LabelImage,
    /// Whether a node is ready only once its host keys have been read.
    pub host_key_checking: bool,
    /// Whether what a node has said on its console is logged when its host keys could not be read.
    pub console_log: bool,
}

/// What the nodes of a label boot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelImage {
    /// Nothing that is known here.
    None,
    /// The newest upload of this disk image.
    Disk(String),
    /// This image of the provider's own.
    Cloud(String),
}

/// An image that a provider has of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CloudImage {
    /// The provider's id of it.
    pub image_id: Option<String>,
    /// The provider's name of it.
    pub image_name: Option<String>,
    /// The user that its nodes are reached as.
    pub username: Option<String>,
    /// Where they have Python; `auto` by default.
    pub python_path: Option<String>,
    /// Which shell they have.
    pub shell_type: Option<String>,
    /// How they are connected to.
    pub connection: Connection,
    /// Whether they get what the provider tells them on a drive.
    pub config_drive: bool,
}

/// How a node is connected to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// `ssh`, `winrm`, …
    pub kind: String,
    /// The port.
    pub port: u16,
}

impl Default for Connection {
    fn default() -> Self {
        Self { kind: "ssh".to_owned(), port: 22 }
    }
}

impl Connection {
    /// Reads `connection-type` and `connection-port`.
    pub(super) fn read(table: &Table<'_>) -> Self {
        let kind = table.string("connection-type").unwrap_or_else(|| "ssh".to_owned());
        let default = if kind == "winrm" { 5986 } else { 22 };
        let port = table.integer("connection-port").and_then(|port| {
            let fits = u16::try_from(port).ok();
            if fits.is_none() {
                table.error("connection-port", "expected a port number up to 65535");
            }
            fits
        });
        Self { kind, port: port.unwrap_or(default) }
    }
}

impl NodeSettings {
    /// Reads the keys of every provider that runs nodes. `own_pool` and `own_label` read what only the driver knows
    /// of a pool and a label; the tables are finished here. With `images`, each label needs one of either kind.
    pub fn read(
        section: &Table<'_>,
        images: bool,
        own_pool: &mut dyn FnMut(&str, &Table<'_>),
        own_label: &mut dyn FnMut(&str, &str, &Table<'_>),
    ) -> Self {
        let time = |key, default| seconds(section, key).unwrap_or(default);
        let retries = section.integer("launch-retries").map(|number| {
            u32::try_from(number).ok().filter(|count| *count > 0).unwrap_or_else(|| {
                section.error("launch-retries", format!("expected at least 1, found {number}"));
                DEFAULT_LAUNCH_RETRIES
            })
        });
        let cloud_images = if images { read_cloud_images(section) } else { BTreeMap::new() };
        let mut pools = BTreeMap::new();
        for table in section.tables("pools") {
            let pool = read_pool(&table, images.then_some(&cloud_images), own_pool, own_label);
            table_entry(&mut pools, pool.map(|pool| (pool.name.clone(), pool)), &table, "pool");
            table.finish();
        }
        Self {
            pools,
            cloud_images,
            boot_timeout: time("boot-timeout", DEFAULT_BOOT_TIMEOUT),
            launch_timeout: time("launch-timeout", DEFAULT_LAUNCH_TIMEOUT),
            launch_retries: retries.unwrap_or(DEFAULT_LAUNCH_RETRIES),
        }
    }
}

/// Adds what has been read under its name, which must be new.
fn table_entry<T>(into: &mut BTreeMap<String, T>, entry: Option<(String, T)>, table: &Table<'_>, what: &str) {
    let Some((name, value)) = entry else { return };
    match into.entry(name) {
        Entry::Vacant(place) => _ = place.insert(value),
        Entry::Occupied(taken) => {
            table.error("name", format!("the {what} '{}' is configured twice", taken.key()));
        }
    }
}

fn read_cloud_images(section: &Table<'_>) -> BTreeMap<String, CloudImage> {
    let mut images = BTreeMap::new();
    for table in section.tables("cloud-images") {
        let image = CloudImage {
            image_id: table.string("image-id"),
            image_name: table.string("image-name"),
            username: table.string("username"),
            python_path: table.string("python-path").or_else(|| Some("auto".to_owned())),
            shell_type: table.string("shell-type"),
            connection: Connection::read(&table),
            config_drive: table.boolean("config-drive").unwrap_or(false),
        };
        if image.image_id.is_some() && image.image_name.is_some() {
            table.error("image-name", "either 'image-id' or 'image-name' can be given, not both");
        }
        table_entry(&mut images, required_name(&table).map(|name| (name, image)), &table, "cloud image");
        table.finish();
    }
    images
}

fn read_pool(
    table: &Table<'_>,
    cloud_images: Option<&BTreeMap<String, CloudImage>>,
    own_pool: &mut dyn FnMut(&str, &Table<'_>),
    own_label: &mut dyn FnMut(&str, &str, &Table<'_>),
) -> Option<PoolSettings> {
    let name = required_name(table);
    let limits = [
        ("max-servers", Resources::INSTANCES),
        ("max-cores", "cores"),
        ("max-ram", "ram"),
        ("max-volumes", "volumes"),
        ("max-volume-gb", "volume-gb"),
    ];
    let limits = limits.into_iter().filter_map(|(key, name)| Some((name, limit(table, key)?))).collect();
    let checking = table.boolean("host-key-checking").unwrap_or(true);
    let shown = name.clone().unwrap_or_default();
    own_pool(&shown, table);
    let mut labels = BTreeMap::new();
    for entry in table.tables("labels") {
        let name = required_name(&entry);
        let image = read_label_image(&entry, cloud_images);
        let host_key_checking = entry.boolean("host-key-checking").unwrap_or(checking);
        let console_log = cloud_images.is_some() && entry.boolean("console-log").unwrap_or(false);
        own_label(&shown, name.as_deref().unwrap_or_default(), &entry);
        let label =
            name.map(|name| (name.clone(), PoolLabel { name, image, host_key_checking, console_log }));
        table_entry(&mut labels, label, &entry, "label");
        entry.finish();
    }
    Some(PoolSettings {
        limits,
        priority: table.integer("priority"),
        node_attributes: table.value("node-attributes").and_then(|value| match value {
            Value::Map(_) => Some(value.clone()),
            Value::Null => None,
            other => {
                table.error("node-attributes", format!("expected a mapping, found {}", other.describe()));
                None
            }
        }),
        use_internal_ip: table.boolean("use-internal-ip").unwrap_or(false),
        ignore_provider_quota: table.boolean("ignore-provider-quota").unwrap_or(false),
        zones: table.strings("availability-zones").unwrap_or_default(),
        labels,
        name: name?,
    })
}

/// What nodes may need. In the original a limit below 0 lets a pool have no nodes, as 0 does.
fn limit(table: &Table<'_>, key: &'static str) -> Option<i64> {
    let number = table.integer(key)?;
    if number < 0 {
        let message =
            format!("{number} is taken as 0: the pool may have no nodes; leave it out for no limit");
        table.problems().warning(table.path_of(key), message);
    }
    Some(number.max(0))
}

/// A number of things.
pub(crate) fn count(table: &Table<'_>, key: &'static str) -> Option<i64> {
    let number = table.integer(key)?;
    if number < 0 {
        table.error(key, format!("expected a number of at least 0, found {number}"));
    }
    (number >= 0).then_some(number)
}

fn read_label_image(entry: &Table<'_>, cloud_images: Option<&BTreeMap<String, CloudImage>>) -> LabelImage {
    let Some(known) = cloud_images else { return LabelImage::None };
    match (entry.string("diskimage"), entry.string("cloud-image")) {
        (Some(name), None) => LabelImage::Disk(name),
        (None, Some(name)) => {
            if !known.contains_key(&name) {
                let message = format!("the image '{name}' is not in the provider's 'cloud-images'");
                entry.error("cloud-image", message);
            }
            LabelImage::Cloud(name)
        }
        (Some(_), Some(_)) => {
            entry.error("cloud-image", "either 'diskimage' or 'cloud-image' can be given, not both");
            LabelImage::None
        }
        (None, None) => {
            entry.error("diskimage", "the label needs a 'diskimage' or a 'cloud-image'");
            LabelImage::None
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing;

    fn read(section: serde_json::Value) -> (NodeSettings, Vec<String>) {
        testing::read(section, |table| NodeSettings::read(table, true, &mut |_, _| {}, &mut |_, _, _| {}))
    }

    #[test]
    fn pools_are_read_with_the_originals_defaults() {
        let (settings, problems) = read(json!({
            "boot-timeout": 10,
            "cloud-images": [{"name": "win", "image-id": "i", "connection-type": "winrm"}],
            "pools": [{
                "name": "main", "max-servers": 5, "max-cores": 8, "priority": 3, "host-key-checking": false,
                "node-attributes": {"a": "b"}, "availability-zones": ["z"],
                "labels": [
                    {"name": "a", "diskimage": "debian"},
                    {"name": "b", "cloud-image": "win", "host-key-checking": true, "console-log": true},
                ],
            }, {"name": "other"}],
        }));
        assert_eq!(problems, [""; 0]);
        assert_eq!(settings.boot_timeout, Duration::from_secs(10));
        assert_eq!((settings.launch_timeout, settings.launch_retries), (Duration::from_secs(3600), 3));
        let win = &settings.cloud_images["win"];
        assert_eq!(win.connection, Connection { kind: "winrm".to_owned(), port: 5986 });
        assert_eq!(win.python_path.as_deref(), Some("auto"));
        let main = &settings.pools["main"];
        assert_eq!(main.limits, [("instances", 5), ("cores", 8)].into_iter().collect());
        assert_eq!((main.priority, main.zones.as_slice()), (Some(3), &["z".to_owned()][..]));
        let image = |name: &str| main.labels[name].image.clone();
        assert_eq!(image("a"), LabelImage::Disk("debian".to_owned()));
        assert_eq!(image("b"), LabelImage::Cloud("win".to_owned()));
        assert_eq!((main.labels["a"].host_key_checking, main.labels["b"].host_key_checking), (false, true));
        assert_eq!((main.labels["a"].console_log, main.labels["b"].console_log), (false, true));
        assert_eq!(settings.pools["other"].limits, Resources::default());
    }

    #[test]
    fn a_limit_below_0_lets_a_pool_have_no_nodes() {
        let (settings, problems) = read(json!({"pools": [{"name": "a", "max-servers": -1, "max-ram": -5}]}));
        assert_eq!(settings.pools["a"].limits, [("instances", 0), ("ram", 0)].into_iter().collect());
        let why = |number| {
            format!("warning: {number} is taken as 0: the pool may have no nodes; leave it out for no limit")
        };
        let expected = [("max-servers", -1), ("max-ram", -5)];
        assert_eq!(
            problems,
            expected.map(|(key, number)| format!("providers[0].pools[0].{key}: {}", why(number)))
        );
    }

    #[test]
    fn mistakes_are_named() {
        for (section, expected) in [
            (json!({"launch-retries": 0}), "providers[0].launch-retries: expected at least 1, found 0"),
            (json!({"pools": [{}]}), "providers[0].pools[0]: the required key 'name' is missing"),
            (
                json!({"pools": [{"name": "a"}, {"name": "a"}]}),
                "providers[0].pools[1].name: the pool 'a' is configured twice",
            ),
            (
                json!({"pools": [{"name": "a", "labels": [{"name": "l"}]}]}),
                "providers[0].pools[0].labels[0].diskimage: the label needs a 'diskimage' or a 'cloud-image'",
            ),
            (
                json!({"pools": [{"name": "a", "labels": [{"name": "l", "cloud-image": "c"}]}]}),
                "providers[0].pools[0].labels[0].cloud-image: the image 'c' is not in the provider's \
                 'cloud-images'",
            ),
            (
                json!({"pools": [{"name": "a", "node-attributes": 1}]}),
                "providers[0].pools[0].node-attributes: expected a mapping, found 1",
            ),
            (
                json!({"pools": [{"name": "a", "max-server": 1}]}),
                "providers[0].pools[0].max-server: unknown key, did you mean 'max-servers'?",
            ),
        ] {
            assert_eq!(read(section).1, [expected]);
        }
    }
}
