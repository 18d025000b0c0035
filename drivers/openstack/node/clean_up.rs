//! What deletions leave at a cloud besides servers: ports that are down, and floating IPs that lead nowhere.
//!
//! Neither says whose it was. So, as in the original, a port is removed that is down at two looks which are far enough
//! apart, unless it is one of a server that is there, or of something else than servers; and, where the section wants
//! that, each floating IP at the first look that no launch has taken by then.

use std::collections::BTreeSet;
use std::time::Instant;

use slog::{info, warn};

use super::OpenStackNodes;
use crate::api::{CallContext, CleanedUp, Error};
use crate::openstack::service::Deleted;

/// What a look at the ports has found.
#[derive(Debug)]
pub(super) struct PortsDown {
    at: Instant,
    ids: BTreeSet<String>,
}

impl OpenStackNodes {
    /// Removes what was left. One kind does not keep the other.
    pub(super) fn clean(&self, call: &CallContext) -> Result<CleanedUp, Error> {
        call.stop.check()?;
        if !self.neutron.is_there(call)? {
            return Ok(CleanedUp::default());
        }
        let count = |cleaned: Result<u64, Error>| {
            cleaned.or_else(|error| {
                call.stop.check()?;
                warn!(call.log, "cannot look for what was left"; "reason" => %error);
                Ok::<_, Error>(0)
            })
        };
        let ports = count(self.clean_ports(call))?;
        let wanted = self.settings.own.clean_floating_ips;
        let floating_ips = if wanted { count(self.clean_floating_ips(call))? } else { 0 };
        Ok(CleanedUp { ports, floating_ips })
    }

    fn clean_ports(&self, call: &CallContext) -> Result<u64, Error> {
        let interval = self.settings.own.port_cleanup;
        let before = {
            let last = self.ports_down.lock();
            if interval.is_zero() || last.as_ref().is_some_and(|last| last.at.elapsed() <= interval) {
                return Ok(0);
            }
            last.as_ref().map(|last| last.ids.clone()).unwrap_or_default()
        };
        let at = Instant::now();
        let servers = self.nova.servers_since(call, at)?;
        let mut down: BTreeSet<String> = self
            .neutron
            .ports_down(call)?
            .into_iter()
            .filter(|port| port.is_of_compute() && !servers.value.contains_key(&port.device))
            .map(|port| port.id)
            .collect();
        let mut removed = 0;
        for id in before.intersection(&down.clone()) {
            match self.neutron.delete_port(call, id) {
                Ok(_) => {
                    info!(call.log, "removed a port that was left"; "id" => id);
                    down.remove(id);
                    removed += 1;
                }
                Err(error) => {
                    call.stop.check()?;
                    warn!(call.log, "a port that was left cannot be removed"; "id" => id, "reason" => %error);
                }
            }
        }
        *self.ports_down.lock() = Some(PortsDown { at, ids: down });
        Ok(removed)
    }

    /// Ours lead to a port from their creation on, so one that does not is none of ours in use. A launch may take it
    /// before it is deleted; then it stays.
    fn clean_floating_ips(&self, call: &CallContext) -> Result<u64, Error> {
        let told = self.neutron.floating_since(call, Instant::now())?;
        let mut removed = 0;
        for floating in told.value.iter().filter(|floating| floating.port.is_none()) {
            match self.neutron.delete_floating_ip(call, floating) {
                Ok(Deleted::NotThere | Deleted::Changed) => {}
                Ok(Deleted::Now) => {
                    info!(call.log, "removed a floating IP that led nowhere"; "address" => &floating.address);
                    removed += 1;
                }
                Err(error) => {
                    call.stop.check()?;
                    warn!(call.log, "a floating IP that leads nowhere cannot be removed"; "address" => &floating.address, "reason" => %error);
                }
            }
        }
        Ok(removed)
    }
}
