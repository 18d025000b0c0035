//! The JSON object of a node request (spec/zookeeper.md, Nodes and requests), and the order in which
//! requests are served.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use uuid::Uuid;

use super::records::display_as_in_json;
use super::time::now;

/// The state of a node request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RequestState {
    /// Some pool shall take it.
    Requested,
    /// A pool has taken it, if somebody holds its lock.
    Pending,
    /// Its nodes are ready.
    Fulfilled,
    /// No pool can serve it.
    Failed,
}

display_as_in_json!(RequestState {
    Requested => "requested", Pending => "pending", Fulfilled => "fulfilled", Failed => "failed"
});

/// A NodeRequest record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RequestRecord {
    /// The request's state.
    pub state: RequestState,
    /// Since when it has been in that state, UNIX seconds.
    #[serde(default)]
    pub state_time: f64,
    /// The ids of the pools that do not serve it.
    #[serde(default)]
    pub declined_by: Vec<String>,
    /// The labels of the nodes that are wanted, in their order.
    #[serde(default)]
    pub node_types: Vec<String>,
    /// The ids of its nodes, in the order of `node_types`.
    #[serde(default)]
    pub nodes: Vec<String>,
    /// Whether nodes that are ready already may be taken.
    #[serde(default = "yes")]
    pub reuse: bool,
    /// Who asks.
    #[serde(default)]
    pub requestor: Option<String>,
    /// What the requestor keeps there.
    #[serde(default)]
    pub requestor_data: Value,
    /// The provider that shall serve it, if it can.
    #[serde(default)]
    pub provider: Option<String>,
    /// Among requests of the same priority the lower number goes first.
    #[serde(default)]
    pub relative_priority: i64,
    /// The requestor's id of what it is for.
    #[serde(default)]
    pub event_id: Option<String>,
    /// When the requestor made it, UNIX seconds.
    #[serde(default)]
    pub created_time: Option<f64>,
    /// The tenant that it is for.
    #[serde(default)]
    pub tenant_name: Option<String>,
    /// Keys of other versions.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

fn yes() -> bool {
    true
}

impl RequestRecord {
    /// What may be shown to everybody (`getSafeAttributes` of the original), but for its id and labels.
    pub fn safe_attributes(&self) -> BTreeMap<String, Value> {
        let text = |text: &Option<String>| text.as_deref().map_or(Value::Null, Value::from);
        let attributes = [
            ("requestor", text(&self.requestor)),
            ("requestor_data", self.requestor_data.clone()),
            ("relative_priority", Value::from(self.relative_priority)),
            ("event_id", text(&self.event_id)),
            ("created_time", self.created_time.map_or(Value::Null, Value::from)),
            ("tenant_name", text(&self.tenant_name)),
        ];
        attributes.map(|(name, value)| (name.to_owned(), value)).into()
    }

    /// A new request of one node.
    pub fn new(requestor: &str, label: &str) -> Self {
        Self {
            state: RequestState::Requested,
            state_time: now(),
            declined_by: Vec::new(),
            node_types: vec![label.to_owned()],
            nodes: Vec::new(),
            reuse: true,
            requestor: Some(requestor.to_owned()),
            requestor_data: Value::Null,
            provider: None,
            relative_priority: 0,
            // As in the original, where no event is what it is for: log lines tell requests apart by it.
            event_id: Some(Uuid::new_v4().simple().to_string()),
            created_time: Some(now()),
            tenant_name: None,
            other: Map::new(),
        }
    }

    /// Changes the state, and with it the time of the change.
    pub fn set_state(&mut self, state: RequestState) {
        self.state = state;
        self.state_time = now();
    }
}

/// A node request with its id.
#[derive(Debug, Clone, PartialEq)]
pub struct NodeRequest {
    /// `<priority>-<10 digits>`.
    pub id: String,
    /// Its record.
    pub record: RequestRecord,
    /// How often the record was changed.
    pub version: i32,
}

impl NodeRequest {
    /// What requests are served in the order of: the priority in the id as text, the relative priority, the
    /// sequence in the id.
    pub fn rank(&self) -> (&str, i64, &str) {
        let (priority, sequence) = self.id.split_once('-').unwrap_or((&self.id, ""));
        (priority, self.record.relative_priority, sequence)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{decode, encode};
    use serde_json::json;

    fn request(id: &str, relative_priority: i64) -> NodeRequest {
        let data = json!({"state": "requested", "relative_priority": relative_priority});
        let record = decode(data.to_string().as_bytes()).unwrap();
        NodeRequest { id: id.to_owned(), record, version: 0 }
    }

    #[test]
    fn a_request_record_survives_with_the_keys_that_we_do_not_know() {
        let data = json!({
            "state": "pending", "state_time": 1.5, "declined_by": ["a"], "node_types": ["x", "x"],
            "nodes": [], "reuse": false, "requestor": "zuul", "requestor_data": {"build_set": 1},
            "provider": null, "relative_priority": 3, "event_id": "e", "created_time": 1.25,
            "tenant_name": "t", "new": [1],
        });
        let mut record: RequestRecord = decode(data.to_string().as_bytes()).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&encode(&record)).unwrap(), data);
        record.set_state(RequestState::Fulfilled);
        assert_eq!(record.state.to_string(), "fulfilled");
    }

    #[test]
    fn a_request_may_reuse_nodes_unless_it_says_otherwise() {
        assert!(request("100-0000000000", 0).record.reuse);
    }

    #[test]
    fn each_new_request_has_an_event_of_its_own() {
        let event = || RequestRecord::new("NodePool:min-ready", "a").event_id.unwrap();
        let (one, other) = (event(), event());
        assert_ne!(one, other);
        let id = Uuid::parse_str(&one).unwrap();
        assert_eq!((id.get_version_num(), id.get_variant()), (4, uuid::Variant::RFC4122));
        assert_eq!(one, id.simple().to_string(), "32 lower-case digits");
    }

    #[test]
    fn requests_are_served_by_priority_then_relative_priority_then_age() {
        let mut requests = [
            request("200-0000000001", 0),
            request("100-0000000004", 1),
            request("100-0000000003", 2),
            request("100-0000000002", 1),
            request("900-0000000000", -5),
        ];
        requests.sort_by(|a, b| a.rank().cmp(&b.rank()));
        let ids: Vec<_> = requests.iter().map(|request| request.id.as_str()).collect();
        let expected =
            ["100-0000000002", "100-0000000004", "100-0000000003", "200-0000000001", "900-0000000000"];
        assert_eq!(ids, expected);
    }
}
