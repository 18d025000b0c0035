//! Every thread of the program is started here, under a name and a role, and says what it is doing.
//!
//! The registry answers "what is this daemon doing right now?" without stopping anything: a thread that
//! starts something worth naming holds an [`Activity`] for as long as it lasts. Threads end by being
//! joined: a [`Thread`] that is dropped is waited for. An activity may have a limit, which the
//! [watchdog](crate::watchdog) looks after.
//!
//! The locks here have no name, because who asks for the named ones asks here for the names of their threads;
//! and they are not parking_lot's, whose queues are shared by all locks, so that a thread which was stopped in
//! one of them would be in the way.
#![allow(clippy::disallowed_types, reason = "said above")]

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::fmt;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, TryLockError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::locks::thread_id;

/// How long who asks what the threads do waits for a lock of the registry. All of them are held for a moment
/// only, but a thread may have been stopped in it.
const PATIENCE: Duration = Duration::from_millis(100);

type Registry = Mutex<Vec<Arc<Entry>>>;

static REGISTRY: Registry = Mutex::new(Vec::new());

thread_local! {
    static CURRENT: RefCell<Option<Arc<Entry>>> = const { RefCell::new(None) };
}

struct Entry {
    name: String,
    role: &'static str,
    id: u32,
    started: Instant,
    activities: Mutex<Vec<Doing>>,
}

/// An activity that is going on.
#[derive(Clone)]
pub(crate) struct Doing {
    /// Its number among all activities.
    pub(crate) number: u64,
    pub(crate) what: Cow<'static, str>,
    pub(crate) since: Instant,
    /// How long it may be expected to take at most.
    pub(crate) limit: Option<Duration>,
}

/// A registered thread as it was at one moment.
#[derive(Debug, Clone)]
pub struct ThreadInfo {
    /// The name, unique by convention: `upload-worker-2`.
    pub name: String,
    /// What kind of work it is there for: `upload worker`.
    pub role: &'static str,
    /// The kernel's thread id.
    pub id: u32,
    /// How long it has been running.
    pub age: Duration,
    /// What it is doing, innermost last; empty when it waits for work.
    pub activities: Vec<Ongoing>,
}

/// An activity as it was at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ongoing {
    /// What the thread was doing.
    pub what: String,
    /// For how long.
    pub since: Duration,
    /// How long it may be expected to take at most.
    pub limit: Option<Duration>,
}

impl Ongoing {
    /// Whether it takes longer than expected.
    pub fn is_overdue(&self) -> bool {
        self.limit.is_some_and(|limit| self.since > limit)
    }
}

impl fmt::Display for Ongoing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} for {:.1} s", self.what, self.since.as_secs_f64())?;
        let Some(limit) = self.limit else { return Ok(()) };
        let overdue = if self.is_overdue() { ", OVERDUE" } else { "" };
        write!(f, " (limit {:.1} s{overdue})", limit.as_secs_f64())
    }
}

/// A running thread. Joined when dropped, so the owner must have told it to end before.
#[derive(Debug)]
pub struct Thread<T> {
    handle: Option<JoinHandle<T>>,
    ended: Receiver<Infallible>,
}

/// Starts a thread. Fails only if the system has no room for another one.
pub fn spawn<T: Send + 'static>(
    name: impl Into<String>,
    role: &'static str,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Thread<T>> {
    let name = name.into();
    let (running, ended) = bounded(0);
    let handle = thread::Builder::new().name(name.clone()).spawn(move || {
        // Dropped at the very end, however the thread ends.
        let _running: Sender<Infallible> = running;
        let _registered = Registered::enter(name, role);
        run()
    })?;
    Ok(Thread { handle: Some(handle), ended })
}

impl<T> Thread<T> {
    /// Waits for the thread to end. The error is the value that it panicked with.
    pub fn join(mut self) -> thread::Result<T> {
        match self.handle.take() {
            Some(handle) => handle.join(),
            None => unreachable!("only join and drop take the handle, and both own the thread"),
        }
    }

    /// Lets the thread go: nobody need join it for its stack to be given back. What is returned reads as disconnected once
    /// it has ended.
    pub fn detach(mut self) -> Receiver<Infallible> {
        // A handle that is dropped detaches its thread.
        drop(self.handle.take());
        self.ended.clone()
    }

    /// Reads as disconnected once the thread has ended.
    pub fn ended(&self) -> &Receiver<Infallible> {
        &self.ended
    }

    /// Waits until the thread has ended, until `deadline` at most. True if it has.
    pub fn ended_by(&self, deadline: Instant) -> bool {
        matches!(self.ended.recv_deadline(deadline), Err(RecvTimeoutError::Disconnected))
    }
}

impl<T> Drop for Thread<T> {
    fn drop(&mut self) {
        if let Some(handle) = self.handle.take() {
            // A panic has been printed by the panic hook, and there is nobody here to tell again. A
            // thread that drops its own handle would wait for itself for ever.
            if handle.thread().id() != thread::current().id() {
                let _ = handle.join();
            }
        }
    }
}

/// Registers the thread that the program started with, under the name `main`.
pub fn register_main() -> impl Sized {
    Registered::enter("main".to_owned(), "main")
}

struct Registered(Arc<Entry>);

impl Registered {
    fn enter(name: String, role: &'static str) -> Self {
        let id = thread_id();
        let entry = Arc::new(Entry { name, role, id, started: Instant::now(), activities: Mutex::default() });
        lock(&REGISTRY).push(Arc::clone(&entry));
        CURRENT.with(|current| current.replace(Some(Arc::clone(&entry))));
        Self(entry)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        CURRENT.with(|current| current.take());
        lock(&REGISTRY).retain(|entry| !Arc::ptr_eq(entry, &self.0));
    }
}

/// Says what the current thread is doing, until it is dropped. Activities nest.
#[derive(Debug)]
#[must_use = "the activity ends when this is dropped"]
pub struct Activity(u64);

/// Begins an activity of the current thread.
pub fn activity(what: impl Into<Cow<'static, str>>) -> Activity {
    begin(what.into(), None)
}

/// Begins an activity that is over after `limit` at the latest, unless something is wrong: what the thread
/// does has that limit itself. The [watchdog](crate::Watchdog) reports it when it goes on regardless.
pub fn activity_within(limit: Duration, what: impl Into<Cow<'static, str>>) -> Activity {
    begin(what.into(), Some(limit))
}

fn begin(what: Cow<'static, str>, limit: Option<Duration>) -> Activity {
    static LAST: AtomicU64 = AtomicU64::new(0);
    let number = LAST.fetch_add(1, Ordering::Relaxed);
    CURRENT.with(|current| {
        if let Some(entry) = current.borrow().as_ref() {
            lock(&entry.activities).push(Doing { number, what, since: Instant::now(), limit });
        }
    });
    Activity(number)
}

impl Activity {
    /// Says it in other words, such as how far it is. Of no effect on another thread than the activity's own.
    pub fn becomes(&self, what: impl Into<Cow<'static, str>>) {
        let what = what.into();
        CURRENT.with(|current| {
            if let Some(entry) = current.borrow().as_ref() {
                let mut activities = lock(&entry.activities);
                if let Some(doing) = activities.iter_mut().find(|doing| doing.number == self.0) {
                    doing.what = what;
                }
            }
        });
    }
}

impl Drop for Activity {
    fn drop(&mut self) {
        CURRENT.with(|current| {
            if let Some(entry) = current.borrow().as_ref() {
                lock(&entry.activities).retain(|doing| doing.number != self.0);
            }
        });
    }
}

// A panic leaves nothing half done here.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The lock, unless its holder keeps it for longer than [`PATIENCE`].
fn lock_in_time<T>(mutex: &Mutex<T>) -> Option<MutexGuard<'_, T>> {
    let begin = Instant::now();
    loop {
        match mutex.try_lock() {
            Ok(guard) => return Some(guard),
            Err(TryLockError::Poisoned(poisoned)) => return Some(poisoned.into_inner()),
            Err(TryLockError::WouldBlock) if begin.elapsed() < PATIENCE => thread::yield_now(),
            Err(TryLockError::WouldBlock) => return None,
        }
    }
}

/// All registered threads; none if the registry cannot be read.
fn entries(registry: &Registry) -> Option<Vec<Arc<Entry>>> {
    lock_in_time(registry).map(|registry| registry.clone())
}

impl Entry {
    /// What the thread is doing, innermost last; none if that cannot be read.
    fn doing(&self) -> Option<Vec<Doing>> {
        lock_in_time(&self.activities).map(|activities| activities.clone())
    }
}

/// All registered threads, in the order in which they started. Waits for no other thread: what a thread that
/// was stopped at the wrong moment does not let be read is left out.
pub fn threads() -> Vec<ThreadInfo> {
    threads_in(&REGISTRY)
}

fn threads_in(registry: &Registry) -> Vec<ThreadInfo> {
    let info = |entry: &Arc<Entry>| ThreadInfo {
        name: entry.name.clone(),
        role: entry.role,
        id: entry.id,
        age: entry.started.elapsed(),
        activities: entry
            .doing()
            .unwrap_or_default()
            .into_iter()
            .map(|doing| Ongoing {
                what: doing.what.into_owned(),
                since: doing.since.elapsed(),
                limit: doing.limit,
            })
            .collect(),
    };
    entries(registry).unwrap_or_default().iter().map(info).collect()
}

/// The names of the registered threads by the kernel's thread ids.
pub(crate) fn names() -> BTreeMap<u32, String> {
    entries(&REGISTRY).unwrap_or_default().iter().map(|entry| (entry.id, entry.name.clone())).collect()
}

/// What all threads are doing that has a limit.
#[derive(Default)]
pub(crate) struct Limited {
    /// Each with the thread's id and name.
    pub(crate) activities: Vec<(u32, String, Doing)>,
    /// The threads of which it cannot be read at present.
    pub(crate) unread: Vec<u32>,
}

/// What all threads are doing that has a limit. None if not even the threads can be read at present.
pub(crate) fn limited_activities() -> Option<Limited> {
    limited_in(&REGISTRY)
}

fn limited_in(registry: &Registry) -> Option<Limited> {
    let mut limited = Limited::default();
    for entry in entries(registry)? {
        let Some(doing) = entry.doing() else {
            limited.unread.push(entry.id);
            continue;
        };
        let doing = doing.into_iter().filter(|doing| doing.limit.is_some());
        limited.activities.extend(doing.map(|doing| (entry.id, entry.name.clone(), doing)));
    }
    Some(limited)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crossbeam_channel::bounded;

    fn find(name: &str) -> Option<ThreadInfo> {
        threads().into_iter().find(|thread| thread.name == name)
    }

    #[test]
    fn a_thread_is_listed_with_its_activities_while_it_runs() {
        let (at_work, seen) = bounded(0);
        let (go_on, wait) = bounded::<()>(0);
        let thread = spawn("registry-test", "tester", move || {
            let _outer = activity("building debian");
            let _inner = activity(format!("waiting for {}", "dib"));
            at_work.send(()).unwrap();
            let _ = wait.recv();
        })
        .unwrap();
        seen.recv().unwrap();
        let info = find("registry-test").unwrap();
        assert_eq!(info.role, "tester");
        let what: Vec<_> = info.activities.iter().map(|doing| doing.what.as_str()).collect();
        assert_eq!(what, ["building debian", "waiting for dib"]);
        drop(go_on);
        thread.join().unwrap();
        assert!(find("registry-test").is_none());
    }

    /// A registry with one thread for each name, which does what it is called within a second.
    ///
    /// The one of the process is not for tests that stop somebody in it: other tests look there meanwhile.
    fn registry_of(names: [&str; 2]) -> &'static Registry {
        let entry = |name: &str| {
            let (what, limit) = (Cow::Owned(name.to_owned()), Some(Duration::from_secs(1)));
            let activities = vec![Doing { number: 0, what, since: Instant::now(), limit }].into();
            let id = u32::from(name.as_bytes()[0]);
            Arc::new(Entry { name: name.to_owned(), role: "tester", id, started: Instant::now(), activities })
        };
        Box::leak(Box::new(Mutex::new(names.map(entry).to_vec())))
    }

    /// What another thread finds, and within what time it must.
    fn found_by_another<T: Send + 'static>(find: impl FnOnce() -> T + Send + 'static) -> T {
        let (tell, told) = bounded(1);
        thread::spawn(move || tell.send(find()));
        told.recv_timeout(Duration::from_secs(20)).unwrap()
    }

    #[test]
    fn who_asks_for_the_threads_is_not_held_up_by_one_that_was_stopped_in_the_registry() {
        let registry = registry_of(["a", "b"]);
        assert_eq!(threads_in(registry).len(), 2);
        let _held = lock(registry);
        let found = found_by_another(|| (threads_in(registry).len(), limited_in(registry).is_none()));
        assert_eq!(found, (0, true));
    }

    #[test]
    fn a_thread_that_was_stopped_beginning_an_activity_hides_what_it_does_but_not_what_others_do() {
        let registry = registry_of(["a", "b"]);
        let first = Arc::clone(&lock(registry)[0]);
        let _held = lock(&first.activities);
        let (infos, limited) =
            found_by_another(|| (threads_in(registry), limited_in(registry).unwrap_or_default()));
        let doing: Vec<_> = infos.iter().map(|info| (info.name.as_str(), info.activities.len())).collect();
        assert_eq!(doing, [("a", 0), ("b", 1)]);
        let names: Vec<_> = limited.activities.iter().map(|(_, name, _)| name.as_str()).collect();
        assert_eq!((names, limited.unread), (vec!["b"], vec![first.id]));
    }

    #[test]
    fn a_panicking_thread_leaves_the_registry_and_is_reported_by_join() {
        let thread = spawn("registry-panic", "tester", || panic!("on purpose")).unwrap();
        assert!(thread.join().is_err());
        assert!(find("registry-panic").is_none());
    }
}
