//! This daemon's entry among the components of the fleet (spec/zookeeper.md, Components).

use serde::Serialize;

use super::error::{ZkResult, optional};
use super::session::Session;
use crate::model::encode;

/// A registered component. Its znode goes with the session, and must be registered again in the next.
#[derive(Debug)]
pub struct Component {
    path: String,
}

/// In the order of the keys: the original sorts them.
#[derive(Serialize)]
struct Record<'a> {
    hostname: &'a str,
    kind: &'a str,
    model_api: u32,
    state: &'static str,
    version: &'a str,
}

const KIND: &str = "builder";

impl Component {
    /// Registers a builder.
    pub fn register(session: &Session, hostname: &str) -> ZkResult<Self> {
        let parent = format!("/nodepool/components/{KIND}");
        session.ensure_path(&parent)?;
        // It is there as long as it works: a stopped builder has no session, and so no entry.
        let (state, version) = ("running", env!("CARGO_PKG_VERSION"));
        let data = encode(&Record { hostname, kind: KIND, model_api: 0, state, version });
        let path = session.create_ephemeral(&format!("{parent}/{hostname}"), &data)?;
        Ok(Self { path })
    }

    /// How many builders are registered in the fleet.
    pub fn builders(session: &Session) -> ZkResult<usize> {
        let found = optional(session.children(&format!("/nodepool/components/{KIND}")))?;
        Ok(found.map_or(0, |names| names.len()))
    }

    /// Where it is registered.
    pub fn path(&self) -> &str {
        &self.path
    }
}
