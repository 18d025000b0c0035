//! The part of the page with all images: a row for each build, and where it is.

use std::collections::BTreeMap;

use super::snapshot::Snapshot;
use crate::model::{Build, BuildState, Image, ProviderUploads, UploadState};
use crate::web::core::frame;
use crate::web::core::html::Html;
use crate::web::core::units::span;

const LINKS: [(&str, &str); 6] = [
    ("image-list", "uploads"),
    ("dib-image-list", "builds"),
    ("image-status", "requests"),
    ("metrics", "metrics"),
    ("threads", "threads"),
    ("ready", "readiness"),
];

/// The section.
pub(super) fn section(html: &mut Html, snapshot: &Snapshot) {
    let names = snapshot.image_names();
    html.raw("<section>\n<h2>Images <span>").text(names.len().to_string()).raw("</span></h2>\n");
    if names.is_empty() {
        html.raw("<p>None is configured: add some to <code>diskimages</code> in <code>");
        html.text(snapshot.view.config.file.display().to_string()).raw("</code>.</p>\n");
    } else {
        html.raw("<table>\n<thead><tr><th>Image<th>Build<th>Formats<th>Uploads</thead>\n");
        for name in names {
            let nothing = Image { name: name.to_owned(), ..Image::default() };
            image(html, snapshot.image(name).unwrap_or(&nothing), snapshot);
        }
        html.raw("</table>\n");
    }
    frame::links(html, &LINKS);
    html.raw("</section>\n");
}

fn image(html: &mut Html, image: &Image, snapshot: &Snapshot) {
    let mut builds: Vec<&Build> = image.builds.values().collect();
    builds.sort_by(|a, b| b.created.total_cmp(&a.created).then_with(|| a.id.cmp(&b.id)));
    html.raw("<tbody>\n<tr><th scope=\"rowgroup\" rowspan=\"")
        .text(builds.len().max(1).to_string())
        .raw("\">");
    html.raw("<span class=\"name\">").text(&image.name).raw("</span>");
    marks(html, image, snapshot);
    html.raw("</th>");
    let failing: Vec<&str> = snapshot.failing_at(&image.name).collect();
    let newest_ready = image.ready_builds().first().map(|build| build.id.clone());
    for (index, build) in builds.iter().enumerate() {
        if index > 0 {
            html.raw("<tr>");
        }
        let wanted: Vec<&str> = match newest_ready.as_ref() == Some(&build.id) {
            true => snapshot.providers_of(&image.name).collect(),
            false => Vec::new(),
        };
        build_cells(html, build, image.build_locked, &wanted, &failing, snapshot.now);
        html.raw("</tr>\n");
    }
    if builds.is_empty() {
        html.raw("<td colspan=\"3\" class=\"none\">no build</td></tr>\n");
    }
    html.raw("</tbody>\n");
}

/// What is special about an image.
fn marks(html: &mut Html, image: &Image, snapshot: &Snapshot) {
    let configured = snapshot.view.config.diskimages.get(&image.name);
    match configured {
        None => _ = html.raw(" <i>not of this builder</i>"),
        Some(configured) if configured.pause => _ = html.raw(" <i class=\"paused\">paused by the file</i>"),
        Some(configured) if configured.formats.is_empty() => _ = html.raw(" <i>never built: no formats</i>"),
        Some(_) => {}
    }
    if snapshot.fails_to_build(&image.name) {
        html.raw(" <i class=\"failed\">the build fails</i>");
    }
    if image.paused {
        html.raw(" <i class=\"paused\">paused</i>");
    }
    if let Some(request) = image.request {
        let age = span(snapshot.now - request);
        match image.request_pending() {
            true => html.raw(" <i class=\"asked\">asked for ").text(age).raw(" ago</i>"),
            false => html.raw(" <i class=\"asked\">asked for, building</i>"),
        };
    }
}

/// `wanted` are the providers that shall have this build, and `failing` those that the last upload failed at.
fn build_cells(html: &mut Html, build: &Build, locked: bool, wanted: &[&str], failing: &[&str], now: f64) {
    let record = &build.record;
    let age = span(now - record.state_time);
    html.raw("<td>");
    match record.state {
        BuildState::Ready => html.raw("<b class=\"state ready\">ready</b> ").text(age).raw(" old"),
        BuildState::Building if !locked => {
            html.raw("<b class=\"state failed\">abandoned</b> after ").text(age)
        }
        BuildState::Building => html.raw("<b class=\"state building\">building</b> for ").text(age),
        BuildState::Deleting => html.raw("<b class=\"state deleting\">deleting</b> for ").text(age),
        BuildState::Failed => html.raw("<b class=\"state failed\">failed</b> ").text(age).raw(" ago"),
    };
    html.raw(" <small>");
    build_id(html, &build.id);
    if let Some(builder) = &record.builder {
        html.raw(" on ").text(builder);
    }
    html.raw("</small></td><td>");
    html.text(record.formats.iter().cloned().collect::<Vec<_>>().join(", ")).raw("</td><td>");
    uploads(html, build, wanted, failing);
    html.raw("</td>");
}

/// The begin of a build's id; the whole of it when it is pointed at.
pub(super) fn build_id(html: &mut Html, id: &str) {
    let short: String = id.chars().take(8).collect();
    html.raw("<code title=\"").text(id).raw("\">").text(short).raw("</code>");
}

/// Where a build is, by the state it has there: what is wrong first.
fn uploads(html: &mut Html, build: &Build, wanted: &[&str], failing: &[&str]) {
    let mut by_state: BTreeMap<(u8, &'static str, &'static str), Vec<&str>> = BTreeMap::new();
    for (provider, at) in &build.providers {
        let Some(state) = state_at(at) else { continue };
        let state = match state {
            UploadState::Failed => (0, "failed", "failed"),
            UploadState::Uploading if !at.locked => (0, "failed", "abandoned"),
            UploadState::Uploading => (1, "building", "uploading"),
            UploadState::Deleting => (3, "deleting", "deleting"),
            UploadState::Ready => (4, "ready", "ready"),
        };
        by_state.entry(state).or_default().push(provider);
    }
    for provider in wanted {
        if build.providers.get(*provider).and_then(state_at).is_none() {
            // The record of a failed upload goes soon, and with it the word.
            let failing = failing.contains(provider);
            let state = if failing { (0, "failed", "failed") } else { (2, "waiting", "missing") };
            by_state.entry(state).or_default().push(provider);
        }
    }
    for ((_, class, word), providers) in by_state {
        html.raw("<span class=\"at\"><b class=\"state ").raw(class).raw("\">").raw(word).raw("</b> ");
        html.text(providers.join(", ")).raw("</span> ");
    }
}

/// How it stands with a provider: that it has the image counts more than what else was tried.
fn state_at(at: &ProviderUploads) -> Option<UploadState> {
    let mut states = at.uploads.values().map(|upload| upload.record.state);
    let newest = at.uploads.values().next_back().map(|upload| upload.record.state);
    if states.any(|state| state == UploadState::Ready) { Some(UploadState::Ready) } else { newest }
}
