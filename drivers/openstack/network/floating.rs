//! Floating IPs: addresses of the world outside that lead to a port.

use serde_json::{Value as Json, json};

use super::Neutron;
use crate::api::{CallContext, Error, ErrorKind};
use crate::openstack::http::Repeat;
use crate::openstack::service::{Deleted, can_be_id};

/// A floating IP.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::openstack) struct FloatingIp {
    pub(in crate::openstack) id: String,
    pub(in crate::openstack) address: String,
    /// Where it leads to.
    pub(in crate::openstack) port: Option<String>,
    /// The server of the port, which older clouds do not tell.
    pub(in crate::openstack) server: Option<String>,
    pub(in crate::openstack) is_active: bool,
}

/// What came of a creation.
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
            port: text("/port_id"),
            server: text("/port_details/device_id"),
            is_active: text_at("/status") == Some("ACTIVE"),
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
        let mut request = self.service.request(call, "POST", "/floatingips")?.json(&body);
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
            let what = "POST /floatingips: the answer has no floating IP";
            Floated::InDoubt(self.service.error(ErrorKind::Transient, what))
        }))
    }

    /// Deletes a floating IP.
    pub(in crate::openstack) fn delete_floating_ip(
        &self,
        call: &CallContext,
        id: &str,
    ) -> Result<Deleted, Error> {
        if !can_be_id(id) {
            return Ok(Deleted::NotThere);
        }
        self.service.delete(call, &format!("/floatingips/{id}"))
    }
}
