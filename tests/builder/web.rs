//! The status pages: what they show.

use std::net::SocketAddr;

use super::*;
use crate::support::http::{self, get, get_json};
use crate::support::pages::{assert_exposition, sample, without_ages, without_seconds};
use crate::support::{Daemon, Options, ZooKeeper};

const PAGES: [&str; 7] =
    ["/", "/image-list", "/dib-image-list", "/image-status", "/ready", "/metrics", "/threads"];

/// Waits until a page, of which a copy may be a second old, holds `text`.
#[track_caller]
fn wait_page(builder: &Daemon, path: &str, text: &str) -> String {
    builder.wait_until(&format!("`{text}` on {path}"), SOON, || {
        let body = get(builder.web(), path).body;
        body.contains(text).then_some(body)
    })
}

#[test]
fn the_listings_are_those_of_the_client_as_text_and_as_json() {
    let sandbox = Sandbox::new("web-listings");
    let images = ["debian", "fedora"].map(|name| image(&sandbox, name, "formats: [raw]"));
    sandbox.write_body(&body(&images, &[local(&sandbox, "shelf", &["debian"], "")]));
    let zk = sandbox.zk();
    let builder = sandbox.builder(&[]);
    let id = wait_ready(&zk, "debian");
    wait_upload(&zk, "debian", &id, "shelf", "ready");
    wait_ready(&zk, "fedora");
    sandbox.nodepool(&["image-pause", "fedora"]).ok();
    let web = builder.web();
    wait_page(&builder, "/image-status", "True");
    for command in ["image-list", "dib-image-list", "image-status"] {
        let path = format!("/{command}");
        let (text, json) = (get(web, &path), get_json(web, &path));
        let table = sandbox.nodepool(&[command]).ok();
        assert_eq!(without_ages(&text.body), without_ages(&table), "{path}");
        assert!(without_ages(&table).len() >= 2, "{table}");
        let of_client = sandbox.nodepool(&[command, "--output", "json"]).json();
        assert_eq!(without_seconds(json.json()), without_seconds(of_client), "{path}");
        assert_eq!((text.status, text.field("content-type")), (200, "text/plain; charset=utf-8"));
        assert_eq!((json.status, json.field("content-type")), (200, "application/json"));
        for answer in [text, json] {
            assert_eq!(answer.field("access-control-allow-origin"), "*");
            assert_eq!(answer.field("cache-control"), "max-age=1, public");
            assert_eq!(answer.field("vary"), "Accept");
            assert!(answer.field("last-modified").ends_with(" GMT"), "{answer:?}");
            assert!(answer.field("expires").ends_with(" GMT"), "{answer:?}");
        }
    }
    let some = get(web, "/dib-image-list?fields=state%2Cimage").body;
    assert_eq!(without_ages(&some)[..2], ["|Image|State|", "|debian|ready|"], "{some}");
}

#[test]
fn a_copy_is_good_for_a_second_and_a_client_that_has_it_gets_it_only_once() {
    let sandbox = Sandbox::new("web-cache");
    sandbox.write_body(&body(&[], &[]));
    let web = sandbox.builder(&[]).web_of_ready();
    let conditional = |modified: &str| {
        let head = format!("GET /image-list HTTP/1.1\r\nIf-Modified-Since: {modified}\r\n\r\n");
        http::request(web.0, &head)
    };
    // On a machine that stands still for a second between the two, it is another copy.
    let unchanged = eventually(SOON, "a copy that the client has", || {
        let first = get(web.0, "/image-list");
        let second = conditional(first.field("last-modified"));
        (second.status == 304).then_some((first, second))
    });
    assert_eq!(unchanged.1.body, "");
    assert_eq!(unchanged.1.field("last-modified"), unchanged.0.field("last-modified"));
    let other = conditional("Sun, 06 Nov 1994 08:49:37 GMT");
    assert_eq!((other.status, other.body.is_empty()), (200, false));
    assert_eq!(conditional("no date").status, 200);
}

#[test]
fn what_is_no_page_is_refused_and_head_has_no_body() {
    let sandbox = Sandbox::new("web-refused");
    sandbox.write_body(&body(&[], &[]));
    let (web, _builder) = sandbox.builder(&[]).web_of_ready();
    for path in ["/nope", "/image-list/", "//", "/../etc/passwd", "/node-list"] {
        let answer = get(web, path);
        assert_eq!(answer.status, 404, "{path}");
        assert!(answer.body.starts_with("404 Not Found\n\nThe resource could not be found."), "{answer:?}");
        assert!(PAGES.iter().all(|page| answer.body.contains(page)), "{answer:?}");
    }
    for (request, status) in [
        ("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nhello", 405),
        ("DELETE /image-list HTTP/1.1\r\n\r\n", 405),
        ("nonsense\r\n\r\n", 400),
        ("GET / HTTP/1.1\r\nbad header\r\n\r\n", 400),
    ] {
        assert_eq!(http::request(web, request).status, status, "{request}");
    }
    let long = format!("GET /{} HTTP/1.1\r\n", "a".repeat(20_000));
    assert_eq!(http::request(web, &long).status, 431);
    let head = http::request(web, "HEAD / HTTP/1.0\r\n\r\n");
    assert_eq!((head.status, head.body.as_str()), (200, ""));
    assert!(head.field("content-length").parse::<usize>().unwrap() > 1000, "{head:?}");
}

#[test]
fn a_builder_is_ready_while_it_has_its_session_and_knows_the_records() {
    let server = ZooKeeper::start_with(Options::default());
    let sandbox = Sandbox::on(&server, "web-ready");
    sandbox.write_body(&body(&[], &[]));
    server.stop_signal();
    let builder = sandbox.spawn(&sandbox.builder_command(&[]));
    let refused = get(builder.web(), "/ready");
    assert_eq!((refused.status, refused.body.as_str()), (503, "no session with ZooKeeper\n"));
    // Without the records every image would look as if it were gone.
    assert_eq!(get(builder.web(), "/dib-image-list").status, 503);
    assert!(get(builder.web(), "/").body.contains("not ready: no session with ZooKeeper"));
    server.cont_signal();
    builder.wait_until("a builder that is ready", SOON, || {
        let ready = get(builder.web(), "/ready");
        (ready.status == 200).then(|| assert_eq!(ready.body, "OK"))
    });
    assert_eq!(sample(&get(builder.web(), "/metrics").body, "nodepool_ready"), Some(1.0));
    server.stop_signal();
    let reason = builder.wait_until("a builder that is not ready", SOON, || {
        let ready = get(builder.web(), "/ready");
        (ready.status == 503).then_some(ready.body)
    });
    assert!(reason.contains("ZooKeeper"), "{reason}");
    // What was known last is better than nothing.
    assert_eq!(get(builder.web(), "/dib-image-list").status, 200);
    server.cont_signal();
}

/// The build prints its whole environment, as diskimage-builder does with `-x`.
#[test]
fn no_value_of_a_variable_is_on_any_page() {
    let sandbox = Sandbox::new("web-secrets");
    let wait = sandbox.path("go-on");
    let with = |mark: &str, secret: &str, more: &str| {
        let keys = format!("formats: [raw], env-vars: {{DIB_TOKEN: '{secret}', {more}}}");
        // By which a page shows that it has seen the change.
        let mark = image(&sandbox, mark, "formats: [raw], pause: true");
        body(&[image(&sandbox, "debian", &keys), mark], &[local(&sandbox, "shelf", &["debian"], "")])
    };
    let waits = format!("FAKE_DIB_WAIT_FOR: '{}', FAKE_DIB_FAIL: '7'", wait.display());
    sandbox.write_body(&with("before", "first-s3cret", &waits));
    let zk = sandbox.zk();
    let builder = sandbox.builder(&NO_JANITOR);
    let no_secret = |when: &str, secrets: &[&str]| {
        for page in PAGES {
            let (text, json) = (get(builder.web(), page), get_json(builder.web(), page));
            for secret in secrets {
                assert!(
                    !text.body.contains(secret) && !json.body.contains(secret),
                    "{when}: {text:?} {json:?}"
                );
            }
        }
    };
    let shown = "DIB_TOKEN=[DIB_TOKEN]";
    wait_page(&builder, "/", shown);
    no_secret("while it is built", &["first-s3cret"]);
    // The running build goes on with what it was started with.
    sandbox.write_body(&with("after", "second-s3cret", &waits));
    assert!(wait_page(&builder, "/", ">after<").contains(shown));
    no_secret("after a change", &["first-s3cret", "second-s3cret"]);
    std::fs::write(&wait, "").unwrap();
    let id = wait_builds(&zk, "debian", "failed", 1).remove(0);
    let page = wait_page(&builder, "/", "the build failed");
    assert!(page.contains(shown) && page.contains("fails with 7"), "{page}");
    no_secret("after it has failed", &["first-s3cret", "second-s3cret"]);
    let log = std::fs::read_to_string(sandbox.logs().join(format!("debian-{id}.log"))).unwrap();
    assert!(log.contains("DIB_TOKEN=first-s3cret"), "{log}");
    // A builder that was started anew does not know what the build was given.
    drop(builder);
    sandbox.write_body(
        &with("anew", "third-s3cret", "").replace("formats: [raw]", "formats: [raw], pause: true"),
    );
    let builder = sandbox.builder(&NO_JANITOR);
    wait_page(&builder, "/", "before this builder was started");
    for page in PAGES {
        let text = get(builder.web(), page).body;
        assert!(!text.contains("s3cret"), "{text}");
    }
}

#[test]
fn running_and_failing_work_is_on_the_page_with_the_end_of_its_log() {
    let sandbox = Sandbox::new("web-work");
    let waits = format!("FAKE_DIB_WAIT_FOR: '{}'", sandbox.path("go-on").display());
    let images = [
        image(&sandbox, "runs", &format!("formats: [raw], env-vars: {{{waits}}}")),
        image(&sandbox, "fails", "formats: [raw], env-vars: {FAKE_DIB_FAIL: '7'}"),
        image(&sandbox, "good", "formats: [qcow2]"),
        image(&sandbox, "rests", "formats: [raw], pause: true"),
    ];
    let providers = [
        local(&sandbox, "shelf", &["good"], ""),
        fake("broken-cloud", &["good"], "upload-failures: -1"),
        fake("slow-cloud", &["good"], "upload-delay: 600"),
    ];
    sandbox.write_body(&body(&images, &providers));
    let zk = sandbox.zk();
    let builder = sandbox.builder(&["--build-workers", "2"]);
    let id = wait_ready(&zk, "good");
    wait_upload(&zk, "good", &id, "shelf", "ready");
    for text in [
        "the build failed",
        "fake-dib: fails with 7",
        "1 upload to broken-cloud",
        "good → slow-cloud",
        "of at most 8 h",
        "fake-dib: waits for",
        "paused by the file",
    ] {
        wait_page(&builder, "/", text);
    }
    let page = get(builder.web(), "/");
    let place = |text: &str| page.body.find(text).unwrap_or_else(|| panic!("no {text}: {}", page.body));
    assert!(place("<h2>Failing</h2>") < place("<h2>Running</h2>"));
    assert!(place("<h2>Running</h2>") < place("<h2>Images"));
    assert!(page.body.contains(&format!("<code title=\"{id}\">{}</code>", &id[..8])), "{}", page.body);
    // Nothing but what is sent with it may run.
    let policy = page.field("content-security-policy");
    assert!(policy.starts_with("default-src 'none'; "), "{policy}");
    let nonce = policy.split("'nonce-").nth(1).and_then(|rest| rest.split('\'').next()).unwrap();
    assert_eq!(page.body.matches(&format!(" nonce=\"{nonce}\"")).count(), 2, "{}", page.body);
    assert!(!page.body.contains("style=\"") && !page.body.contains("http://"), "{}", page.body);
    assert_eq!(page.field("x-content-type-options"), "nosniff");

    let metrics = wait_page(&builder, "/metrics", "nodepool_running_builds 1\n");
    for (name, expected) in [
        ("nodepool_builds{image=\"good\",state=\"ready\"}", 1.0),
        ("nodepool_builds{image=\"rests\",state=\"ready\"}", 0.0),
        ("nodepool_builds{image=\"runs\",state=\"building\"}", 1.0),
        ("nodepool_uploads{image=\"good\",provider=\"shelf\",state=\"ready\"}", 1.0),
        ("nodepool_uploads{image=\"good\",provider=\"broken-cloud\",state=\"ready\"}", 0.0),
        ("nodepool_uploads{image=\"good\",provider=\"slow-cloud\",state=\"uploading\"}", 1.0),
        ("nodepool_running_uploads{provider=\"slow-cloud\"}", 1.0),
        ("nodepool_running_uploads{provider=\"shelf\"}", 0.0),
        ("nodepool_workers{kind=\"build\"}", 2.0),
        ("nodepool_build_failures_total{image=\"good\"}", 0.0),
        ("nodepool_failing{kind=\"upload\"}", 1.0),
        ("nodepool_paused{image=\"rests\"}", 1.0),
        ("nodepool_pending_requests{image=\"good\"}", 0.0),
        ("nodepool_ready", 1.0),
    ] {
        assert_eq!(sample(&metrics, name), Some(expected), "{name} in {metrics}");
    }
    for name in [
        "nodepool_build_failures_total{image=\"fails\"}",
        "nodepool_upload_failures_total{image=\"good\",provider=\"broken-cloud\"}",
        "nodepool_newest_ready_build_age_seconds{image=\"good\"}",
        "nodepool_images_dir_free_bytes",
        "process_resident_memory_bytes",
        "process_threads",
        "process_open_fds",
        "process_start_time_seconds",
    ] {
        assert!(sample(&metrics, name).is_some_and(|value| value > 0.0), "{name} in {metrics}");
    }
    assert_exposition(&metrics);

    std::fs::write(sandbox.path("go-on"), "").unwrap();
    wait_ready(&zk, "runs");
    wait_page(&builder, "/metrics", "nodepool_builds{image=\"runs\",state=\"ready\"} 1\n");
    request(&zk, "rests");
    wait_page(&builder, "/metrics", "nodepool_pending_requests{image=\"rests\"} 1\n");
    wait_page(&builder, "/", "asked for ");
}

/// Other programs write the records too.
#[test]
fn hostile_names_stay_text() {
    let sandbox = Sandbox::new("web-hostile");
    sandbox.write_body(&body(&[], &[]));
    let zk = sandbox.zk();
    let (image, provider) = ("<script>alert(1)<x a=\"'&\\", "p\"} 1 <b>");
    let record =
        r#"{"state": "ready", "state_time": 5.5, "builder": "<i>&\u001b[31m\n<h2>", "formats": "<u>"}"#;
    zk.create(&format!("{IMAGES}/{image}/builds/<id onload=x>\""), record);
    let upload =
        r#"{"state": "ready", "state_time": 5.5, "external_name": "\u0000<a>", "external_id": null}"#;
    zk.create(&format!("{}/0000000001", uploads_path(image, "<id onload=x>\"", provider)), upload);
    zk.create(&format!("{IMAGES}/{image}/builds/damaged<b>"), "no JSON");
    let (web, builder) = sandbox.builder(&[]).web_of_ready();
    let page = wait_page(&builder, "/", "&lt;script&gt;");
    for markup in ["<script>alert", "<i>&", "<h2><", "<u>", "<b>\"", "<id ", "\u{1b}", "damaged<b>"] {
        assert!(!page.contains(markup), "{markup} in {page}");
    }
    assert!(page.contains("A damaged record is left alone"), "{page}");
    let metrics = get(web, "/metrics").body;
    assert_exposition(&metrics);
    let escaped = r#"{image="<script>alert(1)<x a=\"'&\\",provider="p\"} 1 <b>",state="ready"} 1"#;
    assert!(metrics.contains(escaped), "{metrics}");
    let table = get(web, "/dib-image-list");
    assert_eq!(table.body.lines().count(), 5, "{table:?}");
    assert_eq!(table.field("x-content-type-options"), "nosniff");
    assert_eq!(get_json(web, "/image-list").json()[0]["image"], image);
}

#[test]
fn every_thread_says_what_it_does() {
    let sandbox = Sandbox::new("web-threads");
    let keys = "formats: [raw], env-vars: {FAKE_DIB_SLEEP: '300'}";
    sandbox.write_body(&body(&[image(&sandbox, "debian", keys)], &[]));
    let builder = sandbox.builder(&[]);
    let table = wait_page(&builder, "/threads", "running the build command of debian");
    for name in ["main", "builder", "signals", "build-worker-0", "zk-session", "web", "watchdog", "janitor-0"]
    {
        assert!(table.contains(&format!("| {name} ")), "{name}: {table}");
    }
    let list = get_json(builder.web(), "/threads").json();
    let worker = list.as_array().unwrap().iter().find(|thread| thread["name"] == "build-worker-0").unwrap();
    assert_eq!(worker["role"], "build worker");
    assert_eq!(worker["activities"][0]["activity"], "building debian");
    assert!(worker["activities"][0]["elapsed"].as_f64().unwrap() > 0.0, "{worker}");
    assert!(worker["id"].as_u64().unwrap() > 0, "{worker}");
    // None that the kernel has and nobody has heard of.
    let tasks = names(PathBuf::from(format!("/proc/{}/task", builder.pid())));
    let known: Vec<_> = list.as_array().unwrap().iter().map(|thread| thread["id"].to_string()).collect();
    assert!(known.iter().all(|id| tasks.contains(id)), "{known:?} {tasks:?}");
}

trait Ready {
    fn web_of_ready(self) -> (SocketAddr, Daemon);
}

impl Ready for Daemon {
    /// The address of the pages, once they have something to show.
    fn web_of_ready(self) -> (SocketAddr, Daemon) {
        let web = self.web();
        self.wait_until("a builder that is ready", SOON, || (get(web, "/ready").status == 200).then_some(()));
        (web, self)
    }
}
