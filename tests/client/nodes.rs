//! `list`, `request-list`, `delete` and `hold`.

use std::time::Duration;

use serde_json::{Value, json};

use super::{BODY, ago, put_node, refused};
use crate::support::{Sandbox, ZkClient};

const NODES: &str = "/nodepool/nodes";
const REQUESTS: &str = "/nodepool/requests";
const SOON: Duration = Duration::from_secs(30);

/// Nodes of two providers, one of them locked, and what a lock has left of a third.
pub(super) fn put_data(zk: &ZkClient) {
    put_node(zk, "0000000002", "fake-1", json!("server-2"));
    let mut record = zk.get_json(&format!("{NODES}/0000000002")).unwrap();
    for (key, value) in [
        ("type", json!(["small", "alias"])),
        ("public_ipv4", json!("192.0.2.2")),
        ("allocated_to", json!("100-0000000001")),
        ("connection_port", json!(22)),
        ("username", json!("zuul")),
    ] {
        record[key] = value;
    }
    zk.set_json(&format!("{NODES}/0000000002"), &record);
    put_node(zk, "0000000001", "east", Value::Null);
    zk.hold_lock(&format!("{NODES}/0000000001/lock"));
    zk.create(&format!("{NODES}/0000000003/lock"), "");
    put_request(zk, "200-0000000001", 0);
    put_request(zk, "100-0000000003", 0);
    put_request(zk, "100-0000000002", 1);
}

fn put_request(zk: &ZkClient, id: &str, relative_priority: i64) {
    let record = json!({
        "state": "pending", "state_time": ago(60), "declined_by": ["pool-1"], "node_types": ["small", "small"],
        "nodes": [], "reuse": true, "requestor": "zuul", "requestor_data": {"any": 1}, "provider": null,
        "relative_priority": relative_priority, "event_id": "event", "created_time": ago(60),
        "tenant_name": "tenant",
    });
    zk.set_json(&format!("{REQUESTS}/{id}"), &record);
}

#[test]
fn list_and_request_list_draw_tables_in_order() {
    let sandbox = Sandbox::new("client-nodes");
    sandbox.write_body(BODY);
    assert_eq!(sandbox.nodepool(&["request-list"]).ok().lines().count(), 4, "an empty table");
    let zk = sandbox.zk();
    put_data(&zk);
    let table = sandbox.nodepool(&["list"]).ok();
    let rows: Vec<&str> = table.lines().filter(|line| line.starts_with("| 0")).collect();
    assert_eq!(rows.len(), 2, "{table}");
    assert!(rows[0].contains("| 0000000001 | east ") && rows[0].ends_with("| locked   |"), "{table}");
    assert!(rows[1].contains("| small,alias | server-2 ") && rows[1].ends_with("| unlocked |"), "{table}");
    let details = sandbox.nodepool(&["list", "--detail"]).ok();
    let header = details.lines().nth(1).unwrap();
    assert!(header.contains("| Allocated To ") && header.ends_with("| Driver Data |"), "{details}");
    let nodes = sandbox.nodepool(&["list", "--output", "json"]).json();
    assert_eq!(nodes[1]["allocated_to"], "100-0000000001");
    assert_eq!((&nodes[0]["locked"], &nodes[0]["server_id"]), (&json!("locked"), &Value::Null));

    let requests = sandbox.nodepool(&["request-list", "--output", "json"]).json();
    let ids: Vec<_> = requests.as_array().unwrap().iter().map(|request| &request["id"]).collect();
    assert_eq!(ids, ["100-0000000003", "100-0000000002", "200-0000000001"]);
    assert_eq!(requests[1]["declined_by"], json!(["pool-1"]));

    zk.set(&format!("{NODES}/0000000002"), "{");
    zk.set(&format!("{REQUESTS}/100-0000000003"), "");
    for (args, path) in [("list", "nodes/0000000002"), ("request-list", "requests/100-0000000003")] {
        let outcome = sandbox.nodepool(&[args]);
        assert!(
            outcome.stderr.contains(&format!("the record at /nodepool/{path} is left out")),
            "{outcome:?}"
        );
        assert_eq!(outcome.code(), 0);
    }
}

#[test]
fn delete_and_hold_mark_a_node_under_its_lock_and_show_it() {
    let sandbox = Sandbox::new("client-mark-node");
    sandbox.write_body(BODY);
    let zk = sandbox.zk();
    put_data(&zk);
    let path = format!("{NODES}/0000000002");
    // With and without leading zeros.
    for (command, id, state) in [("hold", "2", "hold"), ("delete", "0000000002", "deleting")] {
        let mut expected = zk.get_json(&path).unwrap();
        let table = sandbox.nodepool(&[command, id]).ok();
        assert!(table.contains(&format!("| {state} ")) && table.lines().count() == 5, "{table}");
        let record = zk.get_json(&path).unwrap();
        assert!(record["state_time"].as_f64().unwrap() > ago(60), "{record}");
        // Other keys are added only where the record had none of them.
        expected["state"] = state.into();
        expected["state_time"] = record["state_time"].clone();
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(&record[key], value, "{key}");
        }
        assert_eq!(zk.children(&format!("{path}/lock")), [""; 0], "the lock is free again");
    }
    for id in ["0000000009", "0000000003", "..", "a/b", ""] {
        refused(&sandbox.nodepool(&["hold", id]), &format!("Node id {id} not found"));
    }
    assert!(!zk.exists(&format!("{NODES}/0000000009")), "a look leaves no trace");
}

#[test]
fn delete_waits_for_the_lock_of_a_node_that_is_in_use() {
    let sandbox = Sandbox::new("client-locked-node");
    sandbox.write_body(BODY);
    let zk = sandbox.zk();
    put_node(&zk, "0000000001", "east", Value::Null);
    let lock = format!("{NODES}/0000000001/lock");
    let held = zk.hold_lock(&lock);
    let why = "the node 0000000001 is in use: its lock was not to be had within 5 s";
    refused(&sandbox.nodepool(&["delete", "0000000001"]), why);
    assert_eq!(zk.children(&lock).len(), 1, "who gives up leaves the line");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            zk.wait_children(&lock, SOON, |contenders| contenders.len() == 2);
            zk.delete(&held);
        });
        assert!(sandbox.nodepool(&["delete", "0000000001"]).ok().contains("| deleting "));
    });
}

#[test]
fn delete_now_deletes_a_node_at_its_provider_and_its_record() {
    let sandbox = Sandbox::new("client-delete-now");
    sandbox.write_body(&format!(
        "{BODY}  - {{name: shelf, driver: local, path: {}}}\n",
        sandbox.store().display()
    ));
    let zk = sandbox.zk();
    put_data(&zk);
    put_node(&zk, "0000000004", "shelf", json!("server-4"));
    put_node(&zk, "0000000005", "fake-1", json!({"name": "odd"}));
    assert_eq!(sandbox.nodepool(&["delete", "0000000002", "--now"]).ok().lines().count(), 4);
    assert!(!zk.exists(&format!("{NODES}/0000000002")));
    let file = sandbox.config_file();
    let why = format!("the provider 'east' of the node 0000000001 is not configured in {}", file.display());
    refused(&sandbox.nodepool(&["delete", "0000000001", "--now"]), &why);
    refused(&sandbox.nodepool(&["delete", "0000000004", "--now"]), "the provider 'shelf': it runs no nodes");
    assert_eq!(zk.get_json(&format!("{NODES}/0000000004")).unwrap()["state"], "ready");
    let why = "the provider 'fake-1': its driver's id of the node 0000000005 is not understood here: \
               {\"name\":\"odd\"}";
    refused(&sandbox.nodepool(&["delete", "0000000005", "--now"]), why);
}
