//! The launcher thread without its thread, and without a ZooKeeper.

use std::fmt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crossbeam_channel::{Receiver, bounded, unbounded};
use serde_json::{Value, json};
use slog::{Drain, KV as _, Key, Never, OwnedKVList, Record, Serializer};

use super::*;
use crate::config::{ConfigFiles, Env};
use crate::zk::{IMAGES, NODES, POOLS, REQUESTS, SessionThread};

/// For what takes milliseconds on an idle machine.
const SOON: Duration = Duration::from_secs(40);

/// A log in which a thread of this name panics with what it says, as long as it is a trap.
struct Log {
    victim: &'static str,
    is_trap: Arc<AtomicBool>,
    lines: Sender<String>,
}

impl Drain for Log {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, _: &OwnedKVList) -> Result<(), Never> {
        let is_victim = thread::current().name() == Some(self.victim);
        assert!(!(is_victim && self.is_trap.load(Ordering::SeqCst)), "on purpose");
        let mut line = Line(format!("{} {}", record.level(), record.msg()));
        record.kv().serialize(record, &mut line).unwrap();
        let _ = self.lines.send(line.0);
        Ok(())
    }
}

struct Line(String);

impl Serializer for Line {
    fn emit_arguments(&mut self, key: Key, value: &fmt::Arguments<'_>) -> slog::Result {
        self.0.push_str(&format!(" {key}={value}"));
        Ok(())
    }
}

/// A launcher that takes its steps when a test says so.
struct Steps {
    // Dropped first: what waits for a connection then ends.
    _thread: SessionThread,
    launcher: Launcher,
    nudged: Receiver<()>,
    is_trap: Arc<AtomicBool>,
    lines: Receiver<String>,
}

impl Steps {
    /// One that has this provider, of whose threads one panics.
    fn new(provider: &Value, victim: &'static str) -> Self {
        let (is_trap, (line, lines)) = (Arc::new(AtomicBool::new(true)), unbounded());
        let log = Logger::root(Log { victim, is_trap: Arc::clone(&is_trap), lines: line }, o!());
        let file = std::env::temp_dir().join(format!("nodepool-launcher-{}", Uuid::new_v4()));
        let servers = json!([{"host": "127.0.0.1", "port": 1}]);
        let labels = json!([{"name": "small"}]);
        let config = json!({"zookeeper-servers": servers, "labels": labels, "providers": [provider]});
        std::fs::write(&file, config.to_string()).unwrap();
        let loaded = ConfigFiles::new(file.clone(), None, Env::default()).load().unwrap();
        std::fs::remove_file(file).unwrap();

        let (session, thread) = Session::start(&loaded.config.zookeeper, &log).unwrap();
        let tree = |root| TreeCache::start(&session, root, &log).unwrap().0;
        let (for_jobs, interrupter) = session.interruptible();
        let (nudge, nudged) = bounded(1);
        let launcher = Launcher {
            config: Arc::new(loaded.config.clone()),
            hostname: "host".to_owned(),
            interrupter,
            nodes: Nodes::new(&for_jobs, "test"),
            requests: Requests::new(&for_jobs, "test"),
            trees: Trees {
                nodes: tree(NODES),
                requests: tree(REQUESTS),
                pools: tree(POOLS),
                images: tree(IMAGES),
            },
            shared: Arc::new(Shared::new()),
            membership: Arc::new(Membership::start(&session, BTreeMap::new(), &log).unwrap()),
            errands: Pool::start("errand-worker", "errands", 1).unwrap().0,
            nudge,
            stats: Stats::default(),
            web_settings: Followed::new(&loaded.config.launcher.webapp).unwrap(),
            reload: Reload::new(&loaded, &log),
            log,
            own: Own::default(),
            session,
        };
        let mut steps = Self { launcher, nudged, is_trap, lines, _thread: thread };
        steps.launcher.follow_config();
        steps
    }

    /// Takes a step at each nudge until this is so.
    fn wait(&mut self, what: &str, holds: impl Fn(&Launcher) -> bool) {
        let late = Instant::now() + SOON;
        while !holds(&self.launcher) {
            assert!(self.nudged.recv_deadline(late).is_ok() && Instant::now() < late, "not nudged: {what}");
            self.launcher.step();
        }
    }

    /// The thread has panicked: its provider is given up, and opened anew after a pause.
    fn comes_back(mut self, provider: &str, bug: &str) {
        let pools = |launcher: &Launcher| launcher.membership.keys().len();
        let is_given_up = |Launcher { own, .. }: &Launcher| own.workers.is_empty() && own.retiring.is_empty();
        self.wait("the provider to be given up", is_given_up);
        assert_eq!(pools(&self.launcher), 0);
        let bugs: Vec<_> = self.lines.try_iter().filter(|line| line.contains("this is a bug")).collect();
        assert_eq!(bugs, [bug]);
        let is_told = |launcher: &Launcher| {
            let troubles = launcher.shared.lock().board.copy().troubles;
            troubles.get(provider).is_some_and(|trouble| trouble.what == "a thread of it has ended by itself")
        };
        assert!(is_told(&self.launcher) && self.launcher.shared.lock().own_pools.is_empty());
        // It could panic at once again.
        self.launcher.step();
        self.launcher.follow_config();
        assert!(self.launcher.own.workers.is_empty() && self.launcher.deadline() > Instant::now());
        assert!(self.launcher.own.departed.is_empty(), "the nodes of its machines are still its own");

        self.is_trap.store(false, Ordering::SeqCst);
        let due = self.launcher.own.reopen[provider];
        assert!(due <= Instant::now() + OPEN_PAUSE);
        self.launcher.own.reopen.insert(provider.to_owned(), Instant::now());
        self.launcher.step();
        let worker = &self.launcher.own.workers[provider];
        assert!(!worker.is_over() && worker.tools.keeper.as_ref().is_none_or(|keeper| !keeper.is_over()));
        assert!(!is_told(&self.launcher) && !self.launcher.shared.lock().own_pools.is_empty());
        let late = Instant::now() + SOON;
        while pools(&self.launcher) == 0 {
            assert!(Instant::now() < late, "not registered again");
            thread::sleep(Duration::from_millis(5));
        }
    }
}

/// Its pools stayed registered and looked as if they served requests, for ever.
#[test]
fn a_provider_whose_thread_panics_is_given_up_and_opened_anew() {
    let cloud = json!({
        "name": "cloud", "driver": "fake", "cloud": "fake", "cloud-images": [{"name": "image"}],
        // What it cannot say it is warned of, by the provider's thread.
        "fake": {"state-dir": "/nonexistent/nodepool"},
        "pools": [{"name": "main", "labels": [{"name": "small", "cloud-image": "image"}]}],
    });
    let bug = "ERRO a thread of the provider has ended by itself; this is a bug thread=provider-cloud provider=cloud";
    Steps::new(&cloud, "provider-cloud").comes_back("cloud", bug);
}

/// Machines that had been used got no new nodes.
#[test]
fn a_provider_whose_keeper_panics_is_given_up_and_opened_anew() {
    let machine = json!({
        "name": "127.0.0.1", "connection-port": 1, "timeout": 1, "labels": "small", "username": "zuul",
    });
    let rack = json!({"name": "rack", "driver": "static", "pools": [{"name": "main", "nodes": [machine]}]});
    let bug =
        "ERRO a thread of the provider has ended by itself; this is a bug thread=standing-rack provider=rack";
    let steps = Steps::new(&rack, "standing-rack");
    // It looks at the machine, and says that it does not answer.
    steps.launcher.own.keepers["rack"].saw_all([]);
    steps.comes_back("rack", bug);
}
