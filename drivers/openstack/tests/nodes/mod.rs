//! Nodes at a scripted Nova and Neutron.

mod floating;
mod launches;
mod nova;
mod upkeep;

use std::time::{Duration, Instant};

use nodepool_threads::{Mutex, StopSource};
use serde_json::json;

use super::*;
use crate::api::contract::{self, Subject};
use crate::api::{ErrorKind, LaunchedNode, NodeRequest, NodeSpec, Resources, metadata};

use nova::World;

const SERVERS: &str = "/compute/v2.1/servers";
const LIST: &str = "/compute/v2.1/servers/detail?sort_key=uuid&sort_dir=asc&limit=1000";
const FLOATING: &str = "/network/v2.0/floatingips";

/// A provider of the cloud at `server`, with one label that has these keys.
fn provider(server: &Server, label: Json) -> Arc<dyn Provider> {
    with(server, label, json!({}), "")
}

/// The same with keys of the section and of the cloud.
fn with(server: &Server, label: Json, section: Json, keys: &str) -> Arc<dyn Provider> {
    let scratch = Scratch::new();
    let url = format!("http://{}/identity/v3", server.address);
    let cloud = format!(
        "clouds: {{c: {{auth: {{auth_url: '{url}', user_id: u, password: s3cret, project_id: p}}{keys}}}}}"
    );
    std::fs::write(scratch.path().join("clouds.yaml"), cloud).unwrap();
    let mut entry = json!({"name": "small", "cloud-image": "debian", "flavor-name": "small"});
    let mut whole = json!({"name": "p", "cloud": "c", "rate": 0,
        "cloud-images": [{"name": "debian", "image-id": "i"}], "pools": [{"name": "main", "networks": ["lan"]}]});
    for (into, from) in [(&mut entry, label), (&mut whole, section)] {
        into.as_object_mut().unwrap().extend(from.as_object().unwrap().clone());
    }
    whole["pools"][0]["labels"] = json!([entry]);
    let (config, problems) = read(&scratch, whole);
    assert_eq!(problems, [""; 0]);
    config.unwrap().open(&testing::logger()).unwrap()
}

fn spec(id: &str) -> NodeSpec {
    NodeSpec {
        hostname: format!("np{id}"),
        pool: "main".to_owned(),
        label: "small".to_owned(),
        metadata: [(metadata::NODE_ID.to_owned(), id.to_owned())].into(),
        ..NodeSpec::default()
    }
}

fn request() -> NodeRequest {
    let attributes = [("tenant_name".to_owned(), json!("acme"))].into();
    NodeRequest { id: "200-1".to_owned(), labels: vec!["small".to_owned()], attributes }
}

fn launch(provider: &dyn Provider, call: &CallContext, id: &str) -> Result<LaunchedNode, Error> {
    provider.nodes().unwrap().handler(request()).launch(call, &spec(id), &mut |_| {})
}

/// What launches as often as it is asked; the properties of the label steer the server.
fn launch_with(world: &World, server: &Server, properties: Json) -> Result<LaunchedNode, Error> {
    let (_source, call) = testing::unstopped();
    let launched = launch(&*provider(server, json!({"instance-properties": properties})), &call, "1");
    if launched.is_err() {
        assert!(world.state().servers.is_empty(), "a server stays");
        assert!(world.state().floating.is_empty(), "a floating IP stays");
    }
    launched
}

/// Only the ability to run nodes.
struct OnlyNodes(Arc<dyn Provider>);

impl Provider for OnlyNodes {
    fn images(&self) -> Option<&dyn Images> {
        None
    }

    fn nodes(&self) -> Option<&dyn Nodes> {
        self.0.nodes()
    }
}

#[test]
fn keeps_the_contract() {
    let server = World::default().start(|_, _| None);
    let slow = OnlyNodes(provider(&server, json!({"instance-properties": {"after": 1000}})));
    contract::check(&Subject {
        provider: &OnlyNodes(provider(&server, json!({}))),
        slow: &slow,
        slow_size: 1,
        format: "raw",
        label: "small",
        scratch: Scratch::new().path(),
        log: &testing::logger(),
    });
}
