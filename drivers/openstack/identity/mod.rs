//! Keystone: who we are, and where the cloud's services are.
//!
//! A token is fetched when it is first needed, shared by all threads of the provider, and renewed by one of
//! them before it expires, or once when a service does not know it any more. With it comes the [`catalog`];
//! [`discovery`] finds the version of a service that is spoken here.

mod catalog;
mod discovery;
mod time;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use nodepool_threads::{Condvar, Mutex};
use serde_json::Value as Json;

use super::clouds::{Cloud, Secret, Service};
use super::http::{Client, Repeat, Reply, Request};
use crate::api::{CallContext, Error, ErrorKind};
pub(super) use catalog::Catalog;
pub(super) use discovery::{microversions, root};

/// A kind of service.
#[derive(Debug, Clone, Copy)]
pub(super) struct ServiceKind {
    /// How its keys in `clouds.yaml` begin.
    pub(super) key: &'static str,
    /// Its types in the catalog, the official one first (service-types of the API working group).
    pub(super) types: &'static [&'static str],
    /// The major version that is spoken here.
    pub(super) major: u32,
    /// The project that it is of.
    pub(super) project: &'static str,
}

/// Images.
pub(super) const IMAGE: ServiceKind =
    ServiceKind { key: "image", types: &["image"], major: 2, project: "Glance" };
/// Servers.
pub(super) const COMPUTE: ServiceKind =
    ServiceKind { key: "compute", types: &["compute"], major: 2, project: "Nova" };
/// Networks, ports and floating IPs.
pub(super) const NETWORK: ServiceKind =
    ServiceKind { key: "network", types: &["network"], major: 2, project: "Neutron" };
/// Volumes. Its older types come last.
pub(super) const VOLUME: ServiceKind = ServiceKind {
    key: "block_storage",
    types: &["block-storage", "volumev3", "block-store"],
    major: 3,
    project: "Cinder",
};

/// How long the token that a call begins with shall be good.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Good {
    /// For a call.
    Now,
    /// For something long: at least half of a token's life, or an hour.
    Long,
}

/// The token's life ends so much earlier for us.
const MARGIN: Duration = Duration::from_secs(120);
/// How long is long.
const LONG: Duration = Duration::from_secs(3600);
/// How often who waits for another thread's token looks whether it may still wait.
const LOOK: Duration = Duration::from_millis(100);
/// A token whose times cannot be read is taken for this long.
const UNKNOWN_LIFE: Duration = Duration::from_secs(300);

/// Who we are to a cloud; shared by the threads of a provider.
#[derive(Debug)]
pub(super) struct Identity {
    http: Arc<Client>,
    cloud: Arc<Cloud>,
    state: Mutex<State>,
    changed: Condvar,
    /// Addresses with the version that is spoken, by the catalog's.
    versions: Mutex<BTreeMap<String, String>>,
}

#[derive(Debug, Default)]
struct State {
    session: Option<Arc<Session>>,
    /// Whether a thread is fetching a token.
    fetching: bool,
}

/// A token and what came with it.
#[derive(Debug)]
pub(super) struct Session {
    pub(super) token: Secret,
    /// The id of the project that it is for.
    pub(super) project: Option<String>,
    catalog: Catalog,
    begun: Instant,
    life: Duration,
}

impl Session {
    fn is_good(&self, good: Good) -> bool {
        let margin = match good {
            Good::Now => MARGIN.min(self.life / 4),
            Good::Long => LONG.min(self.life / 2),
        };
        self.begun.elapsed() < self.life.saturating_sub(margin)
    }
}

impl Identity {
    pub(super) fn new(http: Arc<Client>, cloud: Arc<Cloud>) -> Self {
        Self {
            http,
            cloud,
            state: Mutex::new("token of a cloud", State::default()),
            changed: Condvar::new(),
            versions: Mutex::new("versions of a cloud's services", BTreeMap::new()),
        }
    }

    /// A token that is good for what is to come. One thread fetches it, the others wait for that.
    pub(super) fn session(&self, call: &CallContext, good: Good) -> Result<Arc<Session>, Error> {
        loop {
            call.stop.check()?;
            let mut state = self.state.lock();
            if let Some(session) = state.session.as_ref().filter(|session| session.is_good(good)) {
                return Ok(Arc::clone(session));
            }
            if !state.fetching {
                state.fetching = true;
                break;
            }
            self.changed.wait_until(&mut state, Instant::now() + LOOK);
        }
        let fetching = Fetching(self);
        let session = Arc::new(self.fetch(call)?);
        self.state.lock().session = Some(Arc::clone(&session));
        drop(fetching);
        Ok(session)
    }

    /// Forgets a token that a service has refused, unless another thread has renewed it already.
    pub(super) fn forget(&self, refused: &Arc<Session>) {
        let mut state = self.state.lock();
        if state.session.as_ref().is_some_and(|session| Arc::ptr_eq(session, refused)) {
            state.session = None;
        }
    }

    /// Makes a request with a token, and once more with a new one if that is refused.
    pub(super) fn send(&self, call: &CallContext, request: &mut Request<'_>) -> Result<Reply, Error> {
        let session = self.session(call, Good::Now)?;
        request.token = Some(session.token.clone());
        let reply = self.http.send(call, request)?;
        if reply.status != 401 {
            return Ok(reply);
        }
        self.forget(&session);
        request.token = Some(self.session(call, Good::Now)?.token.clone());
        let reply = self.http.send(call, request)?;
        if reply.status == 401 { Err(self.still_refused(request, &reply)) } else { Ok(reply) }
    }

    /// The same for a request that must be done.
    pub(super) fn done(&self, call: &CallContext, request: &mut Request<'_>) -> Result<Reply, Error> {
        let reply = self.send(call, request)?;
        if reply.is_success() { Ok(reply) } else { Err(self.http.refused(request, &reply)) }
    }

    /// The error when even a new token is refused.
    pub(super) fn still_refused(&self, request: &Request<'_>, reply: &Reply) -> Error {
        let refused = self.http.refused(request, reply);
        let advice = "it refuses a new token, too: the service may trust another Keystone";
        Error::new(ErrorKind::Permanent, format!("{refused}; {advice}"))
    }

    /// The address of a service, with the version that is spoken and without a slash at its end.
    pub(super) fn endpoint(&self, call: &CallContext, kind: ServiceKind) -> Result<String, Error> {
        let wanted = self.cloud.service(kind.key);
        let url = match &wanted.endpoint {
            Some(url) => url.clone(),
            None => {
                let session = self.session(call, Good::Now)?;
                session
                    .catalog
                    .find(&types(kind, &wanted), &wanted)
                    .map_err(|why| Error::new(ErrorKind::Permanent, format!("{}: {why}", self.http.whose)))?
            }
        };
        if let Some(known) = self.versions.lock().get(&url) {
            return Ok(known.clone());
        }
        let found = discovery::versioned(&self.http, call, &url, kind.major)?;
        self.versions.lock().insert(url, found.clone());
        Ok(found)
    }

    /// Whether there is such a service.
    pub(super) fn has(&self, call: &CallContext, kind: ServiceKind) -> Result<bool, Error> {
        let wanted = self.cloud.service(kind.key);
        if wanted.endpoint.is_some() {
            return Ok(true);
        }
        let session = self.session(call, Good::Now)?;
        Ok(session.catalog.has(&types(kind, &wanted), &wanted))
    }

    fn fetch(&self, call: &CallContext) -> Result<Session, Error> {
        let keystone = discovery::versioned(&self.http, call, &self.cloud.auth_url, 3)?;
        let body = self.cloud.credentials.request();
        let mut request = Request::new("POST", format!("{keystone}/auth/tokens")).json(&body);
        request.repeat = Repeat::Always;
        request.paced = false;
        let begun = Instant::now();
        let reply = self.http.send(call, &mut request)?;
        if !reply.is_success() {
            let refused = self.http.refused(&request, &reply);
            return Err(match reply.status {
                401 | 403 => {
                    let who = self.cloud.credentials.describe();
                    let name = &self.cloud.name;
                    let advice = format!(
                        "Keystone refuses {who}; see 'auth' of the cloud '{name}' in clouds.yaml and secure.yaml"
                    );
                    Error::new(ErrorKind::Permanent, format!("{refused}; {advice}"))
                }
                404 => {
                    let advice = "is there a Keystone with version 3 at 'auth_url'?";
                    Error::new(ErrorKind::Permanent, format!("{refused}; {advice}"))
                }
                _ => refused,
            });
        }
        self.read(&reply, begun).ok_or_else(|| {
            let message =
                format!("{}: POST {}: the answer is no token of Keystone", self.http.whose, request.path());
            Error::new(ErrorKind::Permanent, message)
        })
    }

    /// The token in Keystone's answer. Its life counts from when we asked for it, whatever our clock says.
    fn read(&self, reply: &Reply, begun: Instant) -> Option<Session> {
        let token = Secret::new(reply.header("x-subject-token")?);
        let body = reply.json()?;
        let details = body.get("token")?;
        let at = |key: &str| details.get(key).and_then(Json::as_str).and_then(time::seconds);
        let life = match (at("issued_at"), at("expires_at")) {
            (Some(issued), Some(expires)) => {
                Duration::from_secs(u64::try_from(expires - issued).unwrap_or(0))
            }
            _ => UNKNOWN_LIFE,
        };
        let project = details.pointer("/project/id").and_then(Json::as_str).map(str::to_owned);
        Some(Session { token, project, catalog: Catalog::read(details.get("catalog")), begun, life })
    }
}

/// The types in the catalog that a service may have, the best one first.
fn types(kind: ServiceKind, wanted: &Service) -> Vec<&str> {
    wanted.service_type.as_deref().map_or_else(|| kind.types.to_vec(), |own| vec![own])
}

/// Held by the thread that fetches a token; lets the next one try when it has failed.
struct Fetching<'a>(&'a Identity);

impl Drop for Fetching<'_> {
    fn drop(&mut self) {
        self.0.state.lock().fetching = false;
        self.0.changed.notify_all();
    }
}
