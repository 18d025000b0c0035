//! Launches that Nova refuses, loses or cannot be asked for.

use std::time::Instant;

use serde_json::json;

use super::servers::*;
use super::*;
use crate::launcher::requestor::Requestor;
use crate::support::openstack::{self, Service};

/// What fails is tried again, then given up; nothing of it stays.
#[track_caller]
fn fails(test: &str, label: &str) {
    let services = openstack::shared_with_servers();
    let project = services.project(test);
    project.create_image("cloud");
    let provider = nodes(label, INSIDE).replace("    rate:", "    launch-retries: 2\n    rate:");
    let sandbox = sandbox(test, "{name: small}", &provider);
    let launcher = launcher(&sandbox, &project);
    let zuul = Requestor::patient(&sandbox, SOON);
    let id = zuul.ask(&["small"]);
    zuul.wait(&id, "failed");
    assert_eq!(project.calls(Service::Nova, "POST /v2.1/servers "), 2, "{}", launcher.log());
    zuul.withdraw(&id);
    wait_nothing_left(&zuul, &project);
}

#[test]
fn a_server_for_which_there_is_no_host_is_tried_again_and_cleaned_up() {
    fails("no-host", "cloud-image: cloud, flavor-name: m1.nohost");
}

#[test]
fn a_server_that_does_not_start_is_tried_again_and_cleaned_up() {
    fails("no-start", &format!("{WORKS}, instance-properties: {{osp_fail: abort}}"));
}

#[test]
fn a_request_above_the_quota_waits_and_is_served_when_there_is_room() {
    let services = openstack::shared_with_servers();
    let project = services.project("quota");
    project.create_image("cloud");
    let sandbox = sandbox("quota", "{name: small}", &nodes(WORKS, INSIDE));
    let launcher = launcher(&sandbox, &project);
    let zuul = Requestor::patient(&sandbox, SOON);
    let first = zuul.accept(&zuul.ask(&["small"]));
    // The launcher knows the old one, so that it is Nova that refuses.
    project.set_quota(&json!({"instances": 1}));
    let id = zuul.ask(&["small"]);
    let pools = "/nodepool/components/pool";
    launcher.wait_until("the pool to be paused", SOON, || {
        let pool = zuul.zk.children(pools).pop()?;
        (zuul.zk.get_json(&format!("{pools}/{pool}"))?["paused"] == true).then_some(())
    });
    assert_eq!(zuul.request(&id).unwrap()["state"], "pending");
    assert!(launcher.log().contains("Quota exceeded"), "{}", launcher.log());
    assert_eq!(project.servers().len(), 1);
    zuul.give_back(&first[0]);
    let second = zuul.accept(&id);
    zuul.give_back(&second[0]);
    wait_nothing_left(&zuul, &project);
}

#[test]
fn a_request_that_nova_is_down_for_is_served_when_it_is_back() {
    let services = OpenStack::with_servers();
    let project = services.project("outage");
    project.create_image("cloud");
    let sandbox = sandbox("outage", "{name: small}", &nodes(WORKS, INSIDE));
    let launcher = launcher(&sandbox, &project);
    let zuul = Requestor::patient(&sandbox, SOON);
    let first = zuul.accept(&zuul.ask(&["small"]));
    services.kill(Service::Nova);
    let killed = Instant::now();
    let id = zuul.ask(&["small"]);
    zuul.give_back(&first[0]);
    launcher.wait_log(&format!("127.0.0.1:{}", services.port(Service::Nova)), SOON);
    zuul.wait(&id, "pending");
    // The outage itself is a minute, in which nothing is given up, and what comes late is not begun.
    launcher.wait_log("the provider does not say how it stands", SOON);
    let late = zuul.ask(&["small"]);
    while killed.elapsed() < Duration::from_secs(60) {
        let states = [&id, &late].map(|id| zuul.request(id).unwrap()["state"].clone());
        assert_eq!(states, ["pending", "requested"], "{}", launcher.log());
        std::thread::sleep(Duration::from_millis(500));
    }
    services.restart(Service::Nova);
    let second = zuul.accept(&id);
    let third = zuul.accept(&late);
    zuul.give_back(&third[0]);
    // Silent for a while, too: what is asked meanwhile is answered later.
    services.freeze(Service::Nova);
    zuul.give_back(&second[0]);
    launcher.wait_until("a question to the silent Nova", SOON, || {
        services.has_unread(Service::Nova).then_some(())
    });
    services.thaw(Service::Nova);
    wait_nothing_left(&zuul, &project);
}
