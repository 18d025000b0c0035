//! The verdicts, as tables.

use std::time::Duration;

use nodepool_drivers::api::{LabelImage, Machine, PoolLabel};
use serde_json::json;

use super::*;
use crate::launcher::facts::LabelFacts;
use crate::launcher::standing::Away;
use crate::launcher::world::Node;
use crate::launcher::world::testing::{node, pool, request};
use crate::model::NodeState;

fn settings() -> PoolSettings {
    let label = |name: &str, image| {
        (
            name.to_owned(),
            PoolLabel { name: name.to_owned(), image, host_key_checking: false, console_log: false },
        )
    };
    PoolSettings {
        name: "main".to_owned(),
        limits: [("instances", 3)].into_iter().collect(),
        priority: None,
        node_attributes: None,
        use_internal_ip: false,
        ignore_provider_quota: false,
        zones: Vec::new(),
        labels: [
            label("a", LabelImage::Cloud("cloud".to_owned())),
            label("b", LabelImage::Cloud("cloud".to_owned())),
            label("disk", LabelImage::Disk("debian".to_owned())),
        ]
        .into(),
    }
}

fn facts() -> ProviderFacts {
    ProviderFacts {
        limits: [("cores", 12)].into_iter().collect(),
        labels: [("a", 4), ("b", 0), ("disk", 0)]
            .map(|(label, cores)| {
                let needs = [("instances", 1), ("cores", cores)].into_iter().collect();
                (("main".to_owned(), label.to_owned()), LabelFacts { needs: Some(needs), boots: Some(true) })
            })
            .into(),
        ..ProviderFacts::default()
    }
}

/// The verdict on a request in a world where only our pool is, as these change it.
fn judge(
    record: serde_json::Value,
    world: impl FnOnce(&mut World),
    view: impl for<'a> FnOnce(&mut View<'a>),
) -> Verdict {
    judge_in(record, (settings(), facts()), world, view)
}

/// The same for a pool and a provider that are not the usual ones.
fn judge_in(
    record: serde_json::Value,
    (pool_settings, facts): (PoolSettings, ProviderFacts),
    world: impl FnOnce(&mut World),
    view: impl for<'a> FnOnce(&mut View<'a>),
) -> Verdict {
    let mut known = World::default();
    known.set_pool("host0", Some(pool("our-id", "p", &["a", "b", "disk"])));
    world(&mut known);
    let (ledger, tenants) =
        (Ledger::default(), BTreeMap::from([("t".to_owned(), [("instances", 1)].into_iter().collect())]));
    let mut seen = View {
        world: &known,
        ledger: &ledger,
        provider: "p",
        pool: &pool_settings,
        id: "our-id",
        priority: 100,
        offer: None,
        facts: Some(&facts),
        tenants: &tenants,
        concurrency: 5,
        launching: 4,
        paused: false,
        settled: true,
    };
    view(&mut seen);
    verdict(&seen, &request("100-0000000000", record))
}

#[test]
fn a_pool_takes_what_it_can_serve() {
    let take = |record| judge(record, |_| {}, |_| {});
    assert_eq!(take(json!({"node_types": ["a"]})), Verdict::Take);
    assert_eq!(take(json!({"node_types": ["a", "b", "a"]})), Verdict::Take);
    assert_eq!(take(json!({"node_types": ["a"], "provider": "p"})), Verdict::Take);
    assert_eq!(take(json!({"node_types": ["a"], "provider": "nobody's"})), Verdict::Take);
    assert_eq!(take(json!({"node_types": ["a"], "declined_by": ["other"]})), Verdict::Take);
}

#[test]
fn a_pool_has_nothing_to_do_with_what_is_taken_or_what_it_has_declined() {
    for record in
        [json!({"node_types": ["a"], "state": "pending"}), json!({"node_types": ["a"], "state": "fulfilled"})]
    {
        assert_eq!(judge(record, |_| {}, |_| {}), Verdict::Nothing);
    }
    let declined = json!({"node_types": ["a"], "declined_by": ["our-id"]});
    let with_other = |world: &mut World| world.set_pool("host1", Some(pool("other-id", "q", &["b"])));
    assert_eq!(judge(declined.clone(), with_other, |_| {}), Verdict::Nothing);
    // It fails once the other one, which has not said anything, is gone.
    assert_eq!(judge(declined, |_| {}, |_| {}), Verdict::Decline(Vec::new()));
}

#[test]
fn a_pool_declines_what_it_never_can() {
    let labels = |names: &[&str]| {
        Verdict::Decline(vec![Reason::Labels(names.iter().map(|name| (*name).to_owned()).collect())])
    };
    let much = |name: &str| Verdict::Decline(vec![Reason::TooMuch(name.to_owned())]);
    for (record, expected) in [
        (json!({"node_types": ["a", "x"]}), labels(&["x"])),
        (json!({"node_types": ["disk"]}), Verdict::Decline(vec![Reason::NoImage("disk".to_owned())])),
        (json!({"node_types": ["a", "a", "a", "a"]}), much("cores")),
        (json!({"node_types": ["b", "b", "b", "b"]}), much("instances")),
    ] {
        // Whether it has room now does not matter.
        for paused in [false, true] {
            assert_eq!(judge(record.clone(), |_| {}, |view| view.paused = paused), expected);
        }
    }
    let mut disabled = settings();
    disabled.limits = [("instances", 0)].into_iter().collect();
    let judged = judge_in(json!({"node_types": ["a"]}), (disabled, facts()), |_| {}, |_| {});
    assert_eq!(judged, Verdict::Decline(vec![Reason::Disabled]));
}

#[test]
fn a_request_that_exceeds_the_providers_limits_is_declined_unless_the_pool_ignores_them() {
    // Four cores each: of a limit of twelve, three have room.
    let mut ignoring = settings();
    ignoring.ignore_provider_quota = true;
    ignoring.limits = [("instances", 4)].into_iter().collect();
    let much = |name: &str| Verdict::Decline(vec![Reason::TooMuch(name.to_owned())]);
    for (count, ignores, expected) in [
        (3, false, Verdict::Take),
        (4, false, much("cores")),
        (4, true, Verdict::Take),
        (5, true, much("instances")),
    ] {
        // What is used now does not count: it is about an empty cloud.
        let used = |world: &mut World| {
            for id in 0..5 {
                world.set_node(&id.to_string(), Some(node(NodeState::InUse, "a")), false);
            }
        };
        let roomy = PoolSettings { limits: Resources::default(), ..settings() };
        let pool = if ignores { ignoring.clone() } else { roomy };
        let record = json!({"node_types": vec!["a"; count]});
        assert_eq!(judge_in(record, (pool, facts()), used, |_| {}), expected, "{count} {ignores}");
    }
}

#[test]
fn a_pool_leaves_a_request_to_who_should_serve_it() {
    let other = |provider: &'static str, priority: i64, paused: bool, labels: &'static [&'static str]| {
        move |world: &mut World| {
            let other = PoolDescriptionFor { provider, priority, paused, labels };
            world.set_pool("host1", Some(other.build()));
        }
    };
    let record = json!({"node_types": ["a"], "provider": "q"});
    let leave = |why| Verdict::Leave(why);
    assert_eq!(judge(record.clone(), other("q", 100, false, &["a"]), |_| {}), leave(Leave::Provider));
    // Even if it is paused, as long as it has the label and has not declined.
    assert_eq!(judge(record.clone(), other("q", 100, true, &["a"]), |_| {}), leave(Leave::Provider));
    assert_eq!(judge(record, other("q", 100, false, &["b"]), |_| {}), Verdict::Take);
    let declined = json!({"node_types": ["a"], "provider": "q", "declined_by": ["other-id"]});
    assert_eq!(judge(declined, other("q", 100, false, &["a"]), |_| {}), Verdict::Take);

    let record = json!({"node_types": ["a"]});
    assert_eq!(judge(record.clone(), other("q", 99, false, &["a"]), |_| {}), leave(Leave::Priority));
    assert_eq!(judge(record.clone(), other("q", 99, true, &["a"]), |_| {}), Verdict::Take);
    assert_eq!(judge(record, other("q", 101, false, &["a"]), |_| {}), Verdict::Take);

    let record = json!({"node_types": ["a", "x"]});
    assert_eq!(judge(record, other("q", 101, false, &["a", "x"]), |_| {}), leave(Leave::Labels));
}

struct PoolDescriptionFor {
    provider: &'static str,
    priority: i64,
    paused: bool,
    labels: &'static [&'static str],
}

impl PoolDescriptionFor {
    fn build(self) -> crate::zk::PoolDescription {
        let Self { provider, priority, paused, labels } = self;
        crate::zk::PoolDescription { priority, paused, ..pool("other-id", provider, labels) }
    }
}

#[test]
fn a_pool_waits_where_it_can_serve_a_request_later() {
    let record = || json!({"node_types": ["a"], "tenant_name": "t"});
    let wait = |why| Verdict::Wait(why);
    let of_tenant = |world: &mut World| {
        let node = Node { tenant: Some("t".to_owned()), ..node(NodeState::InUse, "a") };
        world.set_node("1", Some(node), false);
    };
    assert_eq!(judge(record(), |_| {}, |_| {}), Verdict::Take);
    assert_eq!(judge(record(), of_tenant, |_| {}), wait(Wait::Tenant));
    assert_eq!(judge(json!({"node_types": ["a"], "tenant_name": "u"}), of_tenant, |_| {}), Verdict::Take);
    assert_eq!(judge(record(), |_| {}, |view| view.paused = true), wait(Wait::Paused));
    assert_eq!(judge(record(), |_| {}, |view| view.concurrency = 0), wait(Wait::Concurrency));
    assert_eq!(judge(record(), |_| {}, |view| view.launching = 5), wait(Wait::Concurrency));
    assert_eq!(judge(record(), |_| {}, |view| view.facts = None), wait(Wait::NotReady));
    assert_eq!(judge(record(), |world| world.set_pool("host0", None), |_| {}), wait(Wait::NotReady));
}

/// A machine of the pool with these labels and places.
fn machine(labels: &[&str], slots: u32) -> Machine {
    Machine {
        pool: "main".to_owned(),
        host: "host".to_owned(),
        labels: labels.iter().map(|label| (*label).to_owned()).collect(),
        username: "zuul".to_owned(),
        connection_type: "ssh".to_owned(),
        connection_port: 22,
        python_path: "auto".to_owned(),
        shell_type: None,
        host_keys: Vec::new(),
        host_key_checking: true,
        timeout: Duration::from_secs(1),
        slots,
        attributes: None,
    }
}

#[test]
fn a_pool_of_machines_gives_what_is_free_and_otherwise_has_requests_wait_without_being_paused() {
    let machines = [machine(&["a", "b"], 1), machine(&["a"], 2), machine(&["x"], 0)];
    let two_free = |world: &mut World| {
        let both = Node { labels: vec!["a".to_owned(), "b".to_owned()], ..node(NodeState::Ready, "a") };
        world.set_node("1", Some(both), false);
        world.set_node("2", Some(node(NodeState::Ready, "a")), false);
        world.set_node("3", Some(node(NodeState::InUse, "a")), false);
    };
    let wait = Verdict::Wait(Wait::Machines);
    let decline = |reason| Verdict::Decline(vec![reason]);
    let ask = |labels: &[&str]| json!({"node_types": labels});
    for (record, free, expected) in [
        (ask(&["a"]), true, Verdict::Take),
        (ask(&["a", "b"]), true, Verdict::Take),
        (ask(&["a"]), false, wait.clone()),
        // All of its nodes at once, or none.
        (ask(&["a", "a", "b"]), true, wait.clone()),
        (ask(&["a", "a", "a"]), false, wait.clone()),
        (ask(&["a", "a", "a", "a"]), true, decline(Reason::TooFewMachines)),
        (ask(&["b", "b"]), true, decline(Reason::TooFewMachines)),
        (ask(&["x"]), true, decline(Reason::TooFewMachines)),
        (ask(&["unknown"]), true, decline(Reason::Labels(vec!["unknown".to_owned()]))),
        (json!({"node_types": ["a"], "reuse": false}), true, decline(Reason::NothingNew)),
        // As in the original, a tenant gets no more at once than its limits say.
        (json!({"node_types": ["a"], "tenant_name": "t"}), true, Verdict::Take),
        (json!({"node_types": ["a", "a"], "tenant_name": "t"}), true, Verdict::Wait(Wait::Tenant)),
        (json!({"node_types": ["a"], "tenant_name": "full"}), true, Verdict::Wait(Wait::Tenant)),
    ] {
        let mut world = World::default();
        if free {
            two_free(&mut world);
        }
        world.set_pool("host0", Some(pool("our-id", "p", &["a", "b", "x"])));
        let of_tenant = Node { tenant: Some("full".to_owned()), ..node(NodeState::InUse, "a") };
        world.set_node("4", Some(Node { provider: "q".to_owned(), ..of_tenant }), false);
        let mut settings = settings();
        let label = settings.labels["a"].clone();
        settings.labels = ["a", "b", "x"].map(|name| (name.to_owned(), label.clone())).into();
        let ledger = Ledger::default();
        let offer = Offer::of(&world, &ledger, ("p", "main"), &machines, &Away::new());
        let tenants = ["t", "full"].map(|name| (name.to_owned(), [("instances", 1)].into_iter().collect()));
        let tenants = BTreeMap::from(tenants);
        let view = View {
            world: &world,
            ledger: &ledger,
            provider: "p",
            pool: &settings,
            id: "our-id",
            priority: 100,
            offer: Some(&offer),
            facts: Some(&ProviderFacts::default()),
            tenants: &tenants,
            concurrency: 5,
            launching: 4,
            paused: false,
            settled: true,
        };
        let shown = record.to_string();
        assert_eq!(verdict(&view, &request("100-0000000000", record)), expected, "{shown} {free}");
    }
}

#[test]
fn while_the_provider_does_not_answer_only_ready_nodes_are_given() {
    let judge = |record: serde_json::Value, ready: &[&str]| {
        let stock = |world: &mut World| {
            for (number, label) in ready.iter().enumerate() {
                world.set_node(&number.to_string(), Some(node(NodeState::Ready, label)), false);
            }
        };
        judge_in(record, (settings(), ProviderFacts { silent: true, ..facts() }), stock, |_| {})
    };
    let wait = Verdict::Wait(Wait::Silent);
    let request = |labels: &[&str]| json!({"state": "requested", "node_types": labels});
    assert_eq!(judge(request(&["a"]), &[]), wait);
    assert_eq!(judge(request(&["a"]), &["b"]), wait);
    assert_eq!(judge(request(&["a"]), &["a"]), Verdict::Take);
    assert_eq!(judge(request(&["a", "a"]), &["a", "b"]), wait);
    assert_eq!(judge(request(&["a", "a"]), &["a", "a"]), Verdict::Take);
    let mut fresh = request(&["a"]);
    fresh["reuse"] = false.into();
    assert_eq!(judge(fresh, &["a"]), wait);
}

/// An error of Glance in the first look after a start declined requests, and so did an edit that added a label.
#[test]
fn what_the_provider_has_not_said_of_a_label_is_waited_for() {
    let judge = |boots: Option<LabelFacts>, ready: &[&str]| {
        let mut facts = facts();
        match boots {
            Some(boots) => _ = facts.labels.insert(("main".to_owned(), "a".to_owned()), boots),
            None => facts.labels.clear(),
        }
        let stock = |world: &mut World| {
            for label in ready {
                world.set_node("1", Some(node(NodeState::Ready, label)), false);
            }
        };
        judge_in(json!({"node_types": ["a"]}), (settings(), facts), stock, |_| {})
    };
    let says = |boots| Some(LabelFacts { needs: None, boots });
    let wait = Verdict::Wait(Wait::NotReady);
    assert_eq!(judge(None, &[]), wait);
    assert_eq!(judge(says(None), &[]), wait);
    assert_eq!(judge(says(Some(true)), &[]), Verdict::Take);
    assert_eq!(judge(says(Some(false)), &[]), Verdict::Decline(vec![Reason::NoImage("a".to_owned())]));
    // Which a ready node does not boot from any more.
    assert_eq!(judge(says(None), &["a"]), Verdict::Take);
    assert_eq!(judge(says(None), &["b"]), wait);
}

#[test]
fn what_needs_no_answer_of_the_provider_is_declined_before_there_is_one() {
    let unknown = |record: serde_json::Value| judge(record, |_| {}, |view| view.facts = None);
    let labels = Verdict::Decline(vec![Reason::Labels(vec!["x".to_owned()])]);
    assert_eq!(unknown(json!({"node_types": ["x"]})), labels);
    let no_image = Verdict::Decline(vec![Reason::NoImage("disk".to_owned())]);
    assert_eq!(unknown(json!({"node_types": ["disk"]})), no_image);
    assert_eq!(unknown(json!({"node_types": ["a"]})), Verdict::Wait(Wait::NotReady));
    // Not before the others of this launcher can be seen to have declined it, too.
    let early = judge(json!({"node_types": ["x"]}), |_| {}, |view| view.settled = false);
    assert_eq!(early, Verdict::Wait(Wait::NotReady));
}

#[test]
fn ready_nodes_need_not_wait_for_launches() {
    let busy = |ready: &[&str]| {
        let stock = |world: &mut World| {
            for (number, label) in ready.iter().enumerate() {
                world.set_node(&number.to_string(), Some(node(NodeState::Ready, label)), false);
            }
        };
        judge(json!({"node_types": ["a"]}), stock, |view| view.launching = view.concurrency)
    };
    assert_eq!(busy(&["b"]), Verdict::Wait(Wait::Concurrency));
    assert_eq!(busy(&["a"]), Verdict::Take);
}
