//! Writes whose answers are lost: they are done once, and their callers learn what came of them.

use std::time::Duration;

use nodepool::zk::{Lock, Session, ZkErrorKind};

use super::proxy::{Mode as Net, Proxy};
use super::{SOON, T, config, connect};
use crate::support::{Options, Sandbox, ZkClient, ZooKeeper, eventually};

/// Makes `call` while answers are lost, and cuts the connection once `done` sees its effect.
fn without_answer<R: Send>(
    proxy: &Proxy,
    session: &Session,
    call: impl FnOnce(&Session) -> R + Send,
    done: impl FnMut() -> bool,
) -> R {
    let mut done = done;
    proxy.set(Net::LoseAnswers);
    std::thread::scope(|scope| {
        let calling = scope.spawn(|| call(session));
        eventually(SOON, "the effect of the call", || done().then_some(()));
        proxy.set(Net::Pass);
        proxy.cut();
        calling.join().unwrap()
    })
}

#[test]
fn writes_whose_answers_are_lost_are_done_once() {
    let sandbox = Sandbox::new("zk::doubt::writes");
    let proxy = Proxy::before(sandbox.server().plain_port());
    let (session, _thread) = connect(&config(proxy.port(), sandbox.chroot(), SOON));
    let zk = sandbox.zk();

    without_answer(&proxy, &session, |s| s.create("/a", b"one"), || zk.exists("/a")).unwrap();
    let version = || zk.get("/a").unwrap().version;
    let set = without_answer(&proxy, &session, |s| s.set("/a", b"two", 0), || version() == 1);
    assert_eq!(set.unwrap(), 1);
    without_answer(&proxy, &session, |s| s.delete("/a", Some(1)), || !zk.exists("/a")).unwrap();

    session.ensure_path("/e").unwrap();
    let ephemeral = |s: &Session| s.create_ephemeral("/e/n-", b"");
    let made = without_answer(&proxy, &session, ephemeral, || zk.children("/e").len() == 1).unwrap();
    assert_eq!(made, format!("/e/{}", zk.children("/e")[0]));
    assert_eq!(zk.children("/e").len(), 1);
}

#[test]
fn somebody_elses_write_is_not_taken_for_ones_own() {
    let sandbox = Sandbox::new("zk::doubt::conflict");
    let proxy = Proxy::before(sandbox.server().plain_port());
    let (session, _thread) = connect(&config(proxy.port(), sandbox.chroot(), SOON));
    let zk = sandbox.zk();
    session.create("/a", b"one").unwrap();
    let overwritten = || {
        let written = zk.get("/a").unwrap().version == 1;
        if written {
            zk.set("/a", "theirs");
        }
        written
    };
    let set = without_answer(&proxy, &session, |s| s.set("/a", b"mine", 0), overwritten);
    assert!(set.unwrap_err().is(ZkErrorKind::BadVersion));
}

#[test]
fn a_lock_whose_answer_was_lost_is_held_once() {
    let sandbox = Sandbox::new("zk::doubt::lock");
    let proxy = Proxy::before(sandbox.server().plain_port());
    let (session, _thread) = connect(&config(proxy.port(), sandbox.chroot(), SOON));
    let zk = sandbox.zk();
    session.ensure_path("/lock").unwrap();
    let take = |s: &Session| Lock::try_acquire(s, "", "lock", "test");
    let lock = without_answer(&proxy, &session, take, || zk.children("/lock").len() == 1).unwrap();
    assert!(lock.is_some());
    assert_eq!(zk.children("/lock").len(), 1);
    drop(lock);
    assert!(zk.children("/lock").is_empty());
}

#[test]
fn a_lock_that_is_released_during_an_outage_is_free_after_it() {
    let sandbox = Sandbox::new("zk::doubt::release");
    let proxy = Proxy::before(sandbox.server().plain_port());
    let (session, _thread) = connect(&config(proxy.port(), sandbox.chroot(), SOON));
    let zk = sandbox.zk();
    for _ in 0..5 {
        let lock = Lock::try_acquire(&session, "", "lock", "test").unwrap().unwrap();
        let before = session.status();
        proxy.set(Net::Refuse);
        proxy.cut();
        drop(lock);
        proxy.set(Net::Pass);
        zk.wait_children("/lock", SOON, <[String]>::is_empty);
        assert_eq!(session.status().generation, before.generation);
    }
}

/// Nobody but us could free it as long as the session lives.
#[test]
fn a_contender_that_was_given_up_in_doubt_does_not_keep_the_lock() {
    // The server keeps sessions for longer than calls wait.
    let server = ZooKeeper::start_with(Options { tick_ms: 5000, ..Options::default() });
    let proxy = Proxy::before(server.plain_port());
    let (session, _thread) = connect(&config(proxy.port(), "", Duration::from_secs(1)));
    session.ensure_path("/lock").unwrap();
    let zk = ZkClient::connect(&server, "");
    let before = session.status();
    proxy.set(Net::LoseAnswers);
    std::thread::scope(|scope| {
        let calling = scope.spawn(|| Lock::try_acquire(&session, "", "lock", "test"));
        zk.wait_children("/lock", SOON, |names| names.len() == 1);
        proxy.set(Net::Refuse);
        proxy.cut();
        assert!(calling.join().unwrap().unwrap_err().is(ZkErrorKind::Unavailable));
    });
    assert_eq!(zk.children("/lock").len(), 1);
    proxy.set(Net::Pass);
    zk.wait_children("/lock", T, <[String]>::is_empty);
    assert_eq!(session.status().generation, before.generation);
}
