//! Requests that are fulfilled, and those that are not.

use serde_json::json;

use super::*;

#[test]
fn a_request_gets_new_nodes_in_its_order_and_used_ones_are_deleted() {
    let sandbox = simple("new", &["a", "b"], "", "node-attributes: {key: value}");
    let zuul = Requestor::new(&sandbox);
    let _launcher = sandbox.launcher(&[]);
    let id = zuul.ask(&["b", "a", "b"]);
    let nodes = zuul.wait_nodes(&id);
    let types: Vec<_> = nodes.iter().map(|id| zuul.node(id).unwrap()["type"].clone()).collect();
    assert_eq!(types, [json!(["b"]), json!(["a"]), json!(["b"])]);
    let record = zuul.node(&nodes[0]).unwrap();
    for (key, expected) in [
        ("state", json!("ready")),
        ("provider", json!("cloud")),
        ("pool", json!("main")),
        ("allocated_to", json!(id)),
        ("tenant_name", json!("tenant")),
        ("requestor", json!("zuul")),
        ("interface_ip", json!("127.0.0.1")),
        ("connection_port", json!(22)),
        ("ssh_port", json!(22)),
        ("connection_type", json!("ssh")),
        ("username", json!("zuul")),
        ("python_path", json!("auto")),
        ("attributes", json!({"key": "value"})),
        ("resources", json!({"cores": 4, "instances": 1, "ram": 8192})),
        ("image_id", json!("cloud")),
        ("cloud", json!("fake")),
        ("hold_expiration", json!(null)),
        ("host_keys", json!([])),
        ("node_properties", json!({})),
    ] {
        assert_eq!(record[key], expected, "{key}: {record}");
    }
    assert!(record["external_id"].is_string() && record["created_time"].is_f64());
    assert!(nodes[0].len() == 10 && nodes[0].bytes().all(|byte| byte.is_ascii_digit()));
    assert!(zuul.zk.children(&format!("{LOCKS}/{id}")).is_empty(), "nobody has the request's lock any more");

    assert_eq!(zuul.accept(&id), nodes);
    zuul.give_back(&nodes[1]);
    zuul.wait_gone(&nodes[1]);
    assert_eq!(zuul.node(&nodes[0]).unwrap()["state"], "in-use");
    zuul.give_back(&nodes[0]);
    zuul.give_back(&nodes[2]);
    zuul.zk.wait_children(NODES, SOON, |names| names.is_empty());
}

#[test]
fn a_ready_node_is_taken_unless_the_request_wants_a_new_one() {
    let sandbox = simple("reuse", &["{name: a, min-ready: 1}"], "", "");
    let zuul = Requestor::new(&sandbox);
    let _launcher = sandbox.launcher(&[]);
    let [stock] = <[String; 1]>::try_from(wait_nodes(&zuul.zk, "ready", 1)).unwrap();
    zuul.zk.wait_for(&format!("{NODES}/{stock}"), SOON, |node| {
        node.is_some_and(|node| node["allocated_to"].is_null())
    });
    let fresh = zuul.ask_with(&["a"], json!({"reuse": false}));
    assert_ne!(zuul.wait_nodes(&fresh), std::slice::from_ref(&stock));
    let id = zuul.ask(&["a"]);
    assert_eq!(zuul.wait_nodes(&id), std::slice::from_ref(&stock));
    let node = zuul.node(&stock).unwrap();
    assert_eq!((&node["allocated_to"], &node["tenant_name"]), (&json!(id), &json!("tenant")));
}

#[test]
fn what_nobody_can_serve_fails() {
    let sandbox = simple("decline", &["a"], "", "max-servers: 2");
    let zuul = Requestor::new(&sandbox);
    let _launcher = sandbox.launcher(&[]);
    for labels in [&["unknown"][..], &["a", "unknown"], &["a", "a", "a"]] {
        let id = zuul.ask(labels);
        let record = zuul.wait(&id, "failed");
        assert_eq!(record["declined_by"].as_array().unwrap().len(), 1, "{record}");
        assert_eq!(record["nodes"], json!([]));
    }
    assert!(zuul.zk.children(NODES).is_empty());
}

#[test]
fn a_launch_is_tried_again_and_then_the_request_fails() {
    let sandbox = simple("retries", &["a"], "launch-failures: 4", "");
    let zuul = Requestor::new(&sandbox);
    let launcher = sandbox.launcher(&[]);
    let id = zuul.ask(&["a"]);
    zuul.wait(&id, "failed");
    zuul.zk.wait_children(NODES, SOON, |names| names.is_empty());
    // The first of three attempts fails.
    let id = zuul.ask(&["a"]);
    assert_eq!(zuul.wait_nodes(&id).len(), 1);
    assert!(launcher.log().contains("attempt: 3"), "{}", launcher.log());
}

#[test]
fn a_request_that_is_withdrawn_in_the_middle_leaves_its_node_to_others() {
    let sandbox = simple("withdrawn", &["a"], "launch-delay: 1", "max-servers: 1");
    let zuul = Requestor::new(&sandbox);
    let _launcher = sandbox.launcher(&[]);
    let id = zuul.ask(&["a"]);
    let [node] = <[String; 1]>::try_from(wait_nodes(&zuul.zk, "building", 1)).unwrap();
    zuul.withdraw(&id);
    zuul.zk.wait_for(&format!("{NODES}/{node}"), SOON, |record| {
        record.is_some_and(|record| record["state"] == "ready" && record["allocated_to"].is_null())
    });
    let id = zuul.ask(&["a"]);
    assert_eq!(zuul.wait_nodes(&id), [node]);
}

#[test]
fn a_damaged_request_or_node_is_left_alone() {
    let sandbox = simple("damaged", &["a"], "", "");
    let zuul = Requestor::new(&sandbox);
    zuul.zk.create(&format!("{NODES}/0000000000"), "{");
    zuul.zk.create(&format!("{REQUESTS}/100-0000000000"), "{");
    let launcher = sandbox.launcher(&[]);
    let id = zuul.ask(&["a"]);
    zuul.wait_nodes(&id);
    launcher.wait_log("path: /nodepool/nodes/0000000000", SOON);
    launcher.wait_log("path: /nodepool/requests/100-0000000000", SOON);
    assert!(zuul.zk.exists(&format!("{NODES}/0000000000")));
}

#[test]
fn the_log_says_how_long_a_launch_took_and_when_one_begins_to_wait_for_its_server() {
    let sandbox = Sandbox::new("launcher-waits");
    let checked = pool("checked", &["b"], "").replace("key-checking: false", "key-checking: true");
    sandbox
        .write_body(&body(&["a", "b"], &[provider("cloud", "", "", &[pool("main", &["a"], ""), checked])]));
    let zuul = Requestor::new(&sandbox);
    let launcher = sandbox.launcher(&[]);
    zuul.accept(&zuul.ask(&["a"]));
    let ready = launcher.wait_until("a ready node in the log", SOON, || {
        launcher.log().lines().find(|line| line.contains("the node is ready")).map(str::to_owned)
    });
    let took = ready.split("seconds: ").nth(1).and_then(|rest| rest.split(',').next());
    assert!(
        took.is_some_and(|took| took.split('.').nth(1).is_some_and(|digits| digits.len() == 1)),
        "{ready}"
    );
    assert!(!launcher.log().contains("waiting for it to answer"));
    zuul.ask(&["b"]);
    launcher.wait_log("the server is there; waiting for it to answer", SOON);
}
