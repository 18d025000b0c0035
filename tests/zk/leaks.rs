//! What is left after many connections. Counted in a process of its own, where no other test runs.

use nodepool::zk::{Lock, TreeCache};

use super::proxy::{Mode as Net, Proxy};
use super::{SOON, config, connect, log};
use crate::support::{again, eventually, passes, shared};

fn entries(dir: &str) -> usize {
    std::fs::read_dir(dir).unwrap().count()
}

/// Not a test: what the next one runs.
#[test]
#[ignore = "run by reconnecting_leaves_no_threads_and_no_descriptors"]
fn reconnects_and_counts() {
    let proxy = Proxy::before(shared().plain_port());
    let (session, thread) = connect(&config(proxy.port(), "", SOON));
    let (tree, changes) = TreeCache::start(&session, "/leaks", &log()).unwrap();
    changes.recv_timeout(SOON).unwrap();
    let count = || (entries("/proc/self/task"), entries("/proc/self/fd"));
    let before = count();
    for round in 0..20 {
        let was = session.status().connection;
        let lock = Lock::try_acquire(&session, "", "leaks/lock", "us").unwrap();
        if round % 5 == 0 {
            proxy.set(Net::Silent);
            eventually(SOON, "the silence to be noticed", || {
                (!session.status().is_connected()).then_some(())
            });
            proxy.set(Net::Pass);
        } else {
            proxy.cut();
        }
        eventually(SOON, "the next connection", || (session.status().connection > was).then_some(()));
        drop(lock);
    }
    eventually(SOON, &format!("the counts of {before:?}"), || {
        let now = count();
        eprintln!("{before:?} before, {now:?} after 20 connections");
        (now.0 <= before.0 && now.1 <= before.1).then_some(())
    });
    assert_eq!(session.status().generation, session.wait_connected(SOON).unwrap().generation);
    drop((tree, thread));
    eventually(SOON, "no thread of the layer", || {
        let names = std::fs::read_dir("/proc/self/task")
            .unwrap()
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("comm")).ok());
        let left: Vec<_> =
            names.filter(|name| name.starts_with("zk-") || name == "io\n" || name == "event\n").collect();
        left.is_empty().then_some(())
    });
}

#[test]
fn reconnecting_leaves_no_threads_and_no_descriptors() {
    let text = passes(again("zk::leaks::reconnects_and_counts"));
    eprintln!("{}", text.lines().rfind(|line| line.contains("connections")).unwrap_or_default());
}
