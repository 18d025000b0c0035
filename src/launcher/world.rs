//! What the launcher knows of the fleet: the records of nodes, requests, pools and uploads, decoded from the copies of
//! ZooKeeper's tree, with the sums and indexes that decisions ask for. Pure data: it is told what has changed.

mod node;

use std::collections::{BTreeMap, BTreeSet};

use nodepool_drivers::api::Resources;

use crate::model::{Image, NodeRequest, RequestState, UploadState};
use crate::zk::{PoolDescription, upload_path};
pub use node::Node;

/// An upload that is ready.
#[derive(Debug, Clone, PartialEq)]
pub struct ReadyUpload {
    /// Since when, UNIX seconds.
    pub state_time: f64,
    /// The provider's id of it.
    pub external_id: String,
    /// Its path in ZooKeeper, which nodes name it by.
    pub path: String,
}

/// What is known is of these kinds, each from its own copy of a part of the tree.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    Nodes,
    Requests,
    Pools,
    Images,
}

impl Kind {
    pub const ALL: [Self; 4] = [Self::Nodes, Self::Requests, Self::Pools, Self::Images];
}

/// Everything.
#[derive(Debug, Default)]
pub struct World {
    nodes: BTreeMap<String, Node>,
    /// Znodes where a node's record should be, and is not.
    empty: BTreeSet<String>,
    requests: BTreeMap<String, NodeRequest>,
    /// Those that wait for somebody to take them, in their order.
    requested: BTreeMap<(String, i64, String), String>,
    /// By the name of their znode.
    pools: BTreeMap<String, PoolDescription>,
    /// The newest of each image at each provider.
    uploads: BTreeMap<String, BTreeMap<String, ReadyUpload>>,
    used: BTreeMap<String, BTreeMap<String, Resources>>,
    used_by_tenant: BTreeMap<String, Resources>,
    /// Nodes that may be taken for a request.
    ready: BTreeSet<String>,
    /// Nodes that nobody has locked, in states in which somebody should have.
    suspects: BTreeSet<String>,
    /// Nodes that are held until some time.
    expiring: BTreeSet<String>,
    /// Nodes of machines that stand there already.
    standing: BTreeSet<String>,
}

impl World {
    /// All nodes by their ids.
    pub fn nodes(&self) -> &BTreeMap<String, Node> {
        &self.nodes
    }

    /// Znodes where a node's record should be, and is not.
    pub fn empty(&self) -> &BTreeSet<String> {
        &self.empty
    }

    /// All requests by their ids.
    pub fn requests(&self) -> &BTreeMap<String, NodeRequest> {
        &self.requests
    }

    /// The requests that wait for somebody to take them, in their order.
    pub fn requested(&self) -> impl Iterator<Item = &NodeRequest> {
        self.requested.values().filter_map(|id| self.requests.get(id))
    }

    /// All pools of the fleet.
    pub fn pools(&self) -> impl Iterator<Item = &PoolDescription> {
        self.pools.values()
    }

    /// The newest ready upload of an image to a provider.
    pub fn upload(&self, image: &str, provider: &str) -> Option<&ReadyUpload> {
        self.uploads.get(image)?.get(provider)
    }

    /// What the nodes of a pool need; of all pools of the provider without one.
    pub fn used(&self, provider: &str, pool: Option<&str>) -> Resources {
        let mut sum = Resources::default();
        for (name, used) in self.used.get(provider).into_iter().flatten() {
            if pool.is_none_or(|pool| pool == name) {
                sum.add(used);
            }
        }
        sum
    }

    /// What the nodes of a tenant need.
    pub fn used_by_tenant(&self, tenant: &str) -> Resources {
        self.used_by_tenant.get(tenant).cloned().unwrap_or_default()
    }

    /// The nodes that may be taken for a request, the oldest first.
    pub fn ready(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.named(&self.ready)
    }

    /// Nodes that nobody has locked although their state says that somebody should have.
    pub fn suspects(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.named(&self.suspects)
    }

    /// The nodes of machines that stand there already.
    pub fn standing(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.named(&self.standing)
    }

    /// Whether there are nodes that are held until some time.
    pub fn has_expirations(&self) -> bool {
        !self.expiring.is_empty()
    }

    fn named<'a>(&'a self, ids: &'a BTreeSet<String>) -> impl Iterator<Item = (&'a str, &'a Node)> {
        ids.iter().filter_map(|id| Some((id.as_str(), self.nodes.get(id)?)))
    }

    /// A node is like this now, or gone. `empty`: there is something without a record.
    pub fn set_node(&mut self, id: &str, node: Option<Node>, empty: bool) {
        if empty {
            self.empty.insert(id.to_owned());
        } else {
            self.empty.remove(id);
        }
        self.ready.remove(id);
        self.suspects.remove(id);
        self.expiring.remove(id);
        self.standing.remove(id);
        if let Some(old) = self.nodes.remove(id) {
            self.count(&old, Resources::subtract);
        }
        let Some(node) = node else { return };
        self.count(&node, Resources::add);
        if node.is_free() {
            self.ready.insert(id.to_owned());
        }
        if node.hold_expiration.is_some() {
            self.expiring.insert(id.to_owned());
        }
        if node.is_standing() {
            self.standing.insert(id.to_owned());
        }
        if node.is_suspect() {
            self.suspects.insert(id.to_owned());
        }
        self.nodes.insert(id.to_owned(), node);
    }

    fn count(&mut self, node: &Node, change: fn(&mut Resources, &Resources)) {
        let of_provider = self.used.entry(node.provider.clone()).or_default();
        change(of_provider.entry(node.pool.clone()).or_default(), &node.resources);
        if let Some(tenant) = &node.tenant {
            change(self.used_by_tenant.entry(tenant.clone()).or_default(), &node.resources);
        }
    }

    /// A request is like this now, or gone.
    pub fn set_request(&mut self, id: &str, request: Option<NodeRequest>) {
        let key = |request: &NodeRequest| {
            let (priority, relative, sequence) = request.rank();
            (priority.to_owned(), relative, sequence.to_owned())
        };
        if let Some(old) = self.requests.remove(id) {
            self.requested.remove(&key(&old));
        }
        let Some(request) = request else { return };
        if request.record.state == RequestState::Requested {
            self.requested.insert(key(&request), id.to_owned());
        }
        self.requests.insert(id.to_owned(), request);
    }

    /// A pool is like this now, or gone.
    pub fn set_pool(&mut self, znode: &str, pool: Option<PoolDescription>) {
        match pool {
            Some(pool) => _ = self.pools.insert(znode.to_owned(), pool),
            None => _ = self.pools.remove(znode),
        }
    }

    /// An image is like this now, or gone.
    pub fn set_image(&mut self, name: &str, image: Option<&Image>) {
        let mut newest: BTreeMap<String, ReadyUpload> = BTreeMap::new();
        for (build, (provider, upload)) in image
            .into_iter()
            .flat_map(|image| image.builds.values())
            .flat_map(|build| build.uploads().map(move |upload| (build, upload)))
        {
            let record = &upload.record;
            let Some(external_id) =
                record.external_id.as_ref().filter(|_| record.state == UploadState::Ready)
            else {
                continue;
            };
            if newest.get(provider).is_some_and(|known| known.state_time >= record.state_time) {
                continue;
            }
            let path = upload_path(name, &build.id, provider, &upload.id);
            let found = ReadyUpload { state_time: record.state_time, external_id: external_id.clone(), path };
            newest.insert(provider.to_owned(), found);
        }
        self.uploads.insert(name.to_owned(), newest);
    }

    /// The names of everything that is known of a kind.
    pub fn names(&self, kind: Kind) -> BTreeSet<String> {
        match kind {
            Kind::Nodes => self.nodes.keys().chain(&self.empty).cloned().collect(),
            Kind::Requests => self.requests.keys().cloned().collect(),
            Kind::Pools => self.pools.keys().cloned().collect(),
            Kind::Images => self.uploads.keys().cloned().collect(),
        }
    }
}

#[cfg(test)]
pub(super) mod testing {
    use super::*;
    use crate::model::{NodeState, RequestRecord, decode};

    /// A node of the provider `p` and its pool `main`.
    pub(in super::super) fn node(state: NodeState, label: &str) -> Node {
        Node {
            state,
            state_time: 0.0,
            provider: "p".to_owned(),
            pool: "main".to_owned(),
            labels: vec![label.to_owned()],
            allocated_to: None,
            launcher: Some("our-id".to_owned()),
            tenant: None,
            resources: [("instances", 1), ("cores", 4)].into_iter().collect(),
            az: None,
            instance: None,
            locked: false,
            version: 0,
            hold_expiration: None,
        }
    }

    /// A request in the words of its record.
    pub(in super::super) fn request(id: &str, record: serde_json::Value) -> NodeRequest {
        let mut full = serde_json::json!({"state": "requested"});
        if let (Some(full), Some(more)) = (full.as_object_mut(), record.as_object()) {
            full.extend(more.clone());
        }
        let record: RequestRecord = decode(full.to_string().as_bytes()).unwrap();
        NodeRequest { id: id.to_owned(), record, version: 0 }
    }

    /// A pool of the fleet.
    pub(in super::super) fn pool(id: &str, provider: &str, labels: &[&str]) -> PoolDescription {
        PoolDescription {
            id: id.to_owned(),
            name: Some("main".to_owned()),
            provider_name: provider.to_owned(),
            supported_labels: labels.iter().map(|label| (*label).to_owned()).collect(),
            priority: 100,
            paused: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::testing::{node, request};
    use super::*;
    use crate::model::NodeState;

    #[test]
    fn what_is_used_follows_the_nodes() {
        let mut world = World::default();
        let of = |amounts: &[(&str, i64)]| amounts.iter().copied().collect::<Resources>();
        let tenant = Node { tenant: Some("t".to_owned()), ..node(NodeState::Building, "a") };
        world.set_node("1", Some(tenant), false);
        world.set_node("2", Some(Node { pool: "b".into(), ..node(NodeState::Ready, "a") }), false);
        assert_eq!(world.used("p", None), of(&[("instances", 2), ("cores", 8)]));
        assert_eq!(world.used("p", Some("b")), of(&[("instances", 1), ("cores", 4)]));
        assert_eq!(world.used_by_tenant("t"), of(&[("instances", 1), ("cores", 4)]));
        assert_eq!(world.used("other", None), of(&[]));
        world.set_node("1", Some(node(NodeState::Ready, "a")), false);
        assert_eq!(world.used_by_tenant("t"), of(&[("instances", 0), ("cores", 0)]));
        world.set_node("2", None, false);
        assert_eq!(world.used("p", None), of(&[("instances", 1), ("cores", 4)]));
    }

    #[test]
    fn a_node_can_be_taken_when_it_is_ready_and_nobodys() {
        let mut world = World::default();
        let ready = node(NodeState::Ready, "a");
        for (id, node) in [
            ("1", ready.clone()),
            ("2", Node { locked: true, ..ready.clone() }),
            ("3", Node { allocated_to: Some("r".into()), ..ready.clone() }),
            ("4", node(NodeState::Building, "a")),
        ] {
            world.set_node(id, Some(node), false);
        }
        assert_eq!(world.ready().map(|(id, _)| id).collect::<Vec<_>>(), ["1"]);
        assert_eq!(world.suspects().map(|(id, _)| id).collect::<Vec<_>>(), ["3", "4"]);
        world.set_node("1", Some(Node { locked: true, ..ready }), false);
        assert_eq!(world.ready().count(), 0);
    }

    #[test]
    fn nodes_of_machines_are_told_from_others() {
        let mut world = World::default();
        let standing = Node { launcher: Some("static driver".into()), ..node(NodeState::InUse, "a") };
        world.set_node("1", Some(node(NodeState::Ready, "a")), false);
        world.set_node("2", Some(standing), false);
        assert_eq!(world.standing().map(|(id, _)| id).collect::<Vec<_>>(), ["2"]);
        world.set_node("2", None, false);
        assert_eq!(world.standing().count(), 0);
    }

    #[test]
    fn requests_wait_in_their_order_until_they_are_taken() {
        let mut world = World::default();
        for (id, relative) in [("200-0000000001", 0), ("100-0000000003", 1), ("100-0000000004", 0)] {
            world.set_request(id, Some(request(id, json!({"relative_priority": relative}))));
        }
        let order = |world: &World| world.requested().map(|request| request.id.clone()).collect::<Vec<_>>();
        assert_eq!(order(&world), ["100-0000000004", "100-0000000003", "200-0000000001"]);
        let id = "100-0000000004";
        world.set_request(id, Some(request(id, json!({"state": "pending"}))));
        world.set_request("200-0000000001", None);
        assert_eq!(order(&world), ["100-0000000003"]);
        assert_eq!(world.requests().len(), 2);
    }
}
