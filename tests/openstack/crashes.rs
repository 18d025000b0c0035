//! A launcher that is killed in the middle of a launch, and what the next one makes of that.

use super::servers::*;
use super::*;
use crate::launcher::requestor::Requestor;
use crate::support::openstack;

#[test]
fn killed_once_a_server_has_a_floating_ip() {
    let services = openstack::shared_with_servers();
    let project = services.project("crash-floating");
    project.create_image("cloud");
    let sandbox = sandbox("crash-floating", "{name: small}", &nodes(WORKS, ""));
    let zuul = Requestor::patient(&sandbox, SOON);
    let mut command = sandbox.launcher_command(&[]);
    command.env("OS_CLIENT_CONFIG_FILE", project.clouds()).env("NODEPOOL_STOP_AT", "floating-ip-created");
    let killed = sandbox.spawn(&command);
    let id = zuul.ask(&["small"]);
    killed.wait_until("its stop", SOON, || killed.is_stopped().then_some(()));
    killed.kill();
    let [node] = <[String; 1]>::try_from(zuul.zk.children("/nodepool/nodes")).unwrap();
    let record = zuul.node(&node).unwrap();
    let servers = project.servers();
    assert_eq!((record["state"].as_str(), &record["external_id"]), (Some("building"), &servers[0]["id"]));
    assert_eq!((servers.len(), project.floating_ips().len()), (1, 1));

    zuul.withdraw(&id);
    let _launcher = launcher(&sandbox, &project);
    wait_nothing_left(&zuul, &project);
}
