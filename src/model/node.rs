//! The JSON object of a node (spec/zookeeper.md, Nodes and requests).
//!
//! Typed is what decides something here or elsewhere. What drivers, jobs and people put into a node and only
//! they understand is any JSON value: a node must not be lost to us because one of them has a new form.

use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};

use super::records::display_as_in_json;
use super::time::now;

/// The state of a node.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum NodeState {
    /// Its record is new.
    Init,
    /// The provider launches it.
    Building,
    /// It is being checked.
    Testing,
    /// It can be given to a request.
    Ready,
    /// A job runs on it.
    InUse,
    /// Its job has ended.
    Used,
    /// It is kept for somebody to look at.
    Hold,
    /// To be deleted: at the provider first, then the record.
    Deleting,
    /// It could not be launched.
    Failed,
    /// Its launch was given up.
    Aborted,
    /// It is gone, and its record goes at once.
    Deleted,
}

display_as_in_json!(NodeState {
    Init => "init", Building => "building", Testing => "testing", Ready => "ready", InUse => "in-use",
    Used => "used", Hold => "hold", Deleting => "deleting", Failed => "failed", Aborted => "aborted",
    Deleted => "deleted"
});

/// A Node record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct NodeRecord {
    /// The node's state.
    pub state: NodeState,
    /// Since when it has been in that state, UNIX seconds.
    #[serde(default)]
    pub state_time: f64,
    /// The provider that it runs at.
    #[serde(default)]
    pub provider: Option<String>,
    /// The provider's pool that it runs in.
    #[serde(default)]
    pub pool: Option<String>,
    /// The labels that it may be asked for by; the first is the one that it was launched as.
    #[serde(default, rename = "type", deserialize_with = "one_or_many")]
    pub labels: Vec<String>,
    /// The node request that it belongs to.
    #[serde(default)]
    pub allocated_to: Option<String>,
    /// The pool worker that launched it.
    #[serde(default)]
    pub launcher: Option<String>,
    /// When its record was made, UNIX seconds.
    #[serde(default)]
    pub created_time: Option<f64>,
    /// The tenant whose request it was launched for.
    #[serde(default)]
    pub tenant_name: Option<String>,
    /// The provider's id of it, in whatever form the driver has it.
    #[serde(default)]
    pub external_id: Value,
    /// The port of its connection; of some drivers, all that is needed to connect, secrets too.
    #[serde(default)]
    pub connection_port: Value,
    /// Its host name.
    #[serde(default)]
    pub hostname: Value,
    /// Its public IPv4 address.
    #[serde(default)]
    pub public_ipv4: Value,
    /// Its private IPv4 address.
    #[serde(default)]
    pub private_ipv4: Value,
    /// Its public IPv6 address.
    #[serde(default)]
    pub public_ipv6: Value,
    /// Its availability zone.
    #[serde(default)]
    pub az: Value,
    /// The user that it is reached as; `zuul` where an old record does not say.
    #[serde(default = "zuul")]
    pub username: Value,
    /// The job that it is held for.
    #[serde(default)]
    pub hold_job: Value,
    /// What somebody has to say about it.
    #[serde(default)]
    pub comment: Value,
    /// What the requestor keeps there.
    #[serde(default)]
    pub user_data: Value,
    /// What the driver keeps there.
    #[serde(default)]
    pub driver_data: Value,
    /// All the rest.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// What a new record has at a key. Zuul goes through the host keys, and through the properties, without looking whether
/// there are any.
fn unsaid(key: &str) -> Value {
    match key {
        "host_keys" => Value::Array(Vec::new()),
        "node_properties" => Value::Object(Map::new()),
        "ssh_port" => Value::from(22),
        _ => Value::Null,
    }
}

/// The keys of a node that only drivers, jobs and people understand: all of them stand in each record.
const OTHER_KEYS: [&str; 16] = [
    "cloud",
    "region",
    "host_id",
    "interface_ip",
    "ssh_port",
    "image_id",
    "host_keys",
    "connection_type",
    "shell_type",
    "hold_expiration",
    "resources",
    "slot",
    "attributes",
    "python_path",
    "requestor",
    "node_properties",
];

impl NodeRecord {
    /// A new node with this label.
    pub fn new(state: NodeState, label: &str) -> Self {
        Self {
            state,
            state_time: now(),
            provider: None,
            pool: None,
            labels: vec![label.to_owned()],
            allocated_to: None,
            launcher: None,
            created_time: Some(now()),
            tenant_name: None,
            external_id: Value::Null,
            connection_port: Value::from(22),
            hostname: Value::Null,
            public_ipv4: Value::Null,
            private_ipv4: Value::Null,
            public_ipv6: Value::Null,
            az: Value::Null,
            username: zuul(),
            hold_job: Value::Null,
            comment: Value::Null,
            user_data: Value::Null,
            driver_data: Value::Null,
            other: OTHER_KEYS.map(|key| (key.to_owned(), unsaid(key))).into_iter().collect(),
        }
    }

    /// Any other key of the record.
    pub fn get(&self, key: &str) -> &Value {
        self.other.get(key).unwrap_or(&Value::Null)
    }

    /// Sets any other key of the record.
    pub fn set(&mut self, key: &str, value: impl Into<Value>) {
        self.other.insert(key.to_owned(), value.into());
    }

    /// The provider's id of it, if it has one that is a word.
    pub fn external_id(&self) -> Option<&str> {
        self.external_id.as_str()
    }

    /// The same, once no other instance is launched for it any more.
    pub fn final_instance(&self) -> Option<&str> {
        self.external_id().filter(|_| !matches!(self.state, NodeState::Init | NodeState::Building))
    }

    /// Whether it waits for somebody to ask for it.
    pub fn is_free(&self) -> bool {
        self.state == NodeState::Ready && self.allocated_to.is_none()
    }

    /// Changes the state, and with it the time of the change.
    pub fn set_state(&mut self, state: NodeState) {
        self.state = state;
        self.state_time = now();
    }

    /// The port of its connection. `None` where the record has something else there, which may be secret.
    pub fn port(&self) -> Option<u16> {
        let port = match &self.connection_port {
            // Older programs wrote it under this key only.
            Value::Null => self.other.get("ssh_port").unwrap_or(&Value::Null),
            port => port,
        };
        match port {
            Value::Null => Some(22),
            Value::Number(number) => number.as_u64().and_then(|port| u16::try_from(port).ok()),
            Value::String(text) => text.trim().parse().ok(),
            Value::Bool(_) | Value::Array(_) | Value::Object(_) => None,
        }
    }
}

fn zuul() -> Value {
    Value::from("zuul")
}

/// Old records have a label alone where newer ones have a list.
fn one_or_many<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Labels {
        Many(Vec<String>),
        One(Option<String>),
    }
    Ok(match Labels::deserialize(from)? {
        Labels::Many(labels) => labels,
        Labels::One(label) => label.into_iter().collect(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{decode, encode};
    use serde_json::json;

    fn read(data: &Value) -> NodeRecord {
        decode(data.to_string().as_bytes()).unwrap()
    }

    #[test]
    fn a_node_record_survives_with_the_keys_that_we_do_not_know() {
        let data = json!({
            "state": "in-use", "state_time": 1.5, "provider": "p", "pool": "main", "type": ["label"],
            "allocated_to": "100-0000000001", "launcher": "l", "created_time": 1.25, "tenant_name": "t",
            "external_id": {"id": "i-1"}, "connection_port": 22, "hostname": null, "public_ipv4": "192.0.2.1",
            "private_ipv4": null, "public_ipv6": null, "az": null, "username": "zuul", "hold_job": null,
            "comment": null, "user_data": ["any", 1], "driver_data": null, "host_keys": ["a"], "new": {"a": 1},
        });
        let mut record = read(&data);
        assert_eq!(record.state, NodeState::InUse);
        assert_eq!(serde_json::from_slice::<Value>(&encode(&record)).unwrap(), data);
        record.set_state(NodeState::Deleted);
        assert!(record.state_time > 1_000_000_000.0);
        assert_eq!(record.state.to_string(), "deleted");
    }

    #[test]
    fn labels_are_a_list_in_new_records_and_a_word_in_old_ones() {
        for (labels, expected) in [
            (json!(["a", "b"]), vec!["a", "b"]),
            (json!("a"), vec!["a"]),
            (json!([]), vec![]),
            (json!(null), vec![]),
        ] {
            assert_eq!(read(&json!({"state": "ready", "type": labels})).labels, expected);
        }
        assert!(read(&json!({"state": "ready"})).labels.is_empty());
    }

    #[test]
    fn a_port_is_a_number_and_anything_else_may_be_secret() {
        for (keys, expected) in [
            (json!({}), Some(22)),
            (json!({"ssh_port": 2222}), Some(2222)),
            (json!({"connection_port": 22022, "ssh_port": 1}), Some(22022)),
            (json!({"connection_port": "5986"}), Some(5986)),
            (json!({"connection_port": 70000}), None),
            (json!({"connection_port": {"token": "secret"}}), None),
            (json!({"connection_port": "secret"}), None),
        ] {
            let mut data = keys.clone();
            data["state"] = json!("ready");
            assert_eq!(read(&data).port(), expected, "{keys}");
        }
    }
}
