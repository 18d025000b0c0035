//! The status pages beside those of the original's launcher, on one ZooKeeper: the same answers.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};

use serde_json::json;

use super::original::their_config;
use super::*;
use crate::support::Original;
use crate::support::http::{Answer, get, request};
use crate::support::original::rows;
use crate::support::pages::without_ages;

/// The original looks for requests once a second, and does everything one after the other.
const PATIENCE: Duration = Duration::from_secs(180);

fn ask(server: SocketAddr, path: &str, accept: &str) -> Answer {
    request(server, &format!("GET {path} HTTP/1.0\r\nHost: a.example.org\r\nAccept: {accept}\r\n\r\n"))
}

/// The rows of a list in any order, without the age, which is another one a moment later.
fn by_id(list: &Value) -> BTreeMap<String, Value> {
    let rows = list.as_array().unwrap_or_else(|| panic!("{list}")).iter();
    let row = |row: &Value| {
        let mut row = row.clone();
        let key = ["id", "label", "image"].into_iter().find_map(|key| row[key].as_str()).unwrap().to_owned();
        let key = format!("{key} {}", row["upload_id"]);
        row.as_object_mut().unwrap().remove("age");
        (key, row)
    };
    rows.map(row).collect()
}

/// Ours has further keys.
#[track_caller]
fn assert_same(path: &str, ours: &Value, theirs: &Value) {
    let (ours, theirs) = (by_id(ours), by_id(theirs));
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>(), "{path}");
    for (id, theirs) in theirs {
        let alone = is_alone(path);
        for (key, value) in theirs.as_object().unwrap().iter().filter(|(key, _)| !alone || *key != "locked") {
            assert_eq!(ours[&id].get(key), Some(value), "{path}: {key} of {id}");
        }
    }
}

/// Whether one node is asked for.
fn is_alone(path: &str) -> bool {
    path.contains("node_id=0")
}

fn sorted_table(table: &str) -> Vec<String> {
    let mut rows = without_ages(table);
    rows[1..].sort();
    rows
}

/// Images with everything that a listing shows.
fn images(zk: &ZkClient) {
    let image = "/nodepool/images/debian";
    let build = format!("{image}/builds/0123456789abcdef0123456789abcdef");
    let record = json!({"state": "ready", "state_time": 100.5, "builder": "b", "builder_id": "i",
        "formats": "qcow2,raw", "username": "zuul", "python_path": "auto", "shell_type": null});
    zk.create(&build, record.to_string());
    let upload = json!({"state": "ready", "state_time": 200.5, "external_id": "e", "external_name": "n",
        "format": "raw", "username": "zuul", "python_path": "auto", "shell_type": null});
    zk.create(&format!("{build}/providers/p/images/0000000001"), upload.to_string());
    zk.create(&format!("{image}/request-build"), "");
}

#[test]
fn each_listing_answers_as_the_originals_launcher_does() {
    let sandbox = Sandbox::new("launcher-pages-original");
    let ours = provider("ours", "", "", &[pool("main", &["a", "c"], "")]);
    sandbox.write_body(&body(&["{name: a, min-ready: 1}", "c"], &[ours]));
    let zuul = Requestor::new(&sandbox);
    images(&zuul.zk);
    let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let file = sandbox.path("theirs.yaml");
    std::fs::write(&file, their_config(&sandbox, port)).unwrap();
    let original = Original::get().launcher_with(&sandbox, &file, &[]);
    let theirs = SocketAddr::from(([127, 0, 0, 1], port));
    let launcher = sandbox.launcher(&[]);
    let ours = launcher.web();

    // A node of theirs, one of ours that is used and held, one of ours in stock, a request that no pool can serve yet.
    let id = zuul.ask(&["b"]);
    original.wait_until("a node of theirs", PATIENCE, || {
        (zuul.request(&id).unwrap()["state"] == "fulfilled").then_some(())
    });
    let held = zuul.accept(&zuul.ask(&["c", "c"]))[0].clone();
    let mut record = zuul.node(&held).unwrap();
    record["comment"] = json!("look at it");
    record["hold_job"] = json!("a job");
    record["user_data"] = json!("some data");
    zuul.zk.set_json(&format!("{NODES}/{held}"), &record);
    // What some drivers have where others have a port.
    let secret = json!({"state": "hold", "state_time": 5.5, "type": ["x"], "provider": "elsewhere",
        "connection_port": {"token": "hunter2"}});
    zuul.zk.create(&format!("{NODES}/0000009999"), secret.to_string());
    wait_nodes(&zuul.zk, "ready", 2);
    let failed = zuul.ask(&["unknown", "a"]);
    original.wait_until("a request that nobody can serve", PATIENCE, || {
        (zuul.request(&failed).unwrap()["state"] == "failed").then_some(())
    });

    let paths =
        ["/node-list", "/request-list", "/label-list", "/image-list", "/dib-image-list", "/image-status"];
    let both = |path: &str, accept: &str| (ask(ours, path, accept), ask(theirs, path, accept));
    // Both copies have to catch up; a page of theirs is a second old at most.
    for (path, text) in
        [("/node-list", "look at it"), ("/node-list", "0000009999"), ("/request-list", "failed")]
    {
        for server in [ours, theirs] {
            original.wait_until(&format!("`{text}` on {path}"), PATIENCE, || {
                get(server, path).body.contains(text).then_some(())
            });
        }
    }
    for path in paths {
        let (mine, other) = both(path, "application/json");
        assert_same(path, &mine.json(), &other.json());
        for field in ["content-type", "access-control-allow-origin"] {
            let plain = |answer: &Answer| answer.field(field).replace("; charset=UTF-8", "");
            assert_eq!(plain(&mine), plain(&other), "{path} {field}");
        }
        for field in ["last-modified", "expires", "cache-control"] {
            assert!(!mine.field(field).is_empty() && !other.field(field).is_empty(), "{path} {field}");
        }
        for accept in ["text/plain", "*/*", "text/html,application/xhtml+xml,*/*;q=0.8"] {
            let (mine, other) = both(path, accept);
            assert_eq!(sorted_table(&mine.body), sorted_table(&other.body), "{path} {accept}");
        }
    }
    for path in [
        "/node-list?fields=id,state,label",
        "/node-list?fields=comment",
        "/request-list?fields=id,declined_by",
        "/label-list?fields=label",
        &format!("/node-list?node_id={held}"),
        &format!("/node-list?node_id={held}&fields=id%2Chold_job"),
        "/node-list?node_id=0000000404",
        "/node-list?node_id=",
    ] {
        let (mine, other) = both(path, "text/plain");
        // Of a node that is asked for alone, the original always says that it is not locked.
        let shown = sorted_table(&mine.body).join("\n");
        let shown = if is_alone(path) { shown.replace("|locked|", "|unlocked|") } else { shown };
        let mine = (mine.status, shown);
        assert_eq!(mine, (other.status, sorted_table(&other.body).join("\n")), "{path}");
        let (mine, other) = both(path, "application/json");
        assert_same(path, &mine.json(), &other.json());
    }
    for path in ["/ready", "/nope", "/node-list/"] {
        let (mine, other) = both(path, "*/*");
        assert_eq!(mine.status, other.status, "{path}");
    }
    let (mine, other) = both("/ready", "*/*");
    assert_eq!(mine.body, other.body);
    let labels = rows(&get(ours, "/label-list").body);
    assert_eq!(labels, ["Label", "a", "b", "c"].map(|label| vec![label.to_owned()]));
    for path in paths.into_iter().chain(["/", "/metrics", "/threads"]) {
        assert!(!get(ours, path).body.contains("hunter2"), "{path}");
    }
}
