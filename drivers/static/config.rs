//! The section of a static provider: pools, and the machines in them.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::sync::Arc;
use std::time::Duration;

use crate::api::{LabelImage, Machine, MachineId, NodeSettings, PoolLabel, ProviderSettings, Table, Value};

/// The resolved section.
#[derive(Debug)]
pub(super) struct StaticConfig {
    pub(super) settings: ProviderSettings,
    /// The pools, whose labels are those of their machines.
    pub(super) nodes: NodeSettings,
    pub(super) machines: Arc<[Machine]>,
}

/// Where each machine that has been read stands.
type Places = BTreeMap<MachineId, String>;

impl StaticConfig {
    pub(super) fn read(section: &Table<'_>, driver: &str) -> Option<Self> {
        let settings = ProviderSettings::read(section, driver);
        let mut machines = Vec::new();
        let mut places = Places::new();
        let mut read_nodes =
            |pool: &str, table: &Table<'_>| read_pool(pool, table, &mut places, &mut machines);
        let mut nodes = NodeSettings::read(section, false, &mut read_nodes, &mut |_, _, _| {});
        for machine in &mut machines {
            // Only a pool with a mistake is not there.
            let Some(pool) = nodes.pools.get_mut(&machine.pool) else { continue };
            machine.attributes.clone_from(&pool.node_attributes);
            for name in &machine.labels {
                let label = PoolLabel {
                    name: name.clone(),
                    image: LabelImage::None,
                    host_key_checking: machine.host_key_checking,
                    console_log: false,
                };
                pool.labels.entry(name.clone()).or_insert(label);
            }
        }
        Some(Self { settings: settings?, nodes, machines: machines.into() })
    }
}

fn read_pool(name: &str, pool: &Table<'_>, places: &mut Places, machines: &mut Vec<Machine>) {
    if pool.value("labels").is_some() {
        pool.error(
            "labels",
            "a static pool has the labels of its machines: write them to each of its 'nodes'",
        );
    }
    if pool.integer("max-servers").is_some_and(|limit| limit > 0) {
        pool.problems().warning(
            pool.path_of("max-servers"),
            "is of no effect on machines: a pool has as many nodes as its machines are configured to have; only 0 \
             disables it",
        );
    }
    for entry in pool.tables("nodes") {
        let machine = read_machine(&entry, name);
        machines.extend(machine.filter(|machine| is_new(&entry, machine, places)));
        entry.finish();
    }
}

/// Whether it is no machine that was there before: their nodes could not be told apart.
fn is_new(entry: &Table<'_>, machine: &Machine, places: &mut Places) -> bool {
    match places.entry(machine.identity()) {
        Entry::Vacant(place) => {
            place.insert(entry.path().to_owned());
            true
        }
        Entry::Occupied(first) => {
            let (id, first) = (first.key(), first.get());
            let message = format!(
                "the machine {id} stands at {first} already; for several jobs at once there is \
                 'max-parallel-jobs', and 'labels' can be a list"
            );
            entry.error("name", message);
            false
        }
    }
}

fn read_machine(entry: &Table<'_>, pool: &str) -> Option<Machine> {
    let host = host(entry);
    let labels = labels(entry);
    // The older name of the key comes second.
    let port = port(entry, "connection-port").or(port(entry, "ssh-port"));
    let machine = Machine {
        pool: pool.to_owned(),
        username: text(entry, "username", "zuul"),
        connection_type: text(entry, "connection-type", "ssh"),
        connection_port: port.unwrap_or(22),
        python_path: text(entry, "python-path", "auto"),
        shell_type: entry.string("shell-type"),
        host_keys: host_keys(entry),
        host_key_checking: entry.boolean("host-key-checking").unwrap_or(true),
        timeout: Duration::from_secs(at_least(entry, "timeout", 1, "second").unwrap_or(5)),
        slots: slots(entry).unwrap_or(1),
        // Known when the whole pool is.
        attributes: None,
        host: host?,
        labels: labels?,
    };
    Some(machine)
}

fn host(entry: &Table<'_>) -> Option<String> {
    let host = entry.required_string("name")?;
    let mistake = if host.contains(char::is_whitespace) || host.contains(char::is_control) {
        "expected a host name or an address without spaces"
    } else if host.contains('@') {
        "expected a host name or an address; the user goes to 'username'"
    } else if host.starts_with('[') {
        "an IPv6 address is written without brackets, and a port goes to 'connection-port'"
    } else if host.matches(':').count() == 1 {
        "expected a host name or an address; the port goes to 'connection-port'"
    } else {
        return Some(host);
    };
    entry.error("name", mistake);
    None
}

/// One label, or a list.
fn labels(entry: &Table<'_>) -> Option<Vec<String>> {
    let labels = match entry.value("labels") {
        Some(Value::Str(label)) => vec![label.clone()],
        Some(Value::List(items)) if items.is_empty() => Vec::new(),
        // What is wrong with an item has been said.
        Some(_) => entry.strings("labels").filter(|labels| !labels.is_empty())?,
        None => {
            entry.problems().error(entry.path(), "the required key 'labels' is missing");
            return None;
        }
    };
    if labels.is_empty() {
        entry.error("labels", "must not be empty: the machine could not be asked for");
        return None;
    }
    if let Some(label) = labels.iter().find(|label| label.is_empty() || label.contains(char::is_whitespace)) {
        entry.error("labels", format!("'{label}' is no label; several are written as a list: [one, two]"));
        return None;
    }
    Some(labels)
}

/// One key, or a list. What follows a key on its line is a comment, as in `/etc/ssh/*.pub`.
fn host_keys(entry: &Table<'_>) -> Vec<String> {
    let lines = match entry.value("host-key") {
        None => return Vec::new(),
        Some(Value::Str(line)) => vec![line.clone()],
        Some(_) => entry.strings("host-key").unwrap_or_default(),
    };
    let mut keys = Vec::new();
    for line in lines {
        let mut words = line.split_whitespace();
        match (words.next(), words.next()) {
            (Some(kind), Some(key)) if is_key(kind, key) => keys.push(format!("{kind} {key}")),
            // The original takes any text, and where keys are not checked it may be right.
            _ => {
                entry.problems().warning(
                    entry.path_of("host-key"),
                    "is hardly a key of a machine: one is like 'ssh-ed25519 AAAA…', as in its \
                     /etc/ssh/ssh_host_*_key.pub, or behind the host in what ssh-keyscan prints",
                );
                keys.push(line.trim().to_owned());
            }
        }
    }
    keys
}

/// Whether these are a key's type and its base64, which begins with the length of the type.
fn is_key(kind: &str, key: &str) -> bool {
    (kind.starts_with("ssh-") || kind.starts_with("ecdsa-") || kind.starts_with("sk-"))
        && key.starts_with("AAAA")
}

fn slots(entry: &Table<'_>) -> Option<u32> {
    let jobs = at_least(entry, "max-parallel-jobs", 0, "jobs")?;
    let slots = u32::try_from(jobs).ok().filter(|slots| *slots <= 10_000);
    if slots.is_none() {
        entry.error("max-parallel-jobs", format!("expected at most 10000, found {jobs}"));
    }
    slots
}

fn at_least(entry: &Table<'_>, key: &'static str, least: u64, unit: &str) -> Option<u64> {
    let number = entry.integer(key)?;
    let found = u64::try_from(number).ok().filter(|number| *number >= least);
    if found.is_none() {
        entry.error(key, format!("expected at least {least} {unit}, found {number}"));
    }
    found
}

fn port(entry: &Table<'_>, key: &'static str) -> Option<u16> {
    let number = entry.integer(key)?;
    let port = u16::try_from(number).ok().filter(|port| *port != 0);
    if port.is_none() {
        entry.error(key, format!("expected a port from 1 to 65535, found {number}"));
    }
    port
}

fn text(entry: &Table<'_>, key: &'static str, default: &str) -> String {
    entry.string(key).filter(|text| !text.is_empty()).unwrap_or_else(|| default.to_owned())
}
