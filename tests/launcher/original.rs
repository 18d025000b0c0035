//! A launcher of the original and ours on one ZooKeeper, each with a pool of its own.

use std::collections::{BTreeMap, BTreeSet};

use super::*;
use crate::support::{Original, Transport};

/// The original looks for requests once a second, and does everything one after the other.
const PATIENCE: Duration = Duration::from_secs(180);

/// A configuration as the original wants it; its pages are at `port`.
pub(super) fn their_config(sandbox: &Sandbox<'_>, port: u16) -> String {
    let labels: Vec<_> = ["b", "c"]
        .iter()
        .map(|label| format!("{{name: {label}, cloud-image: cloud, min-ram: 8192}}"))
        .collect();
    // It talks to ZooKeeper over TLS only.
    let header = sandbox.header(&Header { transport: Transport::Tls, timeout: 20.0 });
    format!(
        "{}webapp: {{port: {port}, listen_address: 127.0.0.1}}\nlabels: [{{name: b}}, {{name: c}}]\n\
         providers:\n  - name: fake-theirs\n    driver: fake\n    cloud: fake\n    region-name: fake-region\n    \
         rate: 0.0001\n    cloud-images: [{{name: cloud, image-name: Fake Precise, username: zuul}}]\n    pools:\n      \
         - {{name: main, max-servers: 50, host-key-checking: false, availability-zones: [az1], networks: [net-name], \
         labels: [{}]}}\n",
        header
            .replace("builder-webapp: {port: 0}\n", "")
            .replace("webapp: {port: 0, listen_address: 127.0.0.1}\n", "")
            .replace("timeout: 20.0", "timeout: 20"),
        labels.join(", ")
    )
}

/// What is another thing for each node, or for each fake cloud. All else is the same in a record of the original and in one
/// of ours. Among that are empty host keys, which Zuul goes through without looking whether there are any.
const OF_A_NODE: [&str; 17] = [
    "state_time",
    "created_time",
    "provider",
    "type",
    "allocated_to",
    "launcher",
    "external_id",
    "interface_ip",
    "public_ipv4",
    "private_ipv4",
    "public_ipv6",
    "host_id",
    "cloud",
    "region",
    "az",
    "resources",
    "image_id",
];

#[test]
fn the_originals_launcher_and_ours_serve_what_each_of_them_can() {
    let sandbox = Sandbox::new("launcher-original");
    sandbox.write_body(&body(&["a", "c"], &[provider("ours", "", "", &[pool("main", &["a", "c"], "")])]));
    let theirs = sandbox.path("theirs.yaml");
    std::fs::write(&theirs, their_config(&sandbox, 0)).unwrap();
    let zuul = Requestor::new(&sandbox);
    let original = Original::get().launcher(&sandbox, &theirs);
    let _ours = sandbox.launcher(&[]);
    let mut asked = Vec::new();
    for _ in 0..5 {
        for label in ["a", "b", "c"] {
            asked.push((label, zuul.ask(&[label])));
        }
    }
    let nobodys = zuul.ask(&["a", "b"]);
    let (mut used, mut given) = (BTreeSet::new(), BTreeMap::new());
    for (label, id) in &asked {
        original.wait_until(&format!("the request of {label}"), PATIENCE, || {
            (zuul.request(id).unwrap()["state"] == "fulfilled").then_some(())
        });
        let nodes = zuul.accept(id);
        let record = zuul.node(&nodes[0]).unwrap();
        let provider = record["provider"].as_str().unwrap();
        assert!(
            match *label {
                "a" => provider == "ours",
                "b" => provider == "fake-theirs",
                _ => true,
            },
            "{label} from {provider}"
        );
        given.insert(provider.to_owned(), record);
        assert!(used.insert(nodes[0].clone()), "a node is given once");
    }
    let [ours, theirs] = ["ours", "fake-theirs"].map(|provider| given[provider].as_object().unwrap());
    assert_eq!(ours.keys().collect::<Vec<_>>(), theirs.keys().collect::<Vec<_>>());
    for (key, value) in theirs.iter().filter(|(key, _)| !OF_A_NODE.contains(&key.as_str())) {
        assert_eq!(&ours[key], value, "{key}");
    }
    let failed = zuul.zk.wait_for(&format!("{REQUESTS}/{nobodys}"), PATIENCE, |record| {
        record.is_some_and(|record| record["state"] == "failed")
    });
    assert_eq!(failed.unwrap()["declined_by"].as_array().unwrap().len(), 2);
    used.iter().for_each(|node| zuul.give_back(node));
    zuul.zk.wait_children(NODES, PATIENCE, |names| names.is_empty());
}
