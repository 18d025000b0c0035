//! A launcher that is killed between two effects, and what the one that is started after it makes of that: no node, no
//! instance and no lock is left that nobody has, and every request is served.

use std::path::PathBuf;

use serde_json::json;

use super::*;
use crate::support::Daemon;

/// A dead launcher's locks are kept for as long by the server.
const SESSION: f64 = 5.0;
const SETTLED: Duration = Duration::from_secs(120);

/// A launcher's world, in which it is killed and another one started.
struct Site {
    sandbox: Sandbox<'static>,
    /// The instances of the cloud, which outlive the process.
    state: PathBuf,
    zuul: Requestor,
}

impl Site {
    fn new(test: &str) -> Self {
        let sandbox = Sandbox::new(&format!("launcher-crash-{test}"));
        let state: PathBuf = sandbox.path("cloud");
        std::fs::create_dir(&state).unwrap();
        let zuul = Requestor::new(&sandbox);
        let site = Self { sandbox, state, zuul };
        site.configure("", "", 0);
        site
    }

    /// The cloud behaves so, and has these further keys; so many ready nodes are kept in stock.
    fn configure(&self, behaviour: &str, keys: &str, stock: u8) {
        self.write(&format!("{behaviour}, "), keys, stock, &pool("main", &["a", "stock"], ""));
    }

    /// The same with a pool whose nodes have to answer, and do not.
    fn configure_deaf(&self) {
        let pool = pool("main", &["a", "stock"], "").replace("checking: false", "checking: true");
        self.write("", "    boot-timeout: 1\n    launch-retries: 1\n", 0, &pool);
    }

    fn write(&self, behaviour: &str, keys: &str, stock: u8, pool: &str) {
        let header = self.sandbox.header(&Header { timeout: SESSION, ..Header::default() });
        let behaviour = format!("{behaviour}state-dir: '{}'", self.state.display());
        let cloud = provider("cloud", behaviour.trim_start_matches(", "), keys, &[pool.to_owned()]);
        // Where nobody answers.
        let cloud = cloud.replace("username: zuul", "username: zuul, connection-port: 1");
        let stock = format!("{{name: stock, min-ready: {stock}}}");
        self.sandbox.write_config(&format!("{header}{}", body(&["a", &stock], &[cloud])));
    }

    /// A launcher that will stop at a step.
    fn launcher_to_stop_at(&self, step: &str) -> Daemon {
        let mut command = self.sandbox.launcher_command(&[]);
        command.env("NODEPOOL_STOP_AT", step);
        self.sandbox.spawn(&command)
    }

    /// Runs a launcher until it stops at a step, and kills it.
    fn crash(&self, step: &str) {
        kill_at(&self.launcher_to_stop_at(step), step, || {});
    }

    /// Starts a launcher that has everything in order in the end, with the requests that are still there served.
    fn settle(&self, requests: &[String]) {
        let zuul = &self.zuul;
        let launcher = self.sandbox.launcher(&[]);
        let mut expected = Vec::new();
        for id in requests {
            let Some(record) = zuul.request(id) else { continue };
            let wanted = if record["node_types"][0] == "unknown" { "failed" } else { "fulfilled" };
            let record = zuul.zk.wait_for(&format!("{REQUESTS}/{id}"), SETTLED, |record| {
                record.is_some_and(|record| record["state"] == wanted)
            });
            let nodes = record.unwrap()["nodes"].as_array().unwrap().clone();
            expected.extend(nodes.iter().map(|id| id.as_str().unwrap().to_owned()));
        }
        launcher
            .wait_until("everything to be in order", SETTLED, || self.is_in_order(&expected).then_some(()));
    }

    /// Whether what is left are nodes that somebody has, and ready ones that anybody may take; each with its instance.
    fn is_in_order(&self, expected: &[String]) -> bool {
        let zk = &self.zuul.zk;
        let nodes = zk.children(NODES);
        let fine = |id: &String| {
            let Some(record) = record(zk, id) else { return false };
            record["state"] == "ready" && (expected.contains(id) || record["allocated_to"].is_null())
        };
        let mut ids: Vec<String> =
            nodes.iter().filter_map(|id| Some(record(zk, id)?["external_id"].as_str()?.to_owned())).collect();
        let files = std::fs::read_dir(&self.state).unwrap().flatten();
        let mut instances: Vec<String> =
            files.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
        ids.sort();
        instances.sort();
        let unlocked = |parent: &str, names: &[String], below: &str| {
            names.iter().all(|name| zk.children(&format!("{parent}/{name}{below}")).is_empty())
        };
        let locks = zk.children(LOCKS);
        let asks_itself = |id: &String| id.starts_with("900-");
        nodes.iter().all(fine)
            && !zk.children(REQUESTS).iter().any(asks_itself)
            && ids == instances
            && unlocked(NODES, &nodes, "/lock")
            && unlocked(LOCKS, &locks, "")
    }
}

/// Does `more` until a launcher stops at a step, and kills it.
fn kill_at(launcher: &Daemon, step: &str, mut more: impl FnMut()) {
    launcher.wait_until(&format!("its stop at {step}"), SETTLED, || {
        if launcher.is_stopped() {
            return Some(());
        }
        more();
        None
    });
    launcher.kill();
}

fn crash_at(step: &str) {
    let site = Site::new(step);
    // Ready nodes only where they are what it is about: elsewhere they would meet the step first.
    site.configure("", "", u8::from(step.starts_with("min-ready")));
    let zuul = &site.zuul;
    let launcher = site.launcher_to_stop_at(step);
    // So that all steps are met: new nodes, one that is used, one that is reused, and what nobody can serve.
    let first = zuul.ask(&["a"]);
    let mut rest = Vec::new();
    kill_at(&launcher, step, || {
        if rest.is_empty() && zuul.request(&first).is_some_and(|record| record["state"] == "fulfilled") {
            let nodes = zuul.accept(&first);
            zuul.give_back(&nodes[0]);
            let spare = zuul.ask(&["a"]);
            zuul.withdraw(&spare);
            rest = vec![zuul.ask(&["a"]), zuul.ask(&["unknown"])];
        }
    });
    site.settle(&[vec![first], rest].concat());
}

/// A ready node whose request is gone: it is given back, and then to the next one.
fn crash_with_a_node_given_back_at(step: &str) {
    let site = Site::new(&format!("back-{step}"));
    let launcher = site.launcher_to_stop_at(step);
    let withdrawn = site.zuul.ask(&["a"]);
    let nodes = site.zuul.wait_nodes(&withdrawn);
    site.zuul.withdraw(&withdrawn);
    let mut next = None;
    kill_at(&launcher, step, || {
        let free = || record(&site.zuul.zk, &nodes[0]).is_some_and(|node| node["allocated_to"].is_null());
        if next.is_none() && free() {
            next = Some(site.zuul.ask(&["a"]));
        }
    });
    site.settle(&[next.unwrap_or_else(|| site.zuul.ask(&["a"]))]);
}

/// A second launcher is killed while it puts in order what the first one has left: a request with two ready nodes.
fn crash_with_a_request_being_reset_at(step: &str) {
    let site = Site::new(&format!("reset-{step}"));
    let request = site.zuul.ask(&["a", "a"]);
    site.crash("nodes-unlocked");
    site.crash(step);
    site.settle(&[request]);
}

/// A launch that comes to nothing; the cloud works when the next launcher comes.
fn crash_with_a_failed_launch_at(step: &str, labels: &[&str], configure: impl FnOnce(&Site)) {
    let site = Site::new(&format!("failed-{step}"));
    configure(&site);
    let request = site.zuul.ask(labels);
    site.crash(step);
    site.configure("", "", 0);
    site.settle(&[request]);
}

#[test]
fn killed_once_a_node_is_given_back_whose_request_is_gone() {
    crash_with_a_node_given_back_at("node-deallocated");
}

#[test]
fn killed_once_a_node_that_was_there_is_allocated() {
    crash_with_a_node_given_back_at("node-allocated");
}

#[test]
fn killed_once_the_first_node_of_a_lost_request_is_reset() {
    crash_with_a_request_being_reset_at("node-reset");
}

#[test]
fn killed_once_all_nodes_of_a_lost_request_are_reset() {
    crash_with_a_request_being_reset_at("nodes-reset");
}

#[test]
fn killed_once_an_instance_is_deleted_that_does_not_answer() {
    crash_with_a_failed_launch_at("instance-undone", &["a"], Site::configure_deaf);
}

#[test]
fn killed_once_a_node_has_failed() {
    crash_with_a_failed_launch_at("node-failed", &["a"], |site| {
        site.configure("launch-failures: -1", "    launch-retries: 1\n", 0);
    });
}

#[test]
fn killed_once_a_node_is_aborted_that_the_provider_has_no_room_for() {
    crash_with_a_failed_launch_at("node-aborted", &["a"], |site| site.configure("quota-failures: -1", "", 0));
}

/// Two of its three nodes are ready: the first of them has been given back, the second has not.
#[test]
fn killed_once_the_first_node_of_a_declined_request_is_given_back() {
    crash_with_a_failed_launch_at("node-given-back", &["a", "a", "a"], |site| {
        site.configure("launch-failures: 1", "    launch-retries: 1\n", 0);
    });
}

#[test]
fn killed_once_a_node_for_stock_is_anybodys() {
    let site = Site::new("stock-node-deallocated");
    site.configure("", "", 1);
    site.crash("node-deallocated");
    site.settle(&[]);
    assert_eq!(site.zuul.zk.children(NODES).len(), 1);
}

#[test]
fn killed_once_what_a_lock_has_left_of_a_node_is_locked() {
    let site = Site::new("empty-node-locked");
    let lock = format!("{NODES}/0000000001/lock");
    site.zuul.zk.create(&lock, "");
    site.crash("empty-node-locked");
    // A locked one would be looked at again a minute later.
    site.zuul.zk.wait_children(&lock, SETTLED, <[String]>::is_empty);
    site.settle(&[]);
    assert_eq!(site.zuul.zk.children(NODES), Vec::<String>::new());
}

/// A cloud that has not answered may make an instance when its node has long got another one.
#[test]
fn an_instance_that_has_appeared_late_goes_and_its_node_stays() {
    let site = Site::new("late-instance");
    let request = site.zuul.ask(&["a"]);
    let launcher = site.sandbox.launcher(&[]);
    let nodes = site.zuul.wait_nodes(&request);
    launcher.kill();
    let made = record(&site.zuul.zk, &nodes[0]).unwrap();
    let metadata = json!({"nodepool_node_id": nodes[0], "nodepool_provider_name": "cloud"});
    let late = site.state.join("late");
    std::fs::write(&late, json!([metadata, {"instances": 1}]).to_string()).unwrap();

    site.settle(&[request]);
    assert!(!late.exists());
    assert_eq!(record(&site.zuul.zk, &nodes[0]).unwrap()["external_id"], made["external_id"]);
}

macro_rules! crashes {
    ($($name:ident: $step:literal,)*) => {
        $(#[test] fn $name() { crash_at($step); })*
    };
}

crashes! {
    killed_once_a_request_is_locked: "request-locked",
    killed_once_a_request_is_taken: "request-pending",
    killed_once_a_node_is_recorded: "node-recorded",
    killed_once_a_node_is_locked: "node-locked",
    killed_once_a_node_is_being_built: "node-building",
    killed_once_there_is_an_instance: "instance-created",
    killed_once_an_instance_is_recorded: "instance-recorded",
    killed_once_a_node_is_launched: "node-launched",
    killed_once_a_node_is_ready: "node-ready",
    killed_once_the_nodes_are_unlocked: "nodes-unlocked",
    killed_once_a_request_is_fulfilled: "request-fulfilled",
    killed_once_a_request_is_declined: "request-declined",
    killed_once_a_node_is_marked: "node-deleting",
    killed_once_an_instance_is_deleted: "instance-deleted",
    killed_once_the_lock_of_a_deleted_node_is_gone: "lock-deleted",
    killed_once_a_node_for_stock_is_asked_for: "min-ready-requested",
    killed_once_a_node_for_stock_is_released: "min-ready-collected",
}
