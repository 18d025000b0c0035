//! Servers that are killed or stopped.

use std::time::{Duration, Instant};

use nodepool::zk::{Component, Description, Kind, Lock, TreeCache, ZkErrorKind};

use super::{SOON, T, config, connect, log};
use crate::support::{ZkClient, ZooKeeper, eventually};

#[test]
fn a_restarted_server_finds_the_session_and_its_locks_again() {
    let server = ZooKeeper::start();
    // Long enough for a JVM to start on a busy machine.
    let timeout = Duration::from_secs(20);
    let (session, _thread) = connect(&config(server.plain_port(), "", timeout));
    let lock = Lock::try_acquire(&session, "", "lock", "test").unwrap().unwrap();
    let (tree, changes) = TreeCache::start(&session, "/tree", &log()).unwrap();
    changes.recv_timeout(SOON).unwrap();
    let before = session.status();
    std::thread::scope(|scope| {
        server.kill();
        let calls: Vec<_> = (0..4)
            .map(|number| {
                let under_lock = lock.session();
                scope.spawn(move || under_lock.ensure_path(&format!("/work/{number}")))
            })
            .collect();
        server.restart();
        let began = Instant::now();
        for call in calls {
            call.join().unwrap().unwrap();
        }
        eprintln!("calls went on {:?} after the server was back", began.elapsed());
    });
    assert_eq!(session.status().generation, before.generation);
    let zk = ZkClient::connect(&server, "");
    assert_eq!(zk.children("/work").len(), 4);
    assert_eq!(zk.children("/lock").len(), 1);
    zk.set("/tree/a", "after");
    eventually(SOON, "a change after the restart", || tree.look(|root| root.at("a").map(drop)));
}

#[test]
fn a_server_that_was_set_up_anew_gives_a_new_session() {
    let server = ZooKeeper::start();
    let (session, _thread) = connect(&config(server.plain_port(), "", T));
    // Further than the new server will be for a while.
    for round in 0..20 {
        session.ensure_path(&format!("/a/{round}")).unwrap();
    }
    let before = session.status();
    server.kill();
    std::fs::remove_dir_all(server.dir().join("data")).unwrap();
    server.restart();
    let began = Instant::now();
    eventually(6 * T, "a new session", || (session.status().generation > before.generation).then_some(()));
    eprintln!("a new session {:?} after the new server was up", began.elapsed());
    session.wait_connected(SOON).unwrap();
    session.ensure_path("/b").unwrap();
}

#[test]
fn a_stopped_server_holds_no_call_and_work_goes_on_after_it() {
    let server = ZooKeeper::start();
    let timeout = Duration::from_secs(3);
    let (session, _thread) = connect(&config(server.plain_port(), "", timeout));
    session.create("/a", b"").unwrap();
    server.stop_signal();
    let began = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                let error = session.get("/a").unwrap_err();
                assert!(error.is(ZkErrorKind::Unavailable), "{error}");
                assert!(began.elapsed() < timeout + Duration::from_secs(1), "{:?}", began.elapsed());
            });
        }
        eventually(timeout, "the server to be missed", || (!session.status().is_connected()).then_some(()));
        eprintln!("missed after {:?}", began.elapsed());
    });
    server.cont_signal();
    let began = Instant::now();
    session.wait_connected(SOON).unwrap();
    session.set("/a", b"on", 0).unwrap();
    eprintln!("at work {:?} after the server went on", began.elapsed());
}

#[test]
fn a_server_that_was_stopped_for_long_ends_the_session_or_keeps_it_whole() {
    let server = ZooKeeper::start();
    let (session, _thread) = connect(&config(server.plain_port(), "", T));
    let lock = Lock::try_acquire(&session, "", "lock", "test").unwrap().unwrap();
    let component = Component::register(&session, &Description::daemon(Kind::Builder, "host")).unwrap();
    let before = session.status();
    server.stop_signal();
    let began = Instant::now();
    while began.elapsed() < 2 * T {
        assert!(session.get("/lock").unwrap_err().is(ZkErrorKind::Unavailable));
    }
    server.cont_signal();
    let after = session.wait_connected(SOON).unwrap();
    let under_lock = lock.session().ensure_path("/work");
    let zk = ZkClient::connect(&server, "");
    if after.generation == before.generation {
        eprintln!("the server has kept the session");
        under_lock.unwrap();
        assert!(zk.exists(component.path()));
    } else {
        eprintln!("the server has ended the session");
        assert!(under_lock.unwrap_err().is(ZkErrorKind::SessionLost));
        let again = Component::register(&session, &Description::daemon(Kind::Builder, "host")).unwrap();
        assert!(zk.exists(again.path()) && !zk.exists("/work"));
    }
}

#[test]
fn stopping_does_not_wait_for_a_stopped_server() {
    let server = ZooKeeper::start();
    let (session, thread) = connect(&config(server.plain_port(), "", Duration::from_secs(3)));
    server.stop_signal();
    let began = Instant::now();
    drop(thread);
    eprintln!("ended after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    assert!(session.get("/").unwrap_err().is(ZkErrorKind::Unavailable));
    server.cont_signal();
}
