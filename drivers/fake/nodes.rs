//! The fake cloud's ability to run nodes: they take a moment to launch and have an address, no more.

use std::sync::Arc;

use slog::debug;
use uuid::Uuid;

use super::FakeProvider;
use super::cloud::Cloud;
use crate::api::{
    CallContext, CleanedUp, Error, ErrorKind, Instance, LaunchedNode, NodeRequest, NodeRequestHandler,
    NodeSpec, Nodes, PoolSettings, Resources,
};

impl Nodes for FakeProvider {
    fn handler(&self, request: NodeRequest) -> Box<dyn NodeRequestHandler> {
        Box::new(FakeHandler { cloud: Arc::clone(&self.cloud), request })
    }

    fn delete(&self, call: &CallContext, external_id: &str) -> Result<(), Error> {
        self.cloud.answer(call)?;
        self.cloud.take_time_to_delete(call, &format!("the node {external_id}"))?;
        self.cloud.instances.remove(external_id)
    }

    fn list(&self, call: &CallContext) -> Result<Vec<Instance>, Error> {
        self.cloud.answer(call)?;
        self.cloud.instances.list()
    }

    fn limits(&self, call: &CallContext) -> Result<Resources, Error> {
        self.cloud.answer(call)?;
        Ok(self.cloud.behaviour.limits.clone())
    }

    fn console(&self, call: &CallContext, external_id: &str) -> Result<Option<String>, Error> {
        self.cloud.answer(call)?;
        Ok(Some(format!("the instance {external_id} of the fake cloud has nothing to say\n")))
    }

    fn clean_up(&self, call: &CallContext) -> Result<CleanedUp, Error> {
        self.cloud.answer(call)?;
        Ok(CleanedUp { ports: std::mem::take(&mut *self.cloud.left_ports.lock()), floating_ips: 0 })
    }

    fn needs(&self, call: &CallContext, _pool: &PoolSettings, _label: &str) -> Result<Resources, Error> {
        self.cloud.answer(call)?;
        Ok(needs())
    }
}

/// What every node needs: as the original's fake flavour.
fn needs() -> Resources {
    [(Resources::INSTANCES, 1), ("cores", 4), ("ram", 8192)].into_iter().collect()
}

struct FakeHandler {
    cloud: Arc<Cloud>,
    request: NodeRequest,
}

impl FakeHandler {
    /// The part of a launch after which there is an instance.
    fn boot(&self, call: &CallContext, label: &str) -> Result<(), Error> {
        call.stop.wait(self.cloud.behaviour.launch_delay)?;
        self.cloud.launch_failures.strike(|| format!("the fake cloud did not launch a node '{label}'"))
    }
}

impl NodeRequestHandler for FakeHandler {
    fn launch(
        &self,
        call: &CallContext,
        node: &NodeSpec,
        created: &mut dyn FnMut(&str),
    ) -> Result<LaunchedNode, Error> {
        let label = &node.label;
        if !self.request.labels.contains(label) {
            let message = format!("the node request {} asks for no node '{label}'", self.request.id);
            return Err(Error::new(ErrorKind::Permanent, message));
        }
        self.cloud.answer(call)?;
        self.cloud.quota_failures.strike(|| "the fake cloud has no room".to_owned())?;
        let instance = Instance {
            external_id: Uuid::new_v4().to_string(),
            metadata: node.metadata.clone(),
            resources: needs(),
        };
        let external_id = instance.external_id.clone();
        debug!(call.log, "the fake cloud launches an instance"; "id" => &external_id, "label" => label,
            "image" => &node.image, "zone" => &node.zone);
        self.cloud.add_within_limits(instance)?;
        created(&external_id);
        if let Err(error) = self.boot(call, label) {
            self.cloud.instances.remove(&external_id)?;
            return Err(error);
        }
        Ok(LaunchedNode {
            external_id,
            interface_ip: "127.0.0.1".to_owned(),
            public_ipv4: Some("127.0.0.1".to_owned()),
            private_ipv4: Some("127.0.0.2".to_owned()),
            cloud: Some("fake".to_owned()),
            az: node.zone.clone(),
            ..LaunchedNode::default()
        })
    }
}
