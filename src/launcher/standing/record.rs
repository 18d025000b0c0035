//! The record of a node on a machine, and the machine that a record belongs to.

use std::net::IpAddr;

use nodepool_drivers::api::{Machine, MachineId};
use serde_json::{Map, Value};

use super::plan::Seen;
use crate::model::{NodeRecord, NodeState, now};

/// What the records have as their launcher, as in the original.
pub const LAUNCHER: &str = "static driver";

/// Keys of a record that other drivers use: readers expect all of them.
const UNUSED: [&str; 7] =
    ["cloud", "region", "host_id", "image_id", "hold_expiration", "resources", "requestor"];

/// The machine that a node is on. `None` if the record does not say.
pub(super) fn identity(record: &NodeRecord) -> Option<MachineId> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Some(MachineId { host: text(&record.hostname)?, username: text(&record.username)?, port: record.port()? })
}

/// Which of the machine's nodes it is.
pub(super) fn slot(record: &NodeRecord) -> Option<usize> {
    usize::try_from(record.other.get("slot")?.as_u64()?).ok()
}

/// Whether the node waits for somebody to ask for it, and may be changed or taken away.
pub(super) fn is_free(record: &NodeRecord) -> bool {
    record.state == NodeState::Ready && record.allocated_to.is_none()
}

fn set(record: &mut NodeRecord, key: &str, value: impl Into<Value>) {
    record.other.insert(key.to_owned(), value.into());
}

/// A new record.
pub(super) fn new(provider: &str, machine: &Machine, slot: u32, seen: &Seen) -> NodeRecord {
    let mut record = NodeRecord {
        state: NodeState::Ready,
        state_time: now(),
        provider: Some(provider.to_owned()),
        pool: None,
        labels: Vec::new(),
        allocated_to: None,
        launcher: Some(LAUNCHER.to_owned()),
        created_time: Some(now()),
        tenant_name: None,
        external_id: machine.host.as_str().into(),
        connection_port: machine.connection_port.into(),
        hostname: machine.host.as_str().into(),
        public_ipv4: Value::Null,
        private_ipv4: Value::Null,
        public_ipv6: Value::Null,
        az: Value::Null,
        username: machine.username.as_str().into(),
        hold_job: Value::Null,
        comment: Value::Null,
        user_data: Value::Null,
        driver_data: Value::Null,
        other: UNUSED.map(|key| (key.to_owned(), Value::Null)).into_iter().collect(),
    };
    set(&mut record, "node_properties", Value::Object(Map::new()));
    set(&mut record, "ssh_port", machine.connection_port);
    set(&mut record, "interface_ip", machine.host.as_str());
    describe(&mut record, machine, slot, seen);
    record
}

/// Has the record say what the configuration says, and what was seen. What the machine is known by stays.
pub(super) fn describe(record: &mut NodeRecord, machine: &Machine, slot: u32, seen: &Seen) {
    record.pool = Some(machine.pool.clone());
    record.labels.clone_from(&machine.labels);
    match seen.address {
        IpAddr::V4(address) => record.public_ipv4 = address.to_string().into(),
        IpAddr::V6(address) => record.public_ipv6 = address.to_string().into(),
    }
    set(record, "connection_type", machine.connection_type.as_str());
    set(record, "python_path", machine.python_path.as_str());
    set(record, "shell_type", machine.shell_type.clone());
    set(record, "attributes", machine.attributes.as_ref().map_or(Value::Null, |value| value.to_json()));
    set(record, "host_keys", seen.host_keys.clone());
    set(record, "slot", slot);
}

/// Whether the record would be another one if it said that.
pub(super) fn differs(record: &NodeRecord, machine: &Machine, slot: u32, seen: &Seen) -> bool {
    let mut wanted = record.clone();
    describe(&mut wanted, machine, slot, seen);
    wanted != *record
}
