//! Every thread of the program is started here, under a name and a role, and says what it is doing.
//!
//! The registry answers "what is this daemon doing right now?" without stopping anything: a thread that
//! starts something worth naming holds an [`Activity`] for as long as it lasts. Threads end by being
//! joined: a [`Thread`] that is dropped is waited for.

use std::borrow::Cow;
use std::cell::RefCell;
use std::io;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use parking_lot::Mutex;

static REGISTRY: Mutex<Vec<Arc<Entry>>> = Mutex::new(Vec::new());

thread_local! {
    static CURRENT: RefCell<Option<Arc<Entry>>> = const { RefCell::new(None) };
}

struct Entry {
    name: String,
    role: &'static str,
    id: u32,
    started: Instant,
    activities: Mutex<Vec<(Cow<'static, str>, Instant)>>,
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
    /// What it is doing and for how long, innermost last; empty when it waits for work.
    pub activities: Vec<(String, Duration)>,
}

/// A running thread. Joined when dropped, so the owner must have told it to end before.
#[derive(Debug)]
pub struct Thread<T> {
    handle: Option<JoinHandle<T>>,
}

/// Starts a thread. Fails only if the system has no room for another one.
pub fn spawn<T: Send + 'static>(
    name: impl Into<String>,
    role: &'static str,
    run: impl FnOnce() -> T + Send + 'static,
) -> io::Result<Thread<T>> {
    let name = name.into();
    let handle = thread::Builder::new().name(name.clone()).spawn(move || {
        let _registered = Registered::enter(name, role);
        run()
    })?;
    Ok(Thread { handle: Some(handle) })
}

impl<T> Thread<T> {
    /// Waits for the thread to end. The error is the value that it panicked with.
    pub fn join(mut self) -> thread::Result<T> {
        match self.handle.take() {
            Some(handle) => handle.join(),
            None => unreachable!("only join and drop take the handle, and both own the thread"),
        }
    }

    /// Whether the thread has ended.
    pub fn is_finished(&self) -> bool {
        self.handle.as_ref().is_none_or(JoinHandle::is_finished)
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
        let id = rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs();
        let entry = Arc::new(Entry { name, role, id, started: Instant::now(), activities: Mutex::default() });
        REGISTRY.lock().push(Arc::clone(&entry));
        CURRENT.with(|current| current.replace(Some(Arc::clone(&entry))));
        Self(entry)
    }
}

impl Drop for Registered {
    fn drop(&mut self) {
        CURRENT.with(|current| current.take());
        REGISTRY.lock().retain(|entry| !Arc::ptr_eq(entry, &self.0));
    }
}

/// Says what the current thread is doing, until it is dropped. Activities nest.
#[derive(Debug)]
pub struct Activity(());

/// Begins an activity of the current thread.
pub fn activity(what: impl Into<Cow<'static, str>>) -> Activity {
    CURRENT.with(|current| {
        if let Some(entry) = current.borrow().as_ref() {
            entry.activities.lock().push((what.into(), Instant::now()));
        }
    });
    Activity(())
}

impl Drop for Activity {
    fn drop(&mut self) {
        CURRENT.with(|current| {
            if let Some(entry) = current.borrow().as_ref() {
                entry.activities.lock().pop();
            }
        });
    }
}

/// All registered threads, in the order in which they started.
pub fn threads() -> Vec<ThreadInfo> {
    let entries = REGISTRY.lock().clone();
    let info = |entry: &Arc<Entry>| ThreadInfo {
        name: entry.name.clone(),
        role: entry.role,
        id: entry.id,
        age: entry.started.elapsed(),
        activities: entry
            .activities
            .lock()
            .iter()
            .map(|(what, since)| (what.clone().into_owned(), since.elapsed()))
            .collect(),
    };
    entries.iter().map(info).collect()
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
        let what: Vec<_> = info.activities.iter().map(|(what, _)| what.as_str()).collect();
        assert_eq!(what, ["building debian", "waiting for dib"]);
        drop(go_on);
        thread.join().unwrap();
        assert!(find("registry-test").is_none());
    }

    #[test]
    fn a_panicking_thread_leaves_the_registry_and_is_reported_by_join() {
        let thread = spawn("registry-panic", "tester", || panic!("on purpose")).unwrap();
        assert!(thread.join().is_err());
        assert!(find("registry-panic").is_none());
    }
}
