//! How it stands at one moment: what the launcher thread says, and nodes, requests and pools as its copies of the trees
//! have them. A tree is held for one record at a time, and only to copy it; the records are read from the copies.

use std::collections::{BTreeMap, BTreeSet};

use crate::launcher::{PoolName, View, Window};
use crate::model::{NodeRequest, NodeState, now};
use crate::web::core::readiness::unready;
use crate::window::NoAnswer;
use crate::zk::{ListedNode, NODES, PoolDescription, REQUESTS, decode_node, decode_pool, decode_request};

/// How it stands.
pub(super) struct Snapshot {
    /// What the launcher thread says.
    pub(super) view: Box<View>,
    /// Why the launcher is not ready; none if it is.
    pub(super) unready: Option<&'static str>,
    /// All nodes, ordered by their ids.
    pub(super) nodes: Vec<ListedNode>,
    /// All node requests, in the order in which they are served.
    pub(super) requests: Vec<NodeRequest>,
    /// All pools of the fleet, by their ids.
    pub(super) pools: BTreeMap<String, PoolDescription>,
    /// The pools that have nodes for a request, by the request's id: of other launchers that is all that can be seen.
    pub(super) nodes_for: BTreeMap<String, BTreeSet<(String, String)>>,
    /// The paths of records that cannot be read.
    pub(super) damaged: Vec<String>,
    /// When it was taken, UNIX seconds.
    pub(super) now: f64,
}

/// What the launcher thread says, and why the launcher is not ready.
pub(super) fn readiness(window: &mut Window) -> Result<(Box<View>, Option<&'static str>), NoAnswer> {
    let view = window.look()?;
    let unready = unready(window.session.status().state, view.tree_complete)
        .or_else(|| (!view.registered).then_some("its pools are not registered yet"));
    Ok((view, unready))
}

impl Snapshot {
    /// Takes it.
    pub(super) fn take(window: &mut Window) -> Result<Self, NoAnswer> {
        let (view, unready) = readiness(window)?;
        let mut damaged = Vec::new();
        let nodes = read_nodes(window, None, &mut damaged);
        let requests = read_requests(window, &mut damaged);
        let pools = read_pools(window).into_iter().map(|pool| (pool.id.clone(), pool)).collect();
        let mut nodes_for: BTreeMap<String, BTreeSet<(String, String)>> = BTreeMap::new();
        for ListedNode { record, .. } in &nodes {
            if let Some(request) = &record.allocated_to {
                let at =
                    (record.provider.clone().unwrap_or_default(), record.pool.clone().unwrap_or_default());
                nodes_for.entry(request.clone()).or_default().insert(at);
            }
        }
        Ok(Self { view, unready, nodes, requests, pools, nodes_for, damaged, now: now() })
    }

    /// Where a request is served, if that can be seen.
    pub(super) fn served_by(&self, request: &str) -> Option<PoolName> {
        self.view.goings.serving.get(request).cloned().or_else(|| {
            let (provider, pool) = self.nodes_for.get(request)?.first()?.clone();
            Some(PoolName { provider, pool })
        })
    }

    /// How many nodes are in each state.
    pub(super) fn states(&self) -> BTreeMap<NodeState, usize> {
        let mut states = BTreeMap::new();
        for node in &self.nodes {
            *states.entry(node.record.state).or_default() += 1;
        }
        states
    }
}

/// All nodes, or the one that is wanted, ordered by their ids. The paths of records that cannot be read are added to
/// `damaged`.
pub(super) fn read_nodes(window: &Window, only: Option<&str>, damaged: &mut Vec<String>) -> Vec<ListedNode> {
    let ids = only.map_or_else(|| window.own.nodes.names(), |id| vec![id.to_owned()]);
    let mut nodes: Vec<_> = ids
        .into_iter()
        .filter_map(|id| match decode_node(&id, &window.own.nodes.copy(&id)?)? {
            Ok(node) => Some(node),
            Err(_) => {
                damaged.push(format!("{NODES}/{id}"));
                None
            }
        })
        .collect();
    nodes.sort_by(|a, b| a.id.cmp(&b.id));
    nodes
}

/// All node requests in the order in which they are served. The paths of records that cannot be read are added to
/// `damaged`.
pub(super) fn read_requests(window: &Window, damaged: &mut Vec<String>) -> Vec<NodeRequest> {
    let mut requests: Vec<_> = window
        .own
        .requests
        .names()
        .into_iter()
        .filter_map(|id| match decode_request(&id, &window.own.requests.copy(&id)?) {
            Ok(request) => Some(request),
            Err(_) => {
                damaged.push(format!("{REQUESTS}/{id}"));
                None
            }
        })
        .collect();
    requests.sort_by(|a, b| a.rank().cmp(&b.rank()));
    requests
}

/// The labels that the pools of the fleet have nodes of.
pub(super) fn read_labels(window: &Window) -> BTreeSet<String> {
    read_pools(window).into_iter().flat_map(|pool| pool.supported_labels).collect()
}

fn read_pools(window: &Window) -> Vec<PoolDescription> {
    let names = window.own.pools.names().into_iter();
    names.filter_map(|name| decode_pool(&window.own.pools.copy(&name)?).ok()).collect()
}
