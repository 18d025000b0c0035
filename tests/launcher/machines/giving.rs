//! Machines are given to requests, one after the other.

use serde_json::json;

use super::*;
use crate::support::http::get;
use crate::support::pages::sample;

#[test]
fn a_request_gets_a_ready_node_of_a_machine_and_the_next_one_a_new_node_of_it() {
    let sshd = sshd();
    let sandbox = racked("life", &["small", "large"], &[machine(&sshd, &["small", "large"], PATIENT)]);
    let zuul = Requestor::new(&sandbox);
    let _launcher = sandbox.launcher(&[]);
    let [stock] = <[String; 1]>::try_from(Vec::from_iter(wait_free(&zuul.zk, 1))).unwrap();
    let pool = advertised(&zuul.zk).unwrap();
    assert_eq!(pool["supported_labels"].as_array().map(Vec::len), Some(2), "{pool}");
    assert_eq!((&pool["provider_name"], &pool["name"]), (&json!("rack"), &json!("main")));

    let id = zuul.ask(&["large"]);
    assert_eq!(zuul.wait_nodes(&id), std::slice::from_ref(&stock));
    let record = zuul.node(&stock).unwrap();
    for (key, expected) in [
        ("state", json!("ready")),
        ("provider", json!("rack")),
        ("pool", json!("main")),
        ("type", json!(["small", "large"])),
        ("allocated_to", json!(id)),
        ("tenant_name", json!("tenant")),
        ("requestor", json!("zuul")),
        ("launcher", json!("static driver")),
        ("host_keys", json!(sshd.keys())),
        ("connection_port", json!(sshd.port())),
        ("slot", json!(0)),
    ] {
        assert_eq!(record[key], expected, "{key}: {record}");
    }
    zuul.accept(&id);
    let next = zuul.ask(&["small"]);
    zuul.give_back(&stock);
    let nodes = zuul.accept(&next);
    assert_ne!(nodes, std::slice::from_ref(&stock));
    zuul.wait_gone(&stock);
    let record = zuul.node(&nodes[0]).unwrap();
    assert_eq!((&record["slot"], &record["connection_port"]), (&json!(0), &json!(sshd.port())));
    assert_eq!(zuul.zk.children(NODES).len(), 1);
}

#[test]
fn a_machine_serves_as_many_requests_as_it_may_and_the_others_wait_for_it_alone() {
    let (busy, other) = (sshd(), sshd());
    let machines = [
        machine(&busy, &["busy"], &format!("max-parallel-jobs: 2, {PATIENT}")),
        machine(&other, &["other"], PATIENT),
    ];
    let sandbox = racked("slots", &["busy", "other"], &machines);
    let zuul = Requestor::new(&sandbox);
    let launcher = sandbox.launcher(&[]);
    let first: Vec<_> = (0..2).map(|_| zuul.ask(&["busy"])).collect();
    let nodes: Vec<_> = first.iter().flat_map(|id| zuul.accept(id)).collect();
    let slots: BTreeSet<_> = nodes.iter().map(|id| zuul.node(id).unwrap()["slot"].as_u64()).collect();
    assert_eq!(slots, BTreeSet::from([Some(0), Some(1)]));

    let waits = zuul.ask(&["busy"]);
    let both = zuul.ask(&["other", "busy"]);
    // They were seen: this one came later, and it is served.
    let served = zuul.ask(&["other"]);
    let served = zuul.accept(&served);
    for id in [&waits, &both] {
        let record = zuul.request(id).unwrap();
        assert_eq!((&record["state"], &record["declined_by"]), (&json!("requested"), &json!([])), "{id}");
    }
    assert_eq!(advertised(&zuul.zk).unwrap()["paused"], false);
    zuul.give_back(&nodes[0]);
    zuul.accept(&waits);
    zuul.give_back(&served[0]);
    wait_free(&zuul.zk, 1);
    assert_eq!(zuul.request(&both).unwrap()["state"], "requested", "{}", launcher.log());
    zuul.give_back(&nodes[1]);
    assert_eq!(zuul.accept(&both).len(), 2);
}

#[test]
fn each_label_of_a_request_gets_a_machine_that_the_others_can_spare() {
    let (both, small) = (sshd(), sshd());
    let machines = [machine(&both, &["small", "large"], PATIENT), machine(&small, &["small"], PATIENT)];
    let sandbox = racked("labels", &["small", "large"], &machines);
    let zuul = Requestor::new(&sandbox);
    let _launcher = sandbox.launcher(&[]);
    for labels in [&["large", "large"][..], &["small", "small", "large"], &["small", "unknown"]] {
        let record = zuul.wait(&zuul.ask(labels), "failed");
        assert_eq!(record["declined_by"].as_array().unwrap().len(), 1, "{record}");
    }
    // There is nothing that could be launched anew.
    zuul.wait(&zuul.ask_with(&["small"], json!({"reuse": false})), "failed");
    for labels in [["small", "large"], ["large", "small"], ["small", "small"]] {
        let nodes = zuul.accept(&zuul.ask(&labels));
        for (node, label) in nodes.iter().zip(labels) {
            let record = zuul.node(node).unwrap();
            assert!(record["type"].as_array().unwrap().contains(&json!(label)), "{label}: {record}");
        }
        nodes.iter().for_each(|node| zuul.give_back(node));
    }
}

#[test]
fn who_wants_two_machines_is_not_passed_by_those_who_want_one() {
    let (one, other) = (sshd(), sshd());
    let machines = [machine(&one, &["small"], PATIENT), machine(&other, &["small"], PATIENT)];
    let sandbox = racked("fair", &["small"], &machines);
    let zuul = Requestor::new(&sandbox);
    let _launcher = sandbox.launcher(&[]);
    let used = zuul.accept(&zuul.ask(&["small"]));
    let two = zuul.ask(&["small", "small"]);
    let after = zuul.ask(&["small"]);
    // Whoever could be served at once has been.
    zuul.wait(&zuul.ask(&["unknown"]), "failed");
    assert_eq!(zuul.request(&after).unwrap()["state"], "requested");
    zuul.give_back(&used[0]);
    let both = zuul.accept(&two);
    assert_eq!(both.len(), 2);
    zuul.give_back(&both[0]);
    zuul.accept(&after);
}

#[test]
fn a_machine_that_does_not_answer_is_not_given_and_another_one_is() {
    let (mut one, mut other) = (sshd(), sshd());
    let machines = [machine(&one, &["small"], QUICK), machine(&other, &["small"], QUICK)];
    let sandbox = racked("silent", &["small"], &machines);
    let zuul = Requestor::new(&sandbox);
    let launcher = sandbox.launcher(&[]);
    let nodes = wait_free(&zuul.zk, 2);
    // The first one that a request would get.
    let first = nodes.first().unwrap();
    let first_is_one = port_of(&zuul.zk, first) == u64::from(one.port());
    let (dead, alive) = if first_is_one { (&mut one, &mut other) } else { (&mut other, &mut one) };
    dead.server().kill();
    let id = zuul.ask(&["small"]);
    let given = zuul.accept(&id);
    assert_eq!(port_of(&zuul.zk, &given[0]), u64::from(alive.port()));
    zuul.wait_gone(first);
    launcher.wait_log("a machine was to be given to a request", SOON);

    let waits = zuul.ask(&["small"]);
    zuul.wait(&zuul.ask(&["unknown"]), "failed");
    assert_eq!(zuul.request(&waits).unwrap()["state"], "requested");
    dead.run();
    let given = zuul.accept(&waits);
    assert_eq!(port_of(&zuul.zk, &given[0]), u64::from(dead.port()));
}

#[test]
fn a_request_whose_only_machine_does_not_answer_waits_until_it_does() {
    let mut sshd = sshd();
    let sandbox = racked("away", &["small"], &[machine(&sshd, &["small"], QUICK)]);
    let zuul = Requestor::new(&sandbox);
    let launcher = sandbox.launcher(&[]);
    let node = wait_free(&zuul.zk, 1).pop_first().unwrap();
    sshd.server().kill();
    let id = zuul.ask(&["small"]);
    launcher.wait_log("the node request is given back", SOON);
    zuul.wait_gone(&node);
    let record = zuul.wait(&id, "requested");
    assert_eq!((&record["declined_by"], &record["nodes"]), (&json!([]), &json!([])));
    zuul.zk.wait_children(&format!("{LOCKS}/{id}"), SOON, |names| names.is_empty());
    let web = launcher.web();
    let page = launcher.wait_until("the machine on the page", SOON, || {
        Some(get(web, "/").body).filter(|page| page.contains("a machine does not answer"))
    });
    assert!(page.contains(&format!("@127.0.0.1 port {}", sshd.port())), "{page}");
    let away = r#"nodepool_machines_away{provider="rack"}"#;
    assert_eq!(sample(&get(web, "/metrics").body, away), Some(1.0));
    sshd.run();
    assert_ne!(zuul.accept(&id), [node]);
    launcher.wait_until("the end of that on the page", SOON, || {
        (!get(web, "/").body.contains("machine does not answer")).then_some(())
    });
}

#[test]
fn machines_are_asked_of_a_tenants_limits_and_do_not_count_once_it_has_them() {
    let sshd = sshd();
    let entry = machine(&sshd, &["small"], &format!("max-parallel-jobs: 4, {PATIENT}"));
    let cloud = provider("cloud", "", "", &[pool("main", &["other"], "")]);
    let sandbox = Sandbox::new("launcher-machines-tenant");
    let limits = "tenant-resource-limits: [{tenant-name: few, max-servers: 1}]\n";
    sandbox.write_body(&format!("{limits}{}", body(&["small", "other"], &[rack("rack", &[entry]), cloud])));
    let zuul = Requestor::new(&sandbox);
    let ask = |label| zuul.ask_with(&[label], json!({"tenant_name": "few"}));
    let _launcher = sandbox.launcher(&[]);
    // One after the other: together, any of them could be the first.
    let taken = ["small", "small", "other"].map(|label| zuul.accept(&ask(label)));
    // What is launched counts, for all that is asked for from then on.
    let waiting = ["small", "other"].map(ask);
    ["small", "other"].iter().for_each(|label| drop(zuul.accept(&zuul.ask(&[label]))));
    for id in &waiting {
        assert_eq!(zuul.request(id).unwrap()["state"], "requested");
    }
    zuul.withdraw(&waiting[1]);
    zuul.give_back(&taken[2][0]);
    zuul.accept(&waiting[0]);
}

#[test]
fn no_stock_of_machines_is_asked_for() {
    let sshd = sshd();
    let machines = [machine(&sshd, &["small"], PATIENT)];
    let cloud = provider("cloud", "", "", &[pool("main", &["other"], "")]);
    let sandbox = Sandbox::new("launcher-machines-stock");
    let labels = ["{name: small, min-ready: 5}", "{name: other, min-ready: 1}"];
    sandbox.write_body(&body(&labels, &[rack("rack", &machines), cloud]));
    let zuul = Requestor::new(&sandbox);
    let launcher = sandbox.launcher(&[]);
    wait_free(&zuul.zk, 2);
    zuul.accept(&zuul.ask(&["small"]));
    zuul.zk.wait_children(REQUESTS, SOON, |names| names.is_empty());
    assert_eq!(launcher.log().matches("asked for a node for stock").count(), 1, "{}", launcher.log());
}

#[test]
fn a_machine_with_another_host_key_is_told_apart_from_one_that_does_not_answer() {
    let (mine, other) = (sshd(), sshd());
    let key = other.keys().join(", ");
    let entry = format!(
        "{{name: 127.0.0.1, labels: [small], connection-port: {}, host-key: ['{key}'], {QUICK}}}",
        mine.port()
    );
    let sandbox = racked("other-key", &["small"], &[entry]);
    let launcher = sandbox.launcher(&[]);
    let page = launcher.wait_until("the machine on the page", SOON, || {
        Some(get(launcher.web(), "/").body).filter(|page| page.contains("Failing"))
    });
    assert!(page.contains("a machine has other host keys than configured"), "{page}");
    // The reason is told once, another one as well.
    launcher.wait_log("a machine still cannot be used", SOON);
    let warnings = |what| launcher.log().matches(what).count();
    assert_eq!(warnings("a machine cannot be used: it is configured with the host key"), 1);
    let port = mine.port();
    drop(mine);
    launcher.wait_log(&format!("a machine cannot be used: 127.0.0.1 port {port}: Connection refused"), SOON);
    assert_eq!(warnings("a machine cannot be used"), 2);
}
