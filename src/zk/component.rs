//! The entries of this daemon among the components of the fleet (spec/zookeeper.md, Components).

use serde::{Deserialize, Serialize};

use super::error::{ZkResult, optional};
use super::session::Session;
use super::tree::Node;
use crate::model::{RecordError, decode, encode};

/// The parent of all pools.
pub const POOLS: &str = "/nodepool/components/pool";

/// A registered component. Its znode goes with the session, and must be registered again in the next.
#[derive(Debug)]
pub struct Component {
    path: String,
}

/// What a component is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Builds images.
    Builder,
    /// Serves node requests.
    Launcher,
    /// A pool of a launcher.
    Pool,
}

impl Kind {
    fn parent(self) -> &'static str {
        match self {
            Self::Builder => "/nodepool/components/builder",
            Self::Launcher => "/nodepool/components/launcher",
            Self::Pool => POOLS,
        }
    }
}

/// What a component says of itself.
#[derive(Debug, Clone, PartialEq)]
pub struct Description {
    /// The name of its host.
    pub hostname: String,
    /// What a pool has besides; `None` for a daemon of this kind.
    pub what: Result<PoolDescription, Kind>,
}

/// What a pool says of itself.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct PoolDescription {
    /// Its id, by which it declines requests.
    pub id: String,
    /// Its name. Old launchers have none.
    #[serde(default)]
    pub name: Option<String>,
    /// Its provider.
    #[serde(default)]
    pub provider_name: String,
    /// The labels that it has nodes of.
    #[serde(default)]
    pub supported_labels: Vec<String>,
    /// Of two pools that can serve a request the one with the lower number does.
    #[serde(default = "default_priority")]
    pub priority: i64,
    /// Whether it takes no more requests for now.
    #[serde(default)]
    pub paused: bool,
}

/// The priority of a pool where the configuration has none.
fn default_priority() -> i64 {
    100
}

/// In the order of the keys: the original sorts them.
#[derive(Serialize)]
struct Record<'a> {
    hostname: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    kind: Kind,
    model_api: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    paused: Option<bool>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<i64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    provider_name: Option<&'a str>,
    state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    supported_labels: Option<&'a [String]>,
    version: &'a str,
}

impl Description {
    /// A daemon of `kind`.
    pub fn daemon(kind: Kind, hostname: &str) -> Self {
        Self { hostname: hostname.to_owned(), what: Err(kind) }
    }

    /// A pool.
    pub fn pool(pool: PoolDescription, hostname: &str) -> Self {
        Self { hostname: hostname.to_owned(), what: Ok(pool) }
    }

    fn kind(&self) -> Kind {
        self.what.as_ref().err().copied().unwrap_or(Kind::Pool)
    }

    fn data(&self) -> Vec<u8> {
        let pool = self.what.as_ref().ok();
        encode(&Record {
            hostname: &self.hostname,
            id: pool.map(|pool| pool.id.as_str()),
            kind: self.kind(),
            model_api: 0,
            name: pool.and_then(|pool| pool.name.as_deref()),
            paused: pool.map(|pool| pool.paused),
            priority: pool.map(|pool| pool.priority),
            provider_name: pool.map(|pool| pool.provider_name.as_str()),
            // It is there as long as it works: a stopped component has no session, and so no entry.
            state: "running",
            supported_labels: pool.map(|pool| pool.supported_labels.as_slice()),
            version: env!("CARGO_PKG_VERSION"),
        })
    }
}

impl Component {
    /// Registers a component.
    pub fn register(session: &Session, description: &Description) -> ZkResult<Self> {
        let parent = description.kind().parent();
        session.ensure_path(parent)?;
        let wanted = format!("{parent}/{}", description.hostname);
        let path = session.create_ephemeral(&wanted, &description.data())?;
        Ok(Self { path })
    }

    /// Says something else of it. Whatever version its znode has: it is this session's own, and a write whose answer was
    /// lost is made again.
    pub fn change(&self, session: &Session, description: &Description) -> ZkResult<()> {
        let data = description.data();
        session.repeat("set", &self.path, |client| client.set(&self.path, &data, None).map(drop))
    }

    /// Takes it from the fleet.
    pub fn unregister(&self, session: &Session) -> ZkResult<()> {
        optional(session.delete(&self.path, None)).map(|_| ())
    }

    /// How many builders are registered in the fleet.
    pub fn builders(session: &Session) -> ZkResult<usize> {
        let found = optional(session.children(Kind::Builder.parent()))?;
        Ok(found.map_or(0, |names| names.len()))
    }

    /// Where it is registered.
    pub fn path(&self) -> &str {
        &self.path
    }
}

/// A pool in a copy of the tree.
pub fn decode_pool(node: &Node) -> Result<PoolDescription, RecordError> {
    decode(&node.data)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_component_says_what_the_originals_say() {
        let text = |description: Description| String::from_utf8(description.data()).unwrap();
        let version = env!("CARGO_PKG_VERSION");
        assert_eq!(
            text(Description::daemon(Kind::Launcher, "host")),
            format!(
                r#"{{"hostname":"host","kind":"launcher","model_api":0,"state":"running","version":"{version}"}}"#
            )
        );
        let pool = PoolDescription {
            id: "i".into(),
            name: Some("main".into()),
            provider_name: "p".into(),
            supported_labels: vec!["a".into()],
            priority: 7,
            paused: true,
        };
        let data = text(Description::pool(pool.clone(), "host"));
        assert_eq!(
            data,
            format!(
                r#"{{"hostname":"host","id":"i","kind":"pool","model_api":0,"name":"main","paused":true,"priority":7,"provider_name":"p","state":"running","supported_labels":["a"],"version":"{version}"}}"#
            )
        );
        assert_eq!(decode::<PoolDescription>(data.as_bytes()).unwrap(), pool);
    }
}
