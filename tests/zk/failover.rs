//! Several servers, some of which are no good.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use nodepool::config::{Server, ZooKeeperConfig};
use nodepool::zk::Session;

use super::proxy::{Mode as Net, Proxy};
use super::{SOON, T, assert_trouble, at, config, connect, log};
use crate::support::shared;

/// Connects several times, because the order of the servers is random; says how long it took at most.
fn connects_beside(bad: &Server) -> Duration {
    let servers = vec![bad.clone(), at("127.0.0.1", shared().plain_port())];
    let config = ZooKeeperConfig { servers, ..config(0, "", T) };
    let times = (0..6).map(|_| {
        let began = Instant::now();
        let (session, _thread) = Session::start(&config, &log()).unwrap();
        session.wait_connected(SOON).unwrap();
        began.elapsed()
    });
    let slowest = times.max().unwrap();
    eprintln!("beside {bad:?}: {slowest:?} at most");
    slowest
}

/// A port that nobody listens on, and that nobody is given while this is held.
fn closed_port() -> (TcpListener, u16) {
    let listener = TcpListener::bind("127.0.0.2:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, port)
}

#[test]
fn a_server_that_is_down_is_passed_over() {
    let (_held, port) = closed_port();
    assert!(connects_beside(&at("127.0.0.1", port)) < Duration::from_secs(2));
}

#[test]
fn a_name_that_cannot_be_resolved_is_passed_over() {
    assert!(connects_beside(&at("no-such-host.invalid", 2181)) < Duration::from_millis(2500));
}

#[test]
fn a_silent_server_is_passed_over() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = silent.local_addr().unwrap().port();
    assert!(connects_beside(&at("127.0.0.1", port)) < Duration::from_millis(2500));
}

#[test]
fn the_session_goes_on_at_another_address_when_one_falls_silent() {
    let (first, second) = (Proxy::before(shared().plain_port()), Proxy::before(shared().plain_port()));
    let servers = vec![at("127.0.0.1", first.port()), at("localhost", second.port())];
    let timeout = Duration::from_secs(6);
    let (session, _thread) = connect(&ZooKeeperConfig { servers, timeout, ..config(0, "", T) });
    let before = session.status();
    let (used, other) = if first.accepted() > 0 { (&first, &second) } else { (&second, &first) };
    used.set(Net::Silent);
    let began = Instant::now();
    session.stat("/").unwrap();
    eprintln!("moved after {:?}", began.elapsed());
    assert!(other.accepted() > 0);
    assert_eq!(session.status().generation, before.generation);
    assert!(began.elapsed() < timeout, "{:?}", began.elapsed());
}

/// Found by stopping a server of an ensemble: it was as likely as any to be dialled again first, and what that
/// took of the session timeout, after the silence had taken two thirds of it, could cost the session.
#[test]
fn a_server_that_has_fallen_silent_is_the_last_to_be_tried_again() {
    let proxies = [(); 3].map(|()| Proxy::before(shared().plain_port()));
    let servers = proxies.iter().map(|proxy| at("127.0.0.1", proxy.port())).collect();
    let timeout = Duration::from_secs(3);
    let config = ZooKeeperConfig { servers, timeout, ..config(0, "", T) };
    // Several sessions, because the order is random otherwise; and two rounds each, so that one server is left
    // that was never silent.
    for round in 0..4 {
        let mut dialled = proxies.each_ref().map(Proxy::accepted);
        let (session, _thread) = connect(&config);
        let before = session.status();
        for _ in 0..2 {
            let accepted = proxies.each_ref().map(Proxy::accepted);
            let used = (0..3).find(|&at| accepted[at] > dialled[at]).unwrap();
            dialled = accepted;
            proxies[used].set(Net::Silent);
            session.stat("/").unwrap();
            assert_eq!(proxies[used].accepted(), accepted[used], "round {round}: the silent one was dialled");
            proxies[used].set(Net::Pass);
        }
        assert_eq!(session.status().generation, before.generation);
    }
}

#[test]
fn the_trouble_names_every_server_and_its_reason() {
    let (_held, port) = closed_port();
    let servers = vec![at("127.0.0.1", port), at("no-such-host.invalid", 2181)];
    let refused = format!("127.0.0.1:{port}: Connection refused");
    let config = ZooKeeperConfig { servers, ..config(0, "", T) };
    assert_trouble(&config, &[&refused, "no-such-host.invalid:2181: its name"]);
}
