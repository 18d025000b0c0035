//! Locks among us and with kazoo's names.

use std::sync::atomic::{AtomicUsize, Ordering};

use nodepool::zk::Lock;

use super::{SOON, open};
use crate::support::{Sandbox, eventually};

#[test]
fn a_second_contender_is_refused_until_the_first_lets_go() {
    let sandbox = Sandbox::new("zk::locks::two");
    let ((ours, _one), (theirs, _two)) = (open(&sandbox), open(&sandbox));
    let zk = sandbox.zk();
    let lock = Lock::try_acquire(&ours, "", "a/b/lock", "us").unwrap().unwrap();
    let names = zk.children("/a/b/lock");
    assert!(names.len() == 1 && names[0].len() == 32 + 8 + 10, "{names:?}");
    assert_eq!(zk.get(&format!("/a/b/lock/{}", names[0])).unwrap().data, b"us");
    assert!(Lock::try_acquire(&theirs, "", "a/b/lock", "them").unwrap().is_none());
    assert!(Lock::try_acquire(&ours, "", "a/b/lock", "us").unwrap().is_none());
    assert_eq!(zk.children("/a/b/lock"), names, "who is refused leaves nothing behind");
    drop(lock);
    assert!(zk.children("/a/b/lock").is_empty());
    assert!(Lock::try_acquire(&theirs, "", "a/b/lock", "them").unwrap().is_some());
}

#[test]
fn a_lock_goes_with_its_session() {
    let sandbox = Sandbox::new("zk::locks::session");
    let (session, thread) = open(&sandbox);
    let lock = Lock::try_acquire(&session, "", "lock", "us").unwrap().unwrap();
    drop(thread);
    assert!(sandbox.zk().children("/lock").is_empty());
    drop(lock);
}

#[test]
fn kazoos_contenders_and_ours_exclude_each_other() {
    let sandbox = Sandbox::new("zk::locks::kazoo");
    let (session, _thread) = open(&sandbox);
    {
        let zk = sandbox.zk();
        zk.hold_lock("/lock");
        assert!(Lock::try_acquire(&session, "", "lock", "us").unwrap().is_none());
    }
    let lock = eventually(SOON, "the lock of a client that has gone", || {
        Lock::try_acquire(&session, "", "lock", "us").unwrap()
    });
    let zk = sandbox.zk();
    let sequence = |name: &str| name.rsplit_once("__lock__").unwrap().1.to_owned();
    let later = zk.create_ephemeral_sequential("/lock/0123456789abcdef0123456789abcdef__lock__", "");
    let names = zk.children("/lock");
    let first = names.iter().min_by_key(|name| sequence(name)).unwrap();
    assert!(!later.ends_with(first.as_str()), "kazoo takes the lowest number for the holder");
    // What is no contender excludes nobody.
    drop(lock);
    zk.delete(&later);
    zk.create("/lock/README", "");
    assert!(Lock::try_acquire(&session, "", "lock", "us").unwrap().is_some());
}

#[test]
fn of_many_only_one_holds_the_lock() {
    let sandbox = Sandbox::new("zk::locks::many");
    let ((one, _one), (two, _two)) = (open(&sandbox), open(&sandbox));
    let (holders, taken) = (AtomicUsize::new(0), AtomicUsize::new(0));
    std::thread::scope(|scope| {
        for session in [&one, &one, &two, &two] {
            scope.spawn(|| {
                for _ in 0..25 {
                    if let Some(lock) = Lock::try_acquire(session, "", "lock", "us").unwrap() {
                        assert_eq!(holders.fetch_add(1, Ordering::SeqCst), 0, "two holders");
                        lock.session().stat("/lock").unwrap();
                        taken.fetch_add(1, Ordering::SeqCst);
                        holders.fetch_sub(1, Ordering::SeqCst);
                    }
                }
            });
        }
    });
    eprintln!("taken {} times", taken.load(Ordering::SeqCst));
    assert!(taken.load(Ordering::SeqCst) > 0);
    assert!(sandbox.zk().children("/lock").is_empty());
}
