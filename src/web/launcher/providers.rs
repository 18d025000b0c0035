//! The part of the page with providers, their pools and tenants: what is used of what there may be.

use std::collections::BTreeSet;

use nodepool_drivers::api::Resources;

use super::index::names;
use super::snapshot::Snapshot;
use crate::launcher::{ProviderView, Room};
use crate::web::core::html::Html;
use crate::web::core::units::size;

/// The section.
pub(super) fn section(html: &mut Html, snapshot: &Snapshot) {
    let view = &snapshot.view;
    html.raw("<section>\n<h2>Providers of this launcher <span>")
        .text(view.providers.len().to_string())
        .raw("</span></h2>\n");
    if view.providers.is_empty() {
        html.raw("<p>None with pools is open: add some to <code>providers</code> in <code>");
        html.text(view.config.file.display().to_string()).raw("</code>.</p>\n");
    } else {
        html.raw("<table>\n<thead><tr><th>Provider<th>Pool<th>Labels<th>In use</thead>\n");
        for one in &view.providers {
            provider(html, one);
        }
        html.raw("</table>\n");
    }
    html.raw("</section>\n");
    if view.tenants.is_empty() {
        return;
    }
    html.raw("<section>\n<h2>Tenants with limits <span>").text(view.tenants.len().to_string());
    html.raw("</span></h2>\n<table>\n<thead><tr><th>Tenant<th>In use</thead>\n<tbody>\n");
    for (tenant, of) in &view.tenants {
        html.raw("<tr><td><span class=\"name\">").text(tenant).raw("</span></td><td>");
        room(html, of);
        html.raw("</td></tr>\n");
    }
    html.raw("</tbody>\n</table>\n</section>\n");
}

fn provider(html: &mut Html, one: &ProviderView) {
    let rows = one.pools.len().max(1).to_string();
    html.raw("<tbody>\n<tr><th scope=\"rowgroup\" rowspan=\"").text(rows).raw("\"><span class=\"name\">");
    html.text(&one.name).raw("</span>");
    if one.answered {
        html.raw(" <small>");
        room(html, &one.room);
        html.raw("</small>");
    } else {
        html.raw(" <i class=\"paused\">has not said yet how it stands</i>");
    }
    if one.concurrency == 0 {
        html.raw(" <i class=\"paused\">launches nothing: max-concurrency is 0</i>");
    }
    html.raw("</th>");
    for (index, pool) in one.pools.iter().enumerate() {
        if index > 0 {
            html.raw("<tr>");
        }
        html.raw("<td><span class=\"name\">").text(&pool.name).raw("</span>");
        if pool.paused {
            html.raw(" <i class=\"paused\">a request waits for room</i>");
        }
        html.raw("</td><td>");
        names(html, &pool.labels);
        if !pool.bare.is_empty() {
            html.raw(" <i class=\"paused\">not launched, as what they boot from is not there: ");
            names(html, &pool.bare);
            html.raw("</i>");
        }
        html.raw("</td><td>");
        room(html, &pool.room);
        html.raw("</td></tr>\n");
    }
    html.raw("</tbody>\n");
}

/// Each amount that is used or limited, the number of nodes first.
fn room(html: &mut Html, room: &Room) {
    let resources: BTreeSet<&str> =
        room.used.iter().chain(room.limits.iter()).map(|(name, _)| name).collect();
    if resources.is_empty() {
        html.raw("<span class=\"none\">nothing</span>");
    }
    let first = resources.contains(Resources::INSTANCES).then_some(Resources::INSTANCES);
    let others = resources.iter().copied().filter(|name| *name != Resources::INSTANCES);
    for name in first.into_iter().chain(others) {
        let used = room.used.get(name).unwrap_or(0);
        html.raw("<span class=\"room\">").text(name).raw(" <b");
        match room.limits.get(name) {
            Some(limit) => {
                html.raw(if used >= limit { " class=\"waiting\">" } else { ">" });
                html.text(shown(name, used)).raw("</b> of ").text(shown(name, limit));
            }
            None => _ = html.raw(">").text(shown(name, used)).raw("</b>"),
        }
        html.raw("</span> ");
    }
}

fn shown(name: &str, amount: i64) -> String {
    match (name, u64::try_from(amount)) {
        ("ram", Ok(mebibytes)) if mebibytes > 0 => size(mebibytes.saturating_mul(1 << 20)),
        _ => amount.to_string(),
    }
}
