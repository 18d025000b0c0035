//! Which node requests the launcher makes itself, so that there are always some ready nodes of a label. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::world::{Node, World};
use crate::config::Label;
use crate::model::{NodeState, RequestState};

/// Who asks, in such a request.
pub const REQUESTOR: &str = "NodePool:min-ready";
/// The priority in its id: after everybody else.
pub const PRIORITY: &str = "900";

/// How many requests of one node are to be made for each label. `made` are those of this launcher that the world may
/// not have yet, with their labels; `can_launch` says whether some pool could serve one now.
pub fn missing(
    world: &World,
    labels: &BTreeMap<String, Label>,
    made: &BTreeMap<String, String>,
    mut can_launch: impl FnMut(&str) -> bool,
) -> BTreeMap<String, u64> {
    let mut coming: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
    for (id, label) in made {
        coming.entry(label).or_default().insert(id);
    }
    // Those of other launchers count too. One that is fulfilled has its node, and soon gives it away.
    for request in world.requests().values() {
        let record = &request.record;
        let is_open =
            matches!(record.state, RequestState::Requested | RequestState::Pending | RequestState::Fulfilled);
        if record.requestor.as_deref() == Some(REQUESTOR) && is_open {
            for label in &record.node_types {
                coming.entry(label).or_default().insert(&request.id);
            }
        }
    }
    let mut ready: BTreeMap<&str, u64> = BTreeMap::new();
    // One whose request is no more is soon given back; the copies of nodes and requests are not of the same moment.
    let is_spare = |node: &&Node| {
        let belongs = node.allocated_to.as_ref().is_some_and(|id| world.requests().contains_key(id));
        node.state == NodeState::Ready && !belongs
    };
    for node in world.nodes().values().filter(is_spare) {
        for label in &node.labels {
            *ready.entry(label).or_default() += 1;
        }
    }
    let wanted = labels.iter().filter(|(_, label)| label.min_ready > 0).filter_map(|(name, label)| {
        let coming = coming.get(name.as_str()).map_or(0, BTreeSet::len) as u64;
        let there = ready.get(name.as_str()).copied().unwrap_or(0) + coming;
        let missing = label.min_ready.saturating_sub(there);
        (missing > 0 && can_launch(name)).then(|| (name.clone(), missing))
    });
    wanted.collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::launcher::world::testing::{node, request};

    fn labels() -> BTreeMap<String, Label> {
        [("a", 3), ("b", 0)]
            .map(|(name, min_ready)| (name.to_owned(), Label { min_ready, max_ready_age: None }))
            .into()
    }

    fn of_label_a(world: &World, made: &[(&str, &str)]) -> u64 {
        let made = made.iter().map(|(id, label)| ((*id).to_owned(), (*label).to_owned())).collect();
        let missing = missing(world, &labels(), &made, |_| true);
        assert!(!missing.contains_key("b"));
        missing.get("a").copied().unwrap_or(0)
    }

    #[test]
    fn ready_nodes_and_open_requests_count() {
        let mut world = World::default();
        assert_eq!(of_label_a(&world, &[]), 3);
        world.set_node("1", Some(node(NodeState::Ready, "a")), false);
        world.set_node("2", Some(node(NodeState::Ready, "b")), false);
        let taken = Node { allocated_to: Some("100-0000000009".into()), ..node(NodeState::Ready, "a") };
        world.set_node("3", Some(taken), false);
        assert_eq!(of_label_a(&world, &[]), 1, "its request is gone");
        let record = json!({"node_types": ["a"], "state": "fulfilled"});
        world.set_request("100-0000000009", Some(request("100-0000000009", record)));
        assert_eq!(of_label_a(&world, &[]), 2);
        let record = json!({"node_types": ["a"], "requestor": REQUESTOR, "state": "pending"});
        world.set_request("900-0000000001", Some(request("900-0000000001", record)));
        assert_eq!(of_label_a(&world, &[]), 1);
        // The same once more, as the one who has made it knows it.
        assert_eq!(of_label_a(&world, &[("900-0000000001", "a")]), 1);
        assert_eq!(of_label_a(&world, &[("900-0000000001", "a"), ("900-0000000002", "a")]), 0);
        world.set_request("100-0000000003", Some(request("100-0000000003", json!({"node_types": ["a"]}))));
        assert_eq!(of_label_a(&world, &[]), 1);
        let failed = json!({"node_types": ["a"], "requestor": REQUESTOR, "state": "failed"});
        world.set_request("900-0000000001", Some(request("900-0000000001", failed)));
        assert_eq!(of_label_a(&world, &[]), 2);
    }

    #[test]
    fn nothing_is_asked_for_that_nobody_can_launch() {
        assert!(missing(&World::default(), &labels(), &BTreeMap::new(), |_| false).is_empty());
    }
}
