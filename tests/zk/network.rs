//! A network whose packets the kernel loses: nobody is refused, nothing is closed, there is only silence. And
//! one that is slow.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nodepool::zk::{Lock, Session, SessionThread, ZkErrorKind};

use super::proxy::{Mode as Net, Proxy};
use super::{SOON, T, at, config, connect, owner};
use crate::support::{Network, Options, Sandbox, ZkClient, ZooKeeper, eventually};

/// What a machine with more to do may add to any time that is promised.
const LOAD: Duration = Duration::from_secs(1);

/// A server at the far end, and a session with it.
struct Far {
    session: Session,
    _thread: SessionThread,
    server: ZooKeeper,
    network: Arc<Network>,
}

impl Far {
    fn connect(timeout: Duration) -> Far {
        let network = Arc::new(Network::create());
        let server = ZooKeeper::start_with(Options::behind(&network));
        let address = at(&network.far().to_string(), server.plain_port());
        let config = nodepool::config::ZooKeeperConfig { servers: vec![address], ..config(0, "", timeout) };
        let (session, thread) = connect(&config);
        session.ensure_path("/a").unwrap();
        Far { session, _thread: thread, server, network }
    }

    /// The session that an ephemeral znode belongs to.
    fn owner(&self, path: &str) -> i64 {
        owner(&self.server, "", path).unwrap()
    }

    fn zk(&self) -> ZkClient {
        ZkClient::connect(&self.server, "")
    }
}

/// How long it takes until a call succeeds.
fn until_a_call(session: &Session, path: &str) -> Duration {
    let began = Instant::now();
    eventually(3 * SOON, "a call that succeeds", || match session.ensure_path(path) {
        Ok(()) => Some(began.elapsed()),
        Err(error) if error.is(ZkErrorKind::Unavailable) => None,
        Err(error) => panic!("{error}"),
    })
}

#[test]
fn lost_packets_are_noticed_within_two_thirds_of_the_session_timeout_while_idle() {
    let timeout = Duration::from_secs(6);
    let far = Far::connect(timeout);
    let lock = Lock::try_acquire(&far.session, "", "lock", "test").unwrap().unwrap();
    let before = far.session.status();
    let id = far.owner(&far.session.create_ephemeral("/a/before-", b"").unwrap());
    let statuses = far.session.subscribe();
    // At the worst moment: a ping, of which there is one in each third of the timeout, was just answered.
    let idle = statuses.recv_timeout(timeout * 2 / 3 + LOAD / 10);
    assert!(idle.is_err(), "an idle session has a reason to change");
    far.network.lose();
    let fault = Instant::now();
    statuses.recv_timeout(timeout).unwrap();
    let noticed = fault.elapsed();
    let why = far.session.wait_connected(Duration::ZERO).unwrap_err().to_string();
    assert!(why.contains("has not answered for"), "silence and no error: {why}");
    eprintln!("FIGURE packets dropped: noticed after {noticed:?} of a session timeout of {timeout:?}");
    assert!(noticed < timeout * 2 / 3 + LOAD, "{noticed:?}");

    far.network.restore();
    let back = until_a_call(&far.session, "/work");
    eprintln!(
        "FIGURE packets dropped and back before the session expired: a call {back:?} after they were back"
    );
    assert!(back < 2 * LOAD + Duration::from_secs(2), "{back:?}");
    assert_eq!(far.session.status().generation, before.generation);
    let after = lock.session().create_ephemeral("/a/after-", b"").unwrap();
    assert_eq!(far.owner(&after), id);
    assert_eq!(far.zk().children("/lock").len(), 1);
}

#[test]
fn packets_that_are_lost_for_a_moment_cost_not_even_the_connection() {
    let far = Far::connect(Duration::from_secs(15));
    let before = far.session.status();
    std::thread::scope(|scope| {
        far.network.lose();
        let (fault, sent) = (Instant::now(), far.network.sent());
        let call = scope.spawn(|| far.session.ensure_path("/work"));
        // The request is lost, and two repetitions of it: less than the five seconds of patience.
        eventually(SOON, "lost packets", || (far.network.sent() >= sent + 3).then_some(()));
        assert!(!call.is_finished());
        let lost = fault.elapsed();
        far.network.restore();
        call.join().unwrap().unwrap();
        eprintln!("FIGURE packets dropped for {lost:?}: the call took {:?}", fault.elapsed());
    });
    assert_eq!(far.session.status(), before);
}

#[test]
fn calls_into_lost_packets_end_in_time_and_the_session_that_expires_meanwhile_is_replaced() {
    let timeout = Duration::from_secs(3);
    let far = Far::connect(timeout);
    let lock = Lock::try_acquire(&far.session, "", "lock", "test").unwrap().unwrap();
    let before = far.session.status();
    far.network.lose();
    let fault = Instant::now();
    let worst = std::thread::scope(|scope| {
        let calls = [0, 1, 2, 3].map(|number| {
            let far = &far;
            scope.spawn(move || {
                let mut worst = Duration::ZERO;
                while fault.elapsed() < 2 * timeout {
                    let began = Instant::now();
                    let error = match number {
                        0 => far.session.get("/a").map(drop),
                        1 => far.session.set("/a", b"lost", 0).map(drop),
                        2 => far.session.create("/lost", b""),
                        _ => Lock::try_acquire(&far.session, "/a", "lock", "test").map(drop),
                    };
                    let error = error.unwrap_err();
                    assert!(error.is(ZkErrorKind::Unavailable), "{error}");
                    worst = worst.max(began.elapsed());
                }
                worst
            })
        });
        calls.into_iter().map(|call| call.join().unwrap()).max().unwrap()
    });
    eprintln!("FIGURE packets dropped: the slowest call ended after {worst:?} of a timeout of {timeout:?}");
    assert!(worst < timeout + LOAD, "{worst:?}");
    assert_eq!(far.session.status().generation, before.generation, "only the server ends a session");

    let log = || std::fs::read_to_string(far.server.log_file()).unwrap();
    eventually(SOON, "the server to expire the session", || log().contains("Expiring session").then_some(()));
    far.network.restore();
    let back = until_a_call(&far.session, "/work");
    eprintln!(
        "FIGURE packets dropped until the session expired, and back: a call {back:?} after they were back"
    );
    assert!(far.session.status().generation > before.generation);
    let error = lock.session().create("/work/under-lock", b"").unwrap_err();
    assert!(error.is(ZkErrorKind::SessionLost), "{error}");
    let zk = far.zk();
    assert!(zk.children("/lock").is_empty() && zk.children("/a/lock").is_empty());
    assert!(zk.get("/a").unwrap().version == 0 && !zk.exists("/lost"), "what failed was done later");
}

/// Every answer takes more than half of the patience: nothing may take that for silence.
#[test]
fn a_slow_server_keeps_the_session_and_its_connection() {
    let sandbox = Sandbox::new("zk::network::slow");
    let proxy = Proxy::before(sandbox.server().plain_port());
    let timeout = 3 * T;
    let (session, _thread) = connect(&config(proxy.port(), sandbox.chroot(), timeout));
    let lock = Lock::try_acquire(&session, "", "lock", "test").unwrap().unwrap();
    proxy.set(Net::Late(timeout / 10));
    let before = session.status();
    let began = Instant::now();
    let (mut calls, mut worst) = (0, Duration::ZERO);
    while began.elapsed() < 2 * timeout {
        let call = Instant::now();
        lock.session().ensure_path(&format!("/work-{calls}")).unwrap();
        worst = worst.max(call.elapsed());
        calls += 1;
    }
    eprintln!("{calls} calls, the slowest took {worst:?}");
    assert!(worst >= timeout / 5, "the server was not slow");
    assert_eq!(session.status(), before);
    // Idle for long enough to need pings.
    let statuses = session.subscribe();
    assert!(statuses.recv_timeout(timeout).is_err());
    assert_eq!(session.status(), before);
    // Dialling is as slow.
    let began = Instant::now();
    proxy.cut();
    lock.session().ensure_path("/again").unwrap();
    eprintln!("FIGURE slow server, connection cut: a call {:?} after the cut", began.elapsed());
    assert_eq!(session.status().generation, before.generation);
}
