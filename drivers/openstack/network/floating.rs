//! Floating IPs: addresses of the world outside that lead to a port.
//!
//! Other launchers and people may change one at the same time. Neutron tells its revision, and changes and deletes it
//! only at that revision where a request says so (`If-Match`, the API extension `revision-if-match`, of 2016).

use serde_json::{Value as Json, json};

use super::Neutron;
use crate::api::{CallContext, Error, ErrorKind};
use crate::openstack::http::{Repeat, Request};
use crate::openstack::service::{Deleted, IF_MATCH, Service, can_be_id};

/// A floating IP.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::openstack) struct FloatingIp {
    pub(in crate::openstack) id: String,
    pub(in crate::openstack) address: String,
    /// The network that it comes from.
    pub(in crate::openstack) network: String,
    /// Where it leads to.
    pub(in crate::openstack) port: Option<String>,
    /// The server of the port, which older clouds do not tell.
    pub(in crate::openstack) server: Option<String>,
    pub(in crate::openstack) is_active: bool,
    /// How often it has been changed; `None` where the cloud does not count.
    pub(in crate::openstack) revision: Option<u64>,
}

/// What came of a request for a floating IP that leads to a port.
pub(in crate::openstack) enum Floated {
    /// This floating IP.
    Is(FloatingIp),
    /// It was refused.
    Refused(Error),
    /// That is not known: there may be one, which leads to the port as well.
    InDoubt(Error),
}

impl FloatingIp {
    pub(super) fn read(json: &Json) -> Option<Self> {
        let text_at = |path: &str| json.pointer(path).and_then(Json::as_str);
        let text = |path: &str| text_at(path).filter(|text| !text.is_empty()).map(str::to_owned);
        Some(Self {
            id: text("/id")?,
            address: text("/floating_ip_address").unwrap_or_default(),
            network: text("/floating_network_id").unwrap_or_default(),
            port: text("/port_id"),
            server: text("/port_details/device_id"),
            is_active: text_at("/status") == Some("ACTIVE"),
            revision: json.get("revision_number").and_then(Json::as_u64),
        })
    }
}

impl Neutron {
    /// Creates a floating IP that leads to an address of a port.
    pub(in crate::openstack) fn create_floating_ip(
        &self,
        call: &CallContext,
        network: &str,
        port: &str,
        fixed: &str,
    ) -> Result<Floated, Error> {
        let floating = json!({ "floating_network_id": network, "port_id": port, "fixed_ip_address": fixed });
        let body = json!({ "floatingip": floating });
        self.floated(call, self.service.request(call, "POST", "/floatingips")?.json(&body))
    }

    /// Leads a floating IP to an address of a port. It is refused if it has changed since it was listed.
    pub(in crate::openstack) fn lead_floating_ip(
        &self,
        call: &CallContext,
        floating: &FloatingIp,
        port: &str,
        fixed: &str,
    ) -> Result<Floated, Error> {
        let body = json!({ "floatingip": { "port_id": port, "fixed_ip_address": fixed } });
        let path = format!("/floatingips/{}", floating.id);
        self.floated(call, self.at_revision(floating).request(call, "PUT", &path)?.json(&body))
    }

    fn floated(&self, call: &CallContext, mut request: Request<'_>) -> Result<Floated, Error> {
        request.repeat = Repeat::Unheard;
        let reply = match self.service.identity.send(call, &mut request) {
            Ok(reply) => reply,
            Err(error) if request.in_doubt => return Ok(Floated::InDoubt(error)),
            Err(error) => return Err(error),
        };
        if !reply.is_success() {
            let error = self.service.http.refused(&request, &reply);
            // A proxy may have been impatient.
            return Ok(if reply.status >= 500 { Floated::InDoubt(error) } else { Floated::Refused(error) });
        }
        let read = reply.json().and_then(|answer| FloatingIp::read(answer.get("floatingip")?));
        Ok(read.map(Floated::Is).unwrap_or_else(|| {
            let what = format!("{} {}: the answer has no floating IP", request.method, request.path());
            Floated::InDoubt(self.service.error(ErrorKind::Transient, what))
        }))
    }

    /// Deletes a floating IP, unless it has changed since it was listed.
    pub(in crate::openstack) fn delete_floating_ip(
        &self,
        call: &CallContext,
        floating: &FloatingIp,
    ) -> Result<Deleted, Error> {
        if !can_be_id(&floating.id) {
            return Ok(Deleted::NotThere);
        }
        self.at_revision(floating).delete(call, &format!("/floatingips/{}", floating.id))
    }

    /// The service, asked to do nothing with a floating IP that has changed.
    fn at_revision(&self, floating: &FloatingIp) -> Service {
        match floating.revision {
            Some(revision) => self.service.with_header(IF_MATCH, format!("revision_number={revision}")),
            None => self.service.clone(),
        }
    }
}
