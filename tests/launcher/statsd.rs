//! The launcher's metrics, as a statsd server gets them: a test for each row of what the original sends.

use std::sync::OnceLock;

use serde_json::json;

use super::*;
use crate::support::{Daemon, Statsd, Values};

fn start(server: &Statsd, sandbox: &Sandbox<'_>) -> Daemon {
    let mut command = sandbox.launcher_command(&[]);
    server.receive_from(&mut command);
    sandbox.spawn(&command)
}

/// What a server has got of a launcher whose providers serve, fail, and are full.
struct Found(Values);

impl Found {
    /// One run serves a test for each row.
    fn get() -> &'static Found {
        static FOUND: OnceLock<Found> = OnceLock::new();
        FOUND.get_or_init(Found::of_a_run)
    }

    fn of_a_run() -> Found {
        let sandbox = Sandbox::new("launcher-statsd");
        // An instance that no node has.
        let instances = sandbox.path("instances");
        std::fs::create_dir(&instances).unwrap();
        let good = provider(
            "good",
            &format!("state-dir: {}, left-ports: 3", instances.display()),
            "",
            &[
                pool("main", &["a"], "max-servers: 3, availability-zones: [az1]"),
                pool("more", &["a", "b"], "max-servers: 4"),
            ],
        );
        let broken =
            provider("broken", "launch-failures: -1", "    launch-retries: 2\n", &[pool("main", &["c"], "")]);
        let full = provider("full", "quota-failures: 1", "", &[pool("main", &["d"], "max-servers: 1")]);
        let slow = provider(
            "slow",
            "launch-delay: 60",
            "    launch-timeout: 1\n    launch-retries: 1\n",
            &[pool("main", &["e"], "")],
        );
        let limits = "tenant-resource-limits: [{tenant-name: a.b, max-servers: 5, max-cores: 6, max-ram: 7, \
                      my.quota: 8}]\n";
        let all = body(&["a", "b", "c", "d", "e"], &[good, broken, full, slow]);
        sandbox.write_body(&format!("{limits}{all}"));
        std::fs::write(instances.join("leaked-1"), leaked()).unwrap();
        let server = Statsd::new();
        let launcher = start(&server, &sandbox);
        let zuul = Requestor::new(&sandbox);
        let requestor = json!({"requestor": "zuul.example:1"});
        zuul.accept(&zuul.ask_with(&["a"], requestor));
        zuul.wait(&zuul.ask(&["c"]), "failed");
        zuul.wait_nodes(&zuul.ask(&["d"]));
        zuul.wait(&zuul.ask(&["e"]), "failed");
        server.wait_for("nodepool.launch.provider.slow.error.servercreatetimeout|c", 1);
        server.wait_for("nodepool.nodes.in-use|g", 1);
        server.wait_for("nodepool.nodes.ready|g", 1);
        server.wait_for("nodepool.provider.good.leaked.instances|c", 1);
        server.wait_for("nodepool.provider.good.leaked.ports|c", 3);
        server.wait_for("nodepool.provider.full.pool.main.addressable_requests|g", 1);
        eventually(SOON, "a launcher that has nothing to do", || {
            server.receive();
            let found = server.found.borrow();
            QUEUES
                .iter()
                .all(|name| found.get(&own(name)).is_some_and(|(value, _)| value == "0"))
                .then_some(())
        });
        drop(launcher);
        Found(server.found.into_inner())
    }

    #[track_caller]
    fn value(&self, name: &str) -> f64 {
        let (value, _) = self.0.get(name).unwrap_or_else(|| panic!("no {name}: {:#?}", self.0.keys()));
        value.parse().unwrap()
    }

    /// A timer in ms of that name, and how often it was counted.
    #[track_caller]
    fn timed(&self, name: &str) -> usize {
        let ms = self.value(&format!("{name}|ms"));
        assert!((0.0..60_000.0).contains(&ms), "{name}: {ms}");
        assert_eq!(self.value(&format!("{name}|c")), 1.0, "{name}");
        let times = |kind: &str| self.0[&format!("{name}|{kind}")].1;
        assert_eq!(times("ms"), times("c"), "{name}");
        times("c")
    }
}

/// What the launcher tells of itself. That they count is shown where they are.
const QUEUES: [&str; 7] = [
    "client.connection_queue",
    "node_cache.event_queue",
    "node_cache.playback_queue",
    "request_cache.event_queue",
    "request_cache.playback_queue",
    "image_cache.event_queue",
    "image_cache.playback_queue",
];

fn own(name: &str) -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    format!("nodepool.launcher.{host}.zk.{name}|g")
}

/// An instance as the fake cloud keeps it.
fn leaked() -> String {
    let known_by = json!({"nodepool_node_id": "0000000404", "nodepool_pool_name": "main",
        "nodepool_provider_name": "good"});
    json!([known_by, {"instances": 1}]).to_string()
}

#[test]
fn nodes_state_is_how_many_nodes_the_fleet_has_in_each_state() {
    let found = Found::get();
    for state in [
        "building", "testing", "ready", "in-use", "used", "hold", "init", "deleting", "failed", "aborted",
        "deleted",
    ] {
        assert!(found.value(&format!("nodepool.nodes.{state}|g")) >= 0.0);
    }
    assert_eq!((found.value("nodepool.nodes.in-use|g"), found.value("nodepool.nodes.hold|g")), (1.0, 0.0));
}

#[test]
fn label_label_nodes_state_is_the_same_for_each_label_also_without_nodes() {
    let found = Found::get();
    let of = |label: &str, state: &str| found.value(&format!("nodepool.label.{label}.nodes.{state}|g"));
    assert_eq!((of("a", "in-use"), of("a", "ready"), of("b", "in-use")), (1.0, 0.0, 0.0));
    assert_eq!(of("d", "ready"), 1.0);
}

#[test]
fn provider_provider_nodes_state_is_the_same_for_each_provider() {
    let found = Found::get();
    let of = |name: &str, state: &str| found.value(&format!("nodepool.provider.{name}.nodes.{state}|g"));
    assert_eq!((of("good", "in-use"), of("full", "ready"), of("broken", "in-use")), (1.0, 1.0, 0.0));
}

#[test]
fn provider_provider_pool_pool_addressable_requests_are_those_that_the_pool_has_the_labels_of() {
    let of = |pool: &str| Found::get().value(&format!("nodepool.provider.{pool}.addressable_requests|g"));
    assert_eq!((of("full.pool.main"), of("good.pool.more")), (1.0, 0.0));
}

#[test]
fn provider_provider_max_servers_is_the_sum_of_its_pools_and_missing_where_one_has_no_limit() {
    let found = Found::get();
    assert_eq!(found.value("nodepool.provider.good.max_servers|g"), 7.0);
    assert_eq!(found.value("nodepool.provider.full.max_servers|g"), 1.0);
    assert!(!found.0.contains_key("nodepool.provider.broken.max_servers|g"));
}

#[test]
fn tenant_limits_tenant_resource_is_what_the_configuration_says() {
    let of = |name: &str| Found::get().value(&format!("nodepool.tenant_limits.a_b.{name}|g"));
    assert_eq!([of("instances"), of("cores"), of("ram"), of("my_quota")], [5.0, 6.0, 7.0, 8.0]);
}

#[test]
fn launch_ready_is_a_timer_in_ms_and_a_counter_of_each_node() {
    let found = Found::get();
    assert_eq!(found.timed("nodepool.launch.ready"), 2);
    assert_eq!(found.timed("nodepool.launch.provider.good.ready"), 1);
}

#[test]
fn launch_provider_provider_az_and_launch_requestor_requestor_are_the_same_by_zone_and_requestor() {
    let found = Found::get();
    assert_eq!(found.timed("nodepool.launch.provider.good.az1.ready"), 1);
    assert_eq!(found.timed("nodepool.launch.requestor.zuul_example_1.ready"), 1);
}

#[test]
fn launch_error_kind_is_counted_for_each_attempt_by_what_has_failed() {
    let found = Found::get();
    assert_eq!(found.timed("nodepool.launch.provider.broken.error.status"), 2);
    assert_eq!(found.timed("nodepool.launch.provider.full.error.quota"), 1);
    assert_eq!(found.timed("nodepool.launch.error.servercreatetimeout"), 1);
}

#[test]
fn provider_provider_leaked_instances_counts_those_that_were_deleted_without_a_node() {
    assert_eq!(Found::get().value("nodepool.provider.good.leaked.instances|c"), 1.0);
}

#[test]
fn provider_provider_leaked_ports_counts_those_that_a_clean_up_has_removed() {
    assert_eq!(Found::get().value("nodepool.provider.good.leaked.ports|c"), 3.0);
}

#[test]
fn launcher_hostname_zk_queues_are_what_waits_between_zookeeper_and_this_launcher() {
    for name in QUEUES {
        assert_eq!(Found::get().value(&own(name)), 0.0, "{name}");
    }
}

/// A node that answers nobody has no keys.
#[test]
fn launch_error_keyscan_counts_nodes_whose_host_keys_cannot_be_read() {
    let sandbox = Sandbox::new("launcher-statsd-keys");
    let pool = pool("main", &["a"], "").replace("host-key-checking: false", "host-key-checking: true");
    let cloud = provider("cloud", "", "    boot-timeout: 1\n    launch-retries: 1\n", &[pool]);
    let deaf = cloud.replace("username: zuul", "username: zuul, connection-port: 1");
    sandbox.write_body(&body(&["a"], &[deaf]));
    let server = Statsd::new();
    let _launcher = start(&server, &sandbox);
    let zuul = Requestor::new(&sandbox);
    zuul.wait(&zuul.ask(&["a"]), "failed");
    server.wait_for("nodepool.launch.provider.cloud.error.keyscan|c", 1);
}

const FLEET: &str = "nodepool.nodes.ready|g";

#[test]
fn one_launcher_reports_the_fleet_and_another_one_when_that_is_gone() {
    let sandbox = simple("statsd-leader", &["{name: a, min-ready: 1}"], "", "max-servers: 5");
    let (first, second) = (Statsd::new(), Statsd::new());
    let leader = start(&first, &sandbox);
    first.wait_for(FLEET, 1);
    let follower = start(&second, &sandbox);
    // What each tells of itself.
    second.wait_for("nodepool.provider.cloud.max_servers|g", 5);
    let zuul = Requestor::new(&sandbox);
    zuul.zk.wait_children("/nodepool/elections/stats", SOON, |names| names.len() == 2);
    zuul.accept(&zuul.ask(&["a"]));
    first.wait_for("nodepool.nodes.in-use|g", 1);
    assert_eq!(second.times(FLEET), 0, "two report the fleet");
    leader.kill();
    // Its session ends first.
    second.wait_for("nodepool.nodes.in-use|g", 1);
    zuul.accept(&zuul.ask(&["a"]));
    second.wait_for("nodepool.nodes.in-use|g", 2);
    drop(follower);
}

/// At each start it had fewer nodes for a moment, or none: it counted those that it had read already.
#[test]
fn the_fleet_is_reported_once_all_of_it_is_known() {
    const HELD: usize = 2000;
    let sandbox = simple("statsd-complete", &["a"], "", "");
    let zk = sandbox.zk();
    let held = json!({"state": "hold", "provider": "elsewhere", "type": ["other"]}).to_string();
    // Enough for their copy to take longer than an election.
    for number in 0..HELD {
        zk.create(&format!("{NODES}/{number:010}"), &held);
    }
    let server = Statsd::new();
    let _launcher = start(&server, &sandbox);
    server.wait_for("nodepool.nodes.hold|g", HELD.try_into().unwrap());
    assert_eq!(server.first("nodepool.nodes.hold|g"), Some(HELD.to_string()));
}
