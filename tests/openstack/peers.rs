//! The services that run servers, as the tests of the driver rely on them.

use serde_json::json;

use super::*;
use crate::support::leash::is_alive;
use crate::support::openstack::{self, Project, Service};

/// Seconds.
const DELAY: i64 = 3;

/// Of a time such as 2026-02-28T12:34:56.
fn second_of_day(time: &Value) -> i64 {
    let clock = time.as_str().unwrap().split('T').nth(1).unwrap()[..8].split(':');
    clock.fold(0, |sum, part| sum * 60 + part.parse::<i64>().unwrap())
}

#[track_caller]
fn wait_status(project: &Project<'_>, id: &str, status: &str) -> Value {
    eventually(SOON, &format!("a server that is {status}"), || {
        let server = project.servers().into_iter().find(|server| server["id"] == id)?;
        assert!(server["status"] != "ERROR" || status == "ERROR", "{}", server["fault"]);
        (server["status"] == status).then_some(server)
    })
}

#[test]
fn the_official_client_runs_a_server_with_a_floating_ip() {
    let services = openstack::shared_with_servers();
    let project = services.project("peers-client");
    project.create_image("cloud");
    project.create_keypair("peers-client");
    project.create_security_group("open");
    let network = project.create_network("own", "10.9.0.0/24");
    let made = project.client(&[
        "server",
        "create",
        "--wait",
        "--image=cloud",
        "--flavor=m1.small",
        "--network=private",
        &format!("--nic=net-id={network}"),
        "--key-name=peers-client",
        "--security-group=open",
        "machine",
    ]);
    assert_eq!(made["status"], "ACTIVE", "{made}");
    let id = made["id"].as_str().unwrap();
    assert_eq!(project.ports().len(), 2);
    let port = project.ports().into_iter().find(|port| port["network_id"] != network.as_str()).unwrap();
    let address =
        project.client(&["floating", "ip", "create", "public", "--port", port["id"].as_str().unwrap()]);
    let address = address["floating_ip_address"].as_str().unwrap();
    assert!(address.starts_with("203.0.113."), "{address}");
    let shown = eventually(SOON, "Nova to know the floating IP", || {
        let server = wait_status(&project, id, "ACTIVE");
        let shown = server["addresses"]["private"].as_array()?.clone();
        shown.iter().any(|one| one["OS-EXT-IPS:type"] == "floating").then_some(shown)
    });
    assert_eq!(shown.iter().filter(|one| one["addr"] == address).count(), 1);
    assert_eq!(project.floating_ips()[0]["status"], "ACTIVE");
    assert!(project.calls(Service::Nova, "POST /v2.1/servers") == 1);
    let mut client = services.command("openstack");
    client.env("OS_CLIENT_CONFIG_FILE", project.clouds()).env("OS_CLOUD", "demo");
    for args in [&["server", "delete", "--wait", id], &["floating", "ip", "delete", address]] {
        let output = client.args(args).output().unwrap();
        assert!(output.status.success(), "{output:?}");
        client = services.command("openstack");
        client.env("OS_CLIENT_CONFIG_FILE", project.clouds()).env("OS_CLOUD", "demo");
    }
    project.wait_empty(SOON);
}

#[test]
fn a_server_fails_or_waits_as_its_metadata_ask_for_and_quotas_are_the_projects_own() {
    let services = openstack::shared_with_servers();
    let project = services.project("peers-faults");
    let image = project.create_image("cloud");
    project.set_quota(&json!({"instances": 3}));
    let servers = ["abort", "error"].map(|way| project.create_server(way, &image, &json!({"osp_fail": way})));
    let late = project.create_server("late", &image, &json!({"osp_delay": DELAY.to_string()}));
    for id in &servers {
        let server = wait_status(&project, id, "ERROR");
        assert!(server["fault"]["message"].is_string(), "{server}");
    }
    let late = wait_status(&project, &late, "ACTIVE");
    let took = second_of_day(&late["OS-SRV-USG:launched_at"]) - second_of_day(&late["created"]);
    // To the second, and not around midnight.
    assert!(!(0..DELAY).contains(&took), "{late}");
    // Nova counts a server once it is in its cell, so not before.
    let refused = project.try_create_server("too-many", &image, &json!({})).unwrap_err();
    assert!(refused.0 == 403 && refused.1.contains("Quota exceeded for instances"), "{refused:?}");
    for server in project.servers() {
        project.delete_server(server["id"].as_str().unwrap());
    }
    project.wait_empty(SOON);
}

#[test]
fn a_killed_nova_comes_back_with_its_servers() {
    let services = OpenStack::with_servers();
    let project = services.project("demo-2");
    let image = project.create_image("cloud");
    let id = project.create_server("kept", &image, &json!({"key": "value"}));
    wait_status(&project, &id, "ACTIVE");
    let pid = services.pid(Service::Nova);
    services.kill(Service::Nova);
    assert!(!is_alive(pid));
    services.restart(Service::Nova);
    assert_eq!(wait_status(&project, &id, "ACTIVE")["metadata"], json!({"key": "value"}));
    services.freeze(Service::Placement);
    project.delete_server(&id);
    services.thaw(Service::Placement);
    project.wait_empty(SOON);
    // It takes new ones too.
    let id = project.create_server("new", &image, &json!({}));
    wait_status(&project, &id, "ACTIVE");
}
