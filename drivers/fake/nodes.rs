//! The fake cloud's ability to run nodes: they take a moment to launch and have an address, no more.

use std::sync::Arc;

use uuid::Uuid;

use super::FakeProvider;
use super::cloud::Cloud;
use crate::api::{CallContext, Error, ErrorKind, LaunchedNode, NodeRequest, NodeRequestHandler, Nodes};

impl Nodes for FakeProvider {
    fn handler(&self, request: NodeRequest) -> Box<dyn NodeRequestHandler> {
        Box::new(FakeHandler { cloud: Arc::clone(&self.cloud), request })
    }

    fn delete(&self, call: &CallContext, external_id: &str) -> Result<(), Error> {
        self.cloud.take_time_to_delete(call, &format!("the node {external_id}"))?;
        self.cloud.nodes.lock().remove(external_id);
        Ok(())
    }
}

struct FakeHandler {
    cloud: Arc<Cloud>,
    request: NodeRequest,
}

impl NodeRequestHandler for FakeHandler {
    fn request(&self) -> &NodeRequest {
        &self.request
    }

    fn launch(&mut self, call: &CallContext, index: usize) -> Result<LaunchedNode, Error> {
        let Some(label) = self.request.labels.get(index) else {
            let (id, count) = (&self.request.id, self.request.labels.len());
            let message = format!("the node request {id} has {count} labels, there is none at {index}");
            return Err(Error::new(ErrorKind::Permanent, message));
        };
        call.stop.wait(self.cloud.behaviour.launch_delay)?;
        self.cloud.launch_failures.strike(|| format!("the fake cloud did not launch a node '{label}'"))?;
        let external_id = Uuid::new_v4().to_string();
        self.cloud.nodes.lock().insert(external_id.clone());
        Ok(LaunchedNode { external_id, interface_ip: "127.0.0.1".to_owned(), connection_port: 22 })
    }
}
