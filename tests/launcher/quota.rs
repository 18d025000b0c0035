//! Too little room: requests wait for it, in their order.

use serde_json::json;

use super::*;

fn is_paused(zk: &ZkClient) -> bool {
    let pools = zk.children("/nodepool/components/pool");
    pools.iter().any(|name| {
        zk.get_json(&format!("/nodepool/components/pool/{name}")).is_some_and(|pool| pool["paused"] == true)
    })
}

fn serves_in_order(test: &str, behaviour: &str, keys: &str) {
    let sandbox = simple(test, &["a"], behaviour, keys);
    let zuul = Requestor::new(&sandbox);
    let _launcher = sandbox.launcher(&[]);
    let first = zuul.ask(&["a"]);
    let nodes = zuul.accept(&first);
    let second = zuul.ask(&["a"]);
    eventually(SOON, "the pool to be paused", || is_paused(&zuul.zk).then_some(()));
    let third = zuul.ask(&["a"]);
    // What can never be served is declined all the same.
    zuul.wait(&zuul.ask(&["unknown"]), "failed");
    assert_eq!(zuul.request(&second).unwrap()["state"], "pending");
    assert_eq!(zuul.request(&third).unwrap()["state"], "requested");
    zuul.give_back(&nodes[0]);
    let nodes = zuul.accept(&second);
    assert_ne!(zuul.request(&third).unwrap()["state"], "fulfilled");
    zuul.give_back(&nodes[0]);
    zuul.accept(&third);
    eventually(SOON, "the pool to go on", || (!is_paused(&zuul.zk)).then_some(()));
}

#[test]
fn a_request_waits_for_room_in_the_pool() {
    serves_in_order("pool-quota", "", "max-servers: 1");
}

#[test]
fn a_request_waits_for_room_at_the_provider() {
    serves_in_order("provider-quota", "max-cores: 4", "");
}

#[test]
fn what_the_provider_refuses_for_lack_of_room_is_launched_later() {
    let sandbox = simple("quota-error", &["a"], "quota-failures: 2", "");
    let zuul = Requestor::new(&sandbox);
    let launcher = sandbox.launcher(&[]);
    let id = zuul.ask(&["a"]);
    zuul.wait_nodes(&id);
    assert_eq!(launcher.log().matches("the provider has no room for the node").count(), 2);
    zuul.zk.wait_children(NODES, SOON, |names| names.len() == 1);
}

/// Its room was taken by the node that the provider had refused, for as long as the request waited for room.
#[test]
fn a_pool_of_one_node_goes_on_after_the_provider_had_no_room() {
    let sandbox = simple("quota-error-one", &["a"], "quota-failures: 2", "max-servers: 1");
    let zuul = Requestor::new(&sandbox);
    let _launcher = sandbox.launcher(&[]);
    zuul.wait_nodes(&zuul.ask(&["a"]));
    zuul.zk.wait_children(NODES, SOON, |names| names.len() == 1);
}

#[test]
fn an_unused_node_of_another_label_makes_room() {
    let sandbox = simple("make-room", &["{name: a, min-ready: 1}", "b"], "", "max-servers: 1");
    let zuul = Requestor::new(&sandbox);
    let _launcher = sandbox.launcher(&[]);
    wait_nodes(&zuul.zk, "ready", 1);
    let nodes = zuul.wait_nodes(&zuul.ask(&["b"]));
    assert_eq!(zuul.node(&nodes[0]).unwrap()["type"], json!(["b"]));
}

#[test]
fn a_tenant_gets_no_more_than_it_may() {
    let sandbox = Sandbox::new("launcher-tenant");
    let limits = "tenant-resource-limits: [{tenant-name: small, max-servers: 1}]\n";
    let cloud = provider("cloud", "", "", &[pool("main", &["a"], "")]);
    sandbox.write_body(&format!("{limits}{}", body(&["a"], &[cloud])));
    let zuul = Requestor::new(&sandbox);
    let _launcher = sandbox.launcher(&[]);
    let ask = || zuul.ask_with(&["a"], json!({"tenant_name": "small"}));
    let nodes = zuul.accept(&ask());
    let waits = ask();
    // Others are served meanwhile.
    zuul.wait_nodes(&zuul.ask(&["a"]));
    assert_eq!(zuul.request(&waits).unwrap()["state"], "requested");
    zuul.give_back(&nodes[0]);
    zuul.wait_nodes(&waits);
}

#[test]
fn no_more_nodes_are_launched_at_once_than_may_be() {
    let sandbox = Sandbox::new("launcher-concurrency");
    let cloud =
        provider("cloud", "launch-delay: 0.3", "    max-concurrency: 2\n", &[pool("main", &["a"], "")]);
    sandbox.write_body(&body(&["a"], &[cloud]));
    let zuul = Requestor::new(&sandbox);
    let _launcher = sandbox.launcher(&[]);
    let requests = [zuul.ask(&["a", "a", "a"]), zuul.ask(&["a"]), zuul.ask(&["a"])];
    let mut most = 0;
    eventually(SOON, "all requests to be fulfilled", || {
        most = most.max(nodes_in(&zuul.zk, "building").len());
        let over = |id: &String| zuul.request(id).is_some_and(|record| record["state"] == "fulfilled");
        requests.iter().all(over).then_some(())
    });
    assert!((1..=2).contains(&most), "{most} at once");
}

#[test]
fn requests_of_a_tenant_do_not_wait_for_what_each_other_holds() {
    let sandbox = Sandbox::new("launcher-tenant-promise");
    let limits = "tenant-resource-limits: [{tenant-name: some, max-servers: 4}]\n";
    let clouds = [
        provider("one", "", "", &[pool("main", &["a"], "max-servers: 4")]),
        provider("other", "", "", &[pool("main", &["b"], "max-servers: 3")]),
    ];
    sandbox.write_body(&format!("{limits}{}", body(&["a", "b"], &clouds)));
    let zuul = Requestor::new(&sandbox);
    let _launcher = sandbox.launcher(&[]);
    zuul.zk.wait_children("/nodepool/components/pool", SOON, |names| names.len() == 2);
    let others = zuul.accept(&zuul.ask(&["a", "a", "a"]));
    let ask = |labels: &[&str]| zuul.ask_with(labels, json!({"tenant_name": "some"}));
    // It gets one node, and is promised the others.
    let four = ask(&["a", "a", "a", "a"]);
    zuul.wait(&four, "pending");
    let three = ask(&["b", "b", "b"]);
    zuul.accept(&zuul.ask(&["b"]));
    assert_eq!(zuul.request(&three).unwrap()["state"], "requested");
    others.iter().for_each(|node| zuul.give_back(node));
    let nodes = zuul.accept(&four);
    nodes.iter().for_each(|node| zuul.give_back(node));
    zuul.wait(&three, "pending");
}

/// It kept the configuration that it was taken under.
#[test]
fn a_request_that_waits_for_room_follows_the_configuration() {
    let sandbox = Sandbox::new("launcher-wait-edit");
    let write = |keys: &str, pools: &[(&str, &str)]| {
        let pools: Vec<_> = pools.iter().map(|(name, label)| pool(name, &[label], keys)).collect();
        sandbox.write_body(&body(&["a", "b"], &[provider("cloud", "", "", &pools)]));
    };
    write("max-servers: 1", &[("main", "a")]);
    let zuul = Requestor::new(&sandbox);
    let launcher = sandbox.launcher(&[]);
    zuul.accept(&zuul.ask(&["a"]));
    let ask = || {
        let waits = zuul.ask(&["a"]);
        zuul.wait(&waits, "pending");
        waits
    };
    // More room is used at once.
    let waits = ask();
    write("max-servers: 2", &[("main", "a")]);
    zuul.accept(&waits);
    // What the pool could never serve any more is declined.
    let waits = ask();
    write("max-servers: 0", &[("main", "a")]);
    zuul.wait(&waits, "failed");
    // A pool that goes lets others serve it.
    write("max-servers: 2", &[("main", "a")]);
    launcher.wait_until("the third edit", SOON, || {
        (launcher.log().matches("the provider's configuration has changed").count() == 3).then_some(())
    });
    let waits = ask();
    write("max-servers: 9", &[("other", "a")]);
    zuul.accept(&waits);
}

/// Each had one of its two nodes, and waited for the other one for ever.
#[test]
fn requests_that_the_provider_refuses_the_rest_do_not_wait_for_each_other() {
    let sandbox = simple("stalemate", &["a", "b"], "max-servers: 2", "ignore-provider-quota: true");
    let zuul = Requestor::new(&sandbox);
    // Both are there when the launcher looks for the first time.
    let ids = [zuul.ask(&["a", "a"]), zuul.ask(&["b", "b"])];
    let _launcher = sandbox.launcher(&[]);
    // One of them may have got both of its nodes at once.
    let mut open: Vec<_> = ids.iter().collect();
    while !open.is_empty() {
        let served = eventually(SOON, "a request to be fulfilled", || {
            open.iter().position(|id| zuul.request(id).is_some_and(|record| record["state"] == "fulfilled"))
        });
        zuul.accept(open.remove(served)).iter().for_each(|node| zuul.give_back(node));
    }
    zuul.zk.wait_children(NODES, SOON, |names| names.is_empty());
}

/// Each pool waited for itself only: the room that one of them waited for was given to the other one, and then each
/// request had one of its two nodes for ever.
#[test]
fn who_has_a_part_of_its_nodes_gets_the_next_room_whatever_the_pool() {
    let sandbox = two_pools("pools-part", "max-servers: 2", "");
    let zuul = Requestor::new(&sandbox);
    let _launcher = sandbox.launcher(&[]);
    let used = zuul.accept(&zuul.ask(&["a"]));
    let first = zuul.ask(&["a", "a"]);
    wait_nodes(&zuul.zk, "ready", 1);
    let before_it = zuul.ask_with(&["b", "b"], json!({"priority": "100"}));
    zuul.wait(&before_it, "pending");
    zuul.give_back(&used[0]);
    zuul.accept(&first).iter().for_each(|node| zuul.give_back(node));
    zuul.accept(&before_it);
}

/// The second request has a ready node, so each of them has one.
#[test]
fn requests_that_have_all_nodes_of_a_provider_do_not_wait_for_each_other() {
    let sandbox = two_pools("pools-stalemate", "max-servers: 2", "min-ready: 1");
    let zuul = Requestor::new(&sandbox);
    let _launcher = sandbox.launcher(&[]);
    wait_nodes(&zuul.zk, "ready", 1);
    let ids = [zuul.ask(&["a", "a"]), zuul.ask(&["b", "b"])];
    for id in &ids {
        zuul.accept(id).iter().for_each(|node| zuul.give_back(node));
    }
}

#[test]
fn an_unused_node_of_another_pool_makes_room_at_the_provider() {
    let sandbox = two_pools("pools-make-room", "max-servers: 1", "min-ready: 1");
    let zuul = Requestor::new(&sandbox);
    let _launcher = sandbox.launcher(&[]);
    wait_nodes(&zuul.zk, "ready", 1);
    zuul.accept(&zuul.ask(&["a"]));
}

/// A provider with a pool for `a`, and one for `b`, of which the label has these keys.
fn two_pools(test: &str, behaviour: &str, of_b: &str) -> Sandbox<'static> {
    let sandbox = Sandbox::new(&format!("launcher-{test}"));
    let pools = [pool("main", &["a"], ""), pool("other", &["b"], "")];
    let b = format!("{{name: b, {of_b}}}");
    sandbox.write_body(&body(&["a", &b], &[provider("cloud", behaviour, "", &pools)]));
    sandbox
}

/// The next node was launched only once all those before it were there.
#[test]
fn room_is_used_while_other_nodes_of_the_request_are_being_launched() {
    let sandbox = simple("more-room", &["a"], "", "max-servers: 2");
    let zuul = Requestor::new(&sandbox);
    let launcher = sandbox.launcher(&[]);
    let used = zuul.accept(&zuul.ask(&["a", "a"]));
    // From here on no launch ends.
    let slow = provider("cloud", "launch-delay: 3600", "", &[pool("main", &["a"], "max-servers: 2")]);
    sandbox.write_body(&body(&["a"], &[slow.replace("launch-delay: 0.01, ", "")]));
    launcher.wait_log("the provider's configuration has changed", SOON);
    zuul.give_back(&used[0]);
    zuul.ask(&["a", "a"]);
    wait_nodes(&zuul.zk, "building", 1);
    zuul.give_back(&used[1]);
    wait_nodes(&zuul.zk, "building", 2);
}

/// It waited there for as long as nobody answered for the cloud, though another pool had room.
#[test]
fn a_request_that_waits_for_room_is_left_to_others_when_the_cloud_falls_silent() {
    let sandbox = Sandbox::new("launcher-wait-silent");
    let off = sandbox.path("off");
    let write = |keys: &str| {
        let behaviour = format!("max-servers: 1, silent-while: '{}'", off.display());
        let keys = format!("    priority: 1\n{keys}");
        let cloud = provider("cloud", &behaviour, &keys, &[pool("main", &["a"], "")]);
        let other = provider("other", "", "    priority: 2\n", &[pool("main", &["a"], "")]);
        sandbox.write_body(&body(&["a"], &[cloud, other]));
    };
    write("");
    let zuul = Requestor::new(&sandbox);
    let _launcher = sandbox.launcher(&[]);
    zuul.accept(&zuul.ask(&["a"]));
    let waits = zuul.ask(&["a"]);
    zuul.wait(&waits, "pending");
    std::fs::write(&off, "").unwrap();
    // An edit has the cloud looked at.
    write("    max-concurrency: 5\n");
    let nodes = zuul.accept(&waits);
    assert_eq!(zuul.node(&nodes[0]).unwrap()["provider"], "other");
}
