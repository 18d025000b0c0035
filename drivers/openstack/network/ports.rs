//! Ports: what servers are connected to networks by.

use std::net::Ipv4Addr;

use serde_json::Value as Json;

use super::Neutron;
use crate::api::{CallContext, Error};
use crate::openstack::service::{Deleted, can_be_id};

/// A port.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(in crate::openstack) struct Port {
    pub(in crate::openstack) id: String,
    pub(in crate::openstack) network: String,
    /// What it belongs to, such as a server.
    pub(in crate::openstack) device: String,
    /// What that is, such as `compute:nova`.
    pub(in crate::openstack) owner: String,
    /// Its first IPv4 address.
    pub(in crate::openstack) ipv4: Option<String>,
    /// When it was created; texts that sort as times do.
    pub(in crate::openstack) created: String,
}

impl Port {
    fn read(json: &Json) -> Option<Self> {
        let text = |key: &str| json.get(key).and_then(Json::as_str).unwrap_or_default().to_owned();
        let addresses = json.get("fixed_ips").and_then(Json::as_array).into_iter().flatten();
        let mut addresses = addresses.filter_map(|fixed| fixed.get("ip_address")?.as_str());
        Some(Self {
            id: json.get("id")?.as_str()?.to_owned(),
            network: text("network_id"),
            device: text("device_id"),
            owner: text("device_owner"),
            ipv4: addresses.find(|address| address.parse::<Ipv4Addr>().is_ok()).map(str::to_owned),
            created: text("created_at"),
        })
    }

    /// Whether it is, or was, one of a server: routers and others have some, too.
    pub(in crate::openstack) fn is_of_compute(&self) -> bool {
        self.owner.is_empty() || self.owner.starts_with("compute:")
    }
}

impl Neutron {
    /// The ports of a server.
    pub(in crate::openstack) fn ports_of(
        &self,
        call: &CallContext,
        server: &str,
    ) -> Result<Vec<Port>, Error> {
        self.ports(call, &format!("device_id={server}"))
    }

    /// The ports that are down.
    pub(in crate::openstack) fn ports_down(&self, call: &CallContext) -> Result<Vec<Port>, Error> {
        self.ports(call, "status=DOWN")
    }

    fn ports(&self, call: &CallContext, filter: &str) -> Result<Vec<Port>, Error> {
        Ok(self.own(call, "/ports", "ports", filter)?.iter().filter_map(Port::read).collect())
    }

    /// Deletes a port.
    pub(in crate::openstack) fn delete_port(&self, call: &CallContext, id: &str) -> Result<Deleted, Error> {
        if !can_be_id(id) {
            return Ok(Deleted::NotThere);
        }
        self.service.delete(call, &format!("/ports/{id}"))
    }
}
