use crossbeam_channel::{bounded, never};
use nodepool_drivers::api::{Error, ErrorKind};
use serde_json::json;
use slog::{Discard, o};

use super::*;
use crate::config::{Server, ZooKeeperConfig};
use crate::launcher::shared::Shared;
use crate::launcher::tools::testing::fake;
use crate::launcher::world::testing::node;
use crate::stats::Stats;
use crate::zk::{Nodes, Requests, SessionThread};

/// A worker that nobody runs, without a ZooKeeper.
struct Idle {
    // Dropped first: what waits for a connection then ends.
    _thread: SessionThread,
    worker: Worker,
    session: Session,
    _inbox: Inbox,
}

impl Idle {
    fn new(section: serde_json::Value) -> Self {
        let log = Logger::root(Discard, o!());
        let server = Server { host: "127.0.0.1".to_owned(), port: 1 };
        let config = ZooKeeperConfig {
            servers: vec![server],
            chroot: String::new(),
            tls: None,
            timeout: Duration::from_secs(10),
        };
        let (session, thread) = Session::start(&config, &log).unwrap();
        let membership = Arc::new(Membership::start(&session, BTreeMap::new(), &log).unwrap());
        let (nudge, _) = bounded(1);
        let others = (never(), never(), never());
        let (worker, inbox) =
            Worker::new(&tools(&session, section), "host", &session, &membership, &nudge, others).unwrap();
        Self { worker, session, _inbox: inbox, _thread: thread }
    }
}

fn tools(session: &Session, section: serde_json::Value) -> Arc<Tools> {
    let log = Logger::root(Discard, o!());
    let config = fake(section);
    Arc::new(Tools {
        name: "cloud".to_owned(),
        provider: config.open(&log).unwrap(),
        config,
        keeper: None,
        nodes: Nodes::new(session, "test"),
        requests: Requests::new(session, "test"),
        shared: Arc::new(Shared::new()),
        ids: BTreeMap::new(),
        stats: Stats::default(),
        nudge: bounded(1).0,
        log,
    })
}

/// The launcher thread removed the pool's entry, and the next announcement before the news put it back for good.
#[test]
fn a_pool_that_leaves_is_announced_no_more_whatever_was_announced_last() {
    let section = |pools: &[&str]| {
        let pools: Vec<_> = pools.iter().map(|name| json!({"name": name})).collect();
        json!({"name": "cloud", "pools": pools})
    };
    let mut idle = Idle::new(section(&["main", "more"]));
    idle.worker.announce();
    assert_eq!(idle.worker.membership.keys(), ["cloud/main", "cloud/more"]);
    let new = tools(&idle.session, section(&["main"]));
    idle.worker.handle_event(Event::Configured(new));
    idle.worker.announce();
    assert_eq!(idle.worker.membership.keys(), ["cloud/main"]);
}

#[test]
fn a_provider_that_may_launch_nothing_waits_for_events_only() {
    for (concurrency, expected) in [(0, false), (1, true)] {
        let mut idle = Idle::new(json!({"name": "cloud", "max-concurrency": concurrency, "pools": []}));
        let worker = &mut idle.worker;
        worker.next_survey = Instant::now() + SURVEY_ROUND;
        worker.launching = concurrency;
        worker.tools.shared.lock().complete = true;
        assert_eq!(worker.deadline() == worker.next_full_look, expected, "{concurrency}");
    }
}

/// The thread span while a request waited for a provider that had been full and still was.
#[test]
fn a_moment_that_has_passed_is_not_waited_for() {
    let now = Instant::now();
    let [soon, later] = [1, 2].map(|seconds| now + Duration::from_secs(seconds));
    assert_eq!(first_to_come([now, later, soon].into_iter(), now), Some(soon));
    assert_eq!(first_to_come([soon].into_iter(), later), None);
}

/// The thread span while a look at the provider was under way that took its time, as at one that cannot be reached, and
/// before the copies of the trees were complete.
#[test]
fn what_no_step_moves_on_is_not_waited_for() {
    let mut idle = Idle::new(json!({"name": "cloud", "pools": []}));
    let worker = &mut idle.worker;
    let at = Instant::now();
    (worker.next_survey, worker.surveying) = (at, true);
    assert!(worker.deadline() >= at + SURVEY_ROUND);
    worker.surveying = false;
    assert_eq!(worker.deadline(), at);
    worker.next_survey = at + SURVEY_ROUND;
    let config = crate::config::LauncherConfig { max_hold_age: Some(SURVEY_ROUND), ..Default::default() };
    worker.tools.shared.lock().configure(&config, &BTreeMap::new());
    assert!(worker.has_ages() && worker.next_ages <= Instant::now());
    assert!(worker.deadline() > Instant::now());
    worker.tools.shared.lock().complete = true;
    assert_eq!(worker.deadline(), worker.next_ages);
}

/// A look at the provider comes back, and the thread does what is due.
fn surveyed(worker: &mut Worker, outcome: Result<Found, ErrorKind>) -> Duration {
    let tools = Arc::clone(&worker.tools);
    let is_known = tools.shared.lock().facts.contains_key("cloud");
    let generation = is_known.then_some(worker.generation);
    let job = Survey { tools, generation, cancel: Arc::new(StopSource::new()) };
    let begun = Instant::now();
    let has_failed = outcome.is_err();
    worker.take_survey(Finished { job, outcome: Ok(outcome.map_err(|kind| Error::new(kind, "no"))) });
    // Such as after a deletion: no reason to ask who has failed to answer.
    if has_failed {
        worker.look_soon();
    }
    worker.step();
    worker.next_survey - begun
}

/// A provider that refused the password was asked every two seconds for ever, which locks an account at some clouds.
#[test]
fn looks_that_fail_are_repeated_after_pauses_that_grow_and_a_mistake_is_not_asked_for_soon() {
    use ErrorKind::{Permanent, Timeout, Transient, Unavailable};
    let cases: [(&[ErrorKind], &[u64]); 4] = [
        (&[Transient; 7], &[2, 4, 8, 16, 32, 60, 60]),
        (&[Unavailable; 6], &[2; 6]),
        (&[Permanent; 2], &[60, 60]),
        (&[Timeout, Permanent, Transient, Unavailable], &[2, 60, 8, 2]),
    ];
    for (known, (kinds, pauses)) in
        [false, true].into_iter().flat_map(|known| cases.map(|case| (known, case)))
    {
        let section = || json!({"name": "cloud", "pools": []});
        let mut idle = Idle::new(section());
        let worker = &mut idle.worker;
        if known {
            surveyed(worker, Ok(Found::default()));
        }
        for (kind, expected) in kinds.iter().zip(pauses) {
            let pause = surveyed(worker, Err(*kind));
            let shares = pause.div_duration_f64(Duration::from_secs(*expected));
            assert!((0.7..1.3).contains(&shares), "{kind:?} of {kinds:?}: {pause:?}");
            assert_eq!(worker.is_silent(), !known || *kind == Unavailable, "{kind:?}");
        }
        // Once it has answered the first pause is short again.
        surveyed(worker, Ok(Found::default()));
        assert!(surveyed(worker, Ok(Found::default())) >= SURVEY_ROUND);
        assert!(surveyed(worker, Err(Transient)) < SURVEY_AGAIN * 2);
        surveyed(worker, Err(Permanent));
        // As it is after an edit, which is a reason to ask at once.
        let new = tools(&idle.session, section());
        idle.worker.handle_event(Event::Configured(new));
        assert!(idle.worker.next_survey <= Instant::now());
        assert!(surveyed(&mut idle.worker, Err(Transient)) < SURVEY_AGAIN * 2);
    }
}

/// Launches that find nobody at the provider have it looked at: otherwise nothing would be launched for a minute.
#[test]
fn a_provider_that_launches_find_silent_is_looked_at_soon() {
    let mut idle = Idle::new(json!({"name": "cloud", "pools": []}));
    let worker = &mut idle.worker;
    surveyed(worker, Ok(Found::default()));
    worker.tools.note_outage();
    worker.step();
    assert!(worker.next_survey <= Instant::now() + SURVEY_AGAIN);
}

/// Each of them may hold a worker for two minutes, and they came first because they are older.
#[test]
fn nodes_that_the_provider_does_not_delete_hold_up_no_others() {
    for (stuck, fresh, expected) in [(70, 0, (32, 0)), (70, 40, (24, 40)), (3, 70, (0, 64)), (3, 2, (3, 2))] {
        let mut idle = Idle::new(json!({"name": "cloud", "pools": []}));
        let worker = &mut idle.worker;
        let used = Node { provider: "cloud".to_owned(), ..node(NodeState::Used, "a") };
        let ids = (0..stuck)
            .map(|number| format!("0-{number}"))
            .chain((0..fresh).map(|number| format!("1-{number}")));
        for id in ids {
            if id.starts_with('0') {
                worker.put_off.insert(id.clone(), (Instant::now(), 1));
            }
            worker.tools.shared.lock().world.set_node(&id, Some(used.clone()), false);
        }
        worker.order_deletions();
        let again = worker.deleting.keys().filter(|id| id.starts_with('0')).count();
        assert_eq!((again, worker.deleting.len() - again), expected, "{stuck} and {fresh}");
    }
}

/// One after the other was waited for, with the next look at the provider behind them.
#[test]
fn instances_without_nodes_are_deleted_by_half_of_the_workers() {
    for (leaked, stuck, expected) in [(5, 0, 5), (70, 0, 32), (70, 60, 10), (0, 0, 0)] {
        let mut idle = Idle::new(json!({"name": "cloud", "pools": []}));
        let worker = &mut idle.worker;
        worker.leaked = (0..leaked)
            .map(|number| Leaked { external_id: format!("i{number}"), node: format!("n{number}") })
            .collect();
        for number in 0..stuck {
            let until = Instant::now() + SURVEY_ROUND;
            worker.put_off.insert(format!("n{number}"), (until, 1));
        }
        worker.order_deletions();
        assert_eq!(worker.deleting.len(), expected, "{leaked} {stuck}");
        // They are put off although there is no record of them.
        worker.forget();
        assert_eq!(worker.put_off.len(), stuck);
    }
}

/// A quota that they fill was taken for free.
#[test]
fn instances_without_nodes_leave_less_to_nodes() {
    let instances = std::env::temp_dir().join(format!("nodepool-leaked-{}", uuid::Uuid::new_v4()));
    std::fs::create_dir(&instances).unwrap();
    let section = json!({"name": "cloud", "fake": {"max-servers": 10, "state-dir": instances}, "pools": []});
    let mut idle = Idle::new(section);
    let worker = &mut idle.worker;
    let placed = [
        ("known", "cloud"),
        ("unknown", "cloud"),
        ("theirs", "elsewhere"),
        ("with-another", "cloud"),
        ("building", "cloud"),
    ];
    for (number, (node, provider)) in placed.into_iter().enumerate() {
        let metadata = json!({"nodepool_node_id": node, "nodepool_provider_name": provider});
        let text = json!([metadata, {"instances": 1}]).to_string();
        std::fs::write(instances.join(format!("i{number}")), text).unwrap();
    }
    let in_use = |instance: &str| Node { instance: Some(instance.to_owned()), ..node(NodeState::InUse, "a") };
    let nodes = [
        ("known", in_use("i0")),
        ("with-another", in_use("i9")),
        ("building", node(NodeState::Building, "a")),
    ];
    for (id, node) in nodes {
        worker.tools.shared.lock().world.set_node(id, Some(node), false);
    }
    let look = |complete: bool| {
        worker.tools.shared.lock().complete = complete;
        let cancel = Arc::new(StopSource::new());
        let mut survey = Survey { tools: Arc::clone(&worker.tools), generation: None, cancel };
        let source = StopSource::new();
        let found = nodepool_threads::Job::run(&mut survey, &source.token()).unwrap();
        (found.facts.limits.get("instances"), found.leaked)
    };
    let leaked = [("i1", "unknown"), ("i3", "with-another")]
        .map(|(id, node)| Leaked { external_id: id.to_owned(), node: node.to_owned() });
    assert_eq!(look(true), (Some(7), leaked.into()));
    // As long as records may be unread nobody knows.
    assert_eq!(look(false), (Some(9), vec![]));
    std::fs::remove_dir_all(instances).unwrap();
}

/// It rested until the next round of the launcher thread.
#[test]
fn a_request_that_cannot_be_gone_on_with_is_abandoned_at_once() {
    let mut idle = Idle::new(json!({"name": "cloud", "pools": []}));
    let worker = &mut idle.worker;
    let tools = Arc::clone(&worker.tools);
    let task = Task::Decline { tools: Arc::clone(&tools), pool: "main".to_owned(), reasons: Vec::new() };
    worker.begin("1".to_owned(), "main".to_owned(), task);
    worker.fail("1", &Task::Begun);
    assert!(tools.shared.lock().abandoned.contains_key("1"));
}
