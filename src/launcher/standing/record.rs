//! The record of a node on a machine, and the machine that a record belongs to.

use std::net::IpAddr;

use nodepool_drivers::api::{Machine, MachineId};
use serde_json::{Map, Value};

use super::plan::Seen;
use crate::model::{NodeRecord, NodeState};

/// What the records have as their launcher, as in the original.
pub const LAUNCHER: &str = "static driver";

/// The machine that a node is on. `None` if the record does not say.
pub(super) fn identity(record: &NodeRecord) -> Option<MachineId> {
    let text = |value: &Value| value.as_str().map(str::to_owned);
    Some(MachineId { host: text(&record.hostname)?, username: text(&record.username)?, port: record.port()? })
}

/// Which of the machine's nodes it is.
pub(super) fn slot(record: &NodeRecord) -> Option<usize> {
    usize::try_from(record.get("slot").as_u64()?).ok()
}

/// A new record.
pub(super) fn new(provider: &str, machine: &Machine, slot: u32, seen: &Seen) -> NodeRecord {
    let mut record = NodeRecord::new(NodeState::Ready, "");
    record.provider = Some(provider.to_owned());
    record.launcher = Some(LAUNCHER.to_owned());
    record.external_id = machine.host.as_str().into();
    record.hostname = machine.host.as_str().into();
    record.username = machine.username.as_str().into();
    record.connection_port = machine.connection_port.into();
    record.set("ssh_port", machine.connection_port);
    record.set("interface_ip", machine.host.as_str());
    record.set("node_properties", Map::new());
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
    record.set("connection_type", machine.connection_type.as_str());
    record.set("python_path", machine.python_path.as_str());
    record.set("shell_type", machine.shell_type.clone());
    record.set("attributes", machine.attributes.as_ref().map_or(Value::Null, |value| value.to_json()));
    record.set("host_keys", seen.host_keys.clone());
    record.set("slot", slot);
}

/// Whether the record would be another one if it said that.
pub(super) fn differs(record: &NodeRecord, machine: &Machine, slot: u32, seen: &Seen) -> bool {
    let mut wanted = record.clone();
    describe(&mut wanted, machine, slot, seen);
    wanted != *record
}
