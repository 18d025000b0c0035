//! What the machines of a pool have to give away. Their nodes are not made on demand: a request gets ready ones or
//! waits, and what one label is short of is nothing to the requests for another. Pure.

use nodepool_drivers::api::Machine;

use super::ledger::Ledger;
use super::standing::Away;
use super::world::World;
use crate::model::NodeState;

/// The free nodes of a pool of machines, and the machines behind them.
pub struct Offer<'a> {
    /// With the labels that each can be asked for by, the oldest first.
    free: Vec<(String, Vec<String>)>,
    machines: Vec<Place<'a>>,
}

/// A machine.
struct Place<'a> {
    labels: &'a [String],
    /// How many nodes it has when nobody uses any.
    slots: u32,
    /// Whether it could not be used when it was last looked at.
    is_away: bool,
}

impl<'a> Offer<'a> {
    /// What a pool has to give away now; `machines` are all of its provider, and those that are `away` cannot be used.
    pub fn of(
        world: &World,
        ledger: &Ledger,
        (provider, pool): (&str, &str),
        machines: &'a [Machine],
        away: &Away,
    ) -> Self {
        let free = ledger.free(world, (provider, pool));
        let place = |machine: &'a Machine| Place {
            labels: &machine.labels,
            slots: machine.slots,
            is_away: away.contains_key(&machine.identity()),
        };
        let machines = machines.iter().filter(|machine| machine.pool == pool);
        Self {
            free: free.map(|(id, node)| (id.to_owned(), node.labels.clone())).collect(),
            machines: machines.map(place).collect(),
        }
    }

    /// A node for each of the labels, in their order. `None` if there are not enough.
    pub fn choose(&self, wanted: &[String]) -> Option<Vec<String>> {
        let nodes = self.pair(wanted).into_iter().map(|at| Some(self.free.get(at?)?.0.clone()));
        nodes.collect()
    }

    /// Whether there would be enough if all machines answered and nobody used any.
    pub fn could(&self, wanted: &[String]) -> bool {
        let nodes = nodes_for(wanted, self.machines.iter().map(|place| (place.labels, place.slots)));
        pair(wanted, &nodes).iter().all(Option::is_some)
    }

    /// These nodes are given away.
    pub fn give(&mut self, nodes: &[String]) {
        self.free.retain(|(id, _)| !nodes.contains(id));
    }

    /// Keeps what there is of the labels that a request is short of for it, so that it does not wait for ever behind
    /// those that want less. Not where it would wait for machines that are away or held.
    pub fn set_aside(&mut self, wanted: &[String], world: &World, provider: &str, pool: &str) {
        let chosen = self.pair(wanted);
        let short: Vec<&String> =
            wanted.iter().zip(&chosen).filter(|(_, at)| at.is_none()).map(|(label, _)| label).collect();
        let is_short = |labels: &[String]| short.iter().any(|label| labels.contains(label));
        if !self.free.iter().any(|(_, labels)| is_short(labels)) {
            return;
        }
        let mut there: Vec<(&[String], u32)> = self
            .machines
            .iter()
            .filter(|place| !place.is_away)
            .map(|place| (place.labels, place.slots))
            .collect();
        let in_pool = world.nodes().values().filter(|node| node.provider == provider && node.pool == pool);
        for held in in_pool.filter(|node| matches!(node.state, NodeState::Hold | NodeState::Testing)) {
            let place = there.iter_mut().find(|(labels, slots)| *slots > 0 && *labels == held.labels);
            if let Some((_, slots)) = place {
                *slots -= 1;
            }
        }
        let there = nodes_for(wanted, there.into_iter());
        if pair(wanted, &there).iter().all(Option::is_some) {
            self.free.retain(|(_, labels)| !is_short(labels));
        }
    }

    fn pair(&self, wanted: &[String]) -> Vec<Option<usize>> {
        let free: Vec<&[String]> = self.free.iter().map(|(_, labels)| labels.as_slice()).collect();
        pair(wanted, &free)
    }
}

/// The labels of the nodes that machines have with so many slots, no more of them than are wanted.
fn nodes_for<'a>(
    wanted: &[String],
    machines: impl Iterator<Item = (&'a [String], u32)>,
) -> Vec<&'a [String]> {
    machines
        .filter(|(labels, _)| wanted.iter().any(|label| labels.contains(label)))
        .flat_map(|(labels, slots)| (0..wanted.len().min(slots as usize)).map(move |_| labels))
        .collect()
}

/// Finds for as many of the wanted labels as possible a node of their own, the first that will do. A node with several
/// labels goes to the one that no other node is there for: by augmenting paths.
fn pair(wanted: &[String], nodes: &[&[String]]) -> Vec<Option<usize>> {
    let mut owners: Vec<Option<usize>> = vec![None; nodes.len()];
    for place in 0..wanted.len() {
        let mut seen = vec![false; nodes.len()];
        let _ = augment(place, wanted, nodes, &mut owners, &mut seen);
    }
    let mut chosen = vec![None; wanted.len()];
    for (at, owner) in owners.iter().enumerate() {
        if let Some(place) = owner.and_then(|owner| chosen.get_mut(owner)) {
            *place = Some(at);
        }
    }
    chosen
}

/// Finds a node for one of the wanted, if need be by having others take another one. As deep as there are wanted ones.
fn augment(
    place: usize,
    wanted: &[String],
    nodes: &[&[String]],
    owners: &mut [Option<usize>],
    seen: &mut [bool],
) -> bool {
    let Some(label) = wanted.get(place) else { return false };
    let would_do: Vec<usize> = (0..nodes.len()).filter(|at| nodes[*at].contains(label)).collect();
    if let Some(at) = would_do.iter().find(|at| owners[**at].is_none()) {
        owners[*at] = Some(place);
        return true;
    }
    for at in would_do {
        if std::mem::replace(&mut seen[at], true) {
            continue;
        }
        if owners[at].is_some_and(|owner| augment(owner, wanted, nodes, owners, seen)) {
            owners[at] = Some(place);
            return true;
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launcher::world::Node;
    use crate::launcher::world::testing::node;

    fn words(text: &str) -> Vec<String> {
        text.split_whitespace().map(str::to_owned).collect()
    }

    /// Nodes by id, each with its labels.
    fn world(nodes: &[(&str, &str, NodeState)]) -> World {
        let mut world = World::default();
        for (id, labels, state) in nodes {
            let node = Node { labels: words(labels), ..node(*state, "") };
            world.set_node(id, Some(node), false);
        }
        world
    }

    fn free(nodes: &[(&str, &str)]) -> Offer<'static> {
        let free = nodes.iter().map(|(id, labels)| ((*id).to_owned(), words(labels)));
        Offer { free: free.collect(), machines: Vec::new() }
    }

    #[test]
    fn a_request_gets_a_node_for_each_label_or_nothing() {
        let nodes = [("1", "a b"), ("2", "a"), ("3", "c")];
        for (wanted, expected) in [
            ("a", Some("1")),
            ("b", Some("1")),
            ("a b", Some("2 1")),
            ("b a", Some("1 2")),
            ("c a b", Some("3 2 1")),
            ("a a", Some("1 2")),
            ("a a b", None),
            ("b b", None),
            ("d", None),
            ("", Some("")),
        ] {
            assert_eq!(free(&nodes).choose(&words(wanted)), expected.map(words), "{wanted}");
        }
    }

    #[test]
    fn what_machines_could_give_is_what_they_have_places_for() {
        let (ab, c, none) = (words("a b"), words("c"), words("d"));
        let machines = [(&ab, 2), (&c, 10_000), (&none, 0)];
        let machines =
            machines.map(|(labels, slots)| Place { labels: labels.as_slice(), slots, is_away: true }).into();
        let offer = Offer { free: Vec::new(), machines };
        for (wanted, expected) in
            [("a b", true), ("a a", true), ("a a b", false), ("c c c c", true), ("d", false), ("x", false)]
        {
            assert_eq!(offer.could(&words(wanted)), expected, "{wanted}");
        }
    }

    #[test]
    fn only_free_nodes_of_the_pool_are_offered_and_each_once() {
        let mut world = world(&[("1", "a", NodeState::Ready), ("2", "a", NodeState::InUse)]);
        let ready = || Node { labels: words("a"), ..node(NodeState::Ready, "") };
        world.set_node("3", Some(Node { pool: "other".into(), ..ready() }), false);
        world.set_node("4", Some(Node { provider: "q".into(), ..ready() }), false);
        world.set_node("5", Some(Node { locked: true, ..ready() }), false);
        world.set_node("6", Some(ready()), false);
        let mut ledger = Ledger::default();
        ledger.claim("6", None);
        let mut offer = Offer::of(&world, &ledger, ("p", "main"), &[], &Away::new());
        assert_eq!(offer.choose(&words("a")), Some(words("1")));
        offer.give(&words("1"));
        assert_eq!(offer.choose(&words("a")), None);
    }

    #[test]
    fn who_waits_for_more_of_a_label_goes_before_those_who_want_less_of_it() {
        use NodeState::{Hold, InUse, Ready};
        let (a, b, ab) = (words("a"), words("b"), words("a b"));
        let place = |labels| Place { labels, slots: 1, is_away: false };
        let away = |labels| Place { is_away: true, ..place(labels) };
        for (nodes, machines, waits, then, expected) in [
            // There is one, and there will be two.
            (&[("1", "a", Ready), ("2", "a", InUse)][..], vec![place(&a), place(&a)], "a a", "a", None),
            // The next node of the other machine is not there yet.
            (&[("1", "a", Ready)], vec![place(&a), place(&a)], "a a", "a", None),
            (&[("1", "a", Ready)], vec![Place { slots: 2, ..place(&a) }], "a a", "a", None),
            // There will be no second one.
            (&[("1", "a", Ready)], vec![place(&a)], "a a", "a", Some("1")),
            (&[("1", "a", Ready)], vec![place(&a), away(&a)], "a a", "a", Some("1")),
            (&[("1", "a", Ready), ("2", "a", Hold)], vec![place(&a), place(&a)], "a a", "a", Some("1")),
            // It is short of another label.
            (&[("1", "a", Ready), ("2", "b", InUse)], vec![place(&a), place(&b)], "a b", "a", Some("1")),
            (&[("1", "a b", Ready), ("2", "a", InUse)], vec![place(&ab), place(&a)], "a b", "a", None),
        ] {
            let world = world(nodes);
            let shown = format!("{nodes:?} of {} machines, {waits}", machines.len());
            let free = Offer::of(&world, &Ledger::default(), ("p", "main"), &[], &Away::new()).free;
            let mut offer = Offer { free, machines };
            offer.set_aside(&words(waits), &world, "p", "main");
            assert_eq!(offer.choose(&words(then)), expected.map(words), "{shown}");
        }
    }
}
