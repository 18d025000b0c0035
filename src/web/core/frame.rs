//! The frame of a page for people.
//!
//! It needs nothing but itself: style and script are within it, and the policy that is sent with it allows
//! only these. The script fetches the page again every few seconds; without scripts the browser does.

use std::path::Path;

use uuid::Uuid;

use super::html::Html;
use super::http::{Response, Status};
use super::units::span;
use crate::config::Refused;

const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

/// The page with its policy.
pub(in crate::web) fn page(title: &str, main: Html) -> Response {
    let nonce = Uuid::new_v4().simple().to_string();
    let mut html = Html::default();
    html.raw("<!DOCTYPE html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n<title>");
    html.text(title).raw("</title>\n");
    html.raw("<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n");
    html.raw("<link rel=\"icon\" href=\"data:,\">\n");
    html.raw("<noscript><meta http-equiv=\"refresh\" content=\"10\"></noscript>\n");
    html.raw("<style nonce=\"").text(&nonce).raw("\">\n").raw(STYLE).raw("</style>\n");
    html.raw("<p id=\"stale\" role=\"status\" hidden></p>\n<main>\n").html(main);
    html.raw("</main>\n<script nonce=\"").text(&nonce).raw("\">\n").raw(SCRIPT).raw("</script>\n</html>\n");
    let policy = format!(
        "default-src 'none'; style-src 'nonce-{nonce}'; script-src 'nonce-{nonce}'; connect-src 'self'; \
         img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    );
    let fields = vec![
        ("Content-Type", "text/html; charset=utf-8".to_owned()),
        ("Cache-Control", "no-store".to_owned()),
        ("Content-Security-Policy", policy),
    ];
    Response { status: Status::Ok, fields, body: html.into_bytes().into() }
}

/// The begin of the header: which program it is, where, and whether it is ready. More may follow until `</header>`.
pub(in crate::web) fn begin_header(
    html: &mut Html,
    program: &'static str,
    hostname: &str,
    unready: Option<&str>,
) {
    html.raw("<header>\n<h1>").raw(program).raw(" <span>on ").text(hostname).raw("</span></h1>\n<p>");
    match unready {
        None => html.raw("<b class=\"state ready\">ready</b>"),
        Some(why) => html.raw("<b class=\"state failed\">not ready: ").text(why).raw("</b>"),
    };
}

/// What there is besides, at the end of a page: paths and what they are.
pub(in crate::web) fn links(html: &mut Html, links: &[(&'static str, &'static str)]) {
    html.raw("<p class=\"links\">");
    for (path, what) in links.iter().copied() {
        html.raw("<a href=\"").raw(path).raw("\">").raw(what).raw("</a> ");
    }
    html.raw("</p>\n");
}

/// Says that the configuration files are refused, if they are.
pub(in crate::web) fn refused(html: &mut Html, refused: Option<Refused>, file: &Path, now: f64) {
    let Some(Refused { since, errors }) = refused else { return };
    let errors = if errors == 1 { "an error".to_owned() } else { format!("{errors} errors") };
    html.raw("<p class=\"failed\">The configuration has been refused for ").text(span(now - since));
    html.raw(", with ").text(errors);
    html.raw(": the last good one is in force. What is wrong says <code>nodepool -c ");
    html.text(file.display().to_string()).raw(" config-validate</code>.</p>\n");
}

/// Says which records are damaged.
pub(in crate::web) fn damaged(html: &mut Html, paths: &[String]) {
    for path in paths {
        html.raw("<p class=\"failed\">A damaged record is left alone: <code>")
            .text(path)
            .raw("</code></p>\n");
    }
}
