//! The listings of nodes and of node requests.

use serde::{Serialize, Serializer};
use serde_json::Value;

use super::{Keyed, Row};
use crate::model::{Age, NodeRequest};
use crate::zk::ListedNode;

/// A node.
#[derive(Debug, Serialize)]
pub struct NodeRow {
    id: String,
    provider: Option<String>,
    label: Vec<String>,
    server_id: Value,
    public_ipv4: Value,
    ipv6: Value,
    state: String,
    /// The age as a text: here the original has no time.
    age: String,
    locked: &'static str,
    pool: Option<String>,
    hostname: Value,
    private_ipv4: Value,
    #[serde(rename = "AZ")]
    az: Value,
    username: Value,
    #[serde(serialize_with = "port_or_redacted")]
    connection_port: Option<u16>,
    launcher: Option<String>,
    allocated_to: Option<String>,
    hold_job: Value,
    comment: Value,
    user_data: Value,
    driver_data: Value,
    state_time: f64,
    age_seconds: Age,
}

/// Of some drivers a node's port holds all that is needed to connect, secrets too.
const REDACTED: &str = "redacted";

fn port_or_redacted<S: Serializer>(port: &Option<u16>, to: S) -> Result<S::Ok, S::Error> {
    match port {
        Some(port) => to.serialize_u16(*port),
        None => to.serialize_str(REDACTED),
    }
}

impl Row for NodeRow {
    const HEADER: &'static [&'static str] = &[
        "ID",
        "Provider",
        "Label",
        "Server ID",
        "Public IPv4",
        "IPv6",
        "State",
        "Age",
        "Locked",
        "Pool",
        "Hostname",
        "Private IPv4",
        "AZ",
        "Username",
        "Port",
        "Launcher",
        "Allocated To",
        "Hold Job",
        "Comment",
        "User Data",
        "Driver Data",
    ];

    fn cells(&self, now: f64) -> Vec<String> {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        vec![
            self.id.clone(),
            text(&self.provider),
            self.label.join(","),
            cell(&self.server_id),
            cell(&self.public_ipv4),
            cell(&self.ipv6),
            self.state.clone(),
            Age::exactly(self.state_time, now).to_string(),
            self.locked.to_owned(),
            text(&self.pool),
            cell(&self.hostname),
            cell(&self.private_ipv4),
            cell(&self.az),
            cell(&self.username),
            self.connection_port.map_or_else(|| REDACTED.to_owned(), |port| port.to_string()),
            text(&self.launcher),
            text(&self.allocated_to),
            cell(&self.hold_job),
            cell(&self.comment),
            cell(&self.user_data),
            cell(&self.driver_data),
        ]
    }
}

impl Keyed for NodeRow {
    const KEYS: &'static [&'static str] = &[
        "id",
        "provider",
        "label",
        "server_id",
        "public_ipv4",
        "ipv6",
        "state",
        "age",
        "locked",
        "pool",
        "hostname",
        "private_ipv4",
        "AZ",
        "username",
        "connection_port",
        "launcher",
        "allocated_to",
        "hold_job",
        "comment",
        "user_data",
        "driver_data",
    ];
}

impl NodeRow {
    /// Whether a list shows the column of that key also where no details are wanted.
    pub fn is_brief(key: &str) -> bool {
        Self::KEYS.iter().take_while(|known| **known != "pool").any(|known| *known == key)
    }
}

/// A node request.
#[derive(Debug, Serialize)]
pub struct RequestRow {
    id: String,
    relative_priority: i64,
    state: String,
    requestor: Option<String>,
    node_types: Vec<String>,
    nodes: Vec<String>,
    declined_by: Vec<String>,
    event_id: Option<String>,
    state_time: f64,
}

impl Row for RequestRow {
    const HEADER: &'static [&'static str] =
        &["Request ID", "Priority", "State", "Requestor", "Node Types", "Nodes", "Declined By", "Event ID"];

    fn cells(&self, _now: f64) -> Vec<String> {
        vec![
            self.id.clone(),
            self.relative_priority.to_string(),
            self.state.clone(),
            self.requestor.clone().unwrap_or_default(),
            self.node_types.join(","),
            self.nodes.join(","),
            self.declined_by.join(","),
            self.event_id.clone().unwrap_or_default(),
        ]
    }
}

impl Keyed for RequestRow {
    const KEYS: &'static [&'static str] =
        &["id", "relative_priority", "state", "requestor", "node_types", "nodes", "declined_by", "event_id"];
}

/// A label that some pool has nodes of.
#[derive(Debug, Serialize)]
pub struct LabelRow {
    label: String,
}

impl Row for LabelRow {
    const HEADER: &'static [&'static str] = &["Label"];

    fn cells(&self, _now: f64) -> Vec<String> {
        vec![self.label.clone()]
    }
}

impl Keyed for LabelRow {
    const KEYS: &'static [&'static str] = &["label"];
}

/// A value that some other program wrote, as a text.
fn cell(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(items) if items.iter().all(Value::is_string) => {
            items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(",")
        }
        other => other.to_string(),
    }
}

/// These nodes; `now` in UNIX seconds.
pub fn node_rows(nodes: Vec<ListedNode>, now: f64) -> Vec<NodeRow> {
    let row = |ListedNode { id, record, locked }: ListedNode| NodeRow {
        id,
        age: Age::exactly(record.state_time, now).to_string(),
        locked: if locked { "locked" } else { "unlocked" },
        connection_port: record.port(),
        provider: record.provider,
        label: record.labels,
        server_id: record.external_id,
        public_ipv4: record.public_ipv4,
        ipv6: record.public_ipv6,
        state: record.state.to_string(),
        pool: record.pool,
        hostname: record.hostname,
        private_ipv4: record.private_ipv4,
        az: record.az,
        username: record.username,
        launcher: record.launcher,
        allocated_to: record.allocated_to,
        hold_job: record.hold_job,
        comment: record.comment,
        user_data: record.user_data,
        driver_data: record.driver_data,
        state_time: record.state_time,
        age_seconds: Age::exactly(record.state_time, now),
    };
    nodes.into_iter().map(row).collect()
}

/// These labels.
pub fn label_rows(labels: impl IntoIterator<Item = String>) -> Vec<LabelRow> {
    labels.into_iter().map(|label| LabelRow { label }).collect()
}

/// These node requests.
pub fn request_rows(requests: Vec<NodeRequest>) -> Vec<RequestRow> {
    let row = |NodeRequest { id, record, .. }: NodeRequest| RequestRow {
        id,
        relative_priority: record.relative_priority,
        state: record.state.to_string(),
        requestor: record.requestor,
        node_types: record.node_types,
        nodes: record.nodes,
        declined_by: record.declined_by,
        event_id: record.event_id,
        state_time: record.state_time,
    };
    requests.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::listing::{json, table_of};
    use crate::model::{NodeRecord, decode};
    use serde_json::json;

    fn node(id: &str, keys: Value, locked: bool) -> ListedNode {
        let record: NodeRecord = decode(keys.to_string().as_bytes()).unwrap();
        ListedNode { id: id.to_owned(), record, locked }
    }

    #[test]
    fn nodes_are_listed_briefly_or_with_details_and_no_secret_of_their_port() {
        let nodes = vec![
            node(
                "0000000001",
                json!({"state": "ready", "state_time": 40.0, "provider": "p", "type": ["a", "b"],
                    "external_id": "i-1", "connection_port": 22, "user_data": {"k": 1}, "az": "z"}),
                true,
            ),
            node("0000000002", json!({"state": "in-use", "connection_port": {"token": "secret"}}), false),
        ];
        let rows = node_rows(nodes, 100.0);
        let expected = "\
+------------+----------+-------+-----------+-------------+------+--------+-------------+----------+
| ID         | Provider | Label | Server ID | Public IPv4 | IPv6 | State  | Age         | Locked   |
+------------+----------+-------+-----------+-------------+------+--------+-------------+----------+
| 0000000001 | p        | a,b   | i-1       |             |      | ready  | 00:00:01:00 | locked   |
| 0000000002 |          |       |           |             |      | in-use | 00:00:01:40 | unlocked |
+------------+----------+-------+-----------+-------------+------+--------+-------------+----------+
";
        assert_eq!(table_of(&rows, 100.0, NodeRow::is_brief), expected);
        let cells = rows[0].cells(100.0);
        assert_eq!(cells[9..].join("|"), r#"|||z|zuul|22|||||{"k":1}|"#);
        let text = json(&rows);
        assert!(!text.contains("secret") && text.contains(r#""connection_port":"redacted""#), "{text}");
        assert!(text.contains(r#""age":"00:00:01:00","locked":"locked""#), "{text}");
    }

    #[test]
    fn requests_are_listed_with_their_lists_joined() {
        let record = json!({"state": "pending", "requestor": "zuul", "node_types": ["a", "a"],
            "nodes": ["0000000001"], "declined_by": ["x", "y"], "relative_priority": 2});
        let record = decode(record.to_string().as_bytes()).unwrap();
        let request = NodeRequest { id: "100-0000000007".to_owned(), record, version: 0 };
        let rows = request_rows(vec![request]);
        assert_eq!(rows[0].cells(0.0).join("|"), "100-0000000007|2|pending|zuul|a,a|0000000001|x,y|");
    }
}
