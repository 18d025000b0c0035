//! A launcher that is killed at a step of a machine's node, and the one after it: each machine has as many nodes as it
//! may, and every request is served.

use serde_json::json;

use super::*;

/// A dead launcher's locks are kept for as long by the server; on a busy machine a living one needs some of it.
const SESSION: f64 = 5.0;
const SETTLED: Duration = Duration::from_secs(120);

/// How many free nodes have the labels of the changed configuration.
fn with_labels(zk: &ZkClient) -> usize {
    let changed = |id: &&String| record(zk, id).is_some_and(|node| node["type"] == json!(["small", "large"]));
    free(zk).iter().filter(changed).count()
}

fn crash_at(step: &str) {
    let sshd = sshd();
    let sandbox = Sandbox::new(&format!("launcher-machines-crash-{step}"));
    let header = sandbox.header(&Header { timeout: SESSION, ..Header::default() });
    let cloud = provider("cloud", "", "", &[pool("main", &["other"], "")]);
    let write = |labels: &[&str], with_rack: bool| {
        let entry = machine(&sshd, labels, &format!("max-parallel-jobs: 2, {PATIENT}"));
        let racks = with_rack.then(|| rack("rack", &[entry]));
        let providers: Vec<String> = racks.into_iter().chain([cloud.clone()]).collect();
        sandbox.write_config(&format!("{header}{}", body(&["small", "large", "other"], &providers)));
    };
    write(&["small"], true);
    let zuul = Requestor::new(&sandbox);
    let mut command = sandbox.launcher_command(&[]);
    command.env("NODEPOOL_STOP_AT", step);
    let launcher = sandbox.spawn(&command);
    let id = zuul.ask(&["small"]);
    // So that all steps are met: new nodes, one that is given, used and made again, others that are changed, and
    // removed.
    let mut met = 0;
    launcher.wait_until(&format!("its stop at {step}"), SETTLED, || {
        if launcher.is_stopped() {
            return Some(());
        }
        match met {
            0 if zuul.request(&id).is_some_and(|record| record["state"] == "fulfilled") => {
                let nodes = zuul.accept(&id);
                zuul.give_back(&nodes[0]);
                met = 1;
            }
            1 if free(&zuul.zk).len() == 2 => {
                write(&["small", "large"], true);
                met = 2;
            }
            2 if with_labels(&zuul.zk) == 2 => {
                write(&[], false);
                met = 3;
            }
            _ => {}
        }
        None
    });
    launcher.kill();

    write(&["small", "large"], true);
    let launcher = sandbox.launcher(&[]);
    if met == 0 {
        launcher.wait_until("the request", SETTLED, || {
            let record = zuul.request(&id).unwrap();
            (record["state"] == "fulfilled").then_some(())
        });
        let nodes = zuul.accept(&id);
        zuul.give_back(&nodes[0]);
    }
    launcher.wait_until("both places of the machine", SETTLED, || {
        let nodes: Vec<_> =
            zuul.zk.children(NODES).iter().map(|id| record(&zuul.zk, id)).collect::<Option<_>>()?;
        let slots: BTreeSet<_> = nodes.iter().map(|node| node["slot"].as_u64()).collect();
        let fine = |node: &Value| {
            node["state"] == "ready"
                && node["allocated_to"].is_null()
                && node["type"] == json!(["small", "large"])
        };
        (nodes.len() == 2 && nodes.iter().all(fine) && slots == BTreeSet::from([Some(0), Some(1)]))
            .then_some(())
    });
    let nodes = zuul.accept(&zuul.ask(&["small", "large"]));
    assert_eq!(nodes.len(), 2);
}

macro_rules! crashes {
    ($($name:ident: $step:literal,)*) => {
        $(#[test] fn $name() { crash_at($step); })*
    };
}

crashes! {
    killed_once_a_machine_has_been_seen: "machine-seen",
    killed_once_a_machine_has_a_node: "machine-registered",
    killed_once_a_machine_has_answered_for_a_request: "machine-checked",
    killed_once_its_node_is_allocated: "node-allocated",
    killed_once_its_used_node_is_marked: "node-deleting",
    killed_once_its_node_is_locked_for_a_change: "standing-locked",
    killed_once_its_node_is_changed: "standing-changed",
    killed_once_its_node_is_to_be_removed: "standing-forgotten",
}
