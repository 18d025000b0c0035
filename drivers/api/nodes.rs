//! The ability to run nodes.

use std::collections::BTreeMap;

use super::{CallContext, Error, PoolSettings, Resources};

/// The ability to run nodes.
pub trait Nodes: Send + Sync {
    /// Makes the handler of one node request. Cheap: it makes no call to the provider.
    fn handler(&self, request: NodeRequest) -> Box<dyn NodeRequestHandler>;

    /// Deletes a node by its id. A node that is not there counts as deleted.
    fn delete(&self, call: &CallContext, external_id: &str) -> Result<(), Error>;

    /// All instances at the provider, those of others too.
    fn list(&self, call: &CallContext) -> Result<Vec<Instance>, Error>;

    /// What all instances at the provider may need together.
    fn limits(&self, call: &CallContext) -> Result<Resources, Error> {
        call.stop.check()?;
        Ok(Resources::default())
    }

    /// What a node of a label needs.
    fn needs(&self, call: &CallContext, pool: &PoolSettings, label: &str) -> Result<Resources, Error> {
        let _ = (pool, label);
        call.stop.check()?;
        Ok(Resources::one_instance())
    }

    /// Whether the provider has all that a node of a label boots from. Not asked of disk images, whose uploads are
    /// recorded.
    fn label_ready(&self, call: &CallContext, pool: &PoolSettings, label: &str) -> Result<bool, Error> {
        let _ = (pool, label);
        call.stop.check()?;
        Ok(true)
    }

    /// The zones that nodes of a pool without zones of its own may run in; empty where there are none.
    fn zones(&self, call: &CallContext) -> Result<Vec<String>, Error> {
        call.stop.check()?;
        Ok(Vec::new())
    }

    /// What a node has said on its console, where that can be had.
    fn console(&self, call: &CallContext, external_id: &str) -> Result<Option<String>, Error> {
        let _ = external_id;
        call.stop.check()?;
        Ok(None)
    }

    /// Removes what deletions have left at the provider besides instances.
    fn clean_up(&self, call: &CallContext) -> Result<CleanedUp, Error> {
        call.stop.check()?;
        Ok(CleanedUp::default())
    }
}

/// What a clean-up has removed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CleanedUp {
    /// So many ports.
    pub ports: u64,
    /// So many floating IPs.
    pub floating_ips: u64,
}

/// The keys of the metadata by which an instance is known again.
pub mod metadata {
    /// The id of its node.
    pub const NODE_ID: &str = "nodepool_node_id";
    /// Its pool.
    pub const POOL_NAME: &str = "nodepool_pool_name";
    /// Its provider.
    pub const PROVIDER_NAME: &str = "nodepool_provider_name";
}

/// A node request, as far as a driver has to know it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeRequest {
    /// The request's id.
    pub id: String,
    /// The labels of the nodes that are asked for, in order.
    pub labels: Vec<String>,
    /// What else its record says that may be shown, such as `tenant_name`: for texts that name it.
    pub attributes: BTreeMap<String, serde_json::Value>,
}

/// Serves one node request: launches its nodes. Shared by the threads that launch them.
pub trait NodeRequestHandler: Send + Sync {
    /// Launches a node, and returns once the provider says that it runs. `created` is told the provider's id as soon
    /// as there is one: from then on a crash leaves something. When the launch fails, nothing of the attempt is left
    /// at the provider as far as that can be had; where it cannot, the error [says so](Error::leaves_something).
    fn launch(
        &self,
        call: &CallContext,
        node: &NodeSpec,
        created: &mut dyn FnMut(&str),
    ) -> Result<LaunchedNode, Error>;
}

/// A node that is to be launched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NodeSpec {
    /// The name that the instance gets.
    pub hostname: String,
    /// The pool.
    pub pool: String,
    /// The label, which is one of the request's and of the pool's.
    pub label: String,
    /// The provider's id of the uploaded disk image; `None` where the label has no disk image.
    pub image: Option<String>,
    /// The zone that it shall run in, if the provider has any.
    pub zone: Option<String>,
    /// What the instance is known by again: see [`metadata`].
    pub metadata: BTreeMap<String, String>,
}

/// A node that was launched. What the driver does not know stays empty.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LaunchedNode {
    /// The provider's id of it.
    pub external_id: String,
    /// Where it is reached from everywhere.
    pub interface_ip: String,
    /// Its public IPv4 address.
    pub public_ipv4: Option<String>,
    /// Its private IPv4 address.
    pub private_ipv4: Option<String>,
    /// Its public IPv6 address.
    pub public_ipv6: Option<String>,
    /// The provider's id of the machine that it runs on.
    pub host_id: Option<String>,
    /// The cloud.
    pub cloud: Option<String>,
    /// The region.
    pub region: Option<String>,
    /// The availability zone.
    pub az: Option<String>,
    /// What it needs, where that is known better now.
    pub resources: Option<Resources>,
}

/// An instance at a provider.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Instance {
    /// The provider's id of it.
    pub external_id: String,
    /// What it is known by: see [`metadata`].
    pub metadata: BTreeMap<String, String>,
    /// What it needs.
    pub resources: Resources,
}
