//! What only this driver knows of pools and labels.

use std::collections::BTreeMap;
use std::time::Duration;

use super::template::Template;
use crate::api::{NodeSettings, Table, count};

/// The size of the volume that a node boots from, in GiB, if the label does not say.
const DEFAULT_VOLUME: i64 = 50;
/// How long a port must have been down until it is removed, in seconds, if the section does not say.
const DEFAULT_PORT_CLEANUP: u64 = 600;

/// The driver's own settings of a provider's nodes.
#[derive(Debug, Default)]
pub(in crate::openstack) struct Own {
    /// The section's own word for the region; the cloud may have another one.
    pub(in crate::openstack) region_name: Option<String>,
    /// Whether floating IPs that lead nowhere are removed.
    pub(in crate::openstack) clean_floating_ips: bool,
    /// How long a port must have been down until it is removed; never if zero.
    pub(in crate::openstack) port_cleanup: Duration,
    pools: BTreeMap<String, OwnPool>,
    labels: BTreeMap<(String, String), OwnLabel>,
}

/// The driver's own settings of a pool.
#[derive(Debug, Default)]
pub(in crate::openstack) struct OwnPool {
    /// The networks of its nodes; none for what the cloud chooses.
    pub(in crate::openstack) networks: Vec<String>,
    pub(in crate::openstack) security_groups: Vec<String>,
    /// Whether a node that cannot be reached otherwise gets a floating IP.
    pub(in crate::openstack) auto_floating_ip: bool,
}

/// The driver's own settings of a label.
#[derive(Debug, Default)]
pub(in crate::openstack) struct OwnLabel {
    pub(in crate::openstack) flavor: FlavorWish,
    pub(in crate::openstack) key_name: Option<String>,
    pub(in crate::openstack) userdata: Option<String>,
    /// The size of the volume that its nodes boot from, in GiB; `None` if they boot from none.
    pub(in crate::openstack) volume: Option<i64>,
    /// Its own networks.
    pub(in crate::openstack) networks: Option<Vec<String>>,
    /// Metadata of its nodes.
    pub(in crate::openstack) properties: BTreeMap<String, String>,
    /// More of it, filled in for each request.
    pub(in crate::openstack) dynamic_properties: BTreeMap<String, Template>,
}

/// Which flavor is wanted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::openstack) struct FlavorWish {
    /// The least memory, in MiB; 0 if only the name counts.
    pub(in crate::openstack) min_ram: i64,
    /// Its name or id; beside `min_ram` a part of its name.
    pub(in crate::openstack) name: Option<String>,
}

impl Own {
    /// A pool's settings.
    pub(in crate::openstack) fn pool(&self, pool: &str) -> Option<&OwnPool> {
        self.pools.get(pool)
    }

    /// A label's settings in a pool.
    pub(in crate::openstack) fn label(&self, pool: &str, label: &str) -> Option<&OwnLabel> {
        self.labels.get(&(pool.to_owned(), label.to_owned()))
    }

    /// Whether a pool gives its nodes floating IPs.
    pub(in crate::openstack) fn has_floating_ips(&self) -> bool {
        self.pools.values().any(|pool| pool.auto_floating_ip)
    }

    /// Reads them with what every provider has.
    pub(super) fn read(section: &Table<'_>) -> (Self, NodeSettings) {
        let (mut pools, mut labels) = (BTreeMap::new(), BTreeMap::new());
        let mut own_pool = |name: &str, table: &Table<'_>| {
            pools.insert(name.to_owned(), OwnPool::read(table));
        };
        let mut own_label = |pool: &str, name: &str, table: &Table<'_>| {
            labels.insert((pool.to_owned(), name.to_owned()), OwnLabel::read(table));
        };
        let nodes = NodeSettings::read(section, true, &mut own_pool, &mut own_label);
        let own = Self {
            region_name: section.string("region-name"),
            clean_floating_ips: section.boolean("clean-floating-ips").unwrap_or(false),
            port_cleanup: Duration::from_secs(
                count(section, "port-cleanup-interval")
                    .and_then(|seconds| u64::try_from(seconds).ok())
                    .unwrap_or(DEFAULT_PORT_CLEANUP),
            ),
            pools,
            labels,
        };
        (own, nodes)
    }
}

impl OwnPool {
    fn read(table: &Table<'_>) -> Self {
        Self {
            networks: table.strings("networks").unwrap_or_default(),
            security_groups: table.strings("security-groups").unwrap_or_default(),
            auto_floating_ip: table.boolean("auto-floating-ip").unwrap_or(true),
        }
    }
}

impl OwnLabel {
    fn read(table: &Table<'_>) -> Self {
        let flavor =
            FlavorWish { min_ram: count(table, "min-ram").unwrap_or(0), name: table.string("flavor-name") };
        if flavor.name.is_none() && table.value("min-ram").is_none() {
            table.problems().error(table.path(), "one of 'min-ram' and 'flavor-name' is needed");
        }
        let size = count(table, "volume-size").unwrap_or(DEFAULT_VOLUME);
        let texts = table.text_map("dynamic-instance-properties").unwrap_or_default();
        let mut dynamic_properties = BTreeMap::new();
        for (name, text) in texts {
            match Template::parse(&text) {
                Ok(template) => _ = dynamic_properties.insert(name, template),
                Err(why) => {
                    let path = format!("{}.{name}", table.path_of("dynamic-instance-properties"));
                    table.problems().warning(path, format!("{why}; nodes are launched without it"));
                }
            }
        }
        Self {
            flavor,
            key_name: table.string("key-name"),
            userdata: table.string("userdata"),
            volume: table.boolean("boot-from-volume").unwrap_or(false).then_some(size),
            networks: table.strings("networks"),
            properties: table.text_map("instance-properties").unwrap_or_default(),
            dynamic_properties,
        }
    }
}
