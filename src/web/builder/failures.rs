//! The part of the page with what has failed and not succeeded since. What has one cause is told once: a
//! cloud that is down takes the uploads of all images with it.

use std::collections::BTreeMap;

use super::disks::Disks;
use super::index::log_of;
use super::snapshot::Snapshot;
use crate::builder::{Attempt, Setback, Window};
use crate::model::{Build, BuildState};
use crate::web::core::html::Html;
use crate::web::core::units::span;

/// The logs of so many failed builds can be seen at once, and of so many after a click: each has to be read.
const OPEN_LOGS: usize = 3;
const LOGS: usize = 12;
/// How many lines of them.
const LINES: usize = 15;

/// The section; nothing if nothing has failed.
pub(super) fn section(html: &mut Html, snapshot: &Snapshot, window: &Window, disks: &mut Disks) {
    let builds = builds(&snapshot.view.setbacks);
    let others = elsewhere(snapshot, &builds);
    if snapshot.view.setbacks.is_empty() && others.is_empty() {
        return;
    }
    html.raw("<section class=\"failures\">\n<h2>Failing</h2>\n");
    for (index, (image, setback)) in builds.iter().enumerate() {
        html.raw("<article class=\"failed\">\n<h3>").text(image).raw("</h3>\n<p>");
        told(html, &[setback], "the build failed", snapshot.now);
        html.raw("</p>\n");
        let output = setback.reason.as_ref().and_then(|reason| reason.output.as_ref());
        if let Some((build, log)) = output.filter(|_| index < LOGS) {
            log_of(html, disks, build, log, LINES, index < OPEN_LOGS);
        }
        html.raw("</article>\n");
    }
    for (image, build) in others {
        failed_elsewhere(html, image, build, snapshot.now, window);
    }
    at_providers(html, snapshot);
    cleanups(html, snapshot);
    html.raw("</section>\n");
}

/// The failing builds, the latest first. An image may have failed on several requests: the last one is told.
fn builds(setbacks: &[Setback]) -> Vec<(&str, &Setback)> {
    let mut last: BTreeMap<&str, &Setback> = BTreeMap::new();
    for setback in setbacks {
        if let Attempt::Build(image, _) = &setback.attempt {
            let kept = last.entry(image).or_insert(setback);
            if when(kept) < when(setback) {
                *kept = setback;
            }
        }
    }
    let mut builds: Vec<_> = last.into_iter().collect();
    builds.sort_by(|(_, a), (_, b)| when(b).total_cmp(&when(a)));
    builds
}

fn when(setback: &Setback) -> f64 {
    setback.reason.as_ref().map_or(0.0, |reason| reason.when)
}

/// Why, since when, and what comes next, of setbacks with one cause.
fn told(html: &mut Html, setbacks: &[&Setback], without_reason: &'static str, now: f64) {
    let last = setbacks.iter().filter_map(|setback| setback.reason.as_ref());
    match last.max_by(|a, b| a.when.total_cmp(&b.when)) {
        Some(reason) => {
            html.raw("<b>").text(&reason.why).raw("</b> ").text(span(now - reason.when)).raw(" ago")
        }
        None => html.raw("<b>").raw(without_reason).raw("</b>; the builder's log says why"),
    };
    let times = setbacks.iter().map(|setback| setback.failures).max().unwrap_or_default();
    if times > 1 {
        html.text(format!(", {times} times in a row"));
    }
    let next = setbacks.iter().map(|setback| setback.not_before).min_by(f64::total_cmp);
    match next.map(|next| next - now).filter(|left| *left >= 1.0) {
        Some(left) => html.raw("; tried again in ").text(span(left)),
        None => html.raw("; to be tried again now"),
    };
}

/// Images whose newest build has failed, but not here or not since the start.
fn elsewhere<'a>(snapshot: &'a Snapshot, here: &[(&str, &Setback)]) -> Vec<(&'a str, &'a Build)> {
    let newest = snapshot.images.iter().filter_map(|image| {
        let newest = image.builds.values().max_by(|a, b| a.created.total_cmp(&b.created))?;
        let told = here.iter().any(|(name, _)| *name == image.name);
        (newest.record.state == BuildState::Failed && !told).then_some((image.name.as_str(), newest))
    });
    newest.collect()
}

/// Its log may be here, but not what its secrets were.
fn failed_elsewhere(html: &mut Html, image: &str, build: &Build, now: f64, window: &Window) {
    html.raw("<article class=\"failed\">\n<h3>").text(image).raw("</h3>\n<p><b>the newest build failed</b> ");
    html.text(span(now - build.record.state_time)).raw(" ago");
    let host = build.record.builder.as_deref().unwrap_or("another builder");
    match build.record.builder_id.as_ref() == Some(&window.own.builder_id) {
        true => html.raw(", before this builder was started"),
        false => html.raw(" on ").text(host),
    };
    html.raw("</p>\n</article>\n");
}

fn at_providers(html: &mut Html, snapshot: &Snapshot) {
    let mut opening: BTreeMap<&str, Vec<&Setback>> = BTreeMap::new();
    let mut uploads: BTreeMap<&str, (Vec<&Setback>, Vec<&str>)> = BTreeMap::new();
    for setback in &snapshot.view.setbacks {
        match &setback.attempt {
            Attempt::Open(provider) => opening.entry(provider).or_default().push(setback),
            Attempt::Upload(image, provider) => {
                let (setbacks, images) = uploads.entry(provider).or_default();
                setbacks.push(setback);
                images.push(image);
            }
            Attempt::Build(..) | Attempt::Clean(_) => {}
        }
    }
    for (provider, setbacks) in opening {
        html.raw("<article class=\"failed\">\n<h3>provider ").text(provider).raw("</h3>\n<p>");
        told(html, &setbacks, "it cannot be opened", snapshot.now);
        html.raw("</p>\n</article>\n");
    }
    for (provider, (setbacks, images)) in uploads {
        html.raw("<article class=\"failed\">\n<h3>").text(plural(images.len(), "upload")).raw(" to ");
        html.text(provider).raw("</h3>\n<p>");
        told(html, &setbacks, "the upload failed", snapshot.now);
        html.raw("</p>\n<p><small>").text(images.join(", ")).raw("</small></p>\n</article>\n");
    }
}

fn cleanups(html: &mut Html, snapshot: &Snapshot) {
    let cleanups: Vec<&Setback> = snapshot
        .view
        .setbacks
        .iter()
        .filter(|setback| matches!(setback.attempt, Attempt::Clean(_)))
        .collect();
    if !cleanups.is_empty() {
        html.raw("<article class=\"failed\">\n<h3>")
            .text(plural(cleanups.len(), "clean-up"))
            .raw("</h3>\n<p>");
        told(html, &cleanups, "it failed", snapshot.now);
        html.raw("</p>\n</article>\n");
    }
}

fn plural(count: usize, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
