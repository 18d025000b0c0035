//! The original's launcher and ours on one ZooKeeper, each with machines of its own.

use serde_json::json;

use super::*;
use crate::support::{Original, Transport};

/// The original looks for requests once a second, and does everything one after the other.
const PATIENCE: Duration = Duration::from_secs(180);

#[test]
fn the_originals_machines_and_ours_serve_what_each_has() {
    let (ours, theirs) = (sshd(), sshd());
    let sandbox = racked("original", &["a", "c"], &[machine(&ours, &["a", "c"], PATIENT)]);
    let their_file = sandbox.path("theirs.yaml");
    let header = sandbox.header(&Header { transport: Transport::Tls, timeout: 20.0 });
    let header = header.replace("builder-webapp: {port: 0}\n", "").replace("timeout: 20.0", "timeout: 20");
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let their_rack = rack("shelf", &[machine(&theirs, &["b", "c"], PATIENT)]);
    let web = format!("webapp: {{port: {port}, listen_address: 127.0.0.1}}\n");
    std::fs::write(&their_file, format!("{header}{web}{}", body(&["b", "c"], &[their_rack]))).unwrap();
    let zuul = Requestor::new(&sandbox);
    let original = Original::get().launcher(&sandbox, &their_file);
    let _ours = sandbox.launcher(&[]);
    let wait = |id: &str, state: &str| {
        original.wait_until(&format!("{id} to be {state}"), PATIENCE, || {
            (zuul.request(id)?["state"] == state).then_some(())
        });
    };
    original.wait_until("both machines", PATIENCE, || (free(&zuul.zk).len() == 2).then_some(()));
    zuul.zk.wait_children("/nodepool/components/pool", PATIENCE, |names| names.len() == 2);
    for _ in 0..3 {
        let (a, b) = (zuul.ask(&["a"]), zuul.ask(&["b"]));
        let mut used = Vec::new();
        for (id, provider) in [(&a, "rack"), (&b, "shelf")] {
            wait(id, "fulfilled");
            let nodes = zuul.accept(id);
            assert_eq!(zuul.node(&nodes[0]).unwrap()["provider"], json!(provider));
            used.extend(nodes);
        }
        // Each waits for whoever has a machine of it next.
        let waits = [zuul.ask(&["c"]), zuul.ask(&["c"])];
        used.iter().for_each(|node| zuul.give_back(node));
        for id in &waits {
            wait(id, "fulfilled");
            let nodes = zuul.accept(id);
            zuul.give_back(&nodes[0]);
        }
    }
    let nobodys = zuul.ask(&["a", "b"]);
    wait(&nobodys, "failed");
    original.wait_until("both machines again", PATIENCE, || {
        let nodes = zuul.zk.children(NODES);
        (nodes.len() == 2 && free(&zuul.zk).len() == 2).then_some(())
    });
}
