//! The rules of the ability to run nodes.

use std::time::Duration;

use nodepool_threads::StopSource;
use uuid::Uuid;

use super::{Subject, does_not_begin, ends_promptly, fails, require, succeeds, violated};
use crate::api::{
    CallContext, Error, ErrorKind, Instance, LaunchedNode, NodeRequest, NodeRequestHandler, NodeSpec, Nodes,
    metadata,
};

/// How long a provider may take for the deletion of what a launch has left that was ended.
const GONE: Duration = Duration::from_secs(60);
/// How often it is looked at meanwhile.
const LOOK: Duration = Duration::from_millis(200);

pub(super) fn check(subject: &Subject<'_>, nodes: &dyn Nodes) {
    launch_and_delete(subject, nodes);
    ended_context(subject, nodes);
    slow_launch(subject);
}

fn request(subject: &Subject<'_>) -> NodeRequest {
    let label = subject.label.to_owned();
    NodeRequest {
        id: format!("contract-{}", Uuid::new_v4()),
        labels: vec![label.clone(), label],
        ..NodeRequest::default()
    }
}

fn spec(subject: &Subject<'_>) -> NodeSpec {
    let id = Uuid::new_v4().simple().to_string();
    let metadata = [(metadata::NODE_ID, id.as_str()), (metadata::PROVIDER_NAME, "contract")];
    NodeSpec {
        hostname: format!("np{id}"),
        pool: "main".to_owned(),
        label: subject.label.to_owned(),
        metadata: metadata.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        ..NodeSpec::default()
    }
}

fn launch(
    handler: &dyn NodeRequestHandler,
    call: &CallContext,
    spec: &NodeSpec,
) -> Result<LaunchedNode, Error> {
    let mut told = Vec::new();
    let launched = handler.launch(call, spec, &mut |id| told.push(id.to_owned()))?;
    require(
        told == [launched.external_id.as_str()],
        "a launch tells the node's id once, as soon as it has one",
    );
    Ok(launched)
}

fn listed(nodes: &dyn Nodes, call: &CallContext, spec: &NodeSpec) -> Vec<Instance> {
    let mut found = succeeds("instances can be listed", nodes.list(call));
    let id = spec.metadata.get(metadata::NODE_ID);
    found.retain(|instance| instance.metadata.get(metadata::NODE_ID) == id);
    found
}

fn launch_and_delete(subject: &Subject<'_>, nodes: &dyn Nodes) {
    let source = StopSource::new();
    let call = subject.call(source.token());
    let handler = nodes.handler(request(subject));
    let kinds = [ErrorKind::Permanent, ErrorKind::NotFound];
    let other = NodeSpec { label: "no such label".to_owned(), ..spec(subject) };
    fails("a launch of a label that was not asked for", &kinds, launch(&*handler, &call, &other));
    require(listed(nodes, &call, &other).is_empty(), "a launch that fails leaves nothing at the provider");

    let specs = [spec(subject), spec(subject)];
    let [first, second] = specs.each_ref().map(|spec| {
        let node = succeeds("a node can be launched", launch(&*handler, &call, spec));
        require(!node.external_id.is_empty(), "a node's id is not empty");
        require(!node.interface_ip.is_empty(), "a launched node has an address");
        match listed(nodes, &call, spec).as_slice() {
            [found] if found.external_id == node.external_id => {}
            other => violated(&format!("a node is listed once with its id and metadata: found {other:?}")),
        }
        node
    });
    require(first.external_id != second.external_id, "nodes have distinct ids");
    // Nodes outlive the handler.
    drop(handler);
    for (node, spec) in [&first, &second].into_iter().zip(&specs) {
        succeeds("a node can be deleted", nodes.delete(&call, &node.external_id));
        require(listed(nodes, &call, spec).is_empty(), "a deletion leaves nothing at the provider");
        succeeds("a node that was deleted counts as deleted", nodes.delete(&call, &node.external_id));
    }
    for id in [Uuid::new_v4().to_string().as_str(), "no such node", ""] {
        succeeds(&format!("an unknown node '{id}' counts as deleted"), nodes.delete(&call, id));
    }
}

fn ended_context(subject: &Subject<'_>, nodes: &dyn Nodes) {
    let handler = nodes.handler(request(subject));
    does_not_begin(subject, "a launch", |call| launch(&*handler, call, &spec(subject)));
    does_not_begin(subject, "a node's deletion", |call| nodes.delete(call, "no such node"));
    does_not_begin(subject, "a listing of instances", |call| nodes.list(call));
    does_not_begin(subject, "the question for limits", |call| nodes.limits(call));
}

fn slow_launch(subject: &Subject<'_>) {
    let Some(slow) = subject.slow.nodes() else {
        violated("(no fault of it:) the slow provider has the abilities of the other");
    };
    let handler = slow.handler(request(subject));
    let spec = spec(subject);
    ends_promptly(subject, "a launch", |call| launch(&*handler, call, &spec));
    // Who is stopped does not wait for a provider that takes its time to delete.
    let source = StopSource::new();
    let patience = source.token().deadline_in(GONE);
    while !listed(slow, &subject.call(source.token()), &spec).is_empty() {
        let rule = "a launch that was ended leaves nothing at the provider";
        require(patience.wait(LOOK).is_ok(), rule);
    }
}
