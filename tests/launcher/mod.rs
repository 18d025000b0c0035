//! The launcher: the real daemon over a real ZooKeeper, with a cloud that only pretends.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod crashes;
mod images;
mod key_scan;
mod machines;
mod original;
mod pages;
mod pages_beside;
mod pages_clients;
mod pools;
mod quota;
pub(crate) mod requestor;
mod requests;
mod standing;
mod statsd;
mod stock;
mod stop;

use std::time::{Duration, SystemTime};

use serde_json::Value;

use crate::support::{Header, Sandbox, ZkClient, eventually};
use requestor::Requestor;

/// For what takes milliseconds on an idle machine.
const SOON: Duration = Duration::from_secs(40);
const NODES: &str = "/nodepool/nodes";
const REQUESTS: &str = "/nodepool/requests";
const LOCKS: &str = "/nodepool/requests-lock";

fn unix_now() -> f64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs_f64()
}

/// A pool's entry with these labels; `more` are further keys.
pub(crate) fn pool(name: &str, labels: &[&str], more: &str) -> String {
    let entries: Vec<_> =
        labels.iter().map(|label| format!("{{name: {label}, cloud-image: cloud}}")).collect();
    format!("      - {{name: {name}, host-key-checking: false, labels: [{}], {more}}}\n", entries.join(", "))
}

/// A provider's entry for a cloud that behaves as `behaviour` says; `more` are further keys.
pub(crate) fn provider(name: &str, behaviour: &str, more: &str, pools: &[String]) -> String {
    format!(
        "  - name: {name}\n    driver: fake\n    cloud: fake\n    cloud-images: [{{name: cloud, username: zuul}}]\n    \
         fake: {{launch-delay: 0.01, {behaviour}}}\n{more}    pools:\n{}",
        pools.concat()
    )
}

pub(crate) fn body(labels: &[&str], providers: &[String]) -> String {
    let labels: Vec<_> = labels
        .iter()
        .map(|label| if label.starts_with('{') { (*label).to_owned() } else { format!("{{name: {label}}}") })
        .collect();
    format!("labels: [{}]\nproviders:\n{}", labels.join(", "), providers.concat())
}

/// A sandbox whose launcher has one provider `cloud` with one pool `main`.
fn simple(test: &str, labels: &[&str], behaviour: &str, pool_keys: &str) -> Sandbox<'static> {
    let sandbox = Sandbox::new(&format!("launcher-{test}"));
    let plain: Vec<&str> = labels.iter().map(|label| name_of(label)).collect();
    sandbox
        .write_body(&body(labels, &[provider("cloud", behaviour, "", &[pool("main", &plain, pool_keys)])]));
    sandbox
}

fn name_of(label: &str) -> &str {
    label.trim_start_matches("{name: ").split([',', '}']).next().unwrap()
}

/// The ids of the nodes in a state.
fn nodes_in(zk: &ZkClient, state: &str) -> Vec<String> {
    let nodes = zk.children(NODES).into_iter();
    nodes.filter(|id| record(zk, id).is_some_and(|record| record["state"] == state)).collect()
}

fn record(zk: &ZkClient, node: &str) -> Option<Value> {
    zk.get(&format!("{NODES}/{node}"))?.json()
}

#[track_caller]
pub(crate) fn wait_nodes(zk: &ZkClient, state: &str, count: usize) -> Vec<String> {
    eventually(SOON, &format!("{count} nodes that are {state}"), || {
        let found = nodes_in(zk, state);
        (found.len() == count).then_some(found)
    })
}
