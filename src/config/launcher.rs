//! The keys that only the launcher needs: read and checked, so that one file serves all programs.

use std::collections::BTreeMap;
use std::time::Duration;

use nodepool_drivers::api::{Problems, Table, Value};

use super::builder_webapp::read_hosts;
use super::zookeeper::read_port_from;

/// A kind of node that may be asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// How many ready nodes are kept in stock.
    pub min_ready: u64,
    /// How old a ready node may become; `None` for any age.
    pub max_ready_age: Option<Duration>,
}

/// Where the launcher's status pages are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WebApp {
    /// The TCP port; 0 is any that is free.
    pub port: u16,
    /// The address of the interface, or a name that has one.
    pub listen_address: String,
    /// Names under which all pages are shown, besides this machine's own.
    pub allowed_hosts: Vec<String>,
}

impl Default for WebApp {
    fn default() -> Self {
        Self { port: 8005, listen_address: "0.0.0.0".to_owned(), allowed_hosts: Vec::new() }
    }
}

/// What the launcher is configured with, apart from its providers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LauncherConfig {
    /// The labels by name.
    pub labels: BTreeMap<String, Label>,
    /// The web service.
    pub webapp: WebApp,
    /// How long a held node is kept at most; `None` for no limit.
    pub max_hold_age: Option<Duration>,
    /// The limits of each tenant, by its name and the limit's key, such as `max-servers`.
    pub tenant_limits: BTreeMap<String, BTreeMap<String, i64>>,
}

/// Reads all of them from the top level.
pub(super) fn read(top: &Table<'_>) -> LauncherConfig {
    LauncherConfig {
        labels: top.tables("labels").into_iter().filter_map(read_label).collect(),
        webapp: read_webapp(top),
        max_hold_age: top.integer("max-hold-age").and_then(positive_seconds),
        tenant_limits: read_tenant_limits(top),
    }
}

/// The original takes 0 and less for "no limit".
fn positive_seconds(seconds: i64) -> Option<Duration> {
    u64::try_from(seconds).ok().filter(|seconds| *seconds > 0).map(Duration::from_secs)
}

fn read_label(table: Table<'_>) -> Option<(String, Label)> {
    let name = table.required_string("name");
    let label = Label {
        // Files from older times have -1 for a label that is switched off.
        min_ready: table.integer("min-ready").and_then(|number| u64::try_from(number).ok()).unwrap_or(0),
        max_ready_age: table.integer("max-ready-age").and_then(positive_seconds),
    };
    table.finish();
    Some((name?, label))
}

fn read_webapp(top: &Table<'_>) -> WebApp {
    let Some(table) = top.table("webapp") else { return WebApp::default() };
    let default = WebApp::default();
    let listen_address =
        table.string("listen_address").map(|address| match address.trim_matches(['[', ']']) {
            // As in the original.
            "" => "127.0.0.1".to_owned(),
            address => address.to_owned(),
        });
    let webapp = WebApp {
        port: read_port_from(0, &table, "port").unwrap_or(default.port),
        listen_address: listen_address.unwrap_or(default.listen_address),
        allowed_hosts: read_hosts(&table, "nodes.example.org"),
    };
    table.finish();
    webapp
}

fn read_tenant_limits(top: &Table<'_>) -> BTreeMap<String, BTreeMap<String, i64>> {
    let mut limits = BTreeMap::new();
    let sections = top.list("tenant-resource-limits").unwrap_or_default();
    for (index, section) in sections.iter().enumerate() {
        let at = format!("{}[{index}]", top.path_of("tenant-resource-limits"));
        let Some(table) = Table::new(section, &*at, top.problems()) else { continue };
        // Any key is a limit: providers have resources of their own.
        let own = read_limits(section, &at, top.problems());
        if let Some(tenant) = table.required_string("tenant-name") {
            limits.insert(tenant, own);
        }
    }
    limits
}

fn read_limits(section: &Value, at: &str, problems: &Problems) -> BTreeMap<String, i64> {
    let Value::Map(entries) = section else { return BTreeMap::new() };
    let mut limits = BTreeMap::new();
    for (key, value) in entries.iter().filter(|(key, _)| key != "tenant-name") {
        match value {
            Value::Int(limit) => drop(limits.insert(key.clone(), *limit)),
            other => problems
                .error(format!("{at}.{key}"), format!("expected a whole number, found {}", other.kind())),
        }
    }
    limits
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing;

    #[test]
    fn mistakes_are_named() {
        let cases = [
            ("labels: [{min-ready: 1}]", "labels[0]: the required key 'name' is missing"),
            ("labels: [{name: a, min-ready: x}]", "labels[0].min-ready: expected a whole number, found 'x'"),
            (
                "labels: [{name: a, max-ready-age: 1.5}]",
                "labels[0].max-ready-age: expected a whole number, found 1.5",
            ),
            (
                "labels: [{name: a, minready: 1}]",
                "labels[0].minready: unknown key, did you mean 'min-ready'?",
            ),
            ("webapp: {port: 70000}", "webapp.port: expected a port from 0 to 65535, found '70000'"),
            ("webapp: {listen_address: 5}", "webapp.listen_address: expected a string, found 5"),
            (
                "webapp: {listen-address: a}",
                "webapp.listen-address: unknown key, did you mean 'listen_address'?",
            ),
            (
                "webapp: {allowed-hosts: ['n.example.org:80']}",
                "webapp.allowed-hosts: expected names of hosts without a port, such as nodes.example.org, found \
                 'n.example.org:80'",
            ),
            ("max-hold-age: soon", "max-hold-age: expected a whole number, found 'soon'"),
            (
                "tenant-resource-limits: [{max-cores: 1}]",
                "tenant-resource-limits[0]: the required key 'tenant-name' is missing",
            ),
            (
                "tenant-resource-limits: [{tenant-name: t, max-cores: few}]",
                "tenant-resource-limits[0].max-cores: expected a whole number, found a string",
            ),
            ("tenant-resource-limits: [t]", "tenant-resource-limits[0]: expected a mapping, found a string"),
        ];
        for (source, expected) in cases {
            assert_eq!(testing::read(source, read).1, [expected], "{source}");
        }
    }
}
