//! Three servers of which some are killed or stopped: the session finds those that are left.

use std::time::{Duration, Instant};

use nodepool::config::ZooKeeperConfig;
use nodepool::zk::{Lock, Session, SessionThread, Status, ZkErrorKind};

use super::proxy::{Mode as Net, Proxy};
use super::{T, at, config, connect};
use crate::support::{Ensemble, eventually};

/// Longer than an election on a busy machine.
const LONG: Duration = Duration::from_secs(15);
/// How long calls may take to go on once the ensemble is able to serve: two seconds, and as much again for a
/// machine that has more to do.
const MARGIN: Duration = Duration::from_secs(4);
/// For a whole outage with its end.
const LIMIT: Duration = Duration::from_secs(60);

fn on(ensemble: &Ensemble, timeout: Duration) -> ZooKeeperConfig {
    let servers = ensemble.servers().iter().map(|server| at("127.0.0.1", server.plain_port())).collect();
    ZooKeeperConfig { servers, ..config(0, "", timeout) }
}

/// A session at work on an ensemble: it holds a lock.
struct Work {
    lock: Lock,
    before: Status,
    session: Session,
    /// At the servers.
    id: i64,
    _thread: SessionThread,
}

impl Work {
    fn begin(ensemble: &Ensemble, timeout: Duration) -> Work {
        Work::begin_with(ensemble, &on(ensemble, timeout))
    }

    fn begin_with(ensemble: &Ensemble, config: &ZooKeeperConfig) -> Work {
        let (session, thread) = connect(config);
        session.ensure_path("/work").unwrap();
        let lock = Lock::try_acquire(&session, "", "lock", "first").unwrap().unwrap();
        let zk = ensemble.zk("");
        let contender = zk.children("/lock").remove(0);
        let id = zk.get(&format!("/lock/{contender}")).unwrap().ephemeral_owner;
        Work { lock, before: session.status(), session, id, _thread: thread }
    }

    /// The server that it is connected to.
    fn server(&self, ensemble: &Ensemble) -> usize {
        eventually(LIMIT, "the server of the session", || ensemble.server_of(self.id))
    }

    /// Makes calls until one succeeds; prints how long it took from the fault, and asserts how long from the
    /// moment at which the ensemble itself said that it serves.
    fn goes_on(&self, ensemble: &Ensemble, what: &str, fault: Instant) {
        std::thread::scope(|scope| {
            let able = scope.spawn(|| ensemble.wait_quorum());
            eventually(LIMIT, "a call that succeeds", || {
                match self.session.create(&format!("/work/{:016x}", fastrand::u64(..)), b"") {
                    Ok(()) => Some(()),
                    Err(error) if error.is(ZkErrorKind::Unavailable) => None,
                    Err(error) => panic!("{what}: {error}"),
                }
            });
            let works = Instant::now();
            let able = able.join().unwrap();
            let after = works.saturating_duration_since(able);
            eprintln!(
                "FIGURE {what}: a call {:?} after the fault; the ensemble {:?}; the call {after:?} after that",
                works.duration_since(fault),
                able.duration_since(fault)
            );
            assert!(after < MARGIN, "{what}: {after:?}");
        });
    }

    /// The lock is held by this session in its old generation, or lost with it; and never both.
    fn assert_lock_is_whole(&self, ensemble: &Ensemble) {
        let (other, _thread) = connect(&on(ensemble, LONG));
        let after = self.session.wait_connected(LIMIT).unwrap();
        if after.generation == self.before.generation {
            // In truth the same session, and not only called so.
            let own = self.lock.session().create_ephemeral("/work/under-lock-", b"").unwrap();
            let zk = ensemble.zk("");
            assert_eq!(zk.get(&own).unwrap().ephemeral_owner, self.id);
            let contenders = zk.children("/lock");
            assert_eq!(contenders.len(), 1);
            assert_eq!(zk.get(&format!("/lock/{}", contenders[0])).unwrap().ephemeral_owner, self.id);
            assert!(Lock::try_acquire(&other, "", "lock", "second").unwrap().is_none());
        } else {
            let theirs = eventually(LIMIT, "the lock of a lost session", || {
                Lock::try_acquire(&other, "", "lock", "second").unwrap()
            });
            let error = self.lock.session().create("/work/under-lock", b"").unwrap_err();
            assert!(error.is(ZkErrorKind::SessionLost), "{error}");
            drop(theirs);
        }
    }

    fn tell_what_came_of_the_session(&self) {
        let kept = self.session.status().generation == self.before.generation;
        eprintln!("the servers have {} the session", if kept { "kept" } else { "ended" });
    }

    fn assert_kept(&self, ensemble: &Ensemble) {
        assert_eq!(self.session.status().generation, self.before.generation, "the session was lost");
        self.assert_lock_is_whole(ensemble);
    }
}

#[test]
fn a_leader_that_is_killed_costs_no_lock() {
    let ensemble = Ensemble::start();
    let work = Work::begin(&ensemble, LONG);
    let leader = ensemble.leader();
    let fault = Instant::now();
    ensemble.kill(leader);
    work.goes_on(&ensemble, "leader killed", fault);
    work.assert_kept(&ensemble);
}

#[test]
fn the_session_moves_when_its_server_is_killed_whatever_part_that_had() {
    let ensemble = Ensemble::start();
    let work = Work::begin(&ensemble, LONG);
    for round in 0..4 {
        let server = work.server(&ensemble);
        let part = if server == ensemble.leader() { "leader" } else { "follower" };
        let fault = Instant::now();
        ensemble.kill(server);
        work.goes_on(&ensemble, &format!("connected server killed ({part})"), fault);
        assert_ne!(work.server(&ensemble), server);
        ensemble.restart(server);
        ensemble.wait_complete();
        assert!(work.session.status().connection > work.before.connection, "round {round}");
    }
    work.assert_kept(&ensemble);
}

#[test]
fn the_session_moves_when_its_server_falls_silent() {
    let ensemble = Ensemble::start();
    let timeout = 3 * T;
    let work = Work::begin(&ensemble, timeout);
    // Once more with the same server after it was continued: it has missed everything.
    for _ in 0..2 {
        let server = work.server(&ensemble);
        let part = if server == ensemble.leader() { "leader" } else { "follower" };
        let connection = work.session.status().connection;
        let fault = Instant::now();
        ensemble.stop_signal(server);
        eventually(LIMIT, "another connection", || {
            let status = work.session.status();
            (status.is_connected() && status.connection > connection).then_some(())
        });
        work.goes_on(&ensemble, &format!("connected server stopped ({part})"), fault);
        assert_ne!(work.server(&ensemble), server);
        ensemble.cont_signal(server);
        ensemble.wait_complete();
    }
    work.assert_lock_is_whole(&ensemble);
}

#[test]
fn a_follower_that_is_stopped_and_continued_disturbs_nobody_else() {
    let ensemble = Ensemble::start();
    let work = Work::begin(&ensemble, LONG);
    let server = work.server(&ensemble);
    let other = ensemble.followers().into_iter().find(|&follower| follower != server).unwrap();
    let fault = Instant::now();
    ensemble.stop_signal(other);
    work.goes_on(&ensemble, "another follower stopped", fault);
    eventually(LIMIT, "the leader to miss it", || (ensemble.followers().len() == 1).then_some(()));
    let fault = Instant::now();
    ensemble.cont_signal(other);
    work.goes_on(&ensemble, "another follower continued", fault);
    ensemble.wait_complete();
    assert_eq!(work.session.status(), work.before, "not even a new connection");
    work.assert_kept(&ensemble);
}

#[test]
fn a_majority_that_is_lost_for_longer_than_the_session_timeout_comes_back_to_a_whole_session() {
    let ensemble = Ensemble::start();
    let work = Work::begin(&ensemble, T);
    let leader = ensemble.leader();
    let follower = ensemble.followers().remove(0);
    let fault = Instant::now();
    ensemble.kill(leader);
    ensemble.kill(follower);
    // A call waits for as long as the session could live, and says then that it was not done.
    while fault.elapsed() < 3 * T {
        let call = Instant::now();
        match work.session.create("/work/without-majority", b"") {
            Err(error) if error.is(ZkErrorKind::Unavailable) => {}
            other => panic!("an answer without a majority: {other:?}"),
        }
        assert!(call.elapsed() < T + Duration::from_secs(1), "{:?}", call.elapsed());
    }
    let back = Instant::now();
    ensemble.restart(leader);
    ensemble.restart(follower);
    work.goes_on(&ensemble, "majority lost and back (from the restart on)", back);
    work.assert_lock_is_whole(&ensemble);
    work.tell_what_came_of_the_session();
}

/// One that hangs was given more time with each round, and the others had to wait for it.
#[test]
fn a_server_that_hangs_does_not_hold_up_those_that_come_back() {
    let timeout = Duration::from_secs(15);
    let ensemble = Ensemble::start();
    let work = Work::begin(&ensemble, timeout);
    let hangs = ensemble.followers().remove(0);
    ensemble.stop_signal(hangs);
    let killed: Vec<usize> = ensemble.numbers().filter(|server| *server != hangs).collect();
    killed.iter().for_each(|server| ensemble.kill(*server));
    eventually(LIMIT, "the end of the connection", || (!work.session.status().is_connected()).then_some(()));
    // Some rounds in vain.
    let error = work.session.wait_connected(timeout / 2).unwrap_err();
    assert!(error.is(ZkErrorKind::Unavailable), "{error}");
    let back = Instant::now();
    killed.iter().for_each(|server| ensemble.restart(*server));
    work.goes_on(&ensemble, "majority back beside a server that hangs (from the restart on)", back);
    work.assert_lock_is_whole(&ensemble);
    ensemble.cont_signal(hangs);
}

#[test]
fn servers_that_are_all_stopped_for_longer_than_the_session_timeout_leave_a_whole_session() {
    let ensemble = Ensemble::start();
    let work = Work::begin(&ensemble, T);
    let fault = Instant::now();
    ensemble.numbers().for_each(|server| ensemble.stop_signal(server));
    while fault.elapsed() < 2 * T {
        let error = work.session.get("/lock").unwrap_err();
        assert!(error.is(ZkErrorKind::Unavailable), "{error}");
    }
    let back = Instant::now();
    ensemble.numbers().for_each(|server| ensemble.cont_signal(server));
    work.goes_on(&ensemble, "all servers stopped and continued (from the continuation on)", back);
    work.assert_lock_is_whole(&ensemble);
    work.tell_what_came_of_the_session();
}

/// The leader that expires the session is not the one that began it.
#[test]
fn a_session_that_a_new_leader_has_expired_is_followed_by_a_new_one() {
    let ensemble = Ensemble::start();
    let proxies: Vec<Proxy> =
        ensemble.servers().iter().map(|server| Proxy::before(server.plain_port())).collect();
    let servers = proxies.iter().map(|proxy| at("127.0.0.1", proxy.port())).collect();
    let work = Work::begin_with(&ensemble, &ZooKeeperConfig { servers, ..config(0, "", T) });
    proxies.iter().for_each(|proxy| proxy.set(Net::Silent));
    ensemble.kill(ensemble.leader());
    ensemble.wait_quorum();
    let (other, _thread) = connect(&on(&ensemble, LONG));
    let theirs = eventually(LIMIT, "the lock of an expired session", || {
        Lock::try_acquire(&other, "", "lock", "second").unwrap()
    });
    assert_eq!(work.session.status().generation, work.before.generation, "only the servers end a session");
    let error = work.lock.session().create("/work/under-lock", b"").unwrap_err();
    assert!(error.is(ZkErrorKind::Unavailable), "{error}");
    let back = Instant::now();
    proxies.iter().for_each(|proxy| proxy.set(Net::Pass));
    work.goes_on(&ensemble, "packets dropped until the session has expired, and back", back);
    assert!(work.session.status().generation > work.before.generation);
    let error = work.lock.session().create("/work/under-lock", b"").unwrap_err();
    assert!(error.is(ZkErrorKind::SessionLost), "{error}");
    drop(theirs);
    assert!(!ensemble.zk("").exists("/work/under-lock"));
    work.assert_lock_is_whole(&ensemble);
}
