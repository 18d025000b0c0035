//! The part of the page with what fails: providers and machines that cannot be used, nodes that are not deleted, and
//! the last launches that have failed. What has one cause is told once.

use std::collections::BTreeMap;

use super::index::place;
use super::snapshot::Snapshot;
use crate::launcher::LaunchFailure;
use crate::web::core::html::Html;
use crate::web::core::units::span;

/// For how long a launch that has failed is worth a look, seconds.
const RECENT: f64 = 3600.0;

/// The section; nothing if nothing fails.
pub(super) fn section(html: &mut Html, snapshot: &Snapshot) {
    let goings = &snapshot.view.goings;
    let recent = goings.failures.iter().filter(|failure| snapshot.now - failure.when < RECENT);
    let mut by_cause: BTreeMap<(&str, &str, &str, &str), Vec<&LaunchFailure>> = BTreeMap::new();
    for failure in recent {
        let launch = &failure.launch;
        let cause = (&*launch.at.provider, &*launch.at.pool, &*launch.label, failure.fault.text());
        by_cause.entry(cause).or_default().push(failure);
    }
    let is_away = snapshot.view.providers.iter().any(|provider| !provider.away.is_empty());
    if goings.troubles.is_empty() && goings.stuck.is_empty() && by_cause.is_empty() && !is_away {
        return;
    }
    html.raw("<section class=\"failures\">\n<h2>Failing</h2>\n");
    for (provider, trouble) in &goings.troubles {
        html.raw("<article class=\"failed\">\n<h3>provider ").text(provider).raw("</h3>\n<p><b>");
        html.raw(trouble.what).raw("</b>, for ").text(span(snapshot.now - trouble.since));
        html.raw("; the launcher's log says why</p>\n</article>\n");
    }
    away(html, snapshot);
    stuck(html, snapshot);
    let mut causes: Vec<_> = by_cause.into_iter().collect();
    // The latest first, as they are within.
    causes.sort_by(|(_, a), (_, b)| b[0].when.total_cmp(&a[0].when));
    for ((provider, pool, label, why), failures) in causes {
        html.raw("<article class=\"failed\">\n<h3>").text(label).raw(" → ");
        place(html, provider, pool);
        html.raw("</h3>\n<p><b>").text(why).raw("</b> ");
        let last = failures[0];
        html.text(span(snapshot.now - last.when)).raw(" ago");
        match failures.len() {
            1 => html.text(format!(", attempt {} of {}", last.launch.attempt.0, last.launch.attempt.1)),
            times => html.text(format!(", {times} times in the last hour")),
        };
        html.raw("</p>\n");
        let nodes: Vec<_> = failures.iter().filter_map(|failure| failure.launch.node.as_deref()).collect();
        if let Some(node) = nodes.first() {
            html.raw("<p><small>node ").text(*node).raw(", for the request ").text(&last.launch.request);
            html.raw("; the launcher's log has more</small></p>\n");
        }
        html.raw("</article>\n");
    }
    html.raw("</section>\n");
}

fn away(html: &mut Html, snapshot: &Snapshot) {
    let by_provider = snapshot.view.providers.iter();
    for (provider, what, machines) in
        by_provider.flat_map(|provider| provider.away.iter().map(move |(what, away)| (provider, what, away)))
    {
        html.raw("<article class=\"failed\">\n<h3>provider ").text(&provider.name).raw("</h3>\n<p><b>");
        match machines.len() {
            1 => html.text(format!("a machine {what}")),
            count => html.text(format!("{count} machines: each {what}")),
        };
        html.raw("</b>; the launcher's log says more</p>\n<p><small>");
        html.text(machines.join(", ")).raw("</small></p>\n</article>\n");
    }
}

fn stuck(html: &mut Html, snapshot: &Snapshot) {
    let mut by_provider: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
    let mut since: BTreeMap<&str, f64> = BTreeMap::new();
    for (node, stuck) in &snapshot.view.goings.stuck {
        by_provider.entry(&stuck.provider).or_default().push(node);
        let first = since.entry(&stuck.provider).or_insert(stuck.since);
        *first = first.min(stuck.since);
    }
    for (provider, nodes) in by_provider {
        let (count, first) = (nodes.len(), since.get(provider).copied().unwrap_or(snapshot.now));
        let what = if count == 1 { "node is" } else { "nodes are" };
        html.raw("<article class=\"failed\">\n<h3>provider ").text(provider).raw("</h3>\n<p><b>");
        html.text(format!("{count} {what} not deleted"))
            .raw("</b>, tried for ")
            .text(span(snapshot.now - first));
        html.raw("; the launcher's log says why</p>\n<p><small>").text(nodes.join(", "));
        html.raw("</small></p>\n</article>\n");
    }
}
