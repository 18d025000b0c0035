//! The daemon with a provider of machines, which are real SSH servers.

mod changes;
mod crashes;
mod ends;
mod giving;
mod original;

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};

use super::*;
use crate::support::sshd::Sshd;

pub(super) const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
pub(super) const ED25519: (&str, u32) = ("ed25519", 256);
/// For a machine that answers, on a machine that is busy; and for one that does not.
pub(super) const PATIENT: &str = "timeout: 30";
pub(super) const QUICK: &str = "timeout: 2";

pub(super) fn sshd() -> Sshd {
    Sshd::start(LOCAL, &[ED25519], "")
}

/// A machine's entry in `nodes`; `more` are further keys.
pub(super) fn machine(sshd: &Sshd, labels: &[&str], more: &str) -> String {
    let (port, labels) = (sshd.port(), labels.join(", "));
    let key = sshd.keys().join(", ");
    format!("{{name: 127.0.0.1, labels: [{labels}], connection-port: {port}, host-key: ['{key}'], {more}}}")
}

/// A provider's entry with one pool `main` of machines.
pub(super) fn rack(name: &str, machines: &[String]) -> String {
    format!(
        "  - name: {name}\n    driver: static\n    pools: [{{name: main, nodes: [{}]}}]\n",
        machines.join(", ")
    )
}

/// A sandbox whose launcher has one provider `rack`.
pub(super) fn racked(test: &str, labels: &[&str], machines: &[String]) -> Sandbox<'static> {
    let sandbox = Sandbox::new(&format!("launcher-machines-{test}"));
    sandbox.write_body(&body(labels, &[rack("rack", machines)]));
    sandbox
}

/// The ids of the free nodes.
pub(super) fn free(zk: &ZkClient) -> BTreeSet<String> {
    let nodes = nodes_in(zk, "ready").into_iter();
    nodes.filter(|id| record(zk, id).is_some_and(|record| record["allocated_to"].is_null())).collect()
}

#[track_caller]
pub(super) fn wait_free(zk: &ZkClient, count: usize) -> BTreeSet<String> {
    eventually(super::SOON, &format!("{count} free nodes"), || {
        Some(free(zk)).filter(|nodes| nodes.len() == count)
    })
}

pub(super) fn port_of(zk: &ZkClient, node: &str) -> u64 {
    record(zk, node).unwrap()["connection_port"].as_u64().unwrap()
}

/// What the only pool of the fleet says of itself.
pub(super) fn advertised(zk: &ZkClient) -> Option<Value> {
    let [pool] = <[String; 1]>::try_from(zk.children("/nodepool/components/pool")).ok()?;
    zk.get_json(&format!("/nodepool/components/pool/{pool}"))
}
