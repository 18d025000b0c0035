//! The section of a fake provider: the keys of the original's, which are those of an OpenStack provider, and
//! the mapping `fake:`, which says how the cloud behaves.
//!
//! Keys that only matter to a real cloud are checked for their type and otherwise ignored.

use std::path::PathBuf;
use std::time::Duration;

use crate::api::{ImageSettings, NodeSettings, ProviderSettings, Resources, Table, seconds};

/// The resolved section.
#[derive(Debug)]
pub(super) struct FakeConfig {
    pub(super) settings: ProviderSettings,
    pub(super) images: ImageSettings,
    pub(super) nodes: NodeSettings,
    pub(super) behaviour: Behaviour,
}

/// How the cloud behaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Behaviour {
    pub(super) upload_delay: Duration,
    pub(super) upload_failures: Failures,
    pub(super) delete_delay: Duration,
    pub(super) delete_failures: Failures,
    pub(super) launch_delay: Duration,
    pub(super) launch_failures: Failures,
    /// Launches that fail because the cloud has no room, whatever its limits say.
    pub(super) quota_failures: Failures,
    /// How many ports its first clean-up finds to remove.
    pub(super) left_ports: u64,
    /// What its instances may need together.
    pub(super) limits: Resources,
    /// Where instances are kept, so that they outlive the process.
    pub(super) state_dir: Option<PathBuf>,
    /// As long as this file is there, nobody answers for nodes.
    pub(super) silent_while: Option<PathBuf>,
}

impl Default for Behaviour {
    fn default() -> Self {
        Self {
            upload_delay: Duration::ZERO,
            upload_failures: Failures::First(0),
            delete_delay: Duration::ZERO,
            delete_failures: Failures::First(0),
            launch_delay: Duration::from_millis(100),
            launch_failures: Failures::First(0),
            quota_failures: Failures::First(0),
            left_ports: 0,
            limits: Resources::default(),
            state_dir: None,
            silent_while: None,
        }
    }
}

/// Which calls of a kind fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Failures {
    /// So many, then none.
    First(u64),
    /// Every one.
    All,
}

impl FakeConfig {
    pub(super) fn read(section: &Table<'_>, driver: &str) -> Option<Self> {
        let settings = ProviderSettings::read(section, driver);
        let images = ImageSettings::read(section, "qcow2");
        check_cloud_keys(section);
        let nodes = NodeSettings::read(section, true, &mut check_pool_keys, &mut check_label_keys);
        let behaviour = section.table("fake").map(Behaviour::read).unwrap_or_default();
        Some(Self { settings: settings?, images, nodes, behaviour })
    }
}

/// The keys that a real cloud would need.
fn check_cloud_keys(section: &Table<'_>) {
    for key in ["cloud", "region-name", "nodepool-id"] {
        let _ = section.string(key);
    }
    let _ = section.integer("port-cleanup-interval");
    let _ = section.boolean("clean-floating-ips");
    // The original takes this number as text too.
    if section.text("rate").is_some_and(|rate| rate.parse::<f64>().is_err()) {
        section.error("rate", "expected a number of seconds");
    }
}

/// The keys of a pool that a real cloud would need.
fn check_pool_keys(_pool: &str, table: &Table<'_>) {
    table.accept(&["networks", "security-groups", "auto-floating-ip"]);
}

/// The keys of a label that a real cloud would need.
fn check_label_keys(_pool: &str, _label: &str, table: &Table<'_>) {
    table.accept(&[
        "min-ram",
        "flavor-name",
        "key-name",
        "boot-from-volume",
        "volume-size",
        "instance-properties",
        "dynamic-instance-properties",
        "userdata",
        "networks",
    ]);
}

impl Behaviour {
    fn read(table: Table<'_>) -> Self {
        let default = Self::default();
        let delay = |key, default| seconds(&table, key).unwrap_or(default);
        let failures = |key, default| Failures::read(&table, key).unwrap_or(default);
        let limits = [("max-servers", Resources::INSTANCES), ("max-cores", "cores"), ("max-ram", "ram")];
        let behaviour = Self {
            upload_delay: delay("upload-delay", default.upload_delay),
            upload_failures: failures("upload-failures", default.upload_failures),
            delete_delay: delay("delete-delay", default.delete_delay),
            delete_failures: failures("delete-failures", default.delete_failures),
            launch_delay: delay("launch-delay", default.launch_delay),
            launch_failures: failures("launch-failures", default.launch_failures),
            quota_failures: failures("quota-failures", default.quota_failures),
            left_ports: table.integer("left-ports").and_then(|count| u64::try_from(count).ok()).unwrap_or(0),
            limits: limits.into_iter().filter_map(|(key, name)| Some((name, table.integer(key)?))).collect(),
            state_dir: table.string("state-dir").map(PathBuf::from),
            silent_while: table.string("silent-while").map(PathBuf::from),
        };
        table.finish();
        behaviour
    }
}

impl Failures {
    fn read(table: &Table<'_>, key: &'static str) -> Option<Self> {
        let number = table.integer(key)?;
        if number == -1 {
            return Some(Self::All);
        }
        let count = u64::try_from(number).ok();
        if count.is_none() {
            table.error(key, format!("expected how many calls fail, or -1 for all, found {number}"));
        }
        count.map(Self::First)
    }
}
