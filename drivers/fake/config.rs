//! The section of a fake provider: the keys of the original's, which are those of an OpenStack provider, and
//! the mapping `fake:`, which says how the cloud behaves.
//!
//! Keys that only matter to a real cloud are checked for their type and otherwise ignored.

use std::time::Duration;

use crate::api::{ImageSettings, ProviderSettings, Table, seconds};

/// The resolved section.
#[derive(Debug)]
pub(super) struct FakeConfig {
    pub(super) settings: ProviderSettings,
    pub(super) images: ImageSettings,
    pub(super) behaviour: Behaviour,
}

/// How the cloud behaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Behaviour {
    pub(super) upload_delay: Duration,
    pub(super) upload_failures: Failures,
    pub(super) delete_delay: Duration,
    pub(super) delete_failures: Failures,
    pub(super) launch_delay: Duration,
    pub(super) launch_failures: Failures,
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
        let behaviour = section.table("fake").map(Behaviour::read).unwrap_or_default();
        Some(Self { settings: settings?, images, behaviour })
    }
}

/// The keys that a real cloud would need.
fn check_cloud_keys(section: &Table<'_>) {
    for key in ["cloud", "region-name", "nodepool-id"] {
        let _ = section.string(key);
    }
    for key in ["boot-timeout", "launch-timeout", "launch-retries", "port-cleanup-interval"] {
        let _ = section.integer(key);
    }
    let _ = section.boolean("clean-floating-ips");
    // The original takes this number as text too.
    if section.text("rate").is_some_and(|rate| rate.parse::<f64>().is_err()) {
        section.error("rate", "expected a number of seconds");
    }
    for key in ["pools", "cloud-images"] {
        for entry in section.tables(key) {
            let _ = entry.required_string("name");
            // The rest means something to a real cloud only.
            entry.accept_all();
            entry.finish();
        }
    }
}

impl Behaviour {
    fn read(table: Table<'_>) -> Self {
        let default = Self::default();
        let delay = |key, default| seconds(&table, key).unwrap_or(default);
        let failures = |key, default| Failures::read(&table, key).unwrap_or(default);
        let behaviour = Self {
            upload_delay: delay("upload-delay", default.upload_delay),
            upload_failures: failures("upload-failures", default.upload_failures),
            delete_delay: delay("delete-delay", default.delete_delay),
            delete_failures: failures("delete-failures", default.delete_failures),
            launch_delay: delay("launch-delay", default.launch_delay),
            launch_failures: failures("launch-failures", default.launch_failures),
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
