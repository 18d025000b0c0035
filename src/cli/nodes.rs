//! The commands for nodes and node requests: `list`, `request-list`, `delete` and `hold`.

use std::time::Duration;

use nodepool_drivers::api::{CallContext, name_mistake};
use nodepool_threads::{StopSource, activity_within};
use serde_json::Value;
use slog::{Logger, o};

use super::args::Format;
use super::connection::Connection;
use super::failure::Failure;
use super::listing::{left_out, show};
use super::output;
use crate::config::Config;
use crate::listing::{NodeRow, json, node_rows, request_rows, table_of};
use crate::model::{NodeRecord, NodeState, RecordError, now};
use crate::zk::{Lock, Nodes};

/// How long a node's lock is waited for, as in the original.
const LOCK_LIMIT: Duration = Duration::from_secs(5);
/// How long a provider may take to delete a node.
const DELETE_LIMIT: Duration = Duration::from_secs(600);

/// Shows all nodes.
pub(super) fn list(connection: &Connection, detail: bool, format: Format) -> Result<(), Failure> {
    let rows = node_rows(connection.nodes().read_all(&mut left_out)?, now());
    output::print(&match format {
        Format::Table => table_of(&rows, now(), |key| detail || NodeRow::is_brief(key)),
        Format::Json => json(&rows),
    })
}

/// Shows all node requests.
pub(super) fn request_list(connection: &Connection, format: Format) -> Result<(), Failure> {
    show(&request_rows(connection.requests().read_all(&mut left_out)?), format)
}

/// A node that is locked, so that nobody else changes it.
struct Held {
    nodes: Nodes,
    lock: Lock,
    record: NodeRecord,
    version: i32,
}

impl Held {
    fn take(connection: &Connection, id: &str) -> Result<Self, Failure> {
        let nodes = connection.nodes();
        // Not by its lock: that would leave something where there was nothing.
        read(&nodes, id)?;
        let Some(lock) = nodes.lock_within(id, LOCK_LIMIT)? else {
            let seconds = LOCK_LIMIT.as_secs();
            let why = format!("the node {id} is in use: its lock was not to be had within {seconds} s");
            return Err(Failure::because(why));
        };
        let nodes = nodes.under(&lock);
        let (record, version) = read(&nodes, id)?;
        Ok(Self { nodes, lock, record, version })
    }

    fn write_state(&mut self, id: &str, state: NodeState) -> Result<(), Failure> {
        self.record.set_state(state);
        self.version = self.nodes.write(id, &self.record, self.version)?;
        Ok(())
    }
}

fn read(nodes: &Nodes, id: &str) -> Result<(NodeRecord, i32), Failure> {
    let not_found = || Failure::because(format!("Node id {id} not found"));
    if name_mistake(id).is_some() {
        return Err(not_found());
    }
    let found = nodes.read(id)?.ok_or_else(not_found)?;
    found.map_err(|error: RecordError| Failure::because(format!("the node {id} cannot be read: {error}")))
}

/// The id of a node that was given without its leading zeros, as people read it out.
fn whole(id: &str) -> String {
    let is_number = !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_digit());
    if is_number { format!("{id:0>10}") } else { id.to_owned() }
}

/// Puts a node into a state that its launcher acts upon, and shows it.
pub(super) fn mark(connection: &Connection, id: &str, state: NodeState) -> Result<(), Failure> {
    let id = &*whole(id);
    let mut held = Held::take(connection, id)?;
    held.write_state(id, state)?;
    drop(held.lock);
    let listed = connection.nodes().read_listed(id)?.and_then(Result::ok);
    let rows = node_rows(listed.into_iter().collect(), now());
    output::print(&table_of(&rows, now(), NodeRow::is_brief))
}

/// Deletes a node at its provider, and then its record.
pub(super) fn delete_now(
    config: &Config,
    connection: &Connection,
    id: &str,
    log: &Logger,
) -> Result<(), Failure> {
    let id = &*whole(id);
    let (record, _) = read(&connection.nodes(), id)?;
    let name = record.provider.as_deref().unwrap_or_default();
    let Some(provider) = config.providers.get(name) else {
        let file = config.file.display();
        let why = format!("the provider '{name}' of the node {id} is not configured in {file}");
        return Err(Failure::because(why));
    };
    let log = log.new(o!("provider" => name.to_owned(), "node" => id.to_owned()));
    let at_provider = |why: String| Failure::because(format!("the provider '{name}': {why}"));
    let opened = provider.open(&log).map_err(|error| at_provider(error.to_string()))?;
    let cloud = opened.nodes();
    if cloud.is_none() && opened.machines().is_none() {
        return Err(at_provider("it runs no nodes".to_owned()));
    }
    let mut held = Held::take(connection, id)?;
    held.write_state(id, NodeState::Deleting)?;
    match (cloud, &held.record.external_id) {
        // It was never launched, or stands there anyway.
        (_, Value::Null) | (None, _) => {}
        (Some(cloud), Value::String(external_id)) => {
            let source = StopSource::new();
            let call = CallContext { stop: source.token().deadline_in(DELETE_LIMIT), log };
            let _doing = activity_within(DELETE_LIMIT, format!("deleting {external_id} at '{name}'"));
            cloud.delete(&call, external_id).map_err(|error| at_provider(error.to_string()))?;
        }
        (Some(_), other) => {
            let why = format!("its driver's id of the node {id} is not understood here: {other}");
            return Err(at_provider(why));
        }
    }
    // With its lock, which is below it.
    held.nodes.erase(id)?;
    let rows = node_rows(Vec::new(), now());
    output::print(&table_of(&rows, now(), NodeRow::is_brief))
}
