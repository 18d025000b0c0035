//! This daemon's entry among the components of the fleet (spec/zookeeper.md, Components).

use serde::Serialize;

use super::error::{ZkErrorKind, ZkResult, optional};
use super::session::Session;

/// What a component says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ComponentState {
    /// It is working.
    Running,
    /// It is about to stop.
    Stopped,
}

/// A registered component. Its znode goes with the session, and must be registered again in the next.
#[derive(Debug)]
pub struct Component {
    path: String,
    hostname: String,
}

/// In the order of the keys: the original sorts them.
#[derive(Serialize)]
struct Record<'a> {
    hostname: &'a str,
    kind: &'a str,
    model_api: u32,
    state: ComponentState,
    version: &'a str,
}

const KIND: &str = "builder";

impl Component {
    /// Registers a builder.
    pub fn register(session: &Session, hostname: &str) -> ZkResult<Self> {
        let parent = format!("/nodepool/components/{KIND}");
        session.ensure_path(&parent)?;
        let data = record(hostname, ComponentState::Running);
        let path = session.create_ephemeral(&format!("{parent}/{hostname}"), &data)?;
        Ok(Self { path, hostname: hostname.to_owned() })
    }

    /// How many builders are registered in the fleet.
    pub fn builders(session: &Session) -> ZkResult<usize> {
        let found = optional(session.children(&format!("/nodepool/components/{KIND}")))?;
        Ok(found.map_or(0, |names| names.len()))
    }

    /// Tells the fleet of another state.
    pub fn set_state(&self, session: &Session, state: ComponentState) -> ZkResult<()> {
        let (_, stat) = session.get(&self.path)?;
        match session.set(&self.path, &record(&self.hostname, state), stat.version) {
            // Nobody else writes it, so it has gone with its session.
            Err(error) if error.is(ZkErrorKind::BadVersion) => Ok(()),
            other => other.map(|_| ()),
        }
    }

    /// Where it is registered.
    pub fn path(&self) -> &str {
        &self.path
    }
}

fn record(hostname: &str, state: ComponentState) -> Vec<u8> {
    let version = env!("CARGO_PKG_VERSION");
    crate::model::encode(&Record { hostname, kind: KIND, model_api: 0, state, version })
}
