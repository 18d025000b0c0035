//! The deletion of servers, and of what belongs to them.

use std::cell::Cell;
use std::time::{Duration, Instant};

use nodepool_threads::activity_within;
use slog::{debug, info, warn};

use super::OpenStackNodes;
use super::floating::Tried;
use crate::api::{CallContext, Error, NodeSpec, UNDO_LIMIT};
use crate::openstack::compute::{Server, Servers};
use crate::openstack::network::FloatingIp;
use crate::openstack::service::{Deleted, can_be_id};

/// How long to wait until a deletion that has failed is tried again.
const UNDO_PAUSE: Duration = Duration::from_secs(1);
/// How long a server may still appear whose creation was not answered.
const MAY_APPEAR: Duration = Duration::from_secs(4);
/// The same for a floating IP. Shorter, since its server is deleted within the same limits afterwards.
const MAY_FLOAT: Duration = Duration::from_secs(3);
/// After this time a server is deleted once more: Nova may have lost the order.
const DELETE_AGAIN: Duration = Duration::from_secs(30);

impl OpenStackNodes {
    /// Deletes a server with its floating IPs, those too that were tried, and waits until it is gone.
    pub(super) fn remove(&self, call: &CallContext, id: &str, tried: &Tried) -> Result<(), Error> {
        call.stop.check()?;
        if !can_be_id(id) {
            return Ok(());
        }
        let servers = self.nova.servers(call)?;
        self.remove_floating_ips(call, id, servers.value.get(id), tried)?;
        loop {
            if self.nova.delete(call, id)? == Deleted::NotThere {
                return Ok(());
            }
            let ordered = Instant::now();
            let mut since = ordered;
            while ordered.elapsed() < DELETE_AGAIN {
                let told = self.nova.servers_since(call, since)?;
                since = told.next();
                match told.value.get(id) {
                    None => return Ok(()),
                    Some(server) => {
                        debug!(call.log, "the server is not gone yet"; "id" => id, "state" => server.describe())
                    }
                }
            }
        }
    }

    /// Deletes the floating IPs of a server: they would stay.
    fn remove_floating_ips(
        &self,
        call: &CallContext,
        id: &str,
        server: Option<&Server>,
        tried: &Tried,
    ) -> Result<(), Error> {
        let known: Vec<&str> =
            server.into_iter().flat_map(Server::floating).map(|address| address.address.as_str()).collect();
        let given = server.is_some() && self.settings.own.has_floating_ips();
        let may_have = !known.is_empty() || given && self.may_have_source(call)?;
        let wanted = !tried.ports.is_empty() || may_have && !self.cloud.reach.no_floating_ips;
        if !wanted || !self.neutron.is_there(call)? {
            return Ok(());
        }
        // Nova hears late of it when an address has become another server's.
        let leads_there = |floating: &&FloatingIp| match &floating.server {
            Some(server) => server == id,
            None => {
                known.contains(&floating.address.as_str())
                    || floating.port.as_ref().is_some_and(|port| tried.ports.contains(port))
            }
        };
        let mut since = Instant::now();
        let mut first = None;
        loop {
            let told = self.neutron.floating_since(call, since)?;
            since = told.next();
            let first: Instant = *first.get_or_insert(told.asked);
            let (mut found, mut changed) = (false, false);
            for floating in told.value.iter().filter(leads_there) {
                debug!(call.log, "deleting a floating IP"; "id" => id, "address" => &floating.address);
                changed |= self.neutron.delete_floating_ip(call, floating)? == Deleted::Changed;
                found = true;
            }
            // Once the server is gone, nothing says any more whose it was.
            if !changed && (found || !tried.in_doubt || first.elapsed() >= MAY_FLOAT) {
                return Ok(());
            }
        }
    }

    /// Whether there may be floating IPs. A cloud that does not tell must not keep a server from being deleted.
    fn may_have_source(&self, call: &CallContext) -> Result<bool, Error> {
        self.neutron.has_source(call, &self.cloud.reach).or_else(|error| {
            call.stop.check()?;
            debug!(call.log, "whether there are floating IPs is unknown"; "reason" => %error);
            Ok(true)
        })
    }

    /// Deletes a server that must not stay, whatever the caller's token says. Whether it is gone.
    pub(super) fn undo(&self, call: &CallContext, id: &str, tried: &Tried) -> bool {
        let done = self.insist(call, |nodes, call| nodes.remove(call, id, tried));
        if let Err(error) = &done {
            warn!(call.log, "a server whose launch has failed may stay at the cloud"; "id" => id, "reason" => %error);
        }
        done.is_ok()
    }

    /// Looks for what has become of a creation without an answer, and deletes it. What was there `before` the creation,
    /// or is of another provider, is not ours, whatever its name.
    pub(super) fn undo_unknown(
        &self,
        call: &CallContext,
        begun: Instant,
        before: Option<&Servers>,
        node: &NodeSpec,
    ) {
        let ours = |server: &&Server| {
            let is_told = |(key, value): (&String, &String)| server.metadata.get(key) == Some(value);
            server.name == node.hostname
                && node.metadata.iter().all(is_told)
                && !before.is_some_and(|before| before.contains_key(&server.id))
        };
        // While the cloud is out of order, nothing is said about what appears.
        let first = Cell::new(None);
        let done = self.insist(call, |nodes, call| {
            let mut since = begun;
            loop {
                let told = nodes.nova.servers_since(call, since)?;
                since = told.next();
                let looking_since = first.get().unwrap_or(told.asked);
                first.set(Some(looking_since));
                let found: Vec<_> = told.value.values().filter(ours).collect();
                let mut failed = None;
                for server in &found {
                    info!(call.log, "deleting a server whose creation was not answered"; "id" => &server.id);
                    // All of them are tried, whatever becomes of one.
                    failed = nodes.remove(call, &server.id, &Tried::default()).err().or(failed);
                }
                match failed {
                    Some(error) => return Err(error),
                    None if !found.is_empty() || looking_since.elapsed() >= MAY_APPEAR => return Ok(()),
                    None => {}
                }
            }
        });
        if let Err(error) = done {
            warn!(call.log, "a server whose creation was not answered may stay at the cloud"; "name" => &node.hostname, "reason" => %error);
        }
    }

    /// Does what must be done, again where that may help.
    fn insist(
        &self,
        call: &CallContext,
        act: impl Fn(&Self, &CallContext) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let _doing = activity_within(UNDO_LIMIT, "deleting an unwanted server");
        call.insist(|call, last| {
            if last {
                return act(&self.unpaced(), call);
            }
            loop {
                match act(self, call) {
                    Err(error) if error.kind().may_pass() && call.stop.wait(UNDO_PAUSE).is_ok() => {}
                    done => return done,
                }
            }
        })
    }
}
