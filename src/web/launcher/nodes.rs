//! The part of the page with all nodes: by their states, those that want a look first.

use std::collections::BTreeMap;

use serde_json::Value;

use super::index::{names, place};
use super::snapshot::Snapshot;
use crate::model::NodeState;
use crate::web::core::html::Html;
use crate::web::core::units::span;
use crate::zk::ListedNode;

/// Which states come first, and how they look.
fn rank(state: NodeState) -> (u8, &'static str) {
    match state {
        NodeState::Failed => (0, "failed"),
        NodeState::Aborted => (1, "failed"),
        NodeState::Hold => (2, "waiting"),
        NodeState::Init => (3, "building"),
        NodeState::Building => (4, "building"),
        NodeState::Testing => (5, "building"),
        NodeState::InUse => (6, "used"),
        NodeState::Ready => (7, "ready"),
        NodeState::Used => (8, "deleting"),
        NodeState::Deleting => (9, "deleting"),
        NodeState::Deleted => (10, "deleting"),
    }
}

/// The section.
pub(super) fn section(html: &mut Html, snapshot: &Snapshot) {
    html.raw("<section>\n<h2>Nodes of the fleet <span>")
        .text(snapshot.nodes.len().to_string())
        .raw("</span></h2>\n");
    if snapshot.nodes.is_empty() {
        html.raw("<p>There are none.</p>\n</section>\n");
        return;
    }
    let mut states: Vec<_> = snapshot.states().into_iter().collect();
    states.sort_by_key(|(state, _)| rank(*state));
    html.raw("<p class=\"states\">");
    for (state, count) in &states {
        html.raw("<span><b class=\"state ").raw(rank(*state).1).raw("\">").text(state.to_string());
        html.raw("</b> ").text(count.to_string()).raw("</span> ");
    }
    html.raw("</p>\n<table>\n<thead><tr><th>State<th>Node<th>Label<th>Provider<th>For</thead>\n");
    let mut by_state: BTreeMap<NodeState, Vec<&ListedNode>> = BTreeMap::new();
    for node in &snapshot.nodes {
        by_state.entry(node.record.state).or_default().push(node);
    }
    for (state, _) in states {
        let nodes = by_state.remove(&state).unwrap_or_default();
        html.raw("<tbody>\n");
        for node in nodes {
            row(html, snapshot, node);
        }
        html.raw("</tbody>\n");
    }
    html.raw("</table>\n</section>\n");
}

fn row(html: &mut Html, snapshot: &Snapshot, node: &ListedNode) {
    let record = &node.record;
    html.raw("<tr><td class=\"short\"><b class=\"state ").raw(rank(record.state).1).raw("\">");
    html.text(record.state.to_string()).raw("</b> for ").text(span(snapshot.now - record.state_time));
    html.raw("</td><td class=\"short\"><code>").text(&node.id).raw("</code>");
    if let Some(address) = record.get("interface_ip").as_str().filter(|address| !address.is_empty()) {
        html.raw(" <small>").text(address).raw("</small>");
    }
    html.raw("</td><td>");
    names(html, &record.labels);
    html.raw("</td><td class=\"short\">");
    place(html, record.provider.as_deref().unwrap_or_default(), record.pool.as_deref().unwrap_or_default());
    html.raw("</td><td>");
    whom_for(html, node);
    html.raw("</td></tr>\n");
}

/// Who has it, and what somebody has to say about it.
fn whom_for(html: &mut Html, node: &ListedNode) {
    let record = &node.record;
    if let Some(job) = text(&record.hold_job) {
        html.raw("held for ").text(job).raw(" ");
    }
    if let Some(request) = &record.allocated_to {
        html.raw("<code class=\"short\">").text(request).raw("</code> ");
    }
    if let Some(tenant) = &record.tenant_name {
        html.raw("<small>tenant ").text(tenant).raw("</small> ");
    }
    if let Some(comment) = text(&record.comment) {
        html.raw("<small>“").text(comment).raw("”</small> ");
    }
    let expected =
        matches!(record.state, NodeState::Ready | NodeState::Hold) && record.allocated_to.is_none();
    if node.locked == expected {
        let odd = if node.locked { "locked" } else { "not locked" };
        html.raw("<small>").raw(odd).raw("</small>");
    }
}

fn text(value: &Value) -> Option<&str> {
    value.as_str().filter(|text| !text.is_empty())
}
