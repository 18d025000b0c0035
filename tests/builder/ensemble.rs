//! A builder on three ZooKeeper servers that fail in the middle of a build, and one that falls asleep itself.

use std::time::Instant;

use super::*;
use crate::support::leash::is_alive;
use crate::support::{Daemon, Ensemble, Header, Signal};

/// Of the builders' sessions.
const TIMEOUT: Duration = Duration::from_secs(3);

/// Builds until the file `go` is there; what it started writes its process ids to `started` and `child`.
fn patient_image(sandbox: &Sandbox<'_>) -> String {
    let dir = sandbox.dir().display();
    let env = format!(
        "FAKE_DIB_STARTED: '{dir}/started', FAKE_DIB_CHILD: '{dir}/child', FAKE_DIB_WAIT_FOR: '{dir}/go'"
    );
    image(sandbox, "debian", &format!("formats: [raw], env-vars: {{{env}}}"))
}

fn header(sandbox: &Sandbox<'_>) -> String {
    sandbox.header(&Header { timeout: TIMEOUT.as_secs_f64(), ..Header::default() })
}

/// A build at work: its id and the processes that belong to it.
struct Build {
    id: String,
    pids: [u32; 2],
}

impl Build {
    /// The only build, once it runs.
    fn running(sandbox: &Sandbox<'_>) -> Build {
        let id = wait_builds(&sandbox.zk(), "debian", "building", 1).remove(0);
        Build { id, pids: Build::pids(sandbox) }
    }

    /// The processes of the newest build. Their files are taken away, for those of the next one.
    fn pids(sandbox: &Sandbox<'_>) -> [u32; 2] {
        ["started", "child"].map(|file| {
            let pid = wait_pid(sandbox, file);
            std::fs::remove_file(sandbox.path(file)).unwrap();
            pid
        })
    }

    fn is_alive(&self) -> bool {
        self.pids.iter().any(|&pid| is_alive(pid))
    }
}

/// Lets builds end.
fn go(sandbox: &Sandbox<'_>) {
    std::fs::write(sandbox.path("go"), "").unwrap();
}

fn lock_holders(zk: &ZkClient) -> Vec<String> {
    zk.children(&format!("{IMAGES}/debian/builds/lock"))
}

/// Stops a builder until the servers have expired its session, and with it the lock of its build.
fn expire(sandbox: &Sandbox<'_>, builder: &Daemon) {
    let zk = sandbox.zk();
    let held = lock_holders(&zk);
    assert_eq!(held.len(), 1);
    builder.freeze();
    eventually(SOON, "the session of a stopped builder to expire", || {
        (!lock_holders(&zk).contains(&held[0])).then_some(())
    });
}

/// There is one build, and it is ready; nothing else is left of anything.
#[track_caller]
fn assert_only_ready(sandbox: &Sandbox<'_>, builder: &Daemon, images: &str) -> String {
    let zk = sandbox.zk();
    let id = builder.wait_until("the only build to be ready", SOON, || {
        let found = builds(&zk, "debian");
        let [(id, record)] = found.as_slice() else { return None };
        (record["state"] == "ready" && lock_holders(&zk).is_empty()).then(|| id.clone())
    });
    builder.wait_until("the files of that build only", SOON, || {
        let files: Vec<String> =
            names(sandbox.path(images)).into_iter().filter(|name| name.starts_with("debian-")).collect();
        (!files.is_empty() && files.iter().all(|name| name.contains(&id))).then_some(())
    });
    assert!(!builder.log().contains("panicked"));
    id
}

#[test]
fn a_build_goes_on_when_the_leader_is_killed_and_is_made_once() {
    let ensemble = Ensemble::start();
    let sandbox = Sandbox::on_ensemble(&ensemble, "builder-ensemble-leader");
    // Long enough for an election on a busy machine.
    let header = sandbox.header(&Header { timeout: 15.0, ..Header::default() });
    sandbox.write_config(&format!("{header}{}", body(&[patient_image(&sandbox)], &[])));
    let builder = sandbox.builder(&[]);
    let build = Build::running(&sandbox);
    let fault = Instant::now();
    ensemble.kill(ensemble.leader());
    let able = ensemble.wait_quorum();
    go(&sandbox);
    assert_eq!(assert_only_ready(&sandbox, &builder, "images"), build.id);
    eprintln!(
        "FIGURE builder, leader killed: a new leader after {:?}, the build ready {:?} after that",
        able - fault,
        able.elapsed()
    );
    assert!(!sandbox.path("started").exists(), "built again");
    assert!(!builder.log().contains("the ZooKeeper session was lost"));
    // The servers' events reach it as before.
    request(&sandbox.zk(), "debian");
    wait_builds(&sandbox.zk(), "debian", "ready", 2);
}

#[test]
fn a_build_outlives_a_majority_that_is_lost_for_longer_than_the_session_timeout_or_is_made_again() {
    let ensemble = Ensemble::start();
    let sandbox = Sandbox::on_ensemble(&ensemble, "builder-ensemble-majority");
    sandbox.write_config(&format!("{}{}", header(&sandbox), body(&[patient_image(&sandbox)], &[])));
    let builder = sandbox.builder(&[]);
    let build = Build::running(&sandbox);
    let down = [ensemble.leader(), ensemble.followers()[0]];
    let fault = Instant::now();
    down.iter().for_each(|&server| ensemble.kill(server));
    builder.wait_until("more than the session timeout to pass", SOON, || {
        (fault.elapsed() > 2 * TIMEOUT).then_some(())
    });
    assert!(build.is_alive(), "only the servers' word ends a session, and with it the build");
    down.iter().for_each(|&server| ensemble.restart(server));
    ensemble.wait_quorum();
    go(&sandbox);
    let ready = assert_only_ready(&sandbox, &builder, "images");
    let lost = builder.log().contains("the ZooKeeper session was lost");
    eprintln!("the session was {}", if lost { "lost" } else { "kept" });
    assert_eq!(ready != build.id, lost, "built again without a reason, or not at all");
    eventually(SOON, "the end of the first build's processes", || (!build.is_alive()).then_some(()));
}

#[test]
fn a_build_whose_session_the_servers_have_expired_is_thrown_away_and_made_again() {
    let ensemble = Ensemble::start();
    let sandbox = Sandbox::on_ensemble(&ensemble, "builder-ensemble-expired");
    sandbox.write_config(&format!("{}{}", header(&sandbox), body(&[patient_image(&sandbox)], &[])));
    let builder = sandbox.builder(&[]);
    let first = Build::running(&sandbox);
    expire(&sandbox, &builder);
    // The servers must not be needed in the same order as before either.
    ensemble.kill(ensemble.leader());
    ensemble.wait_quorum();
    assert!(first.is_alive(), "only the builder was stopped");
    builder.signal(Signal::CONT);
    let back = Instant::now();
    builder.wait_log("the ZooKeeper session was lost", SOON);
    builder.wait_until("the end of the first build", SOON, || (!first.is_alive()).then_some(()));
    Build::pids(&sandbox);
    eprintln!("FIGURE builder, session expired: built again {:?} after the continuation", back.elapsed());
    go(&sandbox);
    assert_ne!(assert_only_ready(&sandbox, &builder, "images"), first.id);
}

#[test]
fn a_build_that_has_ended_after_its_session_had_is_thrown_away_and_made_again() {
    let ensemble = Ensemble::start();
    let sandbox = Sandbox::on_ensemble(&ensemble, "builder-ensemble-late");
    sandbox.write_config(&format!("{}{}", header(&sandbox), body(&[patient_image(&sandbox)], &[])));
    let builder = sandbox.builder(&[]);
    let first = Build::running(&sandbox);
    expire(&sandbox, &builder);
    go(&sandbox);
    eventually(SOON, "the first build's command to end", || (!is_alive(first.pids[0])).then_some(()));
    assert!(!files(&sandbox, "debian").is_empty(), "it has succeeded");
    builder.signal(Signal::CONT);
    assert_ne!(assert_only_ready(&sandbox, &builder, "images"), first.id);
    eventually(SOON, "the end of the first build's processes", || (!first.is_alive()).then_some(()));
}

#[test]
fn a_build_that_another_builder_has_taken_over_is_not_made_twice() {
    let ensemble = Ensemble::start();
    let sandbox = Sandbox::on_ensemble(&ensemble, "builder-ensemble-fleet");
    let body = body(&[patient_image(&sandbox)], &[]);
    let sleeper = super::fleet::start_with(&sandbox, "sleeper", &header(&sandbox), &body);
    let first = Build::running(&sandbox);
    let other = super::fleet::start_with(&sandbox, "other", &header(&sandbox), &body);
    other.wait_log("connected to ZooKeeper", SOON);
    expire(&sandbox, &sleeper);
    Build::pids(&sandbox);
    sleeper.signal(Signal::CONT);
    sleeper.wait_until("the end of the first build", SOON, || (!first.is_alive()).then_some(()));
    go(&sandbox);
    let ready = assert_only_ready(&sandbox, &other, "other");
    assert_ne!(ready, first.id);
    sleeper.wait_until("its files to go", SOON, || {
        names(sandbox.path("sleeper")).iter().all(|name| !name.starts_with("debian-")).then_some(())
    });
    assert!(!sandbox.path("started").exists(), "built a third time");
    assert!(!sleeper.log().contains("panicked"));
}
