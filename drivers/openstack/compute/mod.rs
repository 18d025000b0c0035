//! Nova: servers are created, looked at, listed and deleted; flavors, zones, limits.
//!
//! What many threads want to know at once, they share ([`Shared`]): above all the list of servers, which is asked for
//! once a second however many servers are waited for.

mod flavors;
mod server;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value as Json, json};

use super::http::{Repeat, Reply};
use super::limits;
use super::service::{Deleted, Service, can_be_id};
use super::shared::{SELDOM, Shared, Told};
use crate::api::{CallContext, Error, ErrorKind, Resources};
pub(super) use flavors::Flavor;
pub(super) use server::{Address, Server, SizeOf};

/// What is spoken here: servers come with what their flavor is (2.47), networks can be left to the cloud (2.37).
const WANTED: (u32, u32) = (2, 47);
/// How long the versions of a service count.
const VERSIONS: Duration = Duration::from_secs(3600);
/// How long after one list of servers the next one is asked for at the soonest.
const APART: Duration = Duration::from_secs(1);

/// All servers of the project by their ids.
pub(super) type Servers = BTreeMap<String, Server>;

/// The compute service of a cloud. A clone is the same service.
#[derive(Debug, Clone)]
pub(super) struct Nova {
    service: Service,
    known: Arc<Known>,
}

#[derive(Debug)]
struct Known {
    /// Whether it speaks what is wanted, or else only the oldest version.
    speaks: Shared<bool>,
    servers: Shared<Servers>,
    flavors: Shared<Vec<Flavor>>,
    zones: Shared<Vec<String>>,
}

/// What came of a creation.
pub(super) enum Created {
    /// A server of this id.
    Server(String),
    /// It was refused.
    Refused { error: Error, status: u16 },
    /// That is not known: there may be a server.
    InDoubt(Error),
}

impl Nova {
    pub(super) fn new(service: Service) -> Self {
        let known = Known {
            speaks: Shared::new("versions of Nova", Duration::ZERO),
            servers: Shared::new("servers of a cloud", APART),
            flavors: Shared::new("flavors of a cloud", Duration::ZERO),
            zones: Shared::new("zones of a cloud", Duration::ZERO),
        };
        Self { service, known: Arc::new(known) }
    }

    /// The same service, asked without waiting for a turn.
    pub(super) fn unpaced(&self) -> Self {
        Self { service: self.service.unpaced(), known: Arc::clone(&self.known) }
    }

    /// Whether networks can be left to the cloud in so many words, and servers tell their size.
    pub(super) fn is_recent(&self, call: &CallContext) -> Result<bool, Error> {
        Ok(self.known.speaks.within(call, VERSIONS, |call| self.ask_version(call))?.value)
    }

    fn ask_version(&self, call: &CallContext) -> Result<bool, Error> {
        let Some([oldest, newest]) = self.service.microversions(call)? else { return Ok(false) };
        if oldest > WANTED {
            let (major, minor) = WANTED;
            let what = format!(
                "Nova speaks no version {major}.{minor} any more, only {}.{} to {}.{}",
                oldest.0, oldest.1, newest.0, newest.1
            );
            return Err(self.service.error(ErrorKind::Permanent, what));
        }
        Ok(newest >= WANTED)
    }

    /// The service with its version.
    fn spoken(&self, call: &CallContext) -> Result<Service, Error> {
        if !self.is_recent(call)? {
            return Ok(self.service.clone());
        }
        let (major, minor) = WANTED;
        Ok(self.service.with_header("OpenStack-API-Version", format!("compute {major}.{minor}")))
    }

    /// The servers, as a list has them that was begun at `since` or later: what was there before that and still is
    /// is among them.
    pub(super) fn servers_since(
        &self,
        call: &CallContext,
        since: Instant,
    ) -> Result<Arc<Told<Servers>>, Error> {
        self.known.servers.since(call, since, |call| self.ask_servers(call))
    }

    /// The servers, as they were a moment ago at most.
    pub(super) fn servers(&self, call: &CallContext) -> Result<Arc<Told<Servers>>, Error> {
        self.known.servers.within(call, APART, |call| self.ask_servers(call))
    }

    /// The servers, as the last list has them.
    pub(super) fn servers_known(&self) -> Option<Arc<Told<Servers>>> {
        self.known.servers.last()
    }

    fn ask_servers(&self, call: &CallContext) -> Result<Servers, Error> {
        // By their ids, so that pages follow on each other: many have the same time of creation.
        let path = "/servers/detail?sort_key=uuid&sort_dir=asc";
        let servers = self.spoken(call)?.list(call, path, "servers")?;
        let servers = servers.iter().filter_map(Server::read).filter(|server| !server.is_gone());
        Ok(servers.map(|server| (server.id.clone(), server)).collect())
    }

    /// Creates a server.
    pub(super) fn create(&self, call: &CallContext, server: &Json) -> Result<Created, Error> {
        let service = self.spoken(call)?;
        let body = json!({ "server": server });
        let mut request = service.request(call, "POST", "/servers")?.json(&body);
        request.repeat = Repeat::Unheard;
        let reply = match service.identity.send(call, &mut request) {
            Ok(reply) => reply,
            Err(error) if request.in_doubt => return Ok(Created::InDoubt(error)),
            Err(error) => return Err(error),
        };
        if reply.is_success() {
            return match id_of(&reply) {
                Some(id) => Ok(Created::Server(id)),
                None => Ok(Created::InDoubt(
                    self.service.error(ErrorKind::Transient, "POST /servers: the answer has no id"),
                )),
            };
        }
        let error = service.http.refused(&request, &reply);
        // A proxy may have been impatient.
        let doubt = reply.status >= 500;
        Ok(if doubt { Created::InDoubt(error) } else { Created::Refused { error, status: reply.status } })
    }

    /// Asks for a server's deletion.
    pub(super) fn delete(&self, call: &CallContext, id: &str) -> Result<Deleted, Error> {
        self.service.delete(call, &format!("/servers/{id}"))
    }

    /// What a server has said on its console.
    pub(super) fn console(&self, call: &CallContext, id: &str) -> Result<Option<String>, Error> {
        if !can_be_id(id) {
            return Ok(None);
        }
        let body = json!({ "os-getConsoleOutput": {} });
        let mut request = self.service.request(call, "POST", &format!("/servers/{id}/action"))?.json(&body);
        let reply = self.service.identity.done(call, &mut request)?;
        let answer = self.service.object(&request, &reply)?;
        Ok(answer.get("output").and_then(Json::as_str).map(str::to_owned))
    }

    /// The flavors, those with the least memory first.
    pub(super) fn flavors(&self, call: &CallContext) -> Result<Arc<Told<Vec<Flavor>>>, Error> {
        self.known.flavors.within(call, SELDOM, |call| {
            let found = self.service.list(call, "/flavors/detail", "flavors")?;
            Ok(flavors::sorted(found.iter().filter_map(Flavor::read).collect()))
        })
    }

    /// The zones that servers can be created in; none where the cloud does not tell.
    pub(super) fn zones(&self, call: &CallContext) -> Result<Vec<String>, Error> {
        let told = self.known.zones.within(call, SELDOM, |call| {
            let mut request = self.service.request(call, "GET", "/os-availability-zone")?;
            let reply = self.service.identity.send(call, &mut request)?;
            if matches!(reply.status, 403 | 404) {
                return Ok(Vec::new());
            }
            if !reply.is_success() {
                return Err(self.service.http.refused(&request, &reply));
            }
            Ok(zones_of(&self.service.object(&request, &reply)?))
        })?;
        Ok(told.value.clone())
    }

    /// What the project may have of servers.
    pub(super) fn limits(&self, call: &CallContext) -> Result<Resources, Error> {
        Ok(limits::read(&self.service.get(call, "/limits")?, &limits::COMPUTE))
    }

    /// Has everything asked for again that seldom changes.
    pub(super) fn forget(&self) {
        self.known.speaks.forget();
        self.known.flavors.forget();
        self.known.zones.forget();
    }

    /// An error with the name of the cloud.
    pub(super) fn error(&self, kind: ErrorKind, what: impl AsRef<str>) -> Error {
        self.service.error(kind, what)
    }
}

fn id_of(reply: &Reply) -> Option<String> {
    let body = reply.json()?;
    let id = body.get("server")?.get("id")?.as_str()?;
    can_be_id(id).then(|| id.to_owned())
}

fn zones_of(answer: &Json) -> Vec<String> {
    let zones = answer.get("availabilityZoneInfo").and_then(Json::as_array).into_iter().flatten();
    let open = |zone: &&Json| zone.pointer("/zoneState/available").and_then(Json::as_bool) == Some(true);
    zones.filter(open).filter_map(|zone| Some(zone.get("zoneName")?.as_str()?.to_owned())).collect()
}
