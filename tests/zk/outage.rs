//! Networks that break while the server lives on.

use std::time::{Duration, Instant};

use nodepool::zk::{
    Component, Connection, Description, Kind, Lock, Session, SessionThread, TreeCache, ZkErrorKind,
};

use super::proxy::{Mode as Net, Proxy};
use super::{SOON, T, config, connect, log, owner};
use crate::support::{Sandbox, eventually};

fn behind(sandbox: &Sandbox<'_>) -> (Proxy, Session, SessionThread) {
    let proxy = Proxy::before(sandbox.server().plain_port());
    let (session, thread) = connect(&config(proxy.port(), sandbox.chroot(), T));
    (proxy, session, thread)
}

#[test]
fn a_cut_connection_is_replaced_and_the_session_with_its_locks_goes_on() {
    let sandbox = Sandbox::new("zk::outage::cut");
    let (proxy, session, _thread) = behind(&sandbox);
    let lock = Lock::try_acquire(&session, "", "lock", "test").unwrap().unwrap();
    let before = session.status();
    let began = Instant::now();
    for round in 1..=5 {
        proxy.cut();
        lock.session().ensure_path(&format!("/work/{round}")).unwrap();
    }
    eprintln!("5 cuts in {:?}", began.elapsed());
    assert_eq!(session.status().generation, before.generation);
    assert!(session.status().connection >= before.connection + 5);
    assert!(Lock::try_acquire(&session, "", "lock", "other").unwrap().is_none());
}

#[test]
fn the_copy_of_a_tree_sees_what_happened_while_it_was_cut_off() {
    let sandbox = Sandbox::new("zk::outage::cache");
    let (proxy, session, _thread) = behind(&sandbox);
    let zk = sandbox.zk();
    zk.set("/tree/a", "before");
    zk.set("/tree/b", "before");
    let (tree, changes) = TreeCache::start(&session, "/tree", &log()).unwrap();
    changes.recv_timeout(SOON).unwrap();
    proxy.set(Net::Refuse);
    proxy.cut();
    zk.set("/tree/a", "during");
    zk.delete("/tree/b");
    proxy.set(Net::Pass);
    eventually(SOON, "the changes during the outage", || {
        tree.look(|root| root.at("a")?.data.eq(b"during").then_some(root.at("b").is_none()))
            .filter(|gone| *gone)
    });
    zk.set("/tree/a", "after");
    eventually(SOON, "the change after it", || {
        tree.look(|root| root.at("a")?.data.eq(b"after").then_some(()))
    });
}

#[test]
fn calls_without_a_connection_end_in_time_and_a_lost_session_is_noticed() {
    let sandbox = Sandbox::new("zk::outage::expired");
    let (proxy, session, _thread) = behind(&sandbox);
    let lock = Lock::try_acquire(&session, "", "lock", "test").unwrap().unwrap();
    let component = Component::register(&session, &Description::daemon(Kind::Builder, "host")).unwrap();
    let (tree, changes) = TreeCache::start(&session, "/tree", &log()).unwrap();
    changes.recv_timeout(SOON).unwrap();
    let before = session.status();

    proxy.set(Net::Refuse);
    proxy.cut();
    let began = Instant::now();
    let error = session.get("/lock").unwrap_err();
    assert!(error.is(ZkErrorKind::Unavailable), "{error}");
    assert!(began.elapsed() < T + Duration::from_secs(1), "{:?}", began.elapsed());
    let zk = sandbox.zk();
    zk.wait_children("/lock", 3 * T, <[String]>::is_empty);
    assert_eq!(session.status().generation, before.generation, "only the server ends a session");
    assert!(!lock.session().is_lost());
    zk.set("/tree/a", "new");

    proxy.set(Net::Pass);
    eventually(SOON, "a new session", || (session.status().generation != before.generation).then_some(()));
    session.wait_connected(SOON).unwrap();
    // Whoever asks only now what the session is learns nothing of the one that the lock was taken in.
    assert!(lock.session().is_lost() && !session.is_lost());
    let error = lock.session().ensure_path("/work").unwrap_err();
    assert!(error.is(ZkErrorKind::SessionLost), "{error}");
    assert!(!zk.exists("/work") && !zk.exists(component.path()));
    let inner = Lock::try_acquire(lock.session(), "", "inner", "test").unwrap_err();
    assert!(inner.is(ZkErrorKind::SessionLost), "a lock under a lost lock: {inner}");
    let again = Component::register(&session, &Description::daemon(Kind::Builder, "host")).unwrap();
    assert_ne!(again.path(), component.path());
    assert!(zk.exists(again.path()));
    drop(lock);
    assert!(Lock::try_acquire(&session, "", "lock", "test").unwrap().is_some());
    eventually(SOON, "the copy to go on", || tree.look(|root| root.at("a").map(drop)));
}

#[test]
fn the_copy_of_a_tree_ends_at_once_during_an_outage() {
    let sandbox = Sandbox::new("zk::outage::end");
    let proxy = Proxy::before(sandbox.server().plain_port());
    let (session, thread) = connect(&config(proxy.port(), sandbox.chroot(), Duration::from_secs(30)));
    let (tree, changes) = TreeCache::start(&session, "/tree", &log()).unwrap();
    changes.recv_timeout(SOON).unwrap();
    proxy.set(Net::Refuse);
    proxy.cut();
    eventually(SOON, "the end of the connection", || (!session.status().is_connected()).then_some(()));
    let (waiting, interrupter) = session.interruptible();
    std::thread::scope(|scope| {
        let call = scope.spawn(|| waiting.get("/tree"));
        let began = Instant::now();
        drop(tree);
        interrupter.interrupt();
        assert!(call.join().unwrap().unwrap_err().is(ZkErrorKind::Unavailable));
        drop(thread);
        eprintln!("all ended {:?} after the stop", began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(1), "{:?}", began.elapsed());
    });
}

#[test]
fn a_silent_network_is_noticed_within_the_session_timeout_and_the_session_kept() {
    let sandbox = Sandbox::new("zk::outage::silent");
    let proxy = Proxy::before(sandbox.server().plain_port());
    let (session, _thread) = connect(&config(proxy.port(), sandbox.chroot(), 3 * T));
    session.create("/a", b"").unwrap();
    let before = session.status();
    let statuses = session.subscribe();
    proxy.set(Net::Silent);
    let began = Instant::now();
    statuses.recv_timeout(3 * T).unwrap();
    assert!(!session.status().is_connected());
    eprintln!("an idle session has noticed after {:?}", began.elapsed());
    proxy.set(Net::Pass);
    session.get("/a").unwrap();
    eprintln!("and was back after {:?}", began.elapsed());
    assert_eq!(session.status().generation, before.generation);
}

#[test]
fn a_call_into_a_silent_network_is_made_again() {
    // Long enough for another attempt that comes too early, while the network is silent still.
    const T: Duration = Duration::from_secs(6);
    let sandbox = Sandbox::new("zk::outage::hang");
    let proxy = Proxy::before(sandbox.server().plain_port());
    let (session, _thread) = connect(&config(proxy.port(), sandbox.chroot(), T));
    session.create("/a", b"").unwrap();
    proxy.set(Net::Silent);
    let began = Instant::now();
    std::thread::scope(|scope| {
        let call = scope.spawn(|| session.get("/a"));
        let statuses = session.subscribe();
        statuses.recv_timeout(T).unwrap();
        eprintln!("a call has noticed after {:?}", began.elapsed());
        proxy.set(Net::Pass);
        call.join().unwrap().unwrap();
    });
    assert!(began.elapsed() < T + Duration::from_secs(1), "{:?}", began.elapsed());
}

#[test]
fn a_session_that_was_closed_at_the_server_is_replaced() {
    let sandbox = Sandbox::new("zk::outage::closed");
    let (proxy, session, _thread) = behind(&sandbox);
    let path = session.create_ephemeral("/e", b"").unwrap();
    let lock = Lock::try_acquire(&session, "", "lock", "test").unwrap().unwrap();
    let before = session.status();
    let old = owner(sandbox.server(), sandbox.chroot(), &path).unwrap();
    proxy.close_session();
    eventually(SOON, "a new session", || (session.status().generation > before.generation).then_some(()));
    let path = session.create_ephemeral("/e", b"").unwrap();
    assert_ne!(owner(sandbox.server(), sandbox.chroot(), &path), Some(old));
    assert_eq!(session.status().generation, {
        let status = session.wait_connected(SOON).unwrap();
        status.generation
    });
    assert!(lock.session().get("/lock").unwrap_err().is(ZkErrorKind::SessionLost));
}

#[test]
fn a_session_is_lost_connected_suspended_and_lost_again_in_the_next_generation() {
    let sandbox = Sandbox::new("zk::outage::states");
    let proxy = Proxy::before(sandbox.server().plain_port());
    proxy.set(Net::Refuse);
    let (session, _thread) = Session::start(&config(proxy.port(), sandbox.chroot(), T), &log()).unwrap();
    let becomes = |state: Connection| {
        eventually(SOON, &format!("the session to be {state:?}"), || {
            Some(session.status()).filter(|status| status.state == state)
        })
    };
    let first = becomes(Connection::Lost);
    proxy.set(Net::Pass);
    let connected = becomes(Connection::Connected);
    assert_eq!(connected.generation, first.generation);

    proxy.set(Net::Refuse);
    proxy.close_session();
    // Nobody has told us yet that it is over.
    assert_eq!(becomes(Connection::Suspended).generation, connected.generation);
    proxy.set(Net::Once);
    let lost = becomes(Connection::Lost);
    assert!(lost.generation > connected.generation);
    proxy.set(Net::Pass);
    assert_eq!(becomes(Connection::Connected).generation, lost.generation);
}
