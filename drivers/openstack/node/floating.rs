//! The floating IP of a server that cannot be reached without one.
//!
//! It is a new one. Only where the section says `clean-floating-ips`, and with it that nobody else uses the project, one
//! is taken before that leads nowhere.

use std::hash::{DefaultHasher, Hash as _, Hasher as _};
use std::time::{Duration, Instant};

use nodepool_threads::crash_point;
use slog::{debug, info};

use super::OpenStackNodes;
use crate::api::{CallContext, Error, ErrorKind};
use crate::openstack::compute::{Address, Server};
use crate::openstack::network::{Floated, FloatingIp, Network, Port};
use crate::openstack::service::can_be_id;

/// How long a floating IP may take to become active: as the original's openstacksdk.
const ACTIVE: Duration = Duration::from_secs(60);

/// What may lead to a server, besides what Nova tells.
#[derive(Debug, Clone, Default)]
pub(super) struct Tried {
    /// The ports that a floating IP was asked for.
    pub(super) ports: Vec<String>,
    /// Whether one may still appear: its creation was not answered.
    pub(super) in_doubt: bool,
}

impl OpenStackNodes {
    /// Gives a server a floating IP, if there is a network that these come from and a port that one can lead to.
    /// What was tried is told: it may be left when this fails.
    pub(super) fn give_floating_ip(
        &self,
        call: &CallContext,
        server: &mut Server,
        networks: &[Network],
        tried: &mut Tried,
    ) -> Result<(), Error> {
        if !self.neutron.is_there(call)? {
            return Ok(());
        }
        let Some(source) = self.neutron.source(call, &self.cloud.reach)? else { return Ok(()) };
        let ports = self.candidates(call, self.neutron.ports_of(call, &server.id)?, networks)?;
        let mut refused = None;
        for port in ports {
            let fixed = port.ipv4.unwrap_or_default();
            tried.ports.push(port.id.clone());
            match self.float(call, &source, &port.id, &fixed)? {
                Floated::Is(floating) => {
                    info!(call.log, "the server gets a floating IP"; "id" => &server.id, "address" => &floating.address);
                    crash_point("floating-ip-created");
                    let active = self.await_floating(call, &floating)?;
                    add(server, &fixed, &active.address);
                    return Ok(());
                }
                // No router leads there; maybe one leads to another port.
                Floated::Refused(error) if error.kind() == ErrorKind::NotFound => refused = Some(error),
                // Not about servers: the pool has room for those.
                Floated::Refused(error) if error.kind() == ErrorKind::Quota => {
                    return Err(Error::new(ErrorKind::Transient, error.to_string()));
                }
                Floated::Refused(error) => return Err(error),
                Floated::InDoubt(error) => {
                    tried.in_doubt = true;
                    return Err(error);
                }
            }
        }
        match refused {
            None => Ok(()),
            Some(error) => {
                let advice =
                    "if nodes are reached without floating IPs, set 'auto-floating-ip: false' in the pool";
                Err(Error::new(ErrorKind::Permanent, format!("{error}; {advice}")))
            }
        }
    }

    /// Has a floating IP lead to an address of a port: one that leads nowhere, where it may be taken, or else a new one.
    fn float(&self, call: &CallContext, source: &str, port: &str, fixed: &str) -> Result<Floated, Error> {
        if let Some(idle) = self.idle(call, source, port)? {
            match self.neutron.lead_floating_ip(call, &idle, port, fixed)? {
                Floated::Refused(error) => {
                    debug!(call.log, "a floating IP that led nowhere cannot be used again: another one is made";
                        "address" => &idle.address, "reason" => %error);
                }
                led => return Ok(led),
            }
        }
        self.neutron.create_floating_ip(call, source, port, fixed)
    }

    /// A floating IP that leads nowhere and that may be taken. Of several, launches at the same time take different ones;
    /// who comes second is refused by Neutron, so the cloud must count changes.
    fn idle(&self, call: &CallContext, source: &str, port: &str) -> Result<Option<FloatingIp>, Error> {
        if !self.settings.own.clean_floating_ips {
            return Ok(None);
        }
        let told = self.neutron.floating_lately(call)?;
        let is_idle = |floating: &&FloatingIp| {
            floating.port.is_none()
                && floating.network == source
                && floating.revision.is_some()
                && can_be_id(&floating.id)
        };
        let idle: Vec<&FloatingIp> = told.value.iter().filter(is_idle).collect();
        let mut hasher = DefaultHasher::new();
        port.hash(&mut hasher);
        let at = hasher.finish().checked_rem(idle.len() as u64).unwrap_or_default();
        Ok(idle.get(at as usize).map(|floating| (*floating).clone()))
    }

    /// The ports that a floating IP can lead to, the newest first.
    fn candidates(
        &self,
        call: &CallContext,
        all: Vec<Port>,
        networks: &[Network],
    ) -> Result<Vec<Port>, Error> {
        let several = all.len() > 1;
        let mut ports: Vec<Port> = all.into_iter().filter(|port| port.ipv4.is_some()).collect();
        if several {
            let wish = self.cloud.reach.networks.iter().find(|wish| wish.nat_destination);
            if let Some(wish) = wish {
                let network = self.neutron.network_id(call, &wish.name)?;
                ports.retain(|port| port.network == network);
                if ports.is_empty() {
                    let name = &wish.name;
                    let what = format!(
                        "the server has no port with an IPv4 address on '{name}' ('nat_destination' in clouds.yaml), \
                         where a floating IP shall lead to: add '{name}' to 'networks' of its pool or label"
                    );
                    return Err(self.nova.error(ErrorKind::Permanent, what));
                }
            } else {
                let outside = |port: &Port| {
                    networks.iter().any(|network| network.id == port.network && network.is_external)
                };
                ports.retain(|port| !outside(port));
            }
        }
        ports.sort_by(|a, b| b.created.cmp(&a.created));
        Ok(ports)
    }

    fn await_floating(&self, call: &CallContext, floating: &FloatingIp) -> Result<FloatingIp, Error> {
        if floating.is_active {
            return Ok(floating.clone());
        }
        let call = CallContext { stop: call.stop.deadline_in(ACTIVE), log: call.log.clone() };
        let mut since = Instant::now();
        loop {
            let told = self.neutron.floating_since(&call, since).map_err(|error| match error.kind() {
                ErrorKind::Timeout => {
                    let what = format!("the floating IP {} did not become active in time", floating.address);
                    self.nova.error(ErrorKind::Timeout, what)
                }
                _ => error,
            })?;
            since = told.next();
            match told.value.iter().find(|found| found.id == floating.id) {
                Some(found) if found.is_active => return Ok(found.clone()),
                _ => {}
            }
        }
    }
}

/// Adds a floating IP to what Nova has said: it hears of it later.
fn add(server: &mut Server, fixed: &str, floating: &str) {
    for list in server.addresses.values_mut() {
        let Some(leads_to) = list.iter().find(|address| address.address == fixed) else { continue };
        let mac = leads_to.mac.clone();
        if !list.iter().any(|address| address.address == floating) {
            list.push(Address { address: floating.to_owned(), version: 4, floating: Some(true), mac });
        }
        return;
    }
}
