//! Many nodes at once.

use std::time::Instant;

use serde_json::json;

use super::servers::*;
use super::*;
use crate::launcher::requestor::Requestor;
use crate::support::openstack::Service;

/// Each server takes Nova, Neutron and Placement three seconds of a processor, of which there is one for them at best.
const LONG: Duration = Duration::from_secs(1200);

/// Not more: a machine of half the speed would leave Nova without an answer for a minute, which ends a call.
#[test]
fn ten_nodes_at_once_are_launched_and_deleted_with_one_list_a_second() {
    at_once(10);
}

#[test]
#[ignore = "takes ten minutes of a processor"]
fn two_hundred_nodes_at_once_are_launched_and_deleted_with_one_list_a_second() {
    at_once(200);
}

fn at_once(count: usize) {
    // Its own: others would wait long for theirs.
    let services = OpenStack::with_servers();
    let project = services.project("many");
    project.create_image("cloud");
    project.set_quota(&json!({"instances": -1, "cores": -1, "ram": -1}));
    let sandbox = sandbox("many", "{name: small}", &nodes(WORKS, INSIDE));
    let began = Instant::now();
    let _launcher = launcher(&sandbox, &project);
    let zuul = Requestor::patient(&sandbox, LONG);
    let requests: Vec<_> = (0..count / 5).map(|_| zuul.ask(&["small"; 5])).collect();
    let nodes: Vec<_> = requests.iter().flat_map(|id| zuul.accept(id)).collect();
    assert_eq!(nodes.len(), count);
    let launched = began.elapsed();
    let servers = project.servers();
    assert_eq!(servers.iter().filter(|server| server["status"] == "ACTIVE").count(), count);
    for node in &nodes {
        zuul.give_back(node);
    }
    zuul.zk.wait_children("/nodepool/nodes", LONG, |names| names.is_empty());
    let lists = project.calls(Service::Nova, "GET /v2.1/servers/detail");
    let all = began.elapsed();
    // For scripts/measure-servers.
    let [launched_in, deleted_in] = [launched, all - launched].map(|time| time.as_secs_f64());
    eprintln!(
        "measured: {count} nodes, used after {launched_in:.1} s and gone {deleted_in:.1} s later; {lists} lists of servers"
    );
    // The test has asked once itself. Without any, the calls are not told as they were.
    assert!((1..=all.as_secs() + 3).contains(&(lists as u64)), "{lists} lists in {all:?}");
    project.wait_empty(LONG);
}
