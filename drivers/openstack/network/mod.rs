//! Neutron: networks, ports and floating IPs.

mod floating;
mod ports;

use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value as Json;

use super::clouds::Reach;
use super::service::{Service, can_be_id, only};
use super::shared::{SELDOM, Shared, Told};
use crate::api::{CallContext, Error, ErrorKind};
pub(super) use floating::{Floated, FloatingIp};
pub(super) use ports::Port;

/// How long after one list of floating IPs the next one is asked for at the soonest.
const APART: Duration = Duration::from_secs(1);

/// The network service of a cloud. A clone is the same service.
#[derive(Debug, Clone)]
pub(super) struct Neutron {
    service: Service,
    known: Arc<Known>,
}

#[derive(Debug)]
struct Known {
    networks: Shared<Vec<Network>>,
    floating: Shared<Vec<FloatingIp>>,
}

/// A network.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Network {
    pub(super) id: String,
    pub(super) name: String,
    /// Whether floating IPs may come from it (`router:external`).
    pub(super) is_external: bool,
    /// Whether it is one of the machines' own, which only administrators see.
    pub(super) is_physical: bool,
}

impl Network {
    fn read(json: &Json) -> Option<Self> {
        let text = |key: &str| json.get(key).and_then(Json::as_str);
        Some(Self {
            id: text("id")?.to_owned(),
            name: text("name").unwrap_or_default().to_owned(),
            is_external: json.get("router:external").and_then(Json::as_bool).unwrap_or(false),
            is_physical: text("provider:physical_network").is_some_and(|name| !name.is_empty()),
        })
    }

    /// Whether it goes by this name or id.
    pub(super) fn is(&self, name: &str) -> bool {
        self.name == name || self.id == name
    }
}

impl Neutron {
    pub(super) fn new(service: Service) -> Self {
        let known = Known {
            networks: Shared::new("networks of a cloud", Duration::ZERO),
            floating: Shared::new("floating IPs of a cloud", APART),
        };
        Self { service, known: Arc::new(known) }
    }

    /// The same service, asked without waiting for a turn.
    pub(super) fn unpaced(&self) -> Self {
        Self { service: self.service.unpaced(), known: Arc::clone(&self.known) }
    }

    /// Whether the cloud has it.
    pub(super) fn is_there(&self, call: &CallContext) -> Result<bool, Error> {
        self.service.is_there(call)
    }

    /// The networks that the project sees; none where the cloud does not tell.
    pub(super) fn networks(&self, call: &CallContext) -> Result<Arc<Told<Vec<Network>>>, Error> {
        self.known.networks.within(call, SELDOM, |call| {
            if !self.is_there(call)? {
                return Ok(Vec::new());
            }
            let networks = self.service.list(call, "/networks", "networks")?;
            Ok(networks.iter().filter_map(Network::read).collect())
        })
    }

    /// The id of the network of this name or id.
    pub(super) fn network_id(&self, call: &CallContext, name: &str) -> Result<String, Error> {
        let networks = self.networks(call)?;
        if let Some(found) = networks.value.iter().find(|network| network.id == name) {
            return Ok(found.id.clone());
        }
        let named: Vec<_> = networks.value.iter().filter(|network| network.name == name).collect();
        match named.as_slice() {
            [found] => Ok(found.id.clone()),
            [] => {
                let names = networks.value.iter().map(|network| network.name.as_str());
                let what = format!("there is no network '{name}', {}", only(names));
                Err(self.service.error(ErrorKind::Permanent, what))
            }
            [_, _, ..] => {
                let what = format!("there are {} networks '{name}': name the one by its id", named.len());
                Err(self.service.error(ErrorKind::Permanent, what))
            }
        }
    }

    /// The network that floating IPs come from.
    pub(super) fn source(&self, call: &CallContext, reach: &Reach) -> Result<Option<String>, Error> {
        if let Some(wish) = reach.networks.iter().find(|wish| wish.nat_source) {
            return self.network_id(call, &wish.name).map(Some);
        }
        let networks = self.networks(call)?;
        Ok(networks.value.iter().find(|network| network.is_external).map(|network| network.id.clone()))
    }

    /// Whether there may be floating IPs.
    pub(super) fn has_source(&self, call: &CallContext, reach: &Reach) -> Result<bool, Error> {
        let named = reach.networks.iter().any(|wish| wish.nat_source);
        Ok(named || self.networks(call)?.value.iter().any(|network| network.is_external))
    }

    /// The floating IPs, as a list has them that was begun at `since` or later.
    pub(super) fn floating_since(
        &self,
        call: &CallContext,
        since: Instant,
    ) -> Result<Arc<Told<Vec<FloatingIp>>>, Error> {
        self.known.floating.since(call, since, |call| self.floating(call))
    }

    /// The floating IPs, as a list has them that may be some moments old.
    pub(super) fn floating_lately(&self, call: &CallContext) -> Result<Arc<Told<Vec<FloatingIp>>>, Error> {
        self.known.floating.within(call, APART, |call| self.floating(call))
    }

    fn floating(&self, call: &CallContext) -> Result<Vec<FloatingIp>, Error> {
        let found = self.own(call, "/floatingips", "floatingips", "")?;
        Ok(found.iter().filter_map(FloatingIp::read).collect())
    }

    /// A list of what the project has: an administrator would see that of all projects.
    fn own(&self, call: &CallContext, path: &str, key: &str, filter: &str) -> Result<Vec<Json>, Error> {
        let project = self.service.project(call)?.filter(|project| can_be_id(project));
        let filters = [project.map(|project| format!("project_id={project}")), Some(filter.to_owned())];
        let filters: Vec<_> = filters.into_iter().flatten().filter(|filter| !filter.is_empty()).collect();
        let mark = if filters.is_empty() { "" } else { "?" };
        self.service.list(call, &format!("{path}{mark}{}", filters.join("&")), key)
    }

    /// Has the networks asked for again.
    pub(super) fn forget(&self) {
        self.known.networks.forget();
    }
}
