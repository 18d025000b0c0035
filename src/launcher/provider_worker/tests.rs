use crossbeam_channel::{bounded, never};
use nodepool_drivers::api::{Problems, Table, Value};
use serde_json::json;
use slog::{Discard, o};

use super::*;
use crate::config::{Server, ZooKeeperConfig};
use crate::launcher::key_scan::SshKeyScan;
use crate::launcher::shared::Shared;
use crate::stats::Stats;
use crate::zk::{Nodes, Requests, SessionThread};

/// A worker that nobody runs, without a ZooKeeper.
struct Idle {
    worker: Worker,
    session: Session,
    _inbox: Inbox,
    _thread: SessionThread,
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
    let value: Value = serde_json::from_value(section).unwrap();
    let problems = Problems::new();
    let fake = nodepool_drivers::drivers().iter().find(|driver| driver.name() == "fake").unwrap();
    let config = fake.configure(&Table::new(&value, "providers[0]", &problems).unwrap()).unwrap();
    Arc::new(Tools {
        name: "cloud".to_owned(),
        provider: config.open(&log).unwrap(),
        config,
        keeper: None,
        nodes: Nodes::new(session, "test"),
        requests: Requests::new(session, "test"),
        shared: Arc::new(Shared::new()),
        ids: BTreeMap::new(),
        keys: Arc::new(SshKeyScan),
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
