//! The way of a node to the cloud: created, awaited, given a floating IP; and taken away again if that fails.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nodepool_threads::Interrupted;
use serde_json::Value as Json;
use slog::{debug, info};

use super::address::{Surroundings, ipv6_here};
use super::description::Wish;
use super::floating::Tried;
use super::{OpenStackNodes, quantities};
use crate::api::{CallContext, Error, ErrorKind, LaunchedNode, NodeRequest, NodeRequestHandler, NodeSpec};
use crate::openstack::compute::{Created, Flavor, Server};
use crate::openstack::network::Network;
use crate::openstack::shared::Told;

/// How many lists in a row may lack a server: Nova moves a new one from one database to another.
const MOST_MISSING: u32 = 5;
/// How many lists may have an active server without addresses: Nova hears of them later.
const MOST_BARE: u32 = 10;
/// How long to wait when a list could not be had.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Launches the nodes of a request.
pub(super) struct Handler {
    nodes: OpenStackNodes,
    request: NodeRequest,
}

impl Handler {
    pub(super) fn new(nodes: OpenStackNodes, request: NodeRequest) -> Self {
        Self { nodes, request }
    }

    fn wish<'w>(&'w self, node: &'w NodeSpec) -> Result<Wish<'w>, Error> {
        let settings = &self.nodes.settings;
        if !self.request.labels.contains(&node.label) {
            let what = format!("the node request {} asks for no node '{}'", self.request.id, node.label);
            return Err(self.nodes.nova.error(ErrorKind::Permanent, what));
        }
        let own_label = self.nodes.own_label(&node.pool, &node.label)?;
        let pool = settings.nodes.pools.get(&node.pool).zip(settings.own.pool(&node.pool));
        let (pool, own_pool) = pool.ok_or_else(|| {
            self.nodes.nova.error(ErrorKind::Permanent, format!("there is no pool '{}'", node.pool))
        })?;
        Ok(Wish { request: &self.request, node, pool, own_pool, own_label })
    }
}

impl NodeRequestHandler for Handler {
    fn launch(
        &self,
        call: &CallContext,
        node: &NodeSpec,
        created: &mut dyn FnMut(&str),
    ) -> Result<LaunchedNode, Error> {
        call.stop.check()?;
        let wish = self.wish(node)?;
        let (id, flavor) = self.nodes.create(call, &wish)?;
        created(&id);
        let mut tried = Tried::default();
        let launched = self.nodes.complete(call, &wish, &id, &flavor, &mut tried);
        launched.map_err(|error| {
            debug!(call.log, "deleting a server whose launch has failed"; "id" => &id);
            if self.nodes.undo(call, &id, &tried) { error } else { error.leaving_something() }
        })
    }
}

impl OpenStackNodes {
    /// Creates a server, and returns its id.
    fn create(&self, call: &CallContext, wish: &Wish<'_>) -> Result<(String, Flavor), Error> {
        let mut refused: Option<(Json, Error)> = None;
        loop {
            let (server, flavor) = self.describe(call, wish)?;
            match refused.take() {
                Some((same, error)) if same == server => return Err(error),
                _ => {}
            }
            let before = self.nova.servers_known();
            let begun = Instant::now();
            match self.nova.create(call, &server)? {
                Created::Server(id) => {
                    info!(call.log, "a server is created"; "id" => &id, "name" => &wish.node.hostname, "flavor" => &flavor.name);
                    return Ok((id, flavor));
                }
                // What we know of flavors, images and networks may be out of date.
                Created::Refused { error, status: 400 } => {
                    self.forget();
                    refused = Some((server, error));
                }
                Created::Refused { error, .. } => return Err(error),
                Created::InDoubt(error) => {
                    let before = before.as_ref().map(|told| &told.value);
                    self.undo_unknown(call, begun, before, wish.node);
                    return Err(error);
                }
            }
        }
    }

    /// What is left to do for a server that was created.
    fn complete(
        &self,
        call: &CallContext,
        wish: &Wish<'_>,
        id: &str,
        flavor: &Flavor,
        tried: &mut Tried,
    ) -> Result<LaunchedNode, Error> {
        let mut server = self.await_active(call, id)?;
        let networks = self.await_networks(call)?;
        let around =
            Surroundings { networks: &networks.value, reach: &self.cloud.reach, ipv6_here: ipv6_here() };
        if wish.own_pool.auto_floating_ip && around.needs_floating_ip(&server) {
            self.give_floating_ip(call, &mut server, &networks.value, tried)?;
        }
        let addresses = around.addresses(&server);
        let Some(interface_ip) = addresses.interface else {
            let what = format!("the server {id} has no address: see 'networks' of its pool");
            return Err(self.nova.error(ErrorKind::Transient, what));
        };
        Ok(LaunchedNode {
            external_id: id.to_owned(),
            interface_ip,
            // As in the original's records, which know no node without one.
            private_ipv4: addresses.private_ipv4.or_else(|| addresses.public_ipv4.clone()),
            public_ipv4: addresses.public_ipv4,
            public_ipv6: addresses.public_ipv6,
            host_id: server.host_id,
            cloud: Some(self.cloud.name.clone()),
            region: self.settings.own.region_name.clone(),
            az: server.zone,
            resources: Some(quantities::of_label(flavor, wish.own_label)),
        })
    }

    /// The networks, asked for until they are told: a server that runs is not given up for that.
    fn await_networks(&self, call: &CallContext) -> Result<Arc<Told<Vec<Network>>>, Error> {
        loop {
            match self.neutron.networks(call) {
                Err(error) if error.kind().may_pass() => {
                    debug!(call.log, "the networks cannot be listed"; "reason" => %error);
                    match call.stop.wait(ASK_AGAIN) {
                        Err(Interrupted::DeadlinePassed) => return Err(error),
                        waited => waited?,
                    }
                }
                told => return told,
            }
        }
    }

    /// Waits until a server is active.
    fn await_active(&self, call: &CallContext, id: &str) -> Result<Server, Error> {
        let mut since = Instant::now();
        let (mut missing, mut bare) = (0, 0);
        let mut last = "not listed yet".to_owned();
        loop {
            let told = match self.nova.servers_since(call, since) {
                Ok(told) => told,
                Err(error) if error.kind().may_pass() => {
                    debug!(call.log, "the servers cannot be listed"; "reason" => %error);
                    call.stop.wait(ASK_AGAIN)?;
                    continue;
                }
                Err(error) if error.kind() == ErrorKind::Timeout => {
                    let what = format!("the server {id} did not become active in time, it is {last}");
                    return Err(self.nova.error(ErrorKind::Timeout, what));
                }
                Err(error) => return Err(error),
            };
            since = told.next();
            match told.value.get(id) {
                Some(server)
                    if server.status == "ACTIVE" && server.addresses.is_empty() && bare < MOST_BARE =>
                {
                    bare += 1;
                }
                Some(server) if server.status == "ACTIVE" => return Ok(server.clone()),
                Some(server) if server.status == "ERROR" => {
                    let what = format!("the server {id} could not be created, it is {}", server.describe());
                    return Err(self.nova.error(server.fault_kind(), what));
                }
                Some(server) => {
                    missing = 0;
                    last = server.describe();
                }
                None => missing += 1,
            }
            if missing == MOST_MISSING {
                let what = format!("the server {id} was deleted meanwhile");
                return Err(self.nova.error(ErrorKind::Transient, what));
            }
        }
    }
}
