//! Tables: machines and nodes in a word each, and what is to be done about them.

use std::time::Duration;

use super::*;
use crate::model::NodeRecord;

const KEY: &str = "ssh-ed25519 AAAA";

fn machine(host: &str, slots: u32) -> Machine {
    Machine {
        pool: "main".into(),
        host: host.into(),
        labels: vec!["small".into()],
        username: "zuul".into(),
        connection_type: "ssh".into(),
        connection_port: 22,
        python_path: "auto".into(),
        shell_type: None,
        host_keys: vec![],
        host_key_checking: true,
        timeout: Duration::from_secs(5),
        slots,
        attributes: None,
    }
}

fn seen() -> Seen {
    Seen { address: "192.0.2.1".parse().unwrap(), host_keys: vec![KEY.into()] }
}

/// A node of a machine, as it would be registered.
fn node(id: &str, machine: &Machine, slot: u32) -> ListedNode {
    ListedNode { id: id.into(), record: record::new("rack", machine, slot, &seen()), locked: false }
}

fn with(mut node: ListedNode, change: impl FnOnce(&mut NodeRecord)) -> ListedNode {
    change(&mut node.record);
    node
}

fn in_state(node: ListedNode, state: NodeState) -> ListedNode {
    with(node, |record| record.state = state)
}

/// The orders in words.
fn words(plan: &Plan) -> Vec<String> {
    let words = plan.orders.iter().map(|order| match order {
        Order::Deregister { node, why } => format!("deregister {node} {why:?}"),
        Order::Update { node, machine, slot, .. } => format!("update {node} {} {slot}", machine.host),
        Order::Register { machine, slot, .. } => format!("register {} {slot}", machine.host),
        Order::Look(machine) => format!("look {}", machine.host),
    });
    words.collect()
}

type Change = fn(ListedNode) -> ListedNode;

/// What is known of machine `a`.
#[derive(Clone, Copy, Debug)]
enum Known {
    Nothing,
    Looking,
    Fresh,
    Stale,
    DeadNow,
    DeadLater,
}

const LATER: Duration = Duration::from_secs(60);

fn planned(machines: &[Machine], nodes: &[ListedNode], known: Known) -> (Vec<String>, Option<Duration>) {
    let now = Instant::now();
    let alive = |fresh_until| Sight::Alive { seen: seen(), fresh_until };
    let sight = match known {
        Known::Nothing => None,
        Known::Looking => Some(Sight::Looking { failures: 0 }),
        Known::Fresh => Some(alive(now + LATER)),
        Known::Stale => Some(alive(now)),
        Known::DeadNow => Some(Sight::Dead { failures: 1, again_at: now }),
        Known::DeadLater => Some(Sight::Dead { failures: 1, again_at: now + LATER }),
    };
    let sights = sight.map(|sight| (machine("a", 1).identity(), sight)).into_iter().collect();
    let plan = plan(machines, nodes, &sights, now);
    (words(&plan), plan.again_at.map(|at| at - now))
}

#[test]
fn a_machine_is_looked_at_before_it_gets_nodes() {
    let two = [machine("a", 2)];
    let cases: [(Known, &[&str]); 6] = [
        (Known::Nothing, &["look a"]),
        (Known::Looking, &[]),
        (Known::Fresh, &["register a 0", "register a 1"]),
        (Known::Stale, &["look a"]),
        (Known::DeadNow, &["look a"]),
        (Known::DeadLater, &[]),
    ];
    for (known, expected) in cases {
        let (orders, again) = planned(&two, &[], known);
        assert_eq!(orders, expected, "{known:?}");
        assert_eq!(again, matches!(known, Known::DeadLater).then_some(LATER), "{known:?}");
    }
    assert_eq!(planned(&[machine("a", 0)], &[], Known::Nothing).0, [""; 0], "switched off");
}

#[test]
fn a_machine_that_has_its_nodes_is_looked_at_once() {
    let a = machine("a", 2);
    let nodes = [node("1", &a, 0), node("2", &a, 1)];
    for (known, expected) in [
        (Known::Nothing, &["look a"][..]),
        (Known::Fresh, &[]),
        (Known::Stale, &[]),
        (Known::DeadLater, &["deregister 1 Silent", "deregister 2 Silent"]),
        (Known::DeadNow, &["deregister 1 Silent", "deregister 2 Silent", "look a"]),
    ] {
        assert_eq!(planned(std::slice::from_ref(&a), &nodes, known).0, expected, "{known:?}");
    }
}

#[test]
fn a_place_is_free_when_no_job_can_be_there() {
    let a = machine("a", 1);
    for (state, free) in [
        (NodeState::Ready, false),
        (NodeState::InUse, false),
        (NodeState::Used, false),
        (NodeState::Hold, false),
        (NodeState::Testing, false),
        (NodeState::Deleting, true),
        (NodeState::Deleted, true),
        (NodeState::Failed, true),
        (NodeState::Aborted, true),
        (NodeState::Init, true),
        (NodeState::Building, true),
    ] {
        let nodes = [in_state(node("1", &a, 0), state)];
        let expected: &[&str] = if free { &["register a 0"] } else { &[] };
        assert_eq!(planned(std::slice::from_ref(&a), &nodes, Known::Fresh).0, expected, "{state}");
    }
}

#[test]
fn what_is_not_configured_goes_once_it_is_not_used() {
    let (a, gone) = (machine("a", 1), machine("gone", 1));
    let nodes = |change: Change| [node("1", &a, 0), change(node("2", &gone, 0))];
    let cases: [(&str, Change, &[&str]); 6] = [
        ("ready", |node| node, &["deregister 2 NotConfigured"]),
        ("in use", |node| in_state(node, NodeState::InUse), &[]),
        ("used", |node| in_state(node, NodeState::Used), &[]),
        ("being deleted", |node| in_state(node, NodeState::Deleting), &[]),
        ("locked", |node| ListedNode { locked: true, ..node }, &[]),
        ("given", |node| with(node, |record| record.allocated_to = Some("100-1".into())), &[]),
    ];
    for (what, change, expected) in cases {
        assert_eq!(planned(std::slice::from_ref(&a), &nodes(change), Known::Fresh).0, expected, "{what}");
    }
    // Another user or port is another machine.
    for change in [
        (|record: &mut NodeRecord| record.username = "other".into()) as fn(&mut NodeRecord),
        |record| record.connection_port = 2222.into(),
        |record| record.hostname = serde_json::Value::Null,
    ] {
        let nodes = [node("1", &a, 0), with(node("2", &a, 0), change)];
        let (orders, _) = planned(std::slice::from_ref(&a), &nodes, Known::Fresh);
        assert_eq!(orders, ["deregister 2 NotConfigured"]);
    }
}

#[test]
fn of_more_nodes_than_places_the_last_go() {
    let a = machine("a", 2);
    let nodes = [node("1", &a, 2), node("2", &a, 0), node("3", &a, 0), node("4", &a, 1)];
    let (orders, _) = planned(std::slice::from_ref(&a), &nodes, Known::Fresh);
    assert_eq!(orders, ["deregister 1 TooMany", "deregister 3 TooMany"]);
    let busy = [node("1", &a, 1), in_state(node("2", &a, 5), NodeState::InUse), node("3", &a, 0)];
    let (orders, _) = planned(std::slice::from_ref(&a), &busy, Known::Fresh);
    assert_eq!(orders, ["deregister 3 TooMany"], "a job is let be, and counts");
}

#[test]
fn a_machine_whose_jobs_take_all_places_has_no_free_node() {
    let a = machine("a", 1);
    let nodes = [node("1", &a, 0), in_state(node("2", &a, 3), NodeState::InUse)];
    assert_eq!(planned(std::slice::from_ref(&a), &nodes, Known::Fresh).0, ["deregister 1 TooMany"]);
}

#[test]
fn nodes_without_a_place_take_what_is_left() {
    let a = machine("a", 3);
    let without = with(node("1", &a, 0), |record| drop(record.other.remove("slot")));
    let nodes = [without, node("2", &a, 0)];
    let (orders, _) = planned(std::slice::from_ref(&a), &nodes, Known::Fresh);
    assert_eq!(orders, ["update 1 a 1", "register a 2"]);
}

#[test]
fn a_ready_node_is_updated_when_anything_has_changed() {
    let a = machine("a", 1);
    let nodes = [node("1", &a, 0)];
    let changes: [fn(&mut Machine); 6] = [
        |machine| machine.labels = vec!["large".into(), "small".into()],
        |machine| machine.pool = "other".into(),
        |machine| machine.connection_type = "network_cli".into(),
        |machine| machine.python_path = "/usr/bin/python3".into(),
        |machine| machine.shell_type = Some("cmd".into()),
        |machine| {
            let attributes = vec![("rack".to_owned(), nodepool_drivers::api::Value::Int(7))];
            machine.attributes = Some(nodepool_drivers::api::Value::Map(attributes));
        },
    ];
    for change in changes {
        let mut changed = a.clone();
        change(&mut changed);
        let changed = [changed];
        assert_eq!(planned(&changed, &nodes, Known::Fresh).0, ["update 1 a 0"], "{changed:?}");
        assert_eq!(planned(&changed, &nodes, Known::Stale).0, ["look a"], "{changed:?}");
        for state in [NodeState::InUse, NodeState::Used, NodeState::Hold] {
            let busy = [in_state(node("1", &a, 0), state)];
            assert_eq!(planned(&changed, &busy, Known::Fresh).0, [""; 0], "{state} {changed:?}");
        }
    }
    let other_keys = [with(node("1", &a, 0), |record| {
        drop(record.other.insert("host_keys".into(), vec!["ssh-rsa AAAA"].into()))
    })];
    assert_eq!(planned(std::slice::from_ref(&a), &other_keys, Known::Fresh).0, ["update 1 a 0"]);
}

#[test]
fn machines_do_not_wait_for_each_other() {
    let machines = [machine("a", 1), machine("b", 1)];
    let nodes = [node("1", &machines[1], 0)];
    assert_eq!(planned(&machines, &nodes, Known::DeadNow).0, ["look b", "look a"]);
}

/// More dead machines than there may be looks at a time, early in the file, kept all others from being looked at.
#[test]
fn machines_that_did_not_answer_are_looked_at_after_all_others_and_in_their_turn() {
    let now = Instant::now();
    let dead = |due| Some(Sight::Dead { failures: 9, again_at: now - Duration::from_secs(due) });
    let stale = Some(Sight::Alive { seen: seen(), fresh_until: now });
    let fresh = Some(Sight::Alive { seen: seen(), fresh_until: now + LATER });
    let cases: [(Vec<Option<Sight>>, &[&str]); 4] = [
        (vec![dead(1), dead(3), None, dead(2)], &["look 2", "look 1", "look 3", "look 0"]),
        (vec![dead(1), stale.clone(), None], &["look 1", "look 2", "look 0"]),
        (vec![None, stale, dead(0)], &["look 0", "look 1", "look 2"]),
        (vec![None, dead(1), fresh], &["register 2 0", "look 0", "look 1"]),
    ];
    for (known, expected) in cases {
        let machines: Vec<_> = (0..known.len()).map(|host| machine(&host.to_string(), 1)).collect();
        let sights = machines
            .iter()
            .zip(&known)
            .filter_map(|(machine, sight)| sight.clone().map(|sight| (machine.identity(), sight)));
        assert_eq!(words(&plan(&machines, &[], &sights.collect(), now)), expected, "{known:?}");
    }
}

mod converging {
    use proptest::prelude::*;
    use proptest::test_runner::RngSeed;

    use super::*;

    const HOSTS: [&str; 4] = ["a", "b", "c", "gone"];
    const STATES: [NodeState; 6] = [
        NodeState::Ready,
        NodeState::Ready,
        NodeState::InUse,
        NodeState::Used,
        NodeState::Deleting,
        NodeState::Failed,
    ];

    prop_compose! {
        fn any_machines()(slots in proptest::collection::vec(0u32..4, 3), large in any::<bool>()) -> Vec<Machine> {
            let machines = HOSTS.iter().zip(slots).map(|(host, slots)| machine(host, slots));
            machines.map(|machine| Machine {
                labels: vec![if large { "large".into() } else { "small".into() }],
                ..machine
            }).collect()
        }
    }

    prop_compose! {
        fn any_node()(
            host in 0..HOSTS.len(), slot in 0u32..5, placed in any::<bool>(), state in 0..STATES.len(),
            locked in proptest::bool::weighted(0.2), given in proptest::bool::weighted(0.2),
        ) -> ListedNode {
            let mut node = node("", &machine(HOSTS[host], 1), slot);
            node.record.state = STATES[state];
            node.record.allocated_to = given.then(|| "100-1".to_owned());
            node.locked = locked;
            if !placed {
                node.record.other.remove("slot");
            }
            node
        }
    }

    /// Does what is ordered; returns whether there was anything.
    fn carry_out(machines: &[Machine], nodes: &mut Vec<ListedNode>, sights: &Sights) -> bool {
        let plan = plan(machines, nodes, sights, Instant::now());
        for order in &plan.orders {
            let configured =
                |id: &MachineId| machines.iter().find(|machine| machine.identity() == *id).unwrap();
            let of = |nodes: &mut Vec<ListedNode>, id: &str| {
                let at = nodes.iter().position(|node| node.id == id).unwrap();
                assert!(is_free(&nodes[at]), "{order:?}");
                at
            };
            match order {
                Order::Look(_) => panic!("they have been looked at"),
                Order::Deregister { node, .. } => {
                    let at = of(nodes, node);
                    nodes[at].record.state = NodeState::Deleting;
                }
                Order::Update { node, machine, slot, seen } => {
                    let at = of(nodes, node);
                    record::describe(&mut nodes[at].record, configured(machine), *slot, seen);
                }
                Order::Register { machine, slot, .. } => {
                    let id = format!("{:03}", nodes.len());
                    nodes.push(node(&id, configured(machine), *slot));
                }
            }
        }
        !plan.orders.is_empty()
    }

    proptest! {
        // The same cases each time.
        #![proptest_config(ProptestConfig {
            cases: 600,
            rng_seed: RngSeed::Fixed(1),
            failure_persistence: None,
            ..ProptestConfig::default()
        })]

        #[test]
        fn one_plan_is_enough(machines in any_machines(), nodes in proptest::collection::vec(any_node(), 0..10)) {
            let mut nodes = nodes;
            for (index, node) in nodes.iter_mut().enumerate() {
                node.id = format!("{index:03}");
            }
            let alive = Sight::Alive { seen: seen(), fresh_until: Instant::now() + LATER };
            let sights: Sights =
                machines.iter().map(|machine| (machine.identity(), alive.clone())).collect();
            carry_out(&machines, &mut nodes, &sights);
            prop_assert!(!carry_out(&machines, &mut nodes, &sights), "{:#?}", nodes);

            for machine in &machines {
                let own = nodes.iter().filter(|node| {
                    occupies(node.record.state) && record::identity(&node.record) == Some(machine.identity())
                });
                let (free, kept): (Vec<_>, Vec<_>) = own.partition(|node| is_free(node));
                // What is used may be more than there should be; nothing is added to it then.
                let expected = (machine.slots as usize).max(kept.len());
                prop_assert_eq!(free.len() + kept.len(), expected, "{:#?}", nodes);
                prop_assert!(free.iter().all(|node| node.record.labels == machine.labels));
            }
        }
    }
}
