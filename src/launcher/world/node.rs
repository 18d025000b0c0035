//! A node as far as decisions ask for it, which is little of its record.

use nodepool_drivers::api::Resources;
use serde_json::Value;

use crate::launcher::standing::LAUNCHER;
use crate::model::{NodeRecord, NodeState};
use crate::zk::ListedNode;

/// A node, as far as decisions ask for it.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Its state.
    pub state: NodeState,
    /// Since when it has been in that state, UNIX seconds.
    pub state_time: f64,
    /// Its provider.
    pub provider: String,
    /// Its pool.
    pub pool: String,
    /// Its labels.
    pub labels: Vec<String>,
    /// The request that it belongs to.
    pub allocated_to: Option<String>,
    /// The pool worker that launched it.
    pub launcher: Option<String>,
    /// The tenant whose limits it counts for.
    pub tenant: Option<String>,
    /// What it needs.
    pub resources: Resources,
    /// Its zone.
    pub az: Option<String>,
    /// The id of its instance, once no other one is launched for it any more.
    pub instance: Option<String>,
    /// Whether somebody has its lock.
    pub locked: bool,
    /// The version of its record.
    pub version: i32,
    /// How long it may be held, seconds.
    pub hold_expiration: Option<f64>,
}

impl Node {
    /// What decisions need of a record of this version.
    pub fn of(listed: &ListedNode, version: i32) -> Self {
        let NodeRecord { state, state_time, .. } = listed.record;
        let record = &listed.record;
        Self {
            state,
            state_time,
            provider: record.provider.clone().unwrap_or_default(),
            pool: record.pool.clone().unwrap_or_default(),
            labels: record.labels.clone(),
            allocated_to: record.allocated_to.clone(),
            launcher: record.launcher.clone(),
            // As in the original: what does not say what it needs, as machines do not, is nothing to a limit.
            tenant: record.tenant_name.clone().filter(|_| says_needs(record.get("resources"))),
            resources: resources(record.get("resources")),
            az: record.az.as_str().map(str::to_owned),
            instance: record.final_instance().map(str::to_owned),
            locked: listed.locked,
            version,
            hold_expiration: whole_number(record.get("hold_expiration")).filter(|seconds| *seconds > 0.0),
        }
    }

    /// Whether its machine stands there already.
    pub(super) fn is_standing(&self) -> bool {
        self.launcher.as_deref() == Some(LAUNCHER)
    }

    /// Whether a request may have it.
    pub(super) fn is_free(&self) -> bool {
        self.state == NodeState::Ready && self.allocated_to.is_none() && !self.locked
    }

    /// Whether it should be locked, if all is well.
    pub(super) fn is_suspect(&self) -> bool {
        match self.state {
            NodeState::Ready => self.allocated_to.is_some() && !self.locked,
            NodeState::Hold => false,
            NodeState::Init
            | NodeState::Building
            | NodeState::Testing
            | NodeState::InUse
            | NodeState::Used
            | NodeState::Deleting
            | NodeState::Failed
            | NodeState::Aborted
            | NodeState::Deleted => !self.locked,
        }
    }
}

/// What a record says that a node needs; of one that says nothing, an instance is known.
fn resources(value: &Value) -> Resources {
    match value {
        Value::Object(amounts) if says_needs(value) => {
            amounts.iter().filter_map(|(name, amount)| Some((name.as_str(), amount.as_i64()?))).collect()
        }
        _ => Resources::one_instance(),
    }
}

/// A number without its fraction, also where it stands as text, as the original reads it; `None` of anything else.
fn whole_number(value: &Value) -> Option<f64> {
    match value {
        // Not as a number with a fraction or an exponent: that is no number of seconds in the original.
        Value::String(text) => text.trim().parse::<i32>().ok().map(f64::from),
        value => value.as_f64().map(f64::trunc),
    }
}

fn says_needs(resources: &Value) -> bool {
    resources.as_object().is_some_and(|amounts| !amounts.is_empty())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_a_node_needs_is_in_its_record_or_else_an_instance() {
        assert_eq!(resources(&json!({"instances": 1, "ram": 5})).get("ram"), Some(5));
        assert_eq!(resources(&Value::Null), Resources::one_instance());
        assert_eq!(resources(&json!({})), Resources::one_instance());
    }

    /// Who held a node wrote the number as text, and the node was held for ever.
    #[test]
    fn how_long_a_node_may_be_held_may_stand_as_text() {
        for (written, expected) in [
            (json!(3600), Some(3600.0)),
            (json!("3600"), Some(3600.0)),
            (json!(" +3600\n"), Some(3600.0)),
            (json!(3600.5), Some(3600.0)),
            (json!(0.5), None),
            (json!(0), None),
            (json!("0"), None),
            (json!("-1"), None),
            (json!("3600.5"), None),
            (json!("1e3"), None),
            (json!("a week"), None),
            (json!(""), None),
            (json!(true), None),
            (Value::Null, None),
        ] {
            let mut record = NodeRecord::new(NodeState::Hold, "a");
            record.set("hold_expiration", written.clone());
            let node = Node::of(&ListedNode { id: "1".to_owned(), record, locked: false }, 0);
            assert_eq!(node.hold_expiration, expected, "{written}");
        }
    }
}
