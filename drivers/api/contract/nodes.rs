//! The rules of the ability to run nodes.

use nodepool_threads::{Mutex, StopSource};
use uuid::Uuid;

use super::{Subject, does_not_begin, ends_promptly, fails, require, succeeds, violated};
use crate::api::{ErrorKind, NodeRequest, Nodes};

pub(super) fn check(subject: &Subject<'_>, nodes: &dyn Nodes) {
    launch_and_delete(subject, nodes);
    ended_context(subject, nodes);
    slow_launch(subject);
}

fn request(subject: &Subject<'_>) -> NodeRequest {
    let label = subject.label.to_owned();
    NodeRequest { id: format!("contract-{}", Uuid::new_v4()), labels: vec![label.clone(), label] }
}

fn launch_and_delete(subject: &Subject<'_>, nodes: &dyn Nodes) {
    let source = StopSource::new();
    let call = subject.call(source.token());
    let request = request(subject);
    let mut handler = nodes.handler(request.clone());
    require(handler.request() == &request, "a handler knows its request");
    let kinds = [ErrorKind::Permanent, ErrorKind::NotFound];
    fails("a launch beyond the labels of the request", &kinds, handler.launch(&call, request.labels.len()));

    let first = succeeds("a node can be launched", handler.launch(&call, 0));
    let second = succeeds("a second node can be launched", handler.launch(&call, 1));
    require(first.external_id != second.external_id, "nodes have distinct ids");
    for node in [&first, &second] {
        require(!node.external_id.is_empty(), "a node's id is not empty");
        require(!node.interface_ip.is_empty(), "a launched node has an address");
    }
    // Nodes outlive the handler.
    drop(handler);
    for node in [&first, &second] {
        succeeds("a node can be deleted", nodes.delete(&call, &node.external_id));
        succeeds("a node that was deleted counts as deleted", nodes.delete(&call, &node.external_id));
    }
    for id in [Uuid::new_v4().to_string().as_str(), "no such node", ""] {
        succeeds(&format!("an unknown node '{id}' counts as deleted"), nodes.delete(&call, id));
    }
}

fn ended_context(subject: &Subject<'_>, nodes: &dyn Nodes) {
    let handler = Mutex::new("node request handler", nodes.handler(request(subject)));
    does_not_begin(subject, "a launch", |call| handler.lock().launch(call, 0));
    does_not_begin(subject, "a node's deletion", |call| nodes.delete(call, "no such node"));
}

fn slow_launch(subject: &Subject<'_>) {
    let Some(slow) = subject.slow.nodes() else {
        violated("(no fault of it:) the slow provider has the abilities of the other");
    };
    let handler = Mutex::new("node request handler", slow.handler(request(subject)));
    ends_promptly(subject, "a launch", |call| handler.lock().launch(call, 0));
}
