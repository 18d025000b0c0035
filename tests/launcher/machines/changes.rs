//! Changes of the configuration while machines are in use.

use serde_json::json;

use super::*;

#[test]
fn a_machine_that_leaves_the_configuration_finishes_its_job_and_is_not_offered_again() {
    let (stays, goes) = (sshd(), sshd());
    let kept = machine(&stays, &["small"], PATIENT);
    let sandbox = racked("removed", &["small"], &[kept.clone(), machine(&goes, &["small"], PATIENT)]);
    let zuul = Requestor::new(&sandbox);
    let _launcher = sandbox.launcher(&[]);
    let nodes = zuul.accept(&zuul.ask(&["small", "small"]));
    let of = |sshd: &Sshd| nodes.iter().find(|id| port_of(&zuul.zk, id) == u64::from(sshd.port())).unwrap();
    let [stays_node, goes_node] = [&stays, &goes].map(of);
    sandbox.write_body(&body(&["small"], &[rack("rack", &[kept])]));
    // Two are too many once the new configuration is in force.
    zuul.wait(&zuul.ask(&["small", "small"]), "failed");
    assert_eq!(zuul.node(goes_node).unwrap()["state"], "in-use");
    zuul.give_back(goes_node);
    zuul.wait_gone(goes_node);
    zuul.give_back(stays_node);
    zuul.wait_gone(stays_node);
    let left = wait_free(&zuul.zk, 1);
    assert_eq!(port_of(&zuul.zk, left.first().unwrap()), u64::from(stays.port()));
    assert_eq!(zuul.zk.children(NODES).len(), 1);
}

#[test]
fn new_labels_come_to_free_nodes_at_once_and_to_used_ones_with_the_next_job() {
    let sshd = sshd();
    let entry = |labels: &[&str]| machine(&sshd, labels, &format!("max-parallel-jobs: 2, {PATIENT}"));
    let sandbox = racked("labels-change", &["old", "new"], &[entry(&["old"])]);
    let zuul = Requestor::new(&sandbox);
    let _launcher = sandbox.launcher(&[]);
    let used = zuul.accept(&zuul.ask(&["old"]));
    let waits = zuul.ask(&["new"]);
    zuul.wait(&waits, "failed");
    sandbox.write_body(&body(&["old", "new"], &[rack("rack", &[entry(&["new"])])]));
    eventually(SOON, "the new label in the fleet", || {
        (advertised(&zuul.zk)?["supported_labels"] == json!(["new"])).then_some(())
    });
    let nodes = zuul.accept(&zuul.ask(&["new"]));
    assert_eq!(zuul.node(&used[0]).unwrap()["type"], json!(["old"]));
    let next = zuul.ask(&["new"]);
    zuul.give_back(&used[0]);
    assert_ne!(zuul.accept(&next), nodes);
    zuul.wait(&zuul.ask(&["old"]), "failed");
}

#[test]
fn a_machine_with_another_port_is_another_machine() {
    let (before, after) = (sshd(), sshd());
    let sandbox = racked("port", &["small"], &[machine(&before, &["small"], PATIENT)]);
    let zuul = Requestor::new(&sandbox);
    let _launcher = sandbox.launcher(&[]);
    let used = zuul.accept(&zuul.ask(&["small"]));
    sandbox.write_body(&body(&["small"], &[rack("rack", &[machine(&after, &["small"], PATIENT)])]));
    let nodes = zuul.accept(&zuul.ask(&["small"]));
    assert_eq!(port_of(&zuul.zk, &nodes[0]), u64::from(after.port()));
    zuul.give_back(&used[0]);
    zuul.wait_gone(&used[0]);
    assert_eq!(zuul.zk.children(NODES), nodes);
}

#[test]
fn a_provider_that_leaves_the_configuration_takes_its_free_nodes_along_and_later_the_used_ones() {
    let sshd = sshd();
    let entry = machine(&sshd, &["small"], &format!("max-parallel-jobs: 3, {PATIENT}"));
    let cloud = provider("cloud", "", "", &[pool("main", &["other"], "")]);
    let sandbox = Sandbox::new("launcher-machines-provider");
    let both = || {
        sandbox.write_body(&body(
            &["small", "other"],
            &[rack("rack", std::slice::from_ref(&entry)), cloud.clone()],
        ))
    };
    both();
    let zuul = Requestor::new(&sandbox);
    let launcher = sandbox.launcher(&[]);
    let used = zuul.accept(&zuul.ask(&["small", "small"]));
    zuul.set_state(&used[1], "hold");
    sandbox.write_body(&body(&["small", "other"], std::slice::from_ref(&cloud)));
    let mut left = used.clone();
    left.sort();
    zuul.zk.wait_children(NODES, SOON, |names| {
        let mut names = names.to_vec();
        names.sort();
        names == left
    });
    zuul.give_back(&used[0]);
    zuul.wait_gone(&used[0]);
    assert_eq!(zuul.node(&used[1]).unwrap()["state"], "hold");
    // It comes again, and what is held still has its place.
    both();
    wait_free(&zuul.zk, 2);
    assert_eq!(zuul.node(&used[1]).unwrap()["state"], "hold", "{}", launcher.log());
    assert_eq!(zuul.zk.children(NODES).len(), 3);
}

#[test]
fn a_provider_that_comes_later_offers_its_machines() {
    let sshd = sshd();
    let cloud = provider("cloud", "", "", &[pool("main", &["other"], "")]);
    let sandbox = Sandbox::new("launcher-machines-later");
    sandbox.write_body(&body(&["small", "other"], std::slice::from_ref(&cloud)));
    let zuul = Requestor::new(&sandbox);
    let _launcher = sandbox.launcher(&[]);
    zuul.wait_nodes(&zuul.ask(&["other"]));
    let rack = rack("rack", &[machine(&sshd, &["small"], PATIENT)]);
    sandbox.write_body(&body(&["small", "other"], &[cloud, rack]));
    zuul.zk.wait_children("/nodepool/components/pool", SOON, |names| names.len() == 2);
    zuul.accept(&zuul.ask(&["small"]));
}

#[test]
fn a_provider_that_has_another_driver_from_now_on_keeps_no_machines() {
    let sshd = sshd();
    let sandbox = racked("driver", &["small"], &[machine(&sshd, &["small"], "max-parallel-jobs: 2")]);
    let zuul = Requestor::new(&sandbox);
    let machines =
        || sandbox.write_body(&body(&["small"], &[rack("rack", &[machine(&sshd, &["small"], PATIENT)])]));
    let cloud = || {
        sandbox.write_body(&body(&["large"], &[provider("rack", "", "", &[pool("main", &["large"], "")])]))
    };
    let no_nodes = || zuul.zk.wait_children(NODES, SOON, |names| names.is_empty());
    let launcher = sandbox.launcher(&[]);
    let used = zuul.accept(&zuul.ask(&["small"]));
    wait_free(&zuul.zk, 1);
    cloud();
    zuul.zk.wait_children(NODES, SOON, |names| names == used);
    zuul.give_back(&used[0]);
    no_nodes();
    let launched = zuul.accept(&zuul.ask(&["large"]));
    zuul.give_back(&launched[0]);
    no_nodes();
    // A launcher that is started anew has never known of the machines.
    machines();
    wait_free(&zuul.zk, 1);
    drop(launcher);
    cloud();
    let _launcher = sandbox.launcher(&[]);
    no_nodes();
}
