//! Tests of the static driver beyond the contract.

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::api::contract::{self, Subject};
use crate::testing::{self, Scratch, logger};

const KEY: &str = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAEB";

fn section(pools: serde_json::Value) -> serde_json::Value {
    json!({"name": "rack", "driver": "static", "pools": pools})
}

fn machines(pools: serde_json::Value) -> Vec<Machine> {
    testing::open(&StaticDriver, section(pools)).machines().unwrap().machines().to_vec()
}

#[test]
fn keeps_the_contract() {
    let provider = testing::open(
        &StaticDriver,
        section(json!([{"name": "main", "nodes": [
            {"name": "a", "labels": "small"}, {"name": "a", "labels": "small", "username": "other"},
            {"name": "a", "labels": "small", "connection-port": 2222},
        ]}])),
    );
    contract::check(&Subject {
        provider: &*provider,
        slow: &*provider,
        slow_size: 1,
        format: "raw",
        label: "small",
        scratch: Scratch::new().path(),
        log: &logger(),
    });
}

#[test]
fn defaults_are_the_originals() {
    let found = machines(json!([{"name": "main", "nodes": [{"name": "host", "labels": "small"}]}]));
    let expected = Machine {
        pool: "main".into(),
        host: "host".into(),
        labels: vec!["small".into()],
        username: "zuul".into(),
        connection_type: "ssh".into(),
        connection_port: 22,
        python_path: "auto".into(),
        shell_type: None,
        host_keys: vec![],
        host_key_checking: true,
        timeout: Duration::from_secs(5),
        slots: 1,
        attributes: None,
    };
    assert_eq!(found, [expected]);
}

#[test]
fn values_are_read() {
    let found = machines(json!([
        {"name": "main", "max-servers": 0, "priority": 1, "node-attributes": {"rack": 7}, "nodes": [{
            "name": "2001:db8::1", "labels": ["small", "large"], "username": "admin", "timeout": 13,
            "host-key": [format!("{KEY} root@host")], "host-key-checking": false, "connection-port": 22022,
            "connection-type": "winrm", "shell-type": "cmd", "max-parallel-jobs": 3, "python-path": "/usr/bin/python3",
        }]},
        {"name": "other", "nodes": [{"name": "host", "labels": "l", "host-key": KEY, "ssh-port": 2222, "max-parallel-jobs": 0}]},
        {"name": "empty"},
    ]));
    let expected = Machine {
        pool: "main".into(),
        host: "2001:db8::1".into(),
        labels: vec!["small".into(), "large".into()],
        username: "admin".into(),
        connection_type: "winrm".into(),
        connection_port: 22022,
        python_path: "/usr/bin/python3".into(),
        shell_type: Some("cmd".into()),
        host_keys: vec![KEY.into()],
        host_key_checking: false,
        timeout: Duration::from_secs(13),
        slots: 3,
        attributes: serde_json::from_value(json!({"rack": 7})).unwrap(),
    };
    assert_eq!(found[0], expected);
    assert_eq!(found[0].identity().to_string(), "admin@2001:db8::1 port 22022");
    assert_eq!((found[1].connection_port, found[1].slots, found[1].pool.as_str()), (2222, 0, "other"));
    assert_eq!((found[1].host_keys.as_slice(), found.len()), (&[KEY.to_owned()][..], 2));
}

#[test]
fn a_pool_has_the_labels_of_its_machines() {
    let pools = json!([
        {"name": "main", "nodes": [{"name": "a", "labels": ["x", "y"]}, {"name": "b", "labels": "x"}]},
        {"name": "other", "priority": 3, "nodes": [{"name": "c", "labels": "z"}]},
    ]);
    let (config, problems) = testing::configure(&StaticDriver, section(pools));
    assert_eq!(problems, [""; 0]);
    let config = config.unwrap();
    let pools = &config.nodes().unwrap().pools;
    let labels = |pool: &str| pools[pool].labels.keys().cloned().collect::<Vec<_>>();
    assert_eq!(labels("main"), ["x", "y"]);
    assert_eq!(labels("other"), ["z"]);
    assert_eq!(pools["other"].priority, Some(3));
}

#[test]
fn mistakes_are_named_with_their_place() {
    let node = |node: serde_json::Value| json!([{"name": "main", "nodes": [node]}]);
    let at = "providers[0].pools[0].nodes[0]";
    let cases = [
        (json!({"labels": "l"}), ": the required key 'name' is missing"),
        (json!({"name": "h"}), ": the required key 'labels' is missing"),
        (json!({"name": "h", "labels": []}), ".labels: must not be empty"),
        (json!({"name": "h", "labels": "a b"}), ".labels: 'a b' is no label; several are written as a list"),
        (json!({"name": "h", "labels": [1]}), ".labels[0]: expected a string, found 1"),
        (
            json!({"name": "zuul@h", "labels": "l"}),
            ".name: expected a host name or an address; the user goes to",
        ),
        (
            json!({"name": "h:22", "labels": "l"}),
            ".name: expected a host name or an address; the port goes to",
        ),
        (json!({"name": "[::1]", "labels": "l"}), ".name: an IPv6 address is written without brackets"),
        (json!({"name": "a h", "labels": "l"}), ".name: expected a host name or an address without spaces"),
        (json!({"name": "h", "labels": "l", "timeout": 0}), ".timeout: expected at least 1 second, found 0"),
        (
            json!({"name": "h", "labels": "l", "max-parallel-jobs": -1}),
            ".max-parallel-jobs: expected at least 0 jobs, found -1",
        ),
        (
            json!({"name": "h", "labels": "l", "max-parallel-jobs": 1_000_000}),
            ".max-parallel-jobs: expected at most 10000, found 1000000",
        ),
        (
            json!({"name": "h", "labels": "l", "connection-port": 70000}),
            ".connection-port: expected a port from 1 to 65535, found 70000",
        ),
        (
            json!({"name": "h", "labels": "l", "host-key": "h ssh-rsa AAAA"}),
            ".host-key: warning: is hardly a key of a machine",
        ),
        (
            json!({"name": "h", "labels": "l", "host-key": "SHA256:abc"}),
            ".host-key: warning: is hardly a key",
        ),
        (
            json!({"name": "h", "labels": "l", "hostkey": "x"}),
            ".hostkey: unknown key, did you mean 'host-key'?",
        ),
    ];
    for (entry, expected) in cases {
        let (_, problems) = testing::configure(&StaticDriver, section(node(entry.clone())));
        assert_eq!(problems.len(), 1, "{entry}: {problems:?}");
        assert!(problems[0].starts_with(&format!("{at}{expected}")), "{entry}: {problems:?}");
    }
}

#[test]
fn what_stands_there_twice_is_named_with_both_places() {
    let pools = json!([
        {"name": "main", "nodes": [{"name": "h", "labels": "a"}, {"name": "h", "labels": "b"}]},
        {"name": "other", "nodes": [{"name": "h", "labels": "a", "username": "zuul"}]},
        {"name": "main", "nodes": []},
        {"nodes": [{"name": "g", "labels": "a"}], "node-attributes": 5, "labels": []},
    ]);
    let (_, problems) = testing::configure(&StaticDriver, section(pools));
    let advice = "for several jobs at once there is 'max-parallel-jobs', and 'labels' can be a list";
    let first = "providers[0].pools[0].nodes[0]";
    let twice =
        |at: &str| format!("{at}.name: the machine zuul@h port 22 stands at {first} already; {advice}");
    let expected = [
        twice("providers[0].pools[0].nodes[1]"),
        twice("providers[0].pools[1].nodes[0]"),
        "providers[0].pools[2].name: the pool 'main' is configured twice".into(),
        "providers[0].pools[3]: the required key 'name' is missing".into(),
        "providers[0].pools[3].labels: a static pool has the labels of its machines: write them to each of its \
         'nodes'"
            .into(),
        "providers[0].pools[3].node-attributes: expected a mapping, found 5".into(),
    ];
    assert_eq!(problems, expected);
}
