//! What goes on, for those who look at the launcher: which requests it serves, what is being launched, what has failed
//! lately, and how often. Nothing is decided by it. Of what a provider has said there is only the kind: the rest is for
//! the log.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use nodepool_drivers::api::ErrorKind;

use super::shared::Shared;
use crate::model::now;

/// How many failed launches are remembered.
const REMEMBERED: usize = 20;

/// The board.
#[derive(Debug, Default)]
pub(super) struct Board {
    next: u64,
    launches: BTreeMap<u64, Launching>,
    serving: BTreeMap<String, PoolName>,
    failures: VecDeque<LaunchFailure>,
    counts: BTreeMap<(String, &'static str), u64>,
    troubles: BTreeMap<String, Trouble>,
    stuck: BTreeMap<String, StuckNode>,
}

/// A pool of a provider.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PoolName {
    /// The provider's name.
    pub provider: String,
    /// The pool's.
    pub pool: String,
}

/// A node that is being launched. Times are UNIX seconds.
#[derive(Debug, Clone)]
pub struct Launching {
    /// Where.
    pub at: PoolName,
    /// The label that it is launched as.
    pub label: String,
    /// The request that it is for.
    pub request: String,
    /// Its id, once it has a record.
    pub node: Option<String>,
    /// Which attempt it is, and of how many.
    pub attempt: (u64, u64),
    /// When the first attempt has begun.
    pub since: f64,
    /// How long an attempt may take.
    pub limit: Duration,
}

/// A launch that has failed.
#[derive(Debug, Clone)]
pub struct LaunchFailure {
    /// What was launched, with the attempt that has failed.
    pub launch: Launching,
    /// When, UNIX seconds.
    pub when: f64,
    /// Why.
    pub fault: Fault,
}

/// Why a launch has failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// The provider has no room.
    NoRoom,
    /// It was not ready in time.
    Timeout,
    /// Its host keys could not be read.
    Keys,
    /// The session with ZooKeeper was lost, and the lock with it.
    Session,
    /// The provider had made an instance of it, which has failed.
    Instance,
    /// The provider has refused or failed.
    Provider(ErrorKind),
}

impl Fault {
    /// All that [`Fault::name`] answers.
    pub const NAMES: [&'static str; 6] = ["quota", "timeout", "keyscan", "session", "status", "error"];

    /// Of a launch that the provider has not carried out.
    pub(super) fn of(kind: ErrorKind) -> Self {
        match kind {
            ErrorKind::Quota => Self::NoRoom,
            ErrorKind::Timeout => Self::Timeout,
            other => Self::Provider(other),
        }
    }

    /// In a word, as metrics have it.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoRoom => "quota",
            Self::Timeout => "timeout",
            Self::Keys => "keyscan",
            Self::Session => "session",
            Self::Instance => "status",
            Self::Provider(_) => "error",
        }
    }

    /// As the end of a sentence about a node.
    pub fn text(self) -> &'static str {
        match self {
            Self::NoRoom => "the provider has no room for it",
            Self::Timeout => "it was not there in time",
            Self::Keys => "its host keys could not be read",
            Self::Session => "the session with ZooKeeper was lost",
            Self::Instance => "its instance has failed at the provider",
            Self::Provider(ErrorKind::Unavailable) => "the provider cannot be reached",
            Self::Provider(ErrorKind::RateLimited) => "the provider asks for fewer calls",
            Self::Provider(ErrorKind::Permanent | ErrorKind::NotFound) => "the provider has refused",
            Self::Provider(_) => "the provider has failed",
        }
    }
}

/// A provider that cannot be used, or only as it stood before.
#[derive(Debug, Clone)]
pub struct Trouble {
    /// As the end of a sentence about a provider.
    pub what: &'static str,
    /// Since when, UNIX seconds.
    pub since: f64,
}

/// A node that the provider does not delete.
#[derive(Debug, Clone)]
pub struct StuckNode {
    /// The provider's name.
    pub provider: String,
    /// Since when, UNIX seconds.
    pub since: f64,
    /// How often it was tried.
    pub times: u64,
}

/// A copy of the board.
#[derive(Debug, Clone, Default)]
pub struct Goings {
    /// What is being launched.
    pub launches: Vec<Launching>,
    /// The requests that this launcher serves, with the pools that do.
    pub serving: BTreeMap<String, PoolName>,
    /// The last launches that have failed, the latest first.
    pub failures: Vec<LaunchFailure>,
    /// How often attempts to launch have come to what, by provider; what is `ready` or the name of a fault.
    pub counts: BTreeMap<(String, &'static str), u64>,
    /// Providers that cannot be used.
    pub troubles: BTreeMap<String, Trouble>,
    /// Nodes that cannot be deleted, by their ids.
    pub stuck: BTreeMap<String, StuckNode>,
}

impl Board {
    pub(super) fn copy(&self) -> Goings {
        Goings {
            launches: self.launches.values().cloned().collect(),
            serving: self.serving.clone(),
            failures: self.failures.iter().rev().cloned().collect(),
            counts: self.counts.clone(),
            troubles: self.troubles.clone(),
            stuck: self.stuck.clone(),
        }
    }

    /// A provider has this trouble, or none, at this time, UNIX seconds.
    pub(super) fn set_trouble(&mut self, provider: &str, what: Option<&'static str>, at: f64) {
        match what {
            Some(what) if self.troubles.get(provider).is_none_or(|known| known.what != what) => {
                self.troubles.insert(provider.to_owned(), Trouble { what, since: at });
            }
            Some(_) => {}
            None => _ = self.troubles.remove(provider),
        }
    }

    /// Forgets the troubles of providers that are not configured any more.
    pub(super) fn keep_troubles(&mut self, keep: impl Fn(&str) -> bool) {
        self.troubles.retain(|provider, _| keep(provider));
        self.stuck.retain(|_, node| keep(&node.provider));
    }

    /// A node could not be deleted at its provider, or it could.
    pub(super) fn set_stuck(&mut self, node: &str, provider: &str, stuck: bool) {
        if !stuck {
            self.stuck.remove(node);
            return;
        }
        let new = || StuckNode { provider: provider.to_owned(), since: now(), times: 0 };
        self.stuck.entry(node.to_owned()).or_insert_with(new).times += 1;
    }

    /// Forgets the stuck nodes of a provider that somebody else has deleted.
    pub(super) fn keep_stuck(&mut self, provider: &str, is_there: impl Fn(&str) -> bool) {
        self.stuck.retain(|id, node| node.provider != provider || is_there(id));
    }

    fn count(&mut self, provider: &str, what: &'static str) {
        *self.counts.entry((provider.to_owned(), what)).or_default() += 1;
    }
}

/// The note of a launch; gone with its end.
pub(super) struct LaunchNote {
    shared: Arc<Shared>,
    number: u64,
}

impl LaunchNote {
    /// A launch begins.
    pub(super) fn put(shared: &Arc<Shared>, launch: Launching) -> Self {
        let board = &mut shared.lock().board;
        board.next += 1;
        board.launches.insert(board.next, launch);
        Self { shared: Arc::clone(shared), number: board.next }
    }

    /// It is this attempt now, of a node that has a record.
    pub(super) fn attempt(&self, node: &str, attempt: u64) {
        if let Some(launch) = self.shared.lock().board.launches.get_mut(&self.number) {
            launch.node = Some(node.to_owned());
            launch.attempt.0 = attempt;
        }
    }

    /// The node is ready.
    pub(super) fn succeeded(&self) {
        let board = &mut self.shared.lock().board;
        if let Some(provider) = board.launches.get(&self.number).map(|launch| launch.at.provider.clone()) {
            board.count(&provider, "ready");
        }
    }

    /// The attempt has failed.
    pub(super) fn failed(&self, fault: Fault) {
        let board = &mut self.shared.lock().board;
        let Some(launch) = board.launches.get(&self.number).cloned() else { return };
        board.count(&launch.at.provider, fault.name());
        if board.failures.len() == REMEMBERED {
            board.failures.pop_front();
        }
        board.failures.push_back(LaunchFailure { launch, when: now(), fault });
    }
}

impl Drop for LaunchNote {
    fn drop(&mut self) {
        self.shared.lock().board.launches.remove(&self.number);
    }
}

/// The note of a request that is served; gone with its handler.
pub(super) struct ServingNote {
    shared: Arc<Shared>,
    request: String,
}

impl ServingNote {
    /// A pool serves a request.
    pub(super) fn put(shared: &Arc<Shared>, request: &str, provider: &str, pool: &str) -> Self {
        let name = PoolName { provider: provider.to_owned(), pool: pool.to_owned() };
        shared.lock().board.serving.insert(request.to_owned(), name);
        Self { shared: Arc::clone(shared), request: request.to_owned() }
    }
}

impl Drop for ServingNote {
    fn drop(&mut self) {
        self.shared.lock().board.serving.remove(&self.request);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn launch(shared: &Arc<Shared>) -> LaunchNote {
        let launch = Launching {
            at: PoolName { provider: "p".to_owned(), pool: "main".to_owned() },
            label: "a".to_owned(),
            request: "r".to_owned(),
            node: None,
            attempt: (1, 3),
            since: now(),
            limit: Duration::from_secs(1),
        };
        LaunchNote::put(shared, launch)
    }

    #[test]
    fn a_launch_is_noted_until_its_end_and_its_failures_longer() {
        let shared = Arc::new(Shared::new());
        let note = launch(&shared);
        note.attempt("7", 2);
        note.failed(Fault::Keys);
        let goings = shared.lock().board.copy();
        assert_eq!((goings.launches[0].node.as_deref(), goings.launches[0].attempt), (Some("7"), (2, 3)));
        note.succeeded();
        drop(note);
        let goings = shared.lock().board.copy();
        assert!(goings.launches.is_empty());
        assert_eq!((goings.failures[0].fault, goings.failures[0].launch.attempt), (Fault::Keys, (2, 3)));
        let counts = [(("p".to_owned(), "keyscan"), 1), (("p".to_owned(), "ready"), 1)];
        assert_eq!(goings.counts, counts.into());
    }

    #[test]
    fn only_the_last_failures_are_remembered_the_latest_first() {
        let shared = Arc::new(Shared::new());
        let note = launch(&shared);
        for attempt in 0..100 {
            note.attempt("7", attempt);
            note.failed(Fault::Timeout);
        }
        let failures = shared.lock().board.copy().failures;
        assert_eq!((failures.len(), failures[0].launch.attempt.0), (REMEMBERED, 99));
    }

    #[test]
    fn a_request_is_noted_as_long_as_it_is_served() {
        let shared = Arc::new(Shared::new());
        let note = ServingNote::put(&shared, "r", "p", "main");
        assert_eq!(shared.lock().board.copy().serving["r"].pool, "main");
        drop(note);
        assert!(shared.lock().board.copy().serving.is_empty());
    }

    #[test]
    fn a_trouble_keeps_its_begin_and_a_stuck_node_its_count() {
        let mut board = Board::default();
        board.set_trouble("p", Some("a"), 1.0);
        board.set_trouble("p", Some("a"), 2.0);
        assert_eq!(board.troubles["p"].since, 1.0);
        board.set_trouble("p", Some("b"), 3.0);
        assert_eq!(board.troubles["p"].since, 3.0);
        board.set_trouble("p", None, 4.0);
        board.set_stuck("7", "p", true);
        board.set_stuck("7", "p", true);
        assert_eq!((board.troubles.len(), board.stuck["7"].times), (0, 2));
        board.set_stuck("7", "p", false);
        assert!(board.stuck.is_empty());
    }

    #[test]
    fn a_stuck_node_that_is_gone_is_forgotten() {
        let mut board = Board::default();
        for (node, provider) in [("7", "p"), ("8", "p"), ("9", "q")] {
            board.set_stuck(node, provider, true);
        }
        board.keep_stuck("p", |id| id == "8");
        assert_eq!(board.stuck.keys().collect::<Vec<_>>(), ["8", "9"]);
    }
}
