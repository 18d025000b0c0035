//! What is carried out on a worker: looks at machines, and writes to records.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use nodepool_drivers::api::Machine;
use nodepool_threads::{Job, StopToken, crash_point};

use super::plan::{Seen, Why};
use super::record;
use crate::launcher::key_scan::{ScanError, Target, first_address, has_host_keys, scan, wait_for_port};
use crate::model::{NodeRecord, NodeState};
use crate::zk::{Nodes, ZkResult};

/// A job of one provider.
pub(super) struct StandingJob {
    pub(super) provider: String,
    pub(super) nodes: Nodes,
    pub(super) work: Work,
}

pub(super) enum Work {
    Look(Machine),
    Register { machine: Machine, slot: u32, seen: Seen },
    Update { node: String, machine: Machine, slot: u32, seen: Seen },
    Deregister { node: String, why: Why },
}

pub(super) enum Outcome {
    /// What was seen, or why nothing.
    Looked(Result<Seen, Unusable>),
    /// A node was made or changed. What its record was, and what it is now.
    Written { node: String, before: Option<Box<NodeRecord>>, after: Box<NodeRecord> },
    /// Somebody else has the node now, or has changed it; his change will be heard of.
    Overtaken,
    /// Whether it was done is not known.
    Failed(String),
    /// The stop came first.
    Stopped,
}

/// What most machines that cannot be used have in common.
pub(super) const SILENT: &str = "does not answer";

/// Why a machine cannot be used.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Unusable {
    /// What it does, as the end of a sentence about it.
    pub(super) what: &'static str,
    /// All that is known of it.
    pub(super) why: String,
}

impl Job for StandingJob {
    type Outcome = Outcome;

    fn describe(&self) -> String {
        match &self.work {
            Work::Look(machine) => format!("looking whether {} answers", machine.identity()),
            Work::Register { machine, slot, .. } => {
                format!("making the node {slot} of {}", machine.identity())
            }
            Work::Update { node, machine, .. } => {
                format!("updating the node {node} of {}", machine.identity())
            }
            Work::Deregister { node, .. } => format!("taking the node {node} away"),
        }
    }

    fn run(&mut self, stop: &StopToken) -> Outcome {
        if stop.is_stopped() {
            return Outcome::Stopped;
        }
        let written = match &self.work {
            Work::Look(machine) => {
                return match look(machine, stop) {
                    Err(Blind::Stopped) => Outcome::Stopped,
                    Err(Blind::Because(why)) => Outcome::Looked(Err(why)),
                    Ok(seen) => Outcome::Looked(Ok(seen)),
                };
            }
            Work::Register { machine, slot, seen } => {
                let record = record::new(&self.provider, machine, *slot, seen);
                crash_point("machine-seen");
                let made = self.nodes.create(&record);
                crash_point("machine-registered");
                made.map(|node| Outcome::Written { node, before: None, after: Box::new(record) })
            }
            Work::Update { node, machine, slot, seen } => {
                self.change(node, |record| record::describe(record, machine, *slot, seen))
            }
            Work::Deregister { node, .. } => {
                self.change(node, |record| record.set_state(NodeState::Deleting))
            }
        };
        written.unwrap_or_else(|error| Outcome::Failed(error.to_string()))
    }
}

impl StandingJob {
    /// Changes a node's record if it is still to be had.
    fn change(&self, id: &str, change: impl FnOnce(&mut NodeRecord)) -> ZkResult<Outcome> {
        let Some(lock) = self.nodes.try_lock(id)? else { return Ok(Outcome::Overtaken) };
        let nodes = self.nodes.under(&lock);
        let Some(Ok((before, version))) = nodes.read(id)? else { return Ok(Outcome::Overtaken) };
        if !before.is_free() {
            return Ok(Outcome::Overtaken);
        }
        crash_point("standing-locked");
        let mut after = before.clone();
        change(&mut after);
        if after != before {
            nodes.write(id, &after, version)?;
            crash_point("standing-changed");
        }
        Ok(Outcome::Written { node: id.to_owned(), before: Some(Box::new(before)), after: Box::new(after) })
    }
}

enum Blind {
    Stopped,
    Because(Unusable),
}

impl From<ScanError> for Blind {
    fn from(error: ScanError) -> Self {
        match error {
            ScanError::Stopped => Self::Stopped,
            // For how long it was tried stands in the configuration.
            ScanError::TimedOut { target, why, .. } => {
                Self::Because(Unusable { what: SILENT, why: format!("{target}: {why}") })
            }
        }
    }
}

/// Looks at a machine for as long as its timeout allows.
fn look(machine: &Machine, stop: &StopToken) -> Result<Seen, Blind> {
    let target = Target { host: machine.host.clone(), port: machine.connection_port };
    let end = Instant::now() + machine.timeout;
    let left = || end.saturating_duration_since(Instant::now());
    let address: IpAddr = first_address(&target, left(), stop)?;
    let keys = if !has_host_keys(&machine.connection_type) {
        wait_for_port(&target, left(), stop)?;
        Vec::new()
    } else if machine.host_key_checking {
        scan(&target, left(), stop)?
    } else {
        machine.host_keys.clone()
    };
    match machine.host_keys.iter().find(|key| has_host_keys(&machine.connection_type) && !keys.contains(key))
    {
        None => Ok(Seen { address, host_keys: keys }),
        Some(key) => {
            let shown = keys.iter().map(|key| format!("'{key}'")).collect::<Vec<_>>().join(", ");
            Err(Blind::Because(Unusable {
                what: "has other host keys than configured",
                why: format!("it is configured with the host key '{key}', but has {shown}"),
            }))
        }
    }
}

/// Whether a machine answers now; not asked of one whose host keys are not checked, as in the original.
pub(super) fn answers(machine: &Machine, stop: &StopToken) -> Result<(), ScanError> {
    if !machine.host_key_checking {
        return Ok(());
    }
    let target = Target { host: machine.host.clone(), port: machine.connection_port };
    wait_for_port(&target, machine.timeout.max(Duration::from_secs(1)), stop)
}
