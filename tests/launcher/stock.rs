//! Ready nodes that are kept in stock, and what becomes too old.

use serde_json::json;

use super::*;

#[test]
fn ready_nodes_are_kept_in_stock() {
    let sandbox = simple("stock", &["{name: a, min-ready: 3}", "b"], "", "");
    let zuul = Requestor::new(&sandbox);
    let _launcher = sandbox.launcher(&[]);
    let free = |zk: &ZkClient| {
        let ready = nodes_in(zk, "ready").into_iter();
        ready.filter(|id| record(zk, id).unwrap()["allocated_to"].is_null()).count()
    };
    eventually(SOON, "three nodes in stock", || (free(&zuul.zk) == 3).then_some(()));
    zuul.zk.wait_children(REQUESTS, SOON, |names| names.is_empty());
    assert_eq!(zuul.zk.children(NODES).len(), 3);
    zuul.accept(&zuul.ask(&["a", "a"]));
    eventually(SOON, "three nodes in stock again", || (free(&zuul.zk) == 3).then_some(()));
    assert_eq!(zuul.zk.children(NODES).len(), 5);
}

#[test]
fn a_node_that_is_ready_for_too_long_is_deleted() {
    let sandbox = simple("max-ready-age", &["{name: a, max-ready-age: 2}"], "", "");
    let zuul = Requestor::new(&sandbox);
    let _launcher = sandbox.launcher(&[]);
    let id = zuul.ask(&["a"]);
    let nodes = zuul.wait_nodes(&id);
    // As long as it belongs to a request it stays.
    zuul.withdraw(&id);
    zuul.wait_gone(&nodes[0]);
}

#[test]
fn a_node_is_held_until_its_time_is_over() {
    let sandbox = simple("max-hold-age", &["a"], "", "");
    let header = sandbox.header(&Header::default());
    let cloud = provider("cloud", "", "", &[pool("main", &["a"], "")]);
    sandbox.write_config(&format!("{header}max-hold-age: 3600\n{}", body(&["a"], &[cloud])));
    let zuul = Requestor::new(&sandbox);
    let _launcher = sandbox.launcher(&[]);
    let nodes = zuul.accept(&zuul.ask(&["a", "a", "a"]));
    for (node, since, expiration) in [
        (&nodes[0], unix_now(), json!(null)),
        (&nodes[1], unix_now() - 4000.0, json!(null)),
        (&nodes[2], unix_now() - 60.0, json!(30)),
    ] {
        let mut record = zuul.node(node).unwrap();
        record["state"] = json!("hold");
        record["state_time"] = json!(since);
        record["hold_expiration"] = expiration;
        zuul.zk.set_json(&format!("{NODES}/{node}"), &record);
        zuul.zk.delete(&format!("{NODES}/{node}/lock"));
    }
    zuul.wait_gone(&nodes[1]);
    zuul.wait_gone(&nodes[2]);
    assert_eq!(zuul.node(&nodes[0]).unwrap()["state"], "hold");
}

#[test]
fn what_others_have_left_is_put_in_order() {
    let sandbox = simple("left", &["a"], "", "");
    let zuul = Requestor::new(&sandbox);
    let node = |state: &str, more: serde_json::Value| {
        let mut record = json!({
            "state": state, "state_time": unix_now(), "provider": "cloud", "pool": "main", "type": ["a"],
            "launcher": "somebody", "created_time": unix_now(), "allocated_to": null,
        });
        record.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let id = format!("{:010}", zuul.zk.children(NODES).len());
        zuul.zk.create(&format!("{NODES}/{id}"), record.to_string());
        id
    };
    let gone: Vec<String> =
        ["init", "building", "in-use", "used", "deleting", "failed", "aborted", "deleted"]
            .iter()
            .map(|state| node(state, json!({})))
            .collect();
    let other = node("used", json!({"provider": "somebody's"}));
    let orphan = node("ready", json!({"allocated_to": "100-0000000099"}));
    zuul.zk.create(&format!("{NODES}/0000000077/lock"), "");
    let lost = zuul.ask_with(&["a"], json!({"state": "pending"}));
    let taken = node("ready", json!({"allocated_to": lost.clone()}));
    let _launcher = sandbox.launcher(&[]);
    gone.iter().for_each(|id| zuul.wait_gone(id));
    zuul.zk.wait_for(&format!("{NODES}/{orphan}"), SOON, |node| {
        node.is_some_and(|node| node["allocated_to"].is_null() || node["allocated_to"] == json!(lost))
    });
    // With either of them or with a new one: the copy of the tree may not show them yet.
    let nodes = zuul.wait_nodes(&lost);
    zuul.zk.wait_for(&format!("{NODES}/{taken}"), SOON, |node| {
        node.is_some_and(|node| node["allocated_to"].is_null() || nodes == [taken.clone()])
    });
    zuul.zk.wait_children(NODES, SOON, |names| !names.iter().any(|name| name == "0000000077"));
    assert_eq!(zuul.node(&other).unwrap()["state"], "used");
}
