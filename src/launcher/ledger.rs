//! What has been decided and is not in the copy of the tree yet: the room that launches take, and the nodes that
//! somebody is about to take. Together with the world it says how much room there is.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use nodepool_drivers::api::Resources;

use super::world::{Node, World};

/// How long the copy of the tree may take to have what was written, in the worst case.
pub(super) const LAG: Duration = Duration::from_secs(5);

/// The number of a reservation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Ticket(u64);

/// Why a node cannot be launched now.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Shortage {
    /// The provider has not enough of this left.
    Provider(String),
    /// The pool has not.
    Pool(String),
}

/// A node that is to be launched.
#[derive(Debug, Clone)]
pub struct Wanted<'a> {
    /// At which provider.
    pub provider: &'a str,
    /// In which pool.
    pub pool: &'a str,
    /// For whom.
    pub tenant: Option<&'a str>,
    /// What it needs.
    pub needs: &'a Resources,
}

/// What nodes may need at most.
#[derive(Debug, Clone, Copy)]
pub struct Limits<'a> {
    /// All of the provider's; `None` where nobody cares.
    pub provider: Option<&'a Resources>,
    /// Those of the pool.
    pub pool: &'a Resources,
}

struct Reservation {
    provider: String,
    pool: String,
    tenant: Option<String>,
    needs: Resources,
    node: Option<String>,
    ended: Option<Instant>,
}

/// A ready node that somebody is about to take, or has been.
struct Claimed {
    tenant: Option<String>,
    over: Option<Over>,
}

/// When a claim was over, and the version from which on the node's record is what has come of it.
struct Over {
    at: Instant,
    version: i32,
}

/// What the nodes need that a request is still to get.
struct Promise {
    tenant: String,
    needs: Resources,
}

/// The reservations of a launcher.
#[derive(Default)]
pub struct Ledger {
    next: u64,
    reservations: BTreeMap<Ticket, Reservation>,
    claimed: BTreeMap<String, Claimed>,
    promises: BTreeMap<String, Promise>,
}

impl Ledger {
    /// Takes room for a node, or says what it is short of.
    pub fn reserve(
        &mut self,
        world: &World,
        wanted: &Wanted<'_>,
        limits: &Limits<'_>,
    ) -> Result<Ticket, Shortage> {
        self.forget(world);
        self.room(world, wanted, limits)?;
        self.next += 1;
        let reservation = Reservation {
            provider: wanted.provider.to_owned(),
            pool: wanted.pool.to_owned(),
            tenant: wanted.tenant.map(str::to_owned),
            needs: wanted.needs.clone(),
            node: None,
            ended: None,
        };
        self.reservations.insert(Ticket(self.next), reservation);
        Ok(Ticket(self.next))
    }

    /// Whether there is room for a node, or what it is short of.
    pub fn room(&self, world: &World, wanted: &Wanted<'_>, limits: &Limits<'_>) -> Result<(), Shortage> {
        let exceeded =
            |limit: &Resources, used: &Resources| limit.exceeded_by(used, wanted.needs).map(str::to_owned);
        if let Some(limit) = limits.provider {
            let used = self.used(world, wanted.provider, None);
            exceeded(limit, &used).map_or(Ok(()), |name| Err(Shortage::Provider(name)))?;
        }
        let used = self.used(world, wanted.provider, Some(wanted.pool));
        exceeded(limits.pool, &used).map_or(Ok(()), |name| Err(Shortage::Pool(name)))
    }

    /// The node of a reservation has a record.
    pub fn recorded(&mut self, ticket: Ticket, node: &str) {
        if let Some(reservation) = self.reservations.get_mut(&ticket) {
            reservation.node = Some(node.to_owned());
        }
    }

    /// The launch is over. If there is a record, its node counts from now on, once the copy has it.
    pub fn ended(&mut self, ticket: Ticket) {
        match self.reservations.get_mut(&ticket) {
            Some(reservation) if reservation.node.is_some() => reservation.ended = Some(Instant::now()),
            _ => _ = self.reservations.remove(&ticket),
        }
    }

    /// What a provider's nodes need, those that are to come as well; of one pool only if it is given.
    pub fn used(&self, world: &World, provider: &str, pool: Option<&str>) -> Resources {
        let mut used = world.used(provider, pool);
        for one in self.beyond(world) {
            if one.provider == provider && pool.is_none_or(|pool| one.pool == pool) {
                used.add(&one.needs);
            }
        }
        used
    }

    /// What a tenant's nodes need, those that are to come as well, and all that were promised to its requests.
    pub fn used_by_tenant(&self, world: &World, tenant: &str) -> Resources {
        let mut used = world.used_by_tenant(tenant);
        for one in self.beyond(world).filter(|one| one.tenant.as_deref() == Some(tenant)) {
            used.add(&one.needs);
        }
        for (node, _) in self.claimed.iter().filter(|(_, claim)| claim.tenant.as_deref() == Some(tenant)) {
            let still_anybodys = |node: &&Node| node.tenant.as_deref() != Some(tenant);
            if let Some(node) = world.nodes().get(node).filter(still_anybodys) {
                used.add(&node.resources);
            }
        }
        for promise in self.promises.values().filter(|promise| promise.tenant == tenant) {
            used.add(&promise.needs);
        }
        used
    }

    /// A request of a tenant that has been taken still needs this, which counts as used: two requests that have a part
    /// each and wait for the rest would wait for each other otherwise.
    pub fn promise(&mut self, request: &str, tenant: &str, needs: Resources) {
        self.promises.insert(request.to_owned(), Promise { tenant: tenant.to_owned(), needs });
    }

    /// A request is no longer being served.
    pub fn break_promise(&mut self, request: &str) {
        self.promises.remove(request);
    }

    /// The reservations whose node is not in the copy of the tree.
    fn beyond(&self, world: &World) -> impl Iterator<Item = &Reservation> {
        self.reservations
            .values()
            .filter(|one| one.node.as_ref().is_none_or(|node| !world.nodes().contains_key(node)))
    }

    /// Forgets what the copy of the tree has by now.
    pub fn forget(&mut self, world: &World) {
        self.claimed.retain(|node, claim| {
            claim.over.as_ref().is_none_or(|over| {
                let is_older = |node: &Node| node.version < over.version;
                over.at.elapsed() < LAG && world.nodes().get(node).is_none_or(is_older)
            })
        });
        self.reservations.retain(|_, one| {
            one.ended.is_none_or(|ended| {
                let seen = one.node.as_ref().is_some_and(|node| world.nodes().contains_key(node));
                !seen && ended.elapsed() < LAG
            })
        });
    }

    /// Keeps others in this process from taking a ready node too, which is for this tenant. False if somebody is about
    /// to take it.
    pub fn claim(&mut self, node: &str, tenant: Option<&str>) -> bool {
        if self.claimed.contains_key(node) {
            return false;
        }
        self.claimed.insert(node.to_owned(), Claimed { tenant: tenant.map(str::to_owned), over: None });
        true
    }

    /// Whether somebody is about to take a node, or has and the copy of the tree does not show it.
    pub fn is_claimed(&self, node: &str) -> bool {
        self.claimed.contains_key(node)
    }

    /// The ready nodes of a provider's pool that nobody is about to take, the oldest first.
    pub fn free<'a>(
        &'a self,
        world: &'a World,
        (provider, pool): (&'a str, &'a str),
    ) -> impl Iterator<Item = (&'a str, &'a Node)> {
        let is_there = move |node: &Node| node.provider == provider && node.pool == pool;
        world.ready().filter(move |(id, node)| is_there(node) && !self.is_claimed(id))
    }

    /// A claim is over. What has come of it is in the node's record from the version `expected` on; nothing has, if
    /// that is `None`.
    pub fn unclaim(&mut self, node: &str, expected: Option<i32>) {
        match (self.claimed.get_mut(node), expected) {
            (Some(claim), Some(version)) => claim.over = Some(Over { at: Instant::now(), version }),
            _ => _ = self.claimed.remove(node),
        }
    }

    /// A node's record has this version by now: until the copy of the tree has it, nobody takes the node.
    pub fn expect(&mut self, node: &str, version: i32) {
        let over = Some(Over { at: Instant::now(), version });
        self.claimed.insert(node.to_owned(), Claimed { tenant: None, over });
    }

    /// When something is given up next that the copy of the tree should have had.
    pub fn next_expiry(&self) -> Option<Instant> {
        let over = self.claimed.values().filter_map(|claim| Some(claim.over.as_ref()?.at));
        let ended = self.reservations.values().filter_map(|reservation| reservation.ended);
        over.chain(ended).min().map(|at| at + LAG)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::launcher::world::testing::node;
    use crate::model::NodeState;

    fn of(amounts: &[(&str, i64)]) -> Resources {
        amounts.iter().copied().collect()
    }

    #[test]
    fn room_is_taken_by_nodes_and_by_reservations_and_by_none_twice() {
        let (mut world, mut ledger) = (World::default(), Ledger::default());
        let (needs, pool) = (of(&[("instances", 1)]), of(&[("instances", 2)]));
        let wanted = Wanted { provider: "p", pool: "main", tenant: None, needs: &needs };
        let limits = Limits { provider: None, pool: &pool };
        world.set_node("1", Some(node(NodeState::Ready, "a")), false);
        let ticket = ledger.reserve(&world, &wanted, &limits).unwrap();
        let full = Err(Shortage::Pool("instances".to_owned()));
        assert_eq!(ledger.reserve(&world, &wanted, &limits), full);
        ledger.recorded(ticket, "2");
        assert_eq!(ledger.reserve(&world, &wanted, &limits), full);
        world.set_node("2", Some(node(NodeState::Building, "a")), false);
        assert_eq!(ledger.used(&world, "p", None).get("instances"), Some(2));
        ledger.ended(ticket);
        world.set_node("1", None, false);
        assert!(ledger.reserve(&world, &wanted, &limits).is_ok());
    }

    #[test]
    fn a_launch_that_ends_before_the_copy_has_its_node_keeps_its_room() {
        let (world, mut ledger) = (World::default(), Ledger::default());
        let (needs, pool) = (of(&[("instances", 1)]), of(&[("instances", 1)]));
        let wanted = Wanted { provider: "p", pool: "main", tenant: None, needs: &needs };
        let limits = Limits { provider: None, pool: &pool };
        let ticket = ledger.reserve(&world, &wanted, &limits).unwrap();
        ledger.recorded(ticket, "1");
        ledger.ended(ticket);
        assert!(ledger.reserve(&world, &wanted, &limits).is_err());
    }

    #[test]
    fn every_limit_is_kept_and_named() {
        let needs = of(&[("instances", 1), ("cores", 4)]);
        let none = of(&[]);
        let cores = of(&[("cores", 3)]);
        let wanted = Wanted { provider: "p", pool: "main", tenant: Some("t"), needs: &needs };
        let all = Limits { provider: Some(&none), pool: &none };
        let named = || "cores".to_owned();
        for (limits, expected) in [
            (Limits { provider: Some(&cores), ..all }, Shortage::Provider(named())),
            (Limits { pool: &cores, ..all }, Shortage::Pool(named())),
        ] {
            assert_eq!(Ledger::default().reserve(&World::default(), &wanted, &limits), Err(expected));
        }
    }

    #[test]
    fn a_claim_is_given_once() {
        let mut ledger = Ledger::default();
        let claim = |ledger: &mut Ledger| ledger.claim("1", None);
        assert!(claim(&mut ledger) && !claim(&mut ledger) && ledger.is_claimed("1"));
        ledger.unclaim("1", None);
        assert!(claim(&mut ledger));
    }

    #[test]
    fn a_node_that_was_taken_stays_claimed_until_the_copy_shows_it() {
        let (mut world, mut ledger) = (World::default(), Ledger::default());
        world.set_node("1", Some(node(NodeState::Ready, "a")), false);
        assert!(ledger.claim("1", Some("t")));
        ledger.unclaim("1", Some(1));
        ledger.forget(&world);
        assert!(ledger.is_claimed("1"));
        assert!(ledger.next_expiry().is_some_and(|at| at > Instant::now()));
        let taken =
            Node { allocated_to: Some("100-0000000001".into()), version: 1, ..node(NodeState::Ready, "a") };
        world.set_node("1", Some(taken), false);
        ledger.forget(&world);
        assert!(!ledger.is_claimed("1"));
        assert_eq!(ledger.next_expiry(), None);
    }

    /// A node that had just become ready, and that the copy showed as building and without its lock, was about to be
    /// deleted as abandoned: nobody else could lock it meanwhile.
    #[test]
    fn a_node_whose_record_is_newer_than_the_copy_is_not_judged_by_that() {
        let (mut world, mut ledger) = (World::default(), Ledger::default());
        world.set_node("1", Some(node(NodeState::Building, "a")), false);
        ledger.expect("1", 2);
        ledger.forget(&world);
        assert!(ledger.is_claimed("1"));
        world.set_node("1", Some(Node { version: 2, ..node(NodeState::Ready, "a") }), false);
        ledger.forget(&world);
        assert!(!ledger.is_claimed("1"));
    }

    /// Its next request waited for a minute: the claim had been given up after the node was anybody's again.
    #[test]
    fn a_node_that_was_taken_and_given_back_before_anybody_looked_is_not_claimed() {
        let (mut world, mut ledger) = (World::default(), Ledger::default());
        world.set_node("1", Some(node(NodeState::Ready, "a")), false);
        assert!(ledger.claim("1", None));
        world.set_node("1", Some(Node { version: 2, ..node(NodeState::Ready, "a") }), false);
        ledger.unclaim("1", Some(1));
        ledger.forget(&world);
        assert!(!ledger.is_claimed("1"));
    }

    #[test]
    fn a_tenant_has_what_its_requests_take_and_were_promised_and_nothing_twice() {
        let (mut world, mut ledger) = (World::default(), Ledger::default());
        let instances = |ledger: &Ledger, world: &World| ledger.used_by_tenant(world, "t").get("instances");
        world.set_node("1", Some(node(NodeState::Ready, "a")), false);
        assert!(ledger.claim("1", Some("t")));
        assert_eq!(instances(&ledger, &world), Some(1));
        ledger.promise("100-0000000001", "t", of(&[("instances", 2)]));
        assert_eq!(instances(&ledger, &world), Some(3));
        world.set_node("1", Some(Node { tenant: Some("t".into()), ..node(NodeState::InUse, "a") }), false);
        assert_eq!(instances(&ledger, &world), Some(3));
        ledger.promise("100-0000000001", "t", of(&[("instances", 1)]));
        assert_eq!(instances(&ledger, &world), Some(2));
        ledger.break_promise("100-0000000001");
        assert_eq!(instances(&ledger, &world), Some(1));
    }
}
