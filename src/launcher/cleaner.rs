//! Which nodes of a provider are to be deleted, and which are to be given back. Pure; whoever carries it out asks
//! [`still`] again under the node's lock.

use std::collections::BTreeMap;

use super::world::{Node, World};
use crate::config::{Label, LauncherConfig};
use crate::model::NodeState;

/// How long a record may be without a lock after it was made, seconds: its maker is about to lock it.
const FRESH: f64 = 60.0;
/// How long the room of a node that is being deleted is waited for, seconds: as in the original.
const LONG_DELETION: f64 = 300.0;

/// Why a node is to be deleted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Why {
    /// Nobody has it any more.
    Abandoned,
    /// It has been ready for too long.
    TooOld,
    /// It has been held for too long.
    HeldTooLong,
    /// It is not needed, and its room is.
    MakeRoom,
}

impl Why {
    /// As the end of a sentence about a node in this state.
    pub fn of(self, state: NodeState) -> &'static str {
        match (self, state) {
            (Self::Abandoned, NodeState::Deleting) => "it is marked for deletion",
            (Self::Abandoned, NodeState::Used) => "it has been used",
            (Self::Abandoned, _) => "nobody has it any more",
            (Self::TooOld, _) => "it has been ready for longer than its max-ready-age",
            (Self::HeldTooLong, _) => "it has been held for long enough",
            (Self::MakeRoom, _) => "nobody needs it, and others need its room",
        }
    }
}

/// What a decision depends on besides the node.
#[derive(Clone, Copy)]
pub struct Rules<'a> {
    /// The labels and ages of the configuration.
    pub config: &'a LauncherConfig,
    /// The time, UNIX seconds.
    pub now: f64,
}

/// Why an unlocked node is to be deleted, if it is. `maker_is_gone` says whether who made its record is no more.
pub fn garbage(node: &Node, rules: &Rules<'_>, maker_is_gone: impl FnOnce() -> bool) -> Option<Why> {
    let age = rules.now - node.state_time;
    match node.state {
        // The maker of an `init` record locks it next.
        NodeState::Init => (age > FRESH || maker_is_gone()).then_some(Why::Abandoned),
        NodeState::Building
        | NodeState::InUse
        | NodeState::Used
        | NodeState::Deleting
        | NodeState::Failed
        | NodeState::Aborted
        | NodeState::Deleted => Some(Why::Abandoned),
        NodeState::Testing => None,
        NodeState::Ready => {
            let limits = node.labels.iter().filter_map(|label| max_ready_age(&rules.config.labels, label));
            let limit = limits.min_by(f64::total_cmp);
            (node.allocated_to.is_none() && limit.is_some_and(|limit| age >= limit)).then_some(Why::TooOld)
        }
        NodeState::Hold => {
            let of_config = rules.config.max_hold_age.map(|limit| limit.as_secs_f64());
            let limit = [node.hold_expiration, of_config].into_iter().flatten().min_by(f64::total_cmp);
            limit.is_some_and(|limit| age >= limit).then_some(Why::HeldTooLong)
        }
    }
}

fn max_ready_age(labels: &BTreeMap<String, Label>, label: &str) -> Option<f64> {
    labels.get(label)?.max_ready_age.map(|age| age.as_secs_f64())
}

/// Whether the reason still holds, now that the node is locked and its record read again.
pub fn still(why: Why, node: &Node, rules: &Rules<'_>) -> bool {
    match why {
        Why::MakeRoom => node.state == NodeState::Ready && node.allocated_to.is_none(),
        why => garbage(node, rules, || true) == Some(why),
    }
}

/// The node that is deleted to make room in a provider's pools `among`: the one that has been ready for the longest time.
/// None while another one is being deleted, whose room will do, unless its deletion has gone on for long. Not one that
/// is `claimed`.
pub fn oldest_unused(
    world: &World,
    (provider, among): (&str, &[&str]),
    now: f64,
    claimed: impl Fn(&str) -> bool,
) -> Option<String> {
    let in_pool = |node: &Node| node.provider == provider && among.contains(&node.pool.as_str());
    let going = |node: &Node| node.state == NodeState::Deleting && now - node.state_time < LONG_DELETION;
    if world.nodes().values().any(|node| in_pool(node) && going(node)) {
        return None;
    }
    let unused = world.ready().filter(|(id, node)| in_pool(node) && !claimed(id));
    unused.min_by(|(_, a), (_, b)| a.state_time.total_cmp(&b.state_time)).map(|(id, _)| id.to_owned())
}

/// The unlocked nodes that are allocated to a request which is no more.
pub fn orphans(world: &World) -> impl Iterator<Item = &str> {
    world
        .suspects()
        .filter(|(_, node)| node.state == NodeState::Ready)
        .filter(|(_, node)| node.allocated_to.as_ref().is_some_and(|id| !world.requests().contains_key(id)))
        .map(|(id, _)| id)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::launcher::world::testing::{node, request};

    fn config() -> LauncherConfig {
        let label = |age| Label { min_ready: 0, max_ready_age: Some(Duration::from_secs(age)) };
        LauncherConfig {
            labels: [("a".to_owned(), label(100)), ("b".to_owned(), label(50))].into(),
            max_hold_age: Some(Duration::from_secs(1000)),
            ..LauncherConfig::default()
        }
    }

    #[test]
    fn each_state_has_its_end() {
        use NodeState as S;
        let config = config();
        let abandoned = Some(Why::Abandoned);
        for (state, age, maker_is_gone, expected) in [
            (S::Init, 1.0, false, None),
            (S::Init, 61.0, false, abandoned),
            (S::Init, 1.0, true, abandoned),
            (S::Building, 1.0, false, abandoned),
            (S::InUse, 1.0, false, abandoned),
            (S::Used, 1.0, false, abandoned),
            (S::Deleting, 1.0, false, abandoned),
            (S::Failed, 1.0, false, abandoned),
            (S::Aborted, 1.0, false, abandoned),
            (S::Deleted, 1.0, false, abandoned),
            (S::Testing, 1e9, true, None),
            (S::Ready, 99.0, true, None),
            (S::Ready, 100.0, false, Some(Why::TooOld)),
            (S::Hold, 999.0, true, None),
            (S::Hold, 1000.0, false, Some(Why::HeldTooLong)),
        ] {
            let found = garbage(&node(state, "a"), &Rules { config: &config, now: age }, || maker_is_gone);
            assert_eq!(found, expected, "{state} for {age} s");
        }
    }

    #[test]
    fn the_lowest_of_several_ages_counts_and_an_allocated_node_has_none() {
        let config = config();
        let at = |now| Rules { config: &config, now };
        let both = Node { labels: vec!["a".into(), "b".into()], ..node(NodeState::Ready, "a") };
        assert_eq!(garbage(&both, &at(50.0), || false), Some(Why::TooOld));
        let taken = Node { allocated_to: Some("r".into()), ..both };
        assert_eq!(garbage(&taken, &at(1e9), || false), None);
        let held = Node { hold_expiration: Some(10.0), ..node(NodeState::Hold, "a") };
        assert_eq!(garbage(&held, &at(10.0), || false), Some(Why::HeldTooLong));
        let unlimited = LauncherConfig::default();
        let at = Rules { config: &unlimited, now: 1e9 };
        assert_eq!(garbage(&node(NodeState::Hold, "a"), &at, || true), None);
        assert_eq!(garbage(&node(NodeState::Ready, "a"), &at, || true), None);
    }

    #[test]
    fn room_is_made_by_the_oldest_unused_node_of_the_pool_one_at_a_time() {
        let mut world = World::default();
        let ready = |since| Node { state_time: since, ..node(NodeState::Ready, "a") };
        world.set_node("1", Some(ready(5.0)), false);
        world.set_node("2", Some(ready(3.0)), false);
        world.set_node("3", Some(Node { pool: "other".into(), ..ready(1.0) }), false);
        world.set_node("4", Some(Node { locked: true, ..ready(1.0) }), false);
        let oldest = |world: &World, now| oldest_unused(world, ("p", &["main"]), now, |_| false);
        assert_eq!(oldest(&world, 10.0).as_deref(), Some("2"));
        // Somebody is about to take that one.
        let found = oldest_unused(&world, ("p", &["main"]), 10.0, |id| id == "2");
        assert_eq!(found.as_deref(), Some("1"));
        let found = oldest_unused(&world, ("p", &["main", "other"]), 10.0, |_| false);
        assert_eq!(found.as_deref(), Some("3"));
        world.set_node("5", Some(Node { locked: true, ..node(NodeState::Deleting, "a") }), false);
        assert_eq!(oldest(&world, 299.0), None);
        // The provider does not get rid of that one.
        assert_eq!(oldest(&world, 300.0).as_deref(), Some("2"));
    }

    #[test]
    fn a_node_whose_request_is_gone_is_an_orphan() {
        let mut world = World::default();
        let taken = |id: &str| Node { allocated_to: Some(id.into()), ..node(NodeState::Ready, "a") };
        world.set_node("1", Some(taken("100-0000000001")), false);
        world.set_node("2", Some(taken("100-0000000002")), false);
        world.set_node("3", Some(Node { locked: true, ..taken("100-0000000002") }), false);
        world.set_request(
            "100-0000000001",
            Some(request("100-0000000001", serde_json::json!({"state": "fulfilled"}))),
        );
        assert_eq!(orphans(&world).collect::<Vec<_>>(), ["2"]);
    }
}
