//! The status pages: what they show.

use std::net::SocketAddr;

use serde_json::json;

use super::*;
use crate::support::http::{self, get, get_json};
use crate::support::pages::{assert_exposition, sample, without_ages, without_seconds};
use crate::support::{Daemon, Options, Signal, ZooKeeper};

const PAGES: [&str; 10] = [
    "/",
    "/node-list",
    "/request-list",
    "/label-list",
    "/image-list",
    "/dib-image-list",
    "/image-status",
    "/ready",
    "/metrics",
    "/threads",
];

/// Waits until a page, of which a copy may be a second old, holds `text`.
#[track_caller]
fn wait_page(launcher: &Daemon, path: &str, text: &str) -> String {
    launcher.wait_until(&format!("`{text}` on {path}"), SOON, || {
        let body = get(launcher.web(), path).body;
        body.contains(text).then_some(body)
    })
}

/// The address of the pages, once they have something to show.
#[track_caller]
pub(super) fn ready_pages(launcher: &Daemon) -> SocketAddr {
    let web = launcher.web();
    launcher
        .wait_until("a launcher that is ready", SOON, || (get(web, "/ready").status == 200).then_some(()));
    web
}

/// What is between the tags of the page.
fn words(page: &str) -> String {
    let body = page.split("<main>").nth(1).unwrap().split("</main>").next().unwrap();
    let texts = body.split('<').filter_map(|part| part.split_once('>'));
    texts.flat_map(|(_, text)| text.split_whitespace()).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_listings_are_those_of_the_client_as_text_and_as_json() {
    let sandbox = simple("pages-listings", &["{name: a, min-ready: 2}"], "", "");
    let launcher = sandbox.launcher(&[]);
    let web = ready_pages(&launcher);
    let zuul = Requestor::new(&sandbox);
    let ready = wait_nodes(&zuul.zk, "ready", 2);
    zuul.wait(&zuul.ask(&["unknown", "a"]), "failed");
    // The launcher's own requests for stock are over, and no copy is older than that.
    launcher.wait_until("one request, which has failed", SOON, || {
        let list = get_json(web, "/request-list").json();
        (list.as_array()?.len() == 1 && list[0]["state"] == "failed").then_some(())
    });
    for id in ready {
        wait_page(&launcher, "/node-list", &id);
    }
    for (command, path) in [(&["list", "--detail"][..], "/node-list"), (&["request-list"], "/request-list")] {
        let (text, json) = (get(web, path), get_json(web, path));
        assert_eq!(without_ages(&text.body), without_ages(&sandbox.nodepool(command).ok()), "{path}");
        let of_client = sandbox.nodepool(&[command, &["--output", "json"]].concat()).ok();
        let plain = |text: &str| {
            let mut list = without_seconds(serde_json::from_str(text).unwrap());
            list.as_array_mut()
                .unwrap()
                .iter_mut()
                .for_each(|row| drop(row.as_object_mut().unwrap().remove("age")));
            list
        };
        assert_eq!(plain(&json.body), plain(&of_client), "{path}");
        assert_eq!((text.status, text.field("content-type")), (200, "text/plain; charset=utf-8"));
        assert_eq!((json.status, json.field("content-type")), (200, "application/json"));
        assert_eq!(text.field("cache-control"), "max-age=1, public");
    }
}

#[test]
fn a_copy_is_good_for_a_second_and_a_client_that_has_it_gets_it_only_once() {
    let sandbox = simple("pages-cache", &["a"], "", "");
    let launcher = sandbox.launcher(&[]);
    let web = ready_pages(&launcher);
    for path in ["/node-list", "/label-list?fields=label"] {
        // On a machine that stands still for a second between the two, it is another copy.
        eventually(SOON, "a copy that the client has", || {
            let first = get(web, path);
            let modified = first.field("last-modified");
            let head = format!("GET {path} HTTP/1.1\r\nIf-Modified-Since: {modified}\r\n\r\n");
            let second = http::request(web, &head);
            (second.status == 304).then(|| assert_eq!(second.field("last-modified"), modified))
        });
    }
}

#[test]
fn what_is_no_page_is_refused_and_head_has_no_body() {
    let sandbox = simple("pages-refused", &["a"], "", "");
    let launcher = sandbox.launcher(&[]);
    let web = ready_pages(&launcher);
    let answer = get(web, "/nope");
    assert_eq!(answer.status, 404);
    assert!(PAGES.iter().all(|page| answer.body.contains(page)), "{answer:?}");
    for page in PAGES {
        assert_eq!(get(web, page).status, 200, "{page}");
        let head = http::request(web, &format!("HEAD {page} HTTP/1.1\r\nHost: localhost\r\n\r\n"));
        assert_eq!((head.status, head.body.as_str()), (200, ""), "{page}");
    }
    assert_eq!(http::request(web, "POST /node-list HTTP/1.1\r\n\r\n").status, 405);
}

#[test]
fn a_launcher_is_ready_while_it_has_its_session_and_its_pools_are_registered() {
    let server = ZooKeeper::start_with(Options::default());
    let sandbox = Sandbox::on(&server, "launcher-pages-ready");
    sandbox.write_body(&body(&["a"], &[provider("cloud", "", "", &[pool("main", &["a"], "")])]));
    server.stop_signal();
    let launcher = sandbox.spawn(&sandbox.launcher_command(&[]));
    let refused = get(launcher.web(), "/ready");
    assert_eq!((refused.status, refused.body.as_str()), (503, "no session with ZooKeeper\n"));
    // Without the records every node would look as if it were gone.
    assert_eq!(get(launcher.web(), "/node-list").status, 503);
    assert!(get(launcher.web(), "/").body.contains("not ready: no session with ZooKeeper"));
    server.cont_signal();
    let web = ready_pages(&launcher);
    let zk = sandbox.zk();
    assert_eq!(zk.children("/nodepool/components/pool").len(), 1, "it is ready and not registered");
    assert_eq!(zk.children("/nodepool/components/launcher").len(), 1, "it is ready and not registered");
    drop(zk);
    let metrics = get(web, "/metrics").body;
    assert_eq!(sample(&metrics, "nodepool_ready"), Some(1.0));
    assert_eq!(sample(&metrics, "nodepool_zookeeper_connected"), Some(1.0));
    server.stop_signal();
    let reason = launcher.wait_until("a launcher that is not ready", SOON, || {
        let ready = get(web, "/ready");
        (ready.status == 503).then_some(ready.body)
    });
    assert!(reason.contains("ZooKeeper"), "{reason}");
    // What was known last is better than nothing.
    assert_eq!(get(web, "/node-list").status, 200);
    server.cont_signal();
}

#[test]
fn nodes_requests_launches_and_room_are_on_the_page() {
    let sandbox = Sandbox::new("launcher-pages-index");
    let quick = provider("quick", "", "", &[pool("main", &["a"], "max-servers: 2")]);
    let slow = provider("slow", "launch-delay: 3600", "", &[pool("deep", &["b"], "max-servers: 7")]);
    let limits = "tenant-resource-limits: [{tenant-name: small, max-servers: 5}]\n";
    sandbox.write_body(&format!("{limits}{}", body(&["{name: a, min-ready: 1}", "b"], &[quick, slow])));
    let launcher = sandbox.launcher(&[]);
    let web = ready_pages(&launcher);
    let zuul = Requestor::new(&sandbox);
    let ready = wait_nodes(&zuul.zk, "ready", 1)[0].clone();
    let tenant = json!({"tenant_name": "small"});
    let held = zuul.accept(&zuul.ask_with(&["a"], tenant.clone()))[0].clone();
    zuul.set_state(&held, "hold");
    let waiting = zuul.ask_with(&["b"], tenant);
    let page = wait_page(&launcher, "/", "slow / deep</b>");
    let page = match page.contains(&waiting) {
        true => page,
        false => wait_page(&launcher, "/", &waiting),
    };
    let text = words(&page);
    assert!(text.contains("b → slow / deep for"), "{text}");
    assert!(text.contains("of at most 1 h node 00"), "{text}");
    assert!(text.contains(&format!("{waiting} zuul for small b pending asked")), "{text}");
    assert!(text.contains("instances 2 of 2") && text.contains("instances 1 of 7"), "{text}");
    assert!(text.contains("Tenants with limits 1 Tenant In use small instances 2 of 5"), "{text}");
    for node in [ready, held] {
        assert!(text.contains(&node), "{node}: {text}");
    }
    assert!(!page.contains("Failing"), "{page}");
    launcher.wait_until("numbers of it", SOON, || {
        let metrics = get(web, "/metrics").body;
        assert_exposition(&metrics);
        let is = |name: &str, value: f64| sample(&metrics, name) == Some(value);
        let all = is(r#"nodepool_nodes{provider="slow",label="b",state="building"}"#, 1.0)
            && is(r#"nodepool_nodes{provider="slow",label="b",state="ready"}"#, 0.0)
            && is(r#"nodepool_requests{state="pending"}"#, 1.0)
            && is(r#"nodepool_requests{state="failed"}"#, 0.0)
            && is("nodepool_serving_requests", 1.0)
            && is(r#"nodepool_launching{provider="slow"}"#, 1.0)
            && is(r#"nodepool_launching{provider="quick"}"#, 0.0)
            && is(r#"nodepool_launches_total{provider="quick",result="ready"}"#, 2.0)
            && is(r#"nodepool_launches_total{provider="quick",result="timeout"}"#, 0.0)
            && is(r#"nodepool_pool_used{provider="quick",pool="main",resource="instances"}"#, 2.0)
            && is(r#"nodepool_pool_limit{provider="quick",pool="main",resource="instances"}"#, 2.0)
            && is(r#"nodepool_tenant_used{tenant="small",resource="instances"}"#, 2.0)
            && is(r#"nodepool_tenant_limit{tenant="small",resource="instances"}"#, 5.0)
            && is(r#"nodepool_min_ready{label="a"}"#, 1.0)
            && is(r#"nodepool_provider_failing{provider="quick"}"#, 0.0)
            && is("nodepool_statistics_leader", 0.0);
        all.then_some(())
    });
    let threads = get(web, "/threads").body;
    for name in ["main", "launcher", "provider-slow", "slow-worker-0", "zk-session", "web", "watchdog"] {
        assert!(threads.contains(&format!("| {name} ")), "{name}: {threads}");
    }
    launcher.signal(Signal::TERM);
    assert!(launcher.wait_exit(SOON).success());
}

#[test]
fn what_fails_is_on_the_page_once_for_each_cause_without_what_the_provider_has_said() {
    let sandbox = Sandbox::new("launcher-pages-failing");
    let broken =
        provider("broken", "launch-failures: -1", "    launch-retries: 2\n", &[pool("main", &["a"], "")]);
    let full = provider("full", "quota-failures: 1, delete-failures: -1", "", &[pool("main", &["b"], "")]);
    sandbox.write_body(&body(&["a", "b"], &[broken, full]));
    let launcher = sandbox.launcher(&[]);
    let web = ready_pages(&launcher);
    let zuul = Requestor::new(&sandbox);
    zuul.wait(&zuul.ask(&["a"]), "failed");
    let node = zuul.accept(&zuul.ask(&["b"]))[0].clone();
    zuul.give_back(&node);
    wait_page(&launcher, "/", "not deleted");
    let text = words(&get(web, "/").body);
    assert!(text.contains("a → broken / main its instance has failed at the provider"), "{text}");
    assert!(text.contains("2 times in the last hour"), "{text}");
    assert!(text.contains("b → full / main the provider has no room for it"), "{text}");
    assert!(text.contains("provider full 1 node is not deleted"), "{text}");
    assert!(text.contains("declined by broken / main"), "{text}");
    for path in PAGES {
        let body = get(web, path).body;
        assert!(!body.contains("the fake cloud"), "{path}: {body}");
    }
    let metrics = get(web, "/metrics").body;
    assert_eq!(sample(&metrics, r#"nodepool_launches_total{provider="broken",result="status"}"#), Some(2.0));
    assert_eq!(sample(&metrics, r#"nodepool_launches_total{provider="full",result="quota"}"#), Some(1.0));
    let stuck = |metrics: &str| sample(metrics, r#"nodepool_stuck_deletions{provider="full"}"#);
    assert!(stuck(&metrics).unwrap() >= 1.0);
    // Somebody else deletes it.
    zuul.zk.delete(&format!("{NODES}/{node}"));
    eventually(SOON, "nothing to be stuck", || {
        (stuck(&get(web, "/metrics").body).unwrap_or_default() == 0.0).then_some(())
    });
}

/// Other programs write the records too.
#[test]
fn hostile_records_stay_text_and_ports_with_secrets_are_not_shown() {
    let sandbox = simple("pages-hostile", &["a"], "", "");
    let launcher = sandbox.launcher(&[]);
    let web = ready_pages(&launcher);
    let zk = sandbox.zk();
    let node = json!({"state": "hold", "state_time": 5.5, "type": ["<script>alert(1)"], "provider": "p\"} 1 <b>",
        "pool": "<i>", "comment": "<u>\n\u{1b}[31m", "hold_job": "<h2>", "connection_port": "hunter2",
        "interface_ip": "<a>", "allocated_to": "<s>", "tenant_name": "<em>"});
    zk.create(&format!("{NODES}/0000000001"), node.to_string());
    zk.create(&format!("{NODES}/damaged<b>"), "no JSON");
    let request = json!({"state": "requested", "node_types": ["<q>"], "requestor": "<dl>", "tenant_name": "<dt>",
        "declined_by": ["<dd>"]});
    zk.create_ephemeral(&format!("{REQUESTS}/100-<kbd>"), request.to_string());
    wait_page(&launcher, "/", "&lt;kbd&gt;");
    let page = wait_page(&launcher, "/", "&lt;script&gt;");
    for markup in [
        "<script>alert",
        "<i>&",
        "<u>",
        "<h2><",
        "<a>",
        "<s>",
        "<em>",
        "<q>",
        "<dl>",
        "<dt>",
        "<dd>",
        "<kbd>",
        "\u{1b}",
        "damaged<b>",
    ] {
        assert!(!page.contains(markup), "{markup} in {page}");
    }
    assert!(page.contains("A damaged record is left alone"), "{page}");
    let metrics = get(web, "/metrics").body;
    assert_exposition(&metrics);
    let escaped = r#"{provider="p\"} 1 <b>",label="<script>alert(1)",state="hold"} 1"#;
    assert!(metrics.contains(escaped), "{metrics}");
    assert_eq!(get(web, "/node-list").body.lines().count(), 5);
    assert_eq!(get_json(web, "/node-list").json()[0]["connection_port"], "redacted");
    for path in PAGES {
        assert!(!get(web, path).body.contains("hunter2"), "{path}");
    }
}

#[test]
fn a_refused_configuration_and_labels_that_cannot_be_launched_are_on_the_page() {
    let sandbox = Sandbox::new("launcher-pages-refused-config");
    let images = "diskimages: [{name: debian, formats: [qcow2]}]\nimages-dir: /nowhere\n";
    let labels = "[{name: a, cloud-image: cloud}, {name: b, diskimage: debian}]";
    let pool = format!("      - {{name: main, host-key-checking: false, labels: {labels}}}\n");
    let cloud = provider("cloud", "", "    diskimages: [{name: debian}]\n", &[pool]);
    let good = format!("{images}{}", body(&["a", "{name: b, min-ready: 1}"], &[cloud]));
    sandbox.write_body(&good);
    let launcher = sandbox.launcher(&[]);
    ready_pages(&launcher);
    let page = words(&wait_page(&launcher, "/", "what they boot from is not there"));
    assert!(page.contains("not launched, as what they boot from is not there: b"), "{page}");
    assert!(!page.contains("refused"), "{page}");
    launcher.wait_log("no ready nodes of a label", SOON);
    // An unknown key is no reason.
    sandbox.write_body(&good.replace("min-ready: 1", "min-ready: x, max-redy-age: 1"));
    let page = words(&wait_page(&launcher, "/", "refused"));
    assert!(
        page.contains("refused for") && page.contains("with an error: the last good one is in force"),
        "{page}"
    );
    assert_eq!(launcher.log().matches("the new configuration is refused").count(), 1);
    sandbox.write_body(&good);
    launcher.wait_until("an end of that on the page", SOON, || {
        (!get(launcher.web(), "/").body.contains("refused")).then_some(())
    });
}
