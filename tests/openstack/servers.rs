//! Nodes on a real Nova, from the image to the deletion.

use std::slice;

use serde_json::json;

use super::*;
use crate::launcher::requestor::Requestor;
use crate::support::openstack::{self, Project};

/// A provider's entry for the cloud `demo` with one pool, which is also what has no `cloud-image` of its own. `label`
/// are keys of the only label, whose name is `small`; `pool` are further keys of the pool.
pub(super) fn nodes(label: &str, pool: &str) -> String {
    format!(
        "  - name: cloud\n    cloud: demo\n    rate: 0.01\n    cloud-images: [{{name: cloud}}]\n    pools:\n      \
         - {{name: main, networks: [private], host-key-checking: false, {pool}labels: [{{name: small, {label}}}]}}\n"
    )
}

/// A label's keys for a server that works.
pub(super) const WORKS: &str = "cloud-image: cloud, flavor-name: m1.tiny";
/// A pool's key: its nodes are reached from inside.
pub(super) const INSIDE: &str = "auto-floating-ip: false, ";

/// A sandbox whose launcher has one provider. The name is also that of a project.
pub(super) fn sandbox(test: &str, labels: &str, providers: &str) -> Sandbox<'static> {
    let sandbox = Sandbox::new(&format!("openstack-{test}"));
    sandbox.write_body(&format!("labels: [{labels}]\nproviders:\n{providers}"));
    sandbox
}

/// Starts a launcher that knows the clouds of a project, and waits for its pool.
#[track_caller]
pub(super) fn launcher(sandbox: &Sandbox<'_>, project: &Project<'_>) -> Daemon {
    let mut command = sandbox.launcher_command(&[]);
    command.env("OS_CLIENT_CONFIG_FILE", project.clouds());
    let launcher = sandbox.spawn(&command);
    let zk = sandbox.zk();
    launcher
        .wait_until("a pool", SOON, || (!zk.children("/nodepool/components/pool").is_empty()).then_some(()));
    launcher
}

/// Waits until neither ZooKeeper nor the cloud has anything of the nodes.
#[track_caller]
pub(super) fn wait_nothing_left(zuul: &Requestor, project: &Project<'_>) {
    zuul.zk.wait_children("/nodepool/nodes", SOON, |names| names.is_empty());
    project.wait_empty(SOON);
}

#[test]
fn a_node_of_a_built_image_is_used_and_leaves_nothing() {
    let services = openstack::shared_with_servers();
    let project = services.project("whole-way");
    let label = "diskimage: ours, flavor-name: m1.small";
    let provider =
        nodes(label, INSIDE).replace("cloud-images: [{name: cloud}]", "diskimages: [{name: ours}]");
    let sandbox = Sandbox::new("openstack-whole-way");
    let image = qcow2(&sandbox, "ours", 1, "username: builder-made,");
    let config = |stock: u8| {
        format!(
            "labels: [{{name: small, min-ready: {stock}}}]\n{}",
            body(slice::from_ref(&image), slice::from_ref(&provider))
        )
    };
    sandbox.write_body(&config(1));
    let mut command = sandbox.builder_command(&[]);
    command.env("OS_CLIENT_CONFIG_FILE", project.clouds());
    let _builder = sandbox.spawn(&command);
    let launcher = launcher(&sandbox, &project);
    let zuul = Requestor::patient(&sandbox, SOON);
    let server = launcher.wait_until("an active server in stock", SOON, || {
        project.servers().into_iter().find(|server| server["status"] == "ACTIVE")
    });
    // Nothing takes the place of what is used.
    let ready = launcher.wait_until("a ready node", SOON, || {
        let nodes = zuul.zk.children("/nodepool/nodes").into_iter();
        nodes.filter_map(|id| zuul.node(&id)).find(|node| node["state"] == "ready")
    });
    sandbox.write_body(&config(0));
    launcher.wait_log("the configuration has changed", SOON);
    let nodes = zuul.accept(&zuul.ask(&["small"]));
    let node = zuul.node(&nodes[0]).unwrap();
    assert_eq!(node["external_id"], ready["external_id"]);
    assert_eq!(node["external_id"], server["id"]);
    assert_eq!(node["username"], "builder-made");
    assert_eq!(node["private_ipv4"], server["addresses"]["private"][0]["addr"]);
    assert_eq!(node["interface_ip"], node["private_ipv4"]);
    assert_eq!(node["resources"], json!({"instances": 1, "cores": 1, "ram": 2048}));
    for (key, value) in [
        ("nodepool_node_id", nodes[0].as_str()),
        ("nodepool_provider_name", "cloud"),
        ("nodepool_pool_name", "main"),
    ] {
        assert_eq!(server["metadata"][key], value, "{server}");
    }
    zuul.give_back(&nodes[0]);
    wait_nothing_left(&zuul, &project);
}

#[test]
fn a_node_gets_a_floating_ip_which_goes_with_it() {
    let services = openstack::shared_with_servers();
    let project = services.project("floating");
    project.create_image("cloud");
    project.create_keypair("floating");
    project.create_security_group("open");
    let label = format!("{WORKS}, key-name: floating");
    let sandbox = sandbox("floating", "{name: small}", &nodes(&label, "security-groups: [open], "));
    let _launcher = launcher(&sandbox, &project);
    let zuul = Requestor::patient(&sandbox, SOON);
    let nodes = zuul.accept(&zuul.ask(&["small"]));
    let node = zuul.node(&nodes[0]).unwrap();
    let addresses = project.floating_ips();
    assert_eq!(addresses.len(), 1);
    assert_eq!(addresses[0]["status"], "ACTIVE");
    for (key, address) in [
        ("public_ipv4", "floating_ip_address"),
        ("interface_ip", "floating_ip_address"),
        ("private_ipv4", "fixed_ip_address"),
    ] {
        assert_eq!(node[key], addresses[0][address], "{key}");
    }
    let servers = project.servers();
    assert_eq!(
        (&servers[0]["key_name"], &servers[0]["security_groups"]),
        (&json!("floating"), &json!([{"name": "open"}]))
    );
    zuul.give_back(&nodes[0]);
    wait_nothing_left(&zuul, &project);
}
