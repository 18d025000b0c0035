//! `/`: the page for people. What has failed comes first, then what is being launched, the requests, where there is
//! room, and all nodes.

use super::snapshot::Snapshot;
use super::{failures, nodes, providers, requests};
use crate::launcher::Window;
use crate::model::RequestState;
use crate::web::core::frame;
use crate::web::core::html::Html;
use crate::web::core::http::Response;
use crate::web::core::units::span;

const LINKS: [(&str, &str); 9] = [
    ("node-list", "nodes"),
    ("request-list", "requests"),
    ("label-list", "labels"),
    ("image-list", "uploads"),
    ("dib-image-list", "builds"),
    ("image-status", "build requests"),
    ("metrics", "metrics"),
    ("threads", "threads"),
    ("ready", "readiness"),
];

/// The page with its policy.
pub(super) fn page(snapshot: &Snapshot, window: &Window) -> Response {
    let mut html = Html::default();
    head(&mut html, snapshot, window);
    failures::section(&mut html, snapshot);
    launching(&mut html, snapshot);
    requests::section(&mut html, snapshot);
    providers::section(&mut html, snapshot);
    nodes::section(&mut html, snapshot);
    frame::links(&mut html, &LINKS);
    frame::page(&title(snapshot, window), html)
}

/// Says how it stands even in a tab that is not looked at.
fn title(snapshot: &Snapshot, window: &Window) -> String {
    let view = &snapshot.view;
    let away = view.providers.iter().filter(|provider| !provider.away.is_empty()).count();
    let failing = view.goings.troubles.len() + away + usize::from(view.refused.is_some());
    let state = match (snapshot.unready.is_some(), failing) {
        (true, _) => "not ready: ".to_owned(),
        (false, 0) => String::new(),
        (false, count) => format!("{count} failing: "),
    };
    format!("{state}nodepool-launcher on {}", window.host.name())
}

fn head(html: &mut Html, snapshot: &Snapshot, window: &Window) {
    let (view, now) = (&snapshot.view, snapshot.now);
    frame::begin_header(html, "nodepool-launcher", window.host.name(), snapshot.unready);
    let mut count = |what: &'static str, count: String| {
        html.raw(" <span>").raw(what).raw(" <b>").text(count).raw("</b></span>");
    };
    count("nodes", snapshot.nodes.len().to_string());
    let open = snapshot.requests.iter().filter(|request| is_open(request.record.state)).count();
    count("open requests", open.to_string());
    count("launching", view.goings.launches.len().to_string());
    count("providers", view.providers.len().to_string());
    count("running for", span(now - window.started));
    if view.leads {
        html.raw(" <span>reports the statistics of the fleet</span>");
    }
    html.raw(" <span>version ").text(env!("CARGO_PKG_VERSION")).raw("</span></p>\n</header>\n");
    frame::refused(html, view.refused, &view.config.file, now);
    frame::damaged(html, &snapshot.damaged);
}

/// Whether somebody waits for its nodes.
pub(super) fn is_open(state: RequestState) -> bool {
    matches!(state, RequestState::Requested | RequestState::Pending)
}

fn launching(html: &mut Html, snapshot: &Snapshot) {
    let launches = &snapshot.view.goings.launches;
    if launches.is_empty() {
        return;
    }
    html.raw("<section class=\"running\">\n<h2>Launching <span>").text(launches.len().to_string());
    html.raw("</span></h2>\n<ul class=\"work\">\n");
    for launch in launches {
        html.raw("<li><b>").text(&launch.label).raw(" → ");
        place(html, &launch.at.provider, &launch.at.pool);
        html.raw("</b> for ").text(span(snapshot.now - launch.since));
        let (attempt, of) = launch.attempt;
        if attempt > 1 {
            html.text(format!(", attempt {attempt} of {of}"));
        }
        html.raw(" of at most ").text(span(launch.limit.as_secs_f64()));
        html.raw(" <small>");
        if let Some(node) = &launch.node {
            html.raw("node <code>").text(node).raw("</code> ");
        }
        html.raw("for the request <code>").text(&launch.request).raw("</code></small></li>\n");
    }
    html.raw("</ul>\n</section>\n");
}

/// A provider and one of its pools.
pub(super) fn place(html: &mut Html, provider: &str, pool: &str) {
    html.text(provider);
    if !pool.is_empty() {
        html.raw(" / ").text(pool);
    }
}

/// Names, of which none is broken into two lines.
pub(super) fn names(html: &mut Html, names: &[String]) {
    for (index, name) in names.iter().enumerate() {
        html.raw(if index > 0 { ", " } else { "" });
        html.raw("<span class=\"short\">").text(name).raw("</span>");
    }
}
