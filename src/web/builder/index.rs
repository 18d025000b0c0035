//! `/`: the page for people. What has failed and what runs comes first, then all images.

use super::disks::Disks;
use super::snapshot::Snapshot;
use super::{failures, images};
use crate::builder::{BuildLog, Window};
use crate::model::{Build, BuildState};
use crate::web::core::frame;
use crate::web::core::html::Html;
use crate::web::core::http::Response;
use crate::web::core::units::{size, span};

/// How much of the log of a running build is shown.
const LINES: usize = 8;

/// The page with its policy.
pub(super) fn page(snapshot: &Snapshot, window: &Window, disks: &mut Disks) -> Response {
    let mut html = Html::default();
    head(&mut html, snapshot, window, disks);
    failures::section(&mut html, snapshot, window, disks);
    running(&mut html, snapshot, window, disks);
    images::section(&mut html, snapshot);
    frame::page(&title(snapshot, window), html)
}

/// Says how it stands even in a tab that is not looked at.
fn title(snapshot: &Snapshot, window: &Window) -> String {
    let failing = snapshot.view.setbacks.len() + usize::from(snapshot.view.refused.is_some());
    let state = match (snapshot.unready.is_some(), failing) {
        (true, _) => "not ready: ".to_owned(),
        (false, 0) => String::new(),
        (false, count) => format!("{count} failing: "),
    };
    format!("{state}nodepool-builder on {}", window.host.name())
}

fn head(html: &mut Html, snapshot: &Snapshot, window: &Window, disks: &mut Disks) {
    let (view, now) = (&snapshot.view, snapshot.now);
    frame::begin_header(html, "nodepool-builder", window.host.name(), snapshot.unready);
    let busy = |html: &mut Html, what: &'static str, busy: usize, of: usize| {
        html.raw(" <span>").raw(what).raw(" <b>").text(format!("{busy} of {of}")).raw("</b></span>");
    };
    busy(html, "builds", view.builds.len(), view.workers.builds);
    busy(html, "uploads", view.uploads.len(), view.workers.uploads);
    busy(html, "clean-ups", view.cleanups, view.workers.cleanups);
    let space = disks.space(window.own.images_dir.clone());
    if let Ok(Some(space)) = space {
        let text = format!("{} of {}", size(space.free), size(space.total));
        html.raw(" <span>free for images <b>").text(text).raw("</b></span>");
    }
    html.raw(" <span>running for <b>").text(span(now - window.started)).raw("</b></span>");
    html.raw(" <span>version ").text(env!("CARGO_PKG_VERSION")).raw("</span></p>\n</header>\n");
    let least = view.config.min_free_space;
    if let Err(why) = &space {
        html.raw("<p class=\"failed\">").text(why).raw("</p>\n");
    }
    if space.is_ok_and(|space| space.is_some_and(|space| space.free < least)) {
        html.raw(
            "<p class=\"failed\"><b>No build begins</b>: less is free than <code>min-free-space</code>, ",
        );
        html.text(size(least)).raw("</p>\n");
    }
    frame::refused(html, view.refused, &view.config.file, now);
    frame::damaged(html, &snapshot.damaged);
}

fn running(html: &mut Html, snapshot: &Snapshot, window: &Window, disks: &mut Disks) {
    let view = &snapshot.view;
    if view.builds.is_empty() && view.uploads.is_empty() {
        return;
    }
    html.raw("<section class=\"running\">\n<h2>Running</h2>\n");
    for running in &view.builds {
        html.raw("<article class=\"building\">\n<h3>")
            .text(&running.image)
            .raw("</h3>\n<p><b>building</b> for ");
        html.text(span(snapshot.now - running.since));
        if let Some(log) = &running.log {
            html.raw(" of at most ").text(span(log.image.build_timeout.as_secs_f64()));
        }
        html.raw("</p>\n");
        let of_ours = |build: &&Build| {
            build.record.state == BuildState::Building
                && build.record.builder_id.as_ref() == Some(&window.own.builder_id)
        };
        let builds = snapshot.image(&running.image).into_iter().flat_map(|image| image.builds.values());
        // The newest, because an older one may not have been cleaned up yet.
        let build = builds.filter(of_ours).max_by(|a, b| a.created.total_cmp(&b.created));
        if let (Some(build), Some(log)) = (build, &running.log) {
            log_of(html, disks, &build.id, log, LINES, true);
        }
        html.raw("</article>\n");
    }
    if !view.uploads.is_empty() {
        html.raw("<ul class=\"work\">\n");
    }
    for upload in &view.uploads {
        html.raw("<li><b>")
            .text(&upload.image)
            .raw(" → ")
            .text(&upload.provider)
            .raw("</b> uploading build ");
        images::build_id(html, &upload.build);
        html.raw(" for ").text(span(snapshot.now - upload.since));
        if let Some((done, whole)) = upload.progress {
            html.raw(", ").text(format!("{} of {}", size(done), size(whole)));
        }
        html.raw("</li>\n");
    }
    if !view.uploads.is_empty() {
        html.raw("</ul>\n");
    }
    html.raw("</section>\n");
}

/// The end of a build's log, to be folded up and down.
pub(super) fn log_of(
    html: &mut Html,
    disks: &mut Disks,
    build: &str,
    log: &BuildLog,
    lines: usize,
    open: bool,
) {
    html.raw(if open { "<details open id=\"" } else { "<details id=\"" })
        .text(build)
        .raw("\"><summary>end of ");
    html.raw("<code>").text(log.path(build).display().to_string()).raw("</code></summary>\n<pre>");
    match disks.tail(log, build, lines) {
        Ok(lines) => html.text(lines),
        Err(why) => html.raw("(it cannot be read: ").text(why).raw(")"),
    };
    html.raw("</pre></details>\n");
}
