//! Floating IPs that lead nowhere at a real Neutron: launches use them again while the clean-up deletes them.

use std::sync::Arc;
use std::thread;
use std::time::Duration;

use nodepool_drivers::api::{CallContext, NodeRequest, NodeSpec, Nodes, Provider};
use nodepool_threads::StopSource;
use serde_json::{Value, json};

use super::contract::{check_with, logger, open};
use crate::support::openstack;

/// How many launches there are at once.
const LAUNCHES: usize = 4;

#[test]
fn a_floating_ip_that_leads_nowhere_is_used_again() {
    let services = openstack::shared_with_servers();
    let project = services.project("floating-again");
    project.create_image("cloud");
    let address = project.create_floating_ip().unwrap();
    let text = check_with(&project.clouds(), "floating::launch_one");
    assert!(text.contains(&format!("launched with {address}\n")), "{address}: {text}");
    assert_eq!(project.floating_ips().len(), 1);
    check_with(&project.clouds(), "floating::delete_all");
    project.wait_empty(super::SOON);
}

#[test]
fn launches_and_the_clean_up_never_take_one_anothers_floating_ip() {
    let services = openstack::shared_with_servers();
    let project = services.project("floating-race");
    project.create_image("cloud");
    let done = StopSource::new();
    let text = thread::scope(|scope| {
        // They come all the time, as those do whose server somebody deletes.
        scope.spawn(|| {
            while done.token().wait(Duration::from_millis(300)).is_ok() {
                project.create_floating_ip();
            }
        });
        let text = check_with(&project.clouds(), "floating::launch_beside_the_clean_up");
        done.stop();
        text
    });
    let servers = project.servers();
    let floating = project.floating_ips();
    assert_eq!(servers.len(), LAUNCHES, "{text}");
    for server in &servers {
        let of_server: Vec<_> = floating
            .iter()
            .filter(|floating| floating["port_details"]["device_id"] == server["id"])
            .collect();
        let [floating] = of_server.as_slice() else { panic!("{of_server:#?}\n{text}") };
        let address = floating["floating_ip_address"].as_str().unwrap();
        assert!(text.contains(&format!("launched with {address}\n")), "{address}: {text}");
    }
    check_with(&project.clouds(), "floating::delete_all");
    project.wait_empty(super::SOON);
}

/// Not a test: what those above run in processes of their own, as the ones after it.
#[test]
#[ignore = "run by a_floating_ip_that_leads_nowhere_is_used_again"]
fn launch_one() {
    launch(alone().nodes().unwrap(), 1);
}

#[test]
#[ignore = "run by launches_and_the_clean_up_never_take_one_anothers_floating_ip"]
fn launch_beside_the_clean_up() {
    let provider = alone();
    let nodes = provider.nodes().unwrap();
    // Another launcher of the same project knows nothing of the first one. Its deletions come long after its lists.
    let other = alone_with(json!({"rate": 0.3}));
    let done = StopSource::new();
    thread::scope(|scope| {
        let cleaning = scope.spawn(|| {
            let (_source, call) = call();
            let mut removed = 0;
            while done.token().wait(Duration::from_millis(10)).is_ok() {
                removed += other.nodes().unwrap().clean_up(&call).unwrap().floating_ips;
            }
            eprintln!("cleaned {removed}");
        });
        thread::scope(|scope| {
            for id in 0..LAUNCHES {
                scope.spawn(move || launch(nodes, id));
            }
        });
        done.stop();
        cleaning.join().unwrap();
    });
}

#[test]
#[ignore = "run by a_floating_ip_that_leads_nowhere_is_used_again"]
fn delete_all() {
    let provider = alone();
    let nodes = provider.nodes().unwrap();
    let (_source, call) = call();
    for instance in nodes.list(&call).unwrap() {
        nodes.delete(&call, &instance.external_id).unwrap();
    }
    nodes.clean_up(&call).unwrap();
}

/// A provider that says that nobody else uses its project.
fn alone() -> Arc<dyn Provider> {
    alone_with(json!({}))
}

/// The same with more keys of its section.
fn alone_with(more: Value) -> Arc<dyn Provider> {
    let label = json!({"name": "small", "cloud-image": "cloud", "flavor-name": "m1.tiny"});
    let pool = json!({"name": "main", "networks": ["private"], "labels": [label]});
    let mut keys = json!({"cloud-images": [{"name": "cloud"}], "pools": [pool], "clean-floating-ips": true});
    keys.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    open("demo", keys)
}

fn call() -> (StopSource, CallContext) {
    let source = StopSource::new();
    let call = CallContext { stop: source.token().deadline_in(super::SOON), log: logger() };
    (source, call)
}

/// Launches a node and prints its address.
fn launch(nodes: &dyn Nodes, id: usize) {
    let (_source, call) = call();
    let request =
        NodeRequest { id: format!("200-{id}"), labels: vec!["small".to_owned()], ..NodeRequest::default() };
    let spec = NodeSpec {
        hostname: format!("np{id}"),
        pool: "main".to_owned(),
        label: "small".to_owned(),
        ..NodeSpec::default()
    };
    let launched = nodes.handler(request).launch(&call, &spec, &mut |_| {}).unwrap();
    eprintln!("launched with {}", launched.public_ipv4.unwrap());
}
