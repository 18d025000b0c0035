//! What nodes boot, where, and how they are reached: disk images, zones, addresses, consoles.

use std::net::TcpListener;

use serde_json::json;

use super::*;

/// A provider with the disk image `debian` and a pool with these keys and labels; `more` are keys of the provider.
fn cloud(more: &str, pool: &str, labels: &str) -> String {
    format!(
        "diskimages: [{{name: debian, formats: [qcow2], username: built}}]\n\
         labels: [{{name: disk}}, {{name: a}}, {{name: b}}]\n\
         providers:\n  - name: cloud\n    driver: fake\n    cloud: fake\n    fake: {{launch-delay: 0.01}}\n    \
         diskimages: [{{name: debian, connection-port: 2200}}]\n{more}    pools: [{{name: main, {pool}, labels: [{labels}]}}]\n"
    )
}

const DISK: &str = "{name: disk, diskimage: debian, host-key-checking: false}";

/// Records an upload of `debian` as a builder does. Answers its path.
fn upload(zk: &ZkClient, build: u32, provider: &str, state: &str, since: f64, external_id: &str) -> String {
    let build = format!("/nodepool/images/debian/builds/{build:032x}");
    if !zk.exists(&build) {
        let record = json!({"state": "ready", "state_time": since, "builder": "b", "builder_id": "b", "formats": "qcow2"});
        zk.create(&build, record.to_string());
    }
    let path = format!("{build}/providers/{provider}/images/0000000001");
    let record = json!({
        "state": state, "state_time": since, "external_id": external_id, "external_name": external_id, "format": "qcow2",
        "username": format!("of-{external_id}"), "python_path": "/usr/bin/python3", "shell_type": null,
    });
    zk.create(&path, record.to_string());
    path
}

#[test]
fn a_node_of_a_disk_image_boots_the_newest_upload_that_is_ready() {
    let sandbox = Sandbox::new("launcher-disk");
    sandbox.write_body(&cloud("", "max-servers: 5", DISK));
    let zuul = Requestor::new(&sandbox);
    let launcher = sandbox.launcher(&[]);
    // Nothing is uploaded yet.
    zuul.wait(&zuul.ask(&["disk"]), "failed");
    upload(&zuul.zk, 1, "cloud", "ready", 100.0, "old");
    let newest = upload(&zuul.zk, 2, "cloud", "ready", 200.0, "newest");
    upload(&zuul.zk, 3, "cloud", "uploading", 300.0, "unfinished");
    upload(&zuul.zk, 4, "cloud", "deleting", 400.0, "going");
    upload(&zuul.zk, 5, "elsewhere", "ready", 500.0, "others");
    let boots = |image: &str, path: &str| {
        eventually(SOON, &format!("a node of {image}"), || {
            let id = zuul.ask(&["disk"]);
            let over = || {
                zuul.request(&id)
                    .filter(|record| record["state"] != "requested" && record["state"] != "pending")
            };
            let record = eventually(SOON, "an answer", over);
            // The copy of the tree may not have them yet.
            let node = zuul.node(record["nodes"][0].as_str()?)?;
            (node["image_id"] == path).then(|| {
                for (key, expected) in [
                    // As the configuration has it now, whatever the upload was built with.
                    ("username", json!("built")),
                    ("python_path", json!("auto")),
                    ("shell_type", json!(null)),
                    ("connection_port", json!(2200)),
                    ("connection_type", json!("ssh")),
                ] {
                    assert_eq!(node[key], expected, "{key}: {node}");
                }
                let id = node["external_id"].as_str().unwrap();
                let line = launcher
                    .log()
                    .lines()
                    .rev()
                    .find(|line| line.contains("launches an instance") && line.contains(id))
                    .map(str::to_owned);
                assert!(
                    line.as_deref().is_some_and(|line| line.contains(&format!("image: {image}"))),
                    "{line:?}"
                );
            })
        });
    };
    boots("newest", &newest);
    // Its deletion begins, and the next node boots the one before it.
    let mut record = zuul.zk.get_json(&newest).unwrap();
    record["state"] = json!("deleting");
    zuul.zk.set_json(&newest, &record);
    boots("old", &format!("/nodepool/images/debian/builds/{:032x}/providers/cloud/images/0000000001", 1));
}

#[test]
fn all_nodes_of_a_request_are_in_one_zone_and_that_is_where_a_ready_one_is() {
    let sandbox = Sandbox::new("launcher-zones");
    let images = "    cloud-images: [{name: image, username: zuul}]\n";
    let label = |name: &str| format!("{{name: {name}, cloud-image: image, host-key-checking: false}}");
    let write = |zones: &str, stock: &str| {
        let text =
            cloud(images, &format!("availability-zones: [{zones}]"), &[label("a"), label("b")].join(", "));
        sandbox.write_body(
            &text.replace("{name: a}, {name: b}]\n", &format!("{{name: a}}, {{name: b{stock}}}]\n")),
        );
    };
    write("one, two, three, four", "");
    let zuul = Requestor::new(&sandbox);
    let launcher = sandbox.launcher(&[]);
    let zones = |nodes: &[String]| -> std::collections::BTreeSet<String> {
        nodes.iter().map(|id| zuul.node(id).unwrap()["az"].as_str().unwrap().to_owned()).collect()
    };
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..20 {
        let nodes = zuul.wait_nodes(&zuul.ask(&["a", "a", "a"]));
        let here = zones(&nodes);
        assert_eq!(here.len(), 1, "{here:?}");
        seen.extend(here);
    }
    assert!(seen.len() > 1, "each request has its own: {seen:?}");

    // A node of b waits in the fifth zone, which new ones are not launched in any more.
    write("five", ", min-ready: 1");
    let stock = eventually(SOON, "stock", || {
        let ready = nodes_in(&zuul.zk, "ready").into_iter();
        ready.filter_map(|id| Some((record(&zuul.zk, &id)?, id))).find(|(node, _)| {
            node["type"] == json!(["b"]) && node["allocated_to"].is_null() && node["az"] == "five"
        })
    });
    let old = stock.1;
    write("one, two", "");
    launcher.wait_log("the provider's configuration has changed", SOON);
    eventually(SOON, "new nodes in the new zones", || {
        let nodes = zuul.wait_nodes(&zuul.ask(&["a"]));
        (!zones(&nodes).contains("five")).then_some(())
    });
    // The ready one is the second of the request, and the first is launched where it is.
    let nodes = zuul.wait_nodes(&zuul.ask(&["a", "b"]));
    assert_eq!(nodes[1], old);
    assert_eq!(zones(&nodes), std::collections::BTreeSet::from(["five".to_owned()]));
}

#[test]
fn ready_nodes_of_one_request_are_in_one_zone() {
    let sandbox = Sandbox::new("launcher-zones-ready");
    let images = "    cloud-images: [{name: image, username: zuul}]\n";
    let label = "{name: a, cloud-image: image, host-key-checking: false}";
    let write = |zone: &str, stock: u32| {
        let text = cloud(images, &format!("availability-zones: [{zone}]"), label);
        sandbox.write_body(&text.replace("{name: a}, ", &format!("{{name: a, min-ready: {stock}}}, ")));
    };
    let zuul = Requestor::new(&sandbox);
    let free_in = |zone: &str| {
        let ready = nodes_in(&zuul.zk, "ready").into_iter();
        let here = |node: &Value| node["az"] == zone && node["allocated_to"].is_null();
        ready.filter(|id| record(&zuul.zk, id).is_some_and(|node| here(&node))).count()
    };
    write("one", 1);
    let _launcher = sandbox.launcher(&[]);
    eventually(SOON, "a node in one", || (free_in("one") == 1).then_some(()));
    write("two", 3);
    eventually(SOON, "nodes in two", || (free_in("two") == 2 && free_in("one") == 1).then_some(()));
    let nodes = zuul.wait_nodes(&zuul.ask(&["a", "a"]));
    let zones: Vec<_> = nodes.iter().map(|id| zuul.node(id).unwrap()["az"].clone()).collect();
    assert_eq!(zones[0], zones[1]);
}

#[test]
fn jobs_reach_nodes_by_their_private_addresses_where_the_pool_says_so() {
    let sandbox = Sandbox::new("launcher-internal");
    let more = "use-internal-ip: true";
    let [inside, outside] = [pool("inside", &["a"], more), pool("outside", &["b"], "use-internal-ip: false")];
    sandbox.write_body(&body(&["a", "b"], &[provider("cloud", "", "", &[inside, outside])]));
    let zuul = Requestor::new(&sandbox);
    let _launcher = sandbox.launcher(&[]);
    for (label, address) in [("a", "127.0.0.2"), ("b", "127.0.0.1")] {
        let nodes = zuul.wait_nodes(&zuul.ask(&[label]));
        let node = zuul.node(&nodes[0]).unwrap();
        let found = ["interface_ip", "public_ipv4", "private_ipv4"].map(|key| node[key].clone());
        assert_eq!(found, [address, "127.0.0.1", "127.0.0.2"].map(|address| json!(address)), "{label}");
    }
}

#[test]
fn the_console_of_a_node_whose_keys_cannot_be_read_is_logged_if_its_label_wants_that() {
    // It accepts connections and says nothing.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    let sandbox = Sandbox::new("launcher-console");
    let images = format!(
        "    boot-timeout: 1\n    launch-retries: 1\n    cloud-images: [{{name: image, username: zuul, connection-port: {port}}}]\n"
    );
    let labels = "{name: a, cloud-image: image}, {name: b, cloud-image: image, console-log: true}";
    sandbox.write_body(&cloud(&images, "max-servers: 5", labels));
    let zuul = Requestor::new(&sandbox);
    let launcher = sandbox.launcher(&[]);
    let said = || launcher.log().matches("what the node has said on its console").count();
    for (label, expected) in [("a", 0), ("b", 1)] {
        zuul.wait(&zuul.ask(&[label]), "failed");
        assert_eq!(said(), expected, "{label}");
    }
    assert!(launcher.log().contains("of the fake cloud has nothing to say"), "{}", launcher.log());
    zuul.zk.wait_children(NODES, SOON, |names| names.is_empty());
}

#[test]
fn an_image_that_goes_while_a_request_waits_for_room_is_named_when_it_is_declined() {
    let sandbox = Sandbox::new("launcher-image-goes");
    sandbox.write_body(&cloud("", "max-servers: 1", DISK));
    let zuul = Requestor::new(&sandbox);
    let uploaded = upload(&zuul.zk, 1, "cloud", "ready", 100.0, "only");
    let launcher = sandbox.launcher(&[]);
    let nodes = zuul.accept(&zuul.ask(&["disk"]));
    let waits = zuul.ask(&["disk"]);
    zuul.wait(&waits, "pending");
    zuul.zk.delete(&uploaded);
    // As in the original it is not kept until there is room.
    zuul.wait(&waits, "failed");
    let log = launcher.log();
    let said = |what: &str| log.lines().any(|line| line.contains(what) && line.contains(&waits));
    assert!(said("the image of the label disk is not there"), "{log}");
    zuul.give_back(&nodes[0]);
}
