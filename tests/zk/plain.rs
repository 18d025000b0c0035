//! The session with a server that works.

use std::time::{Duration, Instant};

use nodepool::zk::{Session, ZkErrorKind, optional};

use super::proxy::{Mode as Net, Proxy};
use super::{SOON, T, config, connect, log, open, owner};
use crate::support::{Sandbox, eventually, shared};

#[test]
fn znodes_are_made_read_written_and_deleted_by_version() {
    let sandbox = Sandbox::new("zk::plain::crud");
    let (session, _thread) = open(&sandbox);
    session.create("/a", b"one").unwrap();
    assert!(session.create("/a", b"one").unwrap_err().is(ZkErrorKind::NodeExists));
    assert!(session.create("/x/y", b"").unwrap_err().is(ZkErrorKind::NoNode));
    let (data, stat) = session.get("/a").unwrap();
    assert_eq!((data.as_slice(), stat.version, stat.children), (&b"one"[..], 0, 0));
    assert!(stat.created() > 1.6e9);
    assert_eq!(session.set("/a", b"two", 0).unwrap(), 1);
    let conflict = session.set("/a", b"three", 0).unwrap_err();
    assert!(conflict.is(ZkErrorKind::BadVersion) && conflict.to_string().contains("/a"), "{conflict}");
    assert!(session.delete("/a", Some(0)).unwrap_err().is(ZkErrorKind::BadVersion));
    assert_eq!(sandbox.zk().get("/a").unwrap().data, b"two");
    session.delete("/a", Some(1)).unwrap();
    assert!(session.delete("/a", None).unwrap_err().is(ZkErrorKind::NoNode));
    assert_eq!(optional(session.get("/a")).unwrap(), None);
    assert_eq!(session.stat("/a").unwrap(), None);
    let made = session.create_ephemeral("/n-", b"").unwrap();
    assert_eq!(made, "/n-0000000001");
    assert_eq!(session.children("/").unwrap(), ["n-0000000001"]);
}

#[test]
fn a_chroot_of_several_levels_is_made_when_it_is_missing() {
    let sandbox = Sandbox::new("zk::plain::chroot");
    let chroot = format!("{}/x/y/z", sandbox.chroot());
    let (session, _thread) = connect(&config(sandbox.server().plain_port(), &chroot, T));
    assert!(session.get("/a").unwrap_err().is(ZkErrorKind::NoNode));
    session.ensure_path("/a/b/c").unwrap();
    session.ensure_path("/a/b/c").unwrap();
    assert!(sandbox.zk().exists("/x/y/z/a/b/c"));
}

#[test]
fn a_tree_is_deleted_whole_and_twice() {
    let sandbox = Sandbox::new("zk::plain::tree");
    let (session, _thread) = open(&sandbox);
    for path in ["/a/b/c", "/a/b/d", "/a/e"] {
        session.ensure_path(path).unwrap();
    }
    assert!(session.delete("/a", None).unwrap_err().is(ZkErrorKind::NotEmpty));
    session.delete_tree("/a").unwrap();
    session.delete_tree("/a").unwrap();
    assert!(!sandbox.zk().exists("/a"));
}

#[test]
fn data_that_are_too_large_are_refused_without_losing_the_connection() {
    let sandbox = Sandbox::new("zk::plain::large");
    let (session, _thread) = open(&sandbox);
    let before = session.status();
    for size in [1_000_001, 5_000_000] {
        let error = session.create("/a", &vec![b'x'; size]).unwrap_err();
        assert!(error.is(ZkErrorKind::Refused) && error.to_string().contains(&size.to_string()), "{error}");
    }
    let largest = vec![b'x'; 1_000_000];
    session.create("/a", &largest).unwrap();
    assert_eq!(session.get("/a").unwrap().0, largest);
    assert_eq!(session.status(), before);
}

#[test]
fn eight_threads_may_call_at_the_same_time() {
    let sandbox = Sandbox::new("zk::plain::threads");
    let (session, _thread) = open(&sandbox);
    let before = session.status();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let session = &session;
            scope.spawn(move || {
                for round in 0..50 {
                    let (path, data) = (format!("/{thread}-{round}"), vec![b'x'; 1000 * round]);
                    session.create(&path, &data).unwrap();
                    assert_eq!(session.get(&path).unwrap().0, data);
                }
            });
        }
    });
    assert_eq!(session.status(), before);
}

#[test]
fn an_idle_session_is_kept() {
    let sandbox = Sandbox::new("zk::plain::idle");
    let port = sandbox.server().plain_port();
    let (session, _thread) = connect(&config(port, sandbox.chroot(), T));
    let path = session.create_ephemeral("/e", b"").unwrap();
    let (changes, before) = (session.subscribe(), session.status());
    assert!(changes.recv_timeout(3 * T).is_err(), "the status of an idle session has changed");
    assert_eq!(session.status(), before);
    assert_ne!(owner(sandbox.server(), sandbox.chroot(), &path), None);
}

/// The crate restarts its ping timer with each event, and would let the session expire.
#[test]
fn a_session_that_only_gets_events_is_kept() {
    let sandbox = Sandbox::new("zk::plain::events");
    let (session, _thread) = connect(&config(sandbox.server().plain_port(), sandbox.chroot(), T));
    let path = session.create_ephemeral("/e", b"").unwrap();
    let (tree, changes) = nodepool::zk::TreeCache::start(&session, "/tree", &log()).unwrap();
    changes.recv_timeout(SOON).unwrap();
    let (statuses, before) = (session.subscribe(), session.status());
    let (zk, began) = (sandbox.zk(), Instant::now());
    let mut rounds = 0;
    // Contenders are copied from the event alone, so nothing is asked of the server.
    while began.elapsed() < 3 * T {
        let name = format!("/tree/lock/{rounds:032x}__lock__{rounds:010}");
        zk.create(&name, "");
        eventually(SOON, "the contender in the copy", || {
            tree.look(|root| root.is_locked("lock")).then_some(())
        });
        zk.delete(&name);
        rounds += 1;
        assert!(statuses.try_recv().is_err(), "the status has changed to {:?}", session.status());
    }
    eprintln!("{rounds} rounds");
    assert_eq!(session.status(), before);
    assert!(zk.exists(&path));
}

#[test]
fn dropping_the_owner_closes_the_session_at_once() {
    let sandbox = Sandbox::new("zk::plain::drop");
    let (session, thread) = open(&sandbox);
    let path = session.create_ephemeral("/e", b"").unwrap();
    // Even a copy that is still at work does not hold it up.
    let (_tree, changes) = nodepool::zk::TreeCache::start(&session, "/tree", &log()).unwrap();
    changes.recv_timeout(SOON).unwrap();
    let zk = sandbox.zk();
    let began = Instant::now();
    drop(thread);
    eprintln!("dropped in {:?}", began.elapsed());
    assert!(!zk.exists(&path));
    assert!(began.elapsed() < Duration::from_millis(500), "{:?}", began.elapsed());
    assert!(session.get("/tree").unwrap_err().is(ZkErrorKind::Unavailable));
    assert!(began.elapsed() < T);
}

#[test]
fn a_lock_may_be_wanted_before_the_first_connection() {
    let sandbox = Sandbox::new("zk::plain::early");
    let config = config(sandbox.server().plain_port(), sandbox.chroot(), SOON);
    let (session, _thread) = Session::start(&config, &log()).unwrap();
    assert!(nodepool::zk::Lock::try_acquire(&session, "", "lock", "test").unwrap().is_some());
}

/// A server without a quorum takes connections and closes them.
#[test]
fn servers_that_refuse_are_not_overrun() {
    let proxy = Proxy::before(shared().plain_port());
    proxy.set(Net::Refuse);
    let (session, _thread) = Session::start(&config(proxy.port(), "", T), &log()).unwrap();
    let error = session.wait_connected(Duration::from_secs(3)).unwrap_err().to_string();
    assert!(error.contains(&format!("127.0.0.1:{}: the server closed", proxy.port())), "{error}");
    eprintln!("{} attempts", proxy.accepted());
    assert!((3..=20).contains(&proxy.accepted()), "{} attempts", proxy.accepted());
    proxy.set(Net::Pass);
    session.wait_connected(SOON).unwrap();
}
