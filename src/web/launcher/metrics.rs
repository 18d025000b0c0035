//! `/metrics`: the launcher's numbers.
//!
//! For each label of the configuration, each state of a request and each provider there is always a number, also a
//! zero, so that an alert can tell "none is ready" from "nobody knows". States that no node is in are left out
//! otherwise.

use std::collections::{BTreeMap, BTreeSet};

use nodepool_drivers::api::Resources;

use super::snapshot::Snapshot;
use crate::launcher::{Fault, Room, Window};
use crate::model::{NodeState, RequestState};
use crate::web::core::exposition::Exposition;

/// The whole page.
pub(super) fn text(snapshot: &Snapshot, window: &Window) -> String {
    let mut out = Exposition::default();
    of_launcher(&mut out, snapshot, window);
    of_nodes(&mut out, snapshot);
    of_requests(&mut out, snapshot);
    of_launches(&mut out, snapshot);
    of_room(&mut out, snapshot);
    out.process(window.started);
    out.into_text()
}

fn of_launcher(out: &mut Exposition, snapshot: &Snapshot, window: &Window) {
    let view = &snapshot.view;
    out.build_info();
    out.gauge(
        "nodepool_ready",
        "Whether the launcher is connected to ZooKeeper, registered, and knows all records.",
    )
    .sample(&[], u8::from(snapshot.unready.is_none()));
    let connected = window.session.status().is_connected();
    out.gauge("nodepool_zookeeper_connected", "Whether there is a connection to ZooKeeper.")
        .sample(&[], u8::from(connected));
    out.gauge("nodepool_statistics_leader", "Whether this launcher reports the fleet to statsd.")
        .sample(&[], u8::from(view.leads));
    out.gauge("nodepool_damaged_records", "Records that cannot be read.").sample(&[], snapshot.damaged.len());
}

fn of_nodes(out: &mut Exposition, snapshot: &Snapshot) {
    let mut nodes: BTreeMap<(&str, &str, NodeState), usize> = BTreeMap::new();
    for provider in &snapshot.view.providers {
        for label in provider.pools.iter().flat_map(|pool| &pool.labels) {
            nodes.insert((&provider.name, label, NodeState::Ready), 0);
        }
    }
    for node in &snapshot.nodes {
        let record = &node.record;
        // The one that it was launched as.
        let label = record.labels.first().map_or("", String::as_str);
        *nodes.entry((record.provider.as_deref().unwrap_or_default(), label, record.state)).or_default() += 1;
    }
    let mut metric =
        out.gauge("nodepool_nodes", "Nodes of the whole fleet, by provider, first label and state.");
    for ((provider, label, state), count) in nodes {
        let labels = [("provider", provider), ("label", label), ("state", &state.to_string())];
        metric.sample(&labels, count);
    }
    let mut metric = out.gauge("nodepool_min_ready", "How many ready nodes of a label are kept in stock.");
    for (label, settings) in &snapshot.view.config.launcher.labels {
        metric.sample(&[("label", label)], settings.min_ready);
    }
}

fn of_requests(out: &mut Exposition, snapshot: &Snapshot) {
    let states =
        [RequestState::Requested, RequestState::Pending, RequestState::Fulfilled, RequestState::Failed];
    let mut metric = out.gauge("nodepool_requests", "Node requests of the whole fleet, by state.");
    for state in states {
        let count = snapshot.requests.iter().filter(|request| request.record.state == state).count();
        metric.sample(&[("state", &state.to_string())], count);
    }
    let open = snapshot.requests.iter().filter(|request| super::index::is_open(request.record.state));
    let oldest = open.map(|request| request.record.created_time.unwrap_or(request.record.state_time));
    let age = oldest.min_by(f64::total_cmp).map_or(0.0, |oldest| (snapshot.now - oldest).max(0.0));
    out.gauge(
        "nodepool_oldest_request_age_seconds",
        "How long the oldest open request has waited; 0 without one.",
    )
    .sample(&[], age);
    out.gauge("nodepool_serving_requests", "Requests that this launcher serves.")
        .sample(&[], snapshot.view.goings.serving.len());
}

fn of_launches(out: &mut Exposition, snapshot: &Snapshot) {
    let view = &snapshot.view;
    let mut metric = out.gauge("nodepool_launching", "Nodes that this launcher is launching, by provider.");
    for provider in &view.providers {
        let count = view.goings.launches.iter().filter(|launch| launch.at.provider == provider.name).count();
        metric.sample(&[("provider", &provider.name)], count);
    }
    let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for provider in &view.providers {
        for result in std::iter::once("ready").chain(Fault::NAMES) {
            counts.insert((&provider.name, result), 0);
        }
    }
    let counted = view.goings.counts.iter();
    counts.extend(counted.map(|((provider, result), count)| ((provider.as_str(), *result), *count)));
    let mut metric =
        out.counter("nodepool_launches_total", "Attempts to launch a node that have ended, by their result.");
    for ((provider, result), count) in counts {
        metric.sample(&[("provider", provider), ("result", result)], count);
    }
    let mut metric = out.gauge("nodepool_provider_failing", "Whether a provider cannot be opened or asked.");
    let failing = view.goings.troubles.keys().map(String::as_str);
    let names: BTreeSet<&str> =
        view.providers.iter().map(|provider| provider.name.as_str()).chain(failing).collect();
    for name in names {
        metric.sample(&[("provider", name)], u8::from(view.goings.troubles.contains_key(name)));
    }
    let mut metric = out.gauge("nodepool_machines_away", "Machines of a provider that cannot be used.");
    for provider in &view.providers {
        metric.sample(&[("provider", &provider.name)], provider.away.values().map(Vec::len).sum::<usize>());
    }
    let mut metric = out.gauge("nodepool_stuck_deletions", "Nodes that a provider does not delete.");
    for provider in &view.providers {
        let count = view.goings.stuck.values().filter(|stuck| stuck.provider == provider.name).count();
        metric.sample(&[("provider", &provider.name)], count);
    }
}

/// What is used, and what there may be, as two metrics of the same labels.
fn of_room(out: &mut Exposition, snapshot: &Snapshot) {
    let view = &snapshot.view;
    let mut metric = out.gauge("nodepool_pool_paused", "Whether a request waits for room in a pool.");
    for provider in &view.providers {
        for pool in &provider.pools {
            metric.sample(&[("provider", &provider.name), ("pool", &pool.name)], u8::from(pool.paused));
        }
    }
    let pools = || {
        let pools = view.providers.iter().flat_map(|provider| {
            provider.pools.iter().map(move |pool| {
                (vec![("provider", provider.name.as_str()), ("pool", pool.name.as_str())], &pool.room)
            })
        });
        pools.collect::<Vec<_>>()
    };
    let providers =
        view.providers.iter().map(|provider| (vec![("provider", provider.name.as_str())], &provider.room));
    let tenants = view.tenants.iter().map(|(name, room)| (vec![("tenant", name.as_str())], room));
    for (used, limit, of, owners) in [
        ("nodepool_pool_used", "nodepool_pool_limit", "a pool", pools()),
        ("nodepool_provider_used", "nodepool_provider_limit", "a provider", providers.collect()),
        ("nodepool_tenant_used", "nodepool_tenant_limit", "a tenant that has limits", tenants.collect()),
    ] {
        amounts(
            out,
            used,
            &format!("What the nodes of {of} need, with those that are to come."),
            &owners,
            |room| &room.used,
        );
        amounts(out, limit, &format!("What the nodes of {of} may need."), &owners, |room| &room.limits);
    }
}

fn amounts(
    out: &mut Exposition,
    name: &'static str,
    help: &str,
    owners: &[(Vec<(&str, &str)>, &Room)],
    which: fn(&Room) -> &Resources,
) {
    let mut metric = out.gauge(name, help);
    for (labels, room) in owners {
        for (resource, amount) in which(room).iter() {
            let labels: Vec<_> = labels.iter().copied().chain([("resource", resource)]).collect();
            metric.sample(&labels, amount);
        }
    }
}
