//! A launcher that is killed between two effects, and what the one that is started after it makes of that: no node, no
//! instance and no lock is left that nobody has, and every request is served.

use std::path::PathBuf;

use super::*;

/// A dead launcher's locks are kept for as long by the server.
const SESSION: f64 = 5.0;
const SETTLED: Duration = Duration::from_secs(120);

fn crash_at(step: &str) {
    let sandbox = Sandbox::new(&format!("launcher-crash-{step}"));
    let state: PathBuf = sandbox.path("cloud");
    std::fs::create_dir(&state).unwrap();
    let header = sandbox.header(&Header { timeout: SESSION, ..Header::default() });
    // Ready nodes only where they are what it is about: elsewhere they would meet the step first.
    let stock = format!("{{name: stock, min-ready: {}}}", u8::from(step.starts_with("min-ready")));
    let pools = [pool("main", &["a", "stock"], "")];
    let cloud = provider("cloud", &format!("state-dir: '{}'", state.display()), "", &pools);
    sandbox.write_config(&format!("{header}{}", body(&["a", &stock], &[cloud])));
    let zuul = Requestor::new(&sandbox);

    let mut command = sandbox.launcher_command(&[]);
    command.env("NODEPOOL_STOP_AT", step);
    let launcher = sandbox.spawn(&command);
    // So that all steps are met: new nodes, one that is used, one that is reused, and what nobody can serve.
    let first = zuul.ask(&["a"]);
    let mut rest = Vec::new();
    let mut used = false;
    launcher.wait_until(&format!("its stop at {step}"), SETTLED, || {
        if launcher.is_stopped() {
            return Some(());
        }
        if !used && zuul.request(&first).is_some_and(|record| record["state"] == "fulfilled") {
            let nodes = zuul.accept(&first);
            zuul.give_back(&nodes[0]);
            let spare = zuul.ask(&["a"]);
            zuul.withdraw(&spare);
            rest = vec![zuul.ask(&["a"]), zuul.ask(&["unknown"])];
            used = true;
        }
        None
    });
    launcher.kill();

    let launcher = sandbox.launcher(&[]);
    let mut expected = Vec::new();
    for id in [vec![first], rest].concat() {
        let Some(record) = zuul.request(&id) else { continue };
        let wanted = if record["node_types"][0] == "unknown" { "failed" } else { "fulfilled" };
        let record = zuul.zk.wait_for(&format!("{REQUESTS}/{id}"), SETTLED, |record| {
            record.is_some_and(|record| record["state"] == wanted)
        });
        let nodes = record.unwrap()["nodes"].as_array().unwrap().clone();
        expected.extend(nodes.iter().map(|id| id.as_str().unwrap().to_owned()));
    }
    // What is left are nodes that somebody has, and ready ones that anybody may take; each with its instance.
    launcher.wait_until("everything to be in order", SETTLED, || {
        let nodes = zuul.zk.children(NODES);
        let fine = |id: &String| {
            let Some(record) = record(&zuul.zk, id) else { return false };
            record["state"] == "ready" && (expected.contains(id) || record["allocated_to"].is_null())
        };
        let mut ids: Vec<String> = nodes
            .iter()
            .filter_map(|id| Some(record(&zuul.zk, id)?["external_id"].as_str()?.to_owned()))
            .collect();
        let files = std::fs::read_dir(&state).unwrap().flatten();
        let mut instances: Vec<String> =
            files.map(|file| file.file_name().to_string_lossy().into_owned()).collect();
        ids.sort();
        instances.sort();
        let unlocked = |parent: &str, names: &[String], below: &str| {
            names.iter().all(|name| zuul.zk.children(&format!("{parent}/{name}{below}")).is_empty())
        };
        let locks = zuul.zk.children(LOCKS);
        let asks_itself = |id: &String| id.starts_with("900-");
        (nodes.iter().all(fine)
            && !zuul.zk.children(REQUESTS).iter().any(asks_itself)
            && ids == instances
            && unlocked(NODES, &nodes, "/lock")
            && unlocked(LOCKS, &locks, ""))
        .then_some(())
    });
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
    killed_once_a_node_for_stock_is_asked_for: "min-ready-requested",
    killed_once_a_node_for_stock_is_released: "min-ready-collected",
}
