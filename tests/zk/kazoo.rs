//! Our locks and those of the original's own library, kazoo, on the same znodes over TLS.

use std::fs::File;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use nodepool::config::{Tls, ZooKeeperConfig};
use nodepool::zk::{Images, Session, SessionThread};

use super::{SOON, T, at, config, connect};
use crate::support::tls::CertFiles;
use crate::support::{Daemon, Original, Sandbox, again, eventually, shared, within};

/// Python's start, and a share for everybody, on a machine that is busy with other tests.
const LIMIT: Duration = Duration::from_secs(120);
const IMAGE: &str = "image";
const LOCK: &str = "/nodepool/images/image/builds/lock";
/// How often we must have had the lock; of kazoo's, each process as often as its script finds enough.
const SHARE: usize = 100;

fn open(chroot: &str, timeout: Duration) -> (Session, SessionThread) {
    let CertFiles { cert, key, ca } = shared().pki().client().clone();
    connect(&ZooKeeperConfig {
        servers: vec![at("localhost", shared().tls_port())],
        tls: Some(Tls { cert, key, ca, verify_hostname: true }),
        ..config(0, chroot, timeout)
    })
}

/// A process that takes the lock with kazoo.
fn kazoo(sandbox: &Sandbox<'_>, timeout: Duration, mode: &[&str]) -> Daemon {
    let CertFiles { cert, key, ca } = shared().pki().client();
    let mut command = Original::get().python();
    command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/support/kazoo-locks.py"));
    command.arg(format!("localhost:{}{}", shared().tls_port(), sandbox.chroot()));
    command.args([cert, key, ca]).arg(timeout.as_secs_f64().to_string()).arg(LOCK).args(mode);
    sandbox.spawn(&command)
}

/// Takes the lock again and again until `stop` exists.
fn take(images: &Images, folder: &Path, taken: &AtomicUsize) {
    let (holder, stop) = (folder.join("holder"), folder.join("stop"));
    let mut random = fastrand::Rng::new();
    // The pause gives the others who do not wait for the lock a chance.
    while within(Duration::from_millis(random.u64(0..10)), || stop.exists().then_some(())).is_none() {
        if let Some(lock) = images.lock_builds(IMAGE).unwrap() {
            match File::create_new(&holder) {
                Ok(_) => {
                    lock.session().stat("/nodepool").unwrap();
                    std::fs::remove_file(&holder).unwrap();
                }
                Err(_) => std::fs::write(folder.join("collisions"), "we got a lock that is held\n").unwrap(),
            }
            taken.fetch_add(1, Ordering::Relaxed);
        }
    }
}

#[test]
fn kazoo_and_we_never_hold_a_lock_at_the_same_time() {
    let sandbox = Sandbox::new("zk::kazoo::share");
    let sessions = [open(sandbox.chroot(), LIMIT), open(sandbox.chroot(), LIMIT)];
    let folder = sandbox.dir();
    let theirs: Vec<Daemon> = (0..)
        .zip(["blocking", "trying", "blocking"])
        .map(|(seed, mode)| kazoo(&sandbox, LIMIT, &[mode, folder.to_str().unwrap(), &seed.to_string()]))
        .collect();
    let taken = AtomicUsize::new(0);
    let began = Instant::now();
    std::thread::scope(|scope| {
        for (session, _) in [&sessions[0], &sessions[0], &sessions[1], &sessions[1]] {
            let (images, taken) = (Images::new(session, "us"), &taken);
            scope.spawn(move || take(&images, folder, taken));
        }
        let had = within(LIMIT, || {
            let theirs = theirs.iter().all(|kazoo| kazoo.log().contains("enough\n"));
            (taken.load(Ordering::Relaxed) >= SHARE && theirs).then_some(())
        });
        // Also when it took too long: the others must end.
        File::create(folder.join("stop")).unwrap();
        assert!(had.is_some(), "no share for everybody; we had the lock {taken:?} times");
    });
    for kazoo in &theirs {
        assert!(kazoo.wait_exit(LIMIT).success(), "{}", kazoo.log());
    }
    let theirs: Vec<_> = theirs.iter().map(|kazoo| kazoo.log().replace("enough\n", "")).collect();
    eprintln!("{:?}: taken {taken:?} times by us, and by kazoo {theirs:?}", began.elapsed());
    let collisions = std::fs::read_to_string(folder.join("collisions"));
    assert!(collisions.is_err(), "{}", collisions.unwrap());
    assert!(!folder.join("holder").exists());
    assert_eq!(sandbox.zk().children(LOCK), [""; 0], "nobody leaves a contender behind");
}

#[test]
fn the_lock_of_a_killed_kazoo_is_ours_once_its_session_is_over() {
    let sandbox = Sandbox::new("zk::kazoo::killed");
    let (session, _thread) = open(sandbox.chroot(), LIMIT);
    let images = Images::new(&session, "us");
    let kazoo = kazoo(&sandbox, T, &["hold"]);
    kazoo.wait_log("held\n", LIMIT);
    assert!(images.lock_builds(IMAGE).unwrap().is_none());
    let zk = sandbox.zk();
    assert_eq!(zk.children(LOCK).len(), 1, "who is refused leaves nothing behind");
    kazoo.kill();
    let killed = Instant::now();
    let _lock = eventually(SOON, "the lock of the killed one", || images.lock_builds(IMAGE).unwrap());
    eprintln!("ours {:?} after the kill", killed.elapsed());
    assert_eq!(zk.children(LOCK).len(), 1);
}

/// Not a test: what the next one runs in a process of its own, to kill it.
#[test]
#[ignore = "run by the_lock_of_one_of_ours_that_was_killed_is_kazoos_once_its_session_is_over"]
fn holds_a_lock() {
    let var = |key: &str| std::env::var(key).unwrap();
    let CertFiles { cert, key, ca } =
        CertFiles { cert: var("CERT").into(), key: var("KEY").into(), ca: var("CA").into() };
    let (session, _thread) = connect(&ZooKeeperConfig {
        servers: vec![at("localhost", var("PORT").parse().unwrap())],
        tls: Some(Tls { cert, key, ca, verify_hostname: true }),
        ..config(0, &var("CHROOT"), T)
    });
    let _lock = Images::new(&session, "us").lock_builds(IMAGE).unwrap().unwrap();
    println!("\nheld");
    loop {
        std::thread::park();
    }
}

#[test]
fn the_lock_of_one_of_ours_that_was_killed_is_kazoos_once_its_session_is_over() {
    let sandbox = Sandbox::new("zk::kazoo::ours-killed");
    let CertFiles { cert, key, ca } = shared().pki().client();
    let mut command = again("zk::kazoo::holds_a_lock");
    command.env("CERT", cert).env("KEY", key).env("CA", ca);
    command.env("PORT", shared().tls_port().to_string()).env("CHROOT", sandbox.chroot());
    let ours = sandbox.spawn(&command);
    ours.wait_log("\nheld\n", LIMIT);
    let zk = sandbox.zk();
    let held = zk.children(LOCK);
    let kazoo = kazoo(&sandbox, LIMIT, &["hold"]);
    // It stands in the queue, behind ours.
    zk.wait_children(LOCK, LIMIT, |names| names.len() == 2);
    assert!(!kazoo.log().contains("held"));
    ours.kill();
    let killed = Instant::now();
    kazoo.wait_log("held\n", SOON);
    eprintln!("kazoo's {:?} after the kill", killed.elapsed());
    let names = zk.children(LOCK);
    assert!(names.len() == 1 && names != held, "{names:?}");
}
