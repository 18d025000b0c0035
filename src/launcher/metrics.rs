//! The launcher's metrics: names and meaning as in the original (spec/statsd.md).

use std::collections::BTreeMap;
use std::time::Duration;

use nodepool_drivers::api::{CleanedUp, Resources};

use super::board::Fault;
use super::manager::Trees;
use super::shared::State;
use super::tools::Tools;
use crate::model::NodeState;
use crate::stats::{Metric, part};
use crate::zk::Session;

/// The last part of the names that a failed launch counts under. The original knows more kinds of what a provider may
/// fail at, by the errors that its drivers raise; here they are all unknown.
pub(super) fn key_of(fault: Fault) -> &'static str {
    match fault {
        Fault::NoRoom => "error.quota",
        Fault::Timeout => "error.servercreatetimeout",
        Fault::Keys => "error.keyscan",
        Fault::Session => "error.zksession",
        Fault::Instance => "error.status",
        Fault::Provider(_) => "error.unknown",
    }
}

/// A launch has come to this.
pub(super) fn launch(tools: &Tools, what: &str, took: Duration, az: Option<&str>, requestor: Option<&str>) {
    if !tools.stats.is_on() {
        return;
    }
    let provider = part(&tools.name);
    let mut names =
        vec![format!("nodepool.launch.provider.{provider}.{what}"), format!("nodepool.launch.{what}")];
    names.extend(az.map(|az| format!("nodepool.launch.provider.{provider}.{}.{what}", part(az))));
    names.extend(requestor.map(|name| format!("nodepool.launch.requestor.{}.{what}", plain(name))));
    let metrics =
        names.into_iter().flat_map(|name| [Metric::Timer(name.clone(), took), Metric::Count(name, 1)]);
    tools.stats.send(metrics.collect());
}

/// A name without what means something to statsd.
fn plain(name: &str) -> String {
    part(name).replace('.', "_")
}

/// An instance that no node has was deleted.
pub(super) fn leaked_instance(tools: &Tools) {
    tools.stats.send(leaked(tools, "instances", 1).into_iter().collect());
}

/// So much was removed that deletions had left besides instances.
pub(super) fn cleaned_up(tools: &Tools, cleaned: CleanedUp) {
    let metrics = [leaked(tools, "ports", cleaned.ports), leaked(tools, "floatingips", cleaned.floating_ips)];
    let metrics: Vec<_> = metrics.into_iter().flatten().collect();
    if !metrics.is_empty() {
        tools.stats.send(metrics);
    }
}

fn leaked(tools: &Tools, what: &str, times: u64) -> Option<Metric> {
    let name = format!("nodepool.provider.{}.leaked.{what}", part(&tools.name));
    (times > 0).then_some(Metric::Count(name, times))
}

/// What waits between ZooKeeper and this launcher, as the original has it: calls that are not answered, events that are
/// not worked through, changes that are not taken.
pub(super) fn queues(hostname: &str, session: &Session, trees: &Trees) -> Vec<Metric> {
    let gauge = |name: String, value: usize| {
        let name = format!("nodepool.launcher.{hostname}.zk.{name}");
        Metric::Gauge(name, i64::try_from(value).unwrap_or(i64::MAX))
    };
    let caches = [("node", &trees.nodes), ("request", &trees.requests), ("image", &trees.images)];
    let of_caches = caches.into_iter().flat_map(|(name, tree)| {
        let (events, changes) = tree.queued();
        [
            gauge(format!("{name}_cache.event_queue"), events),
            gauge(format!("{name}_cache.playback_queue"), changes),
        ]
    });
    std::iter::once(gauge("client.connection_queue".to_owned(), session.calls())).chain(of_caches).collect()
}

/// All states in which nodes are counted.
const STATES: [NodeState; 11] = [
    NodeState::Building,
    NodeState::Testing,
    NodeState::Ready,
    NodeState::InUse,
    NodeState::Used,
    NodeState::Hold,
    NodeState::Init,
    NodeState::Deleting,
    NodeState::Failed,
    NodeState::Aborted,
    NodeState::Deleted,
];

/// How it stands with the whole fleet: for its statistics leader to say.
pub(super) fn fleet(state: &State) -> Vec<Metric> {
    let world = &state.world;
    let mut counts: BTreeMap<String, i64> = BTreeMap::new();
    for node_state in STATES {
        counts.insert(format!("nodepool.nodes.{node_state}"), 0);
        for pool in world.pools() {
            counts.insert(format!("nodepool.provider.{}.nodes.{node_state}", part(&pool.provider_name)), 0);
            for label in &pool.supported_labels {
                counts.insert(format!("nodepool.label.{}.nodes.{node_state}", part(label)), 0);
            }
        }
    }
    for node in world.nodes().values() {
        *counts.entry(format!("nodepool.nodes.{}", node.state)).or_default() += 1;
        let provider = part(&node.provider);
        *counts.entry(format!("nodepool.provider.{provider}.nodes.{}", node.state)).or_default() += 1;
        for label in &node.labels {
            *counts.entry(format!("nodepool.label.{}.nodes.{}", part(label), node.state)).or_default() += 1;
        }
    }
    for pool in world.pools() {
        let Some(name) = &pool.name else { continue };
        let can_serve = |labels: &[String]| labels.iter().all(|label| pool.supported_labels.contains(label));
        let open = world.requests().values().filter(|request| can_serve(&request.record.node_types));
        let (provider, name) = (part(&pool.provider_name), part(name));
        let name = format!("nodepool.provider.{provider}.pool.{name}.addressable_requests");
        counts.insert(name, i64::try_from(open.count()).unwrap_or(i64::MAX));
    }
    counts.into_iter().map(|(name, count)| Metric::Gauge(name, count)).collect()
}

/// What the configuration of a provider and of the tenants limits. A provider with a pool that has no limit has none,
/// and tells none: the original sends an infinity, which no statsd takes.
pub(super) fn limits(tools: &Tools, state: &State) -> Vec<Metric> {
    let pools = tools.config.nodes().into_iter().flat_map(|nodes| nodes.pools.values());
    let servers: Option<i64> = pools.map(|pool| pool.limits.get(Resources::INSTANCES)).sum();
    let gauge =
        |servers| Metric::Gauge(format!("nodepool.provider.{}.max_servers", part(&tools.name)), servers);
    let mut metrics: Vec<_> = servers.map(gauge).into_iter().collect();
    for (tenant, limits) in &state.tenants {
        metrics.extend(limits.iter().map(|(name, limit)| {
            Metric::Gauge(format!("nodepool.tenant_limits.{}.{}", plain(tenant), plain(name)), limit)
        }));
    }
    metrics
}
