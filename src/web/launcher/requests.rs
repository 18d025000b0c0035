//! The part of the page with the node requests that somebody waits for.

use super::index::{is_open, place};
use super::snapshot::Snapshot;
use crate::model::{NodeRequest, RequestState};
use crate::web::core::html::Html;
use crate::web::core::units::span;

/// The section.
pub(super) fn section(html: &mut Html, snapshot: &Snapshot) {
    // One that is fulfilled is still waited for: its requestor takes its nodes next.
    let open = snapshot.requests.iter().filter(|request| request.record.state != RequestState::Failed);
    let failed = snapshot.requests.iter().filter(|request| request.record.state == RequestState::Failed);
    let requests: Vec<_> = failed.chain(open).collect();
    html.raw("<section>\n<h2>Requests of the fleet <span>")
        .text(requests.len().to_string())
        .raw("</span></h2>\n");
    if requests.is_empty() {
        html.raw("<p>Nobody waits for nodes.</p>\n</section>\n");
        return;
    }
    html.raw("<table>\n<thead><tr><th>Request<th>Labels<th>State<th>Pool</thead>\n<tbody>\n");
    for request in requests {
        row(html, snapshot, request);
    }
    html.raw("</tbody>\n</table>\n</section>\n");
}

fn row(html: &mut Html, snapshot: &Snapshot, request: &NodeRequest) {
    let record = &request.record;
    html.raw("<tr><td><code class=\"short\">").text(&request.id).raw("</code> <small>");
    html.text(record.requestor.as_deref().unwrap_or("nobody"));
    if let Some(tenant) = &record.tenant_name {
        html.raw(" for ").text(tenant);
    }
    if record.relative_priority != 0 {
        html.text(format!(", priority {}", record.relative_priority));
    }
    html.raw("</small></td><td>").text(counted(&record.node_types)).raw("</td><td class=\"short\">");
    let age = span(snapshot.now - record.created_time.unwrap_or(record.state_time));
    match record.state {
        RequestState::Requested => html.raw("<b class=\"state waiting\">requested</b> "),
        RequestState::Pending => html.raw("<b class=\"state building\">pending</b> "),
        RequestState::Fulfilled => html.raw("<b class=\"state ready\">fulfilled</b> "),
        RequestState::Failed => html.raw("<b class=\"state failed\">failed</b> "),
    };
    html.raw("asked ").text(age).raw(" ago</td><td>");
    match snapshot.served_by(&request.id) {
        Some(at) => place(html, &at.provider, &at.pool),
        None if is_open(record.state) => _ = html.raw("<span class=\"none\">no pool yet</span>"),
        None => {}
    }
    if !record.declined_by.is_empty() {
        let names = record.declined_by.iter().map(|id| match snapshot.pools.get(id) {
            Some(pool) => format!("{} / {}", pool.provider_name, pool.name.as_deref().unwrap_or("?")),
            // It is gone since.
            None => id.clone(),
        });
        html.raw(" <small>declined by ").text(names.collect::<Vec<_>>().join(", ")).raw("</small>");
    }
    html.raw("</td></tr>\n");
}

/// Labels with their numbers, in the order in which they come first.
fn counted(labels: &[String]) -> String {
    let mut counts: Vec<(&str, usize)> = Vec::new();
    for label in labels {
        match counts.iter_mut().find(|(known, _)| known == label) {
            Some((_, count)) => *count += 1,
            None => counts.push((label, 1)),
        }
    }
    let shown = counts.into_iter().map(|(label, count)| match count {
        1 => label.to_owned(),
        count => format!("{count} × {label}"),
    });
    shown.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_that_are_wanted_more_than_once_are_counted() {
        let labels = ["b", "a", "b"].map(str::to_owned);
        assert_eq!(counted(&labels), "2 × b, a");
    }
}
