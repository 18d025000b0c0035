//! Servers that grant another session timeout than the one that was asked for: theirs counts.

use std::io::{Read, Write};
use std::net::TcpListener;
use std::time::{Duration, Instant};

use nodepool::zk::{Lock, Session, SessionThread, ZkErrorKind};

use super::proxy::{Mode as Net, Proxy};
use super::{SOON, T, config, connect, log};
use crate::support::{Options, ZkClient, ZooKeeper, eventually};

/// What a machine with more to do may add to any time that is promised.
const LOAD: Duration = Duration::from_secs(1);

fn behind(limits: &str, asked: Duration) -> (ZooKeeper, Proxy, Session, SessionThread) {
    let server = ZooKeeper::start_with(Options { more: limits.to_owned(), ..Options::default() });
    let proxy = Proxy::before(server.plain_port());
    let (session, thread) = connect(&config(proxy.port(), "", asked));
    session.ensure_path("/a").unwrap();
    (server, proxy, session, thread)
}

#[test]
fn a_session_that_is_granted_less_than_asked_for_lives_and_ends_by_that() {
    let granted = Duration::from_secs(3);
    let asked = Duration::from_secs(40);
    let (server, proxy, session, _thread) = behind("maxSessionTimeout=3000\n", asked);
    let lock = Lock::try_acquire(&session, "", "lock", "test").unwrap().unwrap();
    let before = session.status();
    // Pings come often enough for a session that lives so short.
    let statuses = session.subscribe();
    assert!(statuses.recv_timeout(2 * granted).is_err());
    lock.session().ensure_path("/work").unwrap();
    assert_eq!(session.status(), before);

    proxy.set(Net::Silent);
    let fault = Instant::now();
    statuses.recv_timeout(granted).unwrap();
    eprintln!("granted {granted:?} of {asked:?}: silence noticed after {:?}", fault.elapsed());
    assert!(fault.elapsed() < granted * 2 / 3 + LOAD, "{:?}", fault.elapsed());
    let call = Instant::now();
    assert!(session.get("/a").unwrap_err().is(ZkErrorKind::Unavailable));
    eprintln!("a call without a connection ended after {:?}", call.elapsed());
    assert!(call.elapsed() < granted + LOAD, "{:?}", call.elapsed());

    ZkClient::connect(&server, "").wait_children("/lock", SOON, <[String]>::is_empty);
    proxy.set(Net::Pass);
    eventually(SOON, "a new session", || (session.status().generation > before.generation).then_some(()));
    assert!(lock.session().get("/a").unwrap_err().is(ZkErrorKind::SessionLost));
}

#[test]
fn a_session_that_is_granted_more_than_asked_for_lives_and_waits_by_that() {
    let granted = Duration::from_secs(12);
    let asked = Duration::from_secs(1);
    let (_server, proxy, session, _thread) = behind("minSessionTimeout=12000\n", asked);
    let lock = Lock::try_acquire(&session, "", "lock", "test").unwrap().unwrap();
    let before = session.status();
    // A pause that the session asked for would not have survived, and nobody need notice.
    std::thread::scope(|scope| {
        proxy.set(Net::Late(Duration::from_millis(1500)));
        let call = scope.spawn(|| lock.session().ensure_path("/work"));
        call.join().unwrap().unwrap();
        proxy.set(Net::Pass);
    });
    assert_eq!(session.status(), before, "a slow answer was taken for silence");

    // A call waits for as long as its session may come back.
    proxy.set(Net::Refuse);
    proxy.cut();
    let fault = Instant::now();
    std::thread::scope(|scope| {
        let call = scope.spawn(|| lock.session().ensure_path("/late"));
        let early = eventually(SOON, "more than the time asked for", || {
            (call.is_finished() || fault.elapsed() > 3 * asked).then(|| call.is_finished())
        });
        proxy.set(Net::Pass);
        let outcome = call.join().unwrap();
        eprintln!("granted {granted:?} of {asked:?}: a call went on after {:?}", fault.elapsed());
        assert!(!early, "gave up after {:?}: {outcome:?}", fault.elapsed());
        outcome.unwrap();
    });
    assert_eq!(session.status().generation, before.generation);
}

/// It was dialled again at once, for ever.
#[test]
fn a_server_that_grants_no_session_at_all_is_dialled_with_pauses() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (tell, dialled) = crossbeam_channel::unbounded();
    std::thread::spawn(move || {
        for client in listener.incoming() {
            let mut client = client.unwrap();
            // The length and ConnectRequest; ConnectResponse: version, timeout, session, password with its length.
            let mut request = [0; 49];
            if client.read_exact(&mut request).is_ok() && tell.send(Instant::now()).is_ok() {
                let body = [&[0; 16], &16i32.to_be_bytes()[..], &[0; 17]].concat();
                let length = i32::try_from(body.len()).unwrap();
                let _ = client.write_all(&[&length.to_be_bytes()[..], &body].concat());
            }
        }
    });
    let (session, _thread) = Session::start(&config(port, "", T), &log()).unwrap();
    let times: Vec<Instant> = (0..6).map(|_| dialled.recv_timeout(SOON).unwrap()).collect();
    // Pauses of at least 50, 100, 200, 400 and 500 ms, from the beginning of one attempt to that of the next.
    assert!(times[5] - times[0] > Duration::from_secs(1), "{:?}", times[5] - times[0]);
    let error = session.wait_connected(Duration::ZERO).unwrap_err().to_string();
    assert!(error.contains(&format!("127.0.0.1:{port}: the server begins no session")), "{error}");
}
