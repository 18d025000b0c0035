//! The copy of a tree.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use nodepool::zk::{Changes, IMAGES, Node, Session, TreeCache, decode_image};

use super::{SOON, log, open};
use crate::support::{Sandbox, eventually};

fn is_as_on_the_server(tree: &TreeCache, session: &Session, root: &str) -> bool {
    let read = Node::read(session, root).unwrap().unwrap();
    tree.look(|copy| copy.children == read.children)
}

/// Waits until every name was announced, and says all that were.
fn announced(changes: &crossbeam_channel::Receiver<Changes>, wanted: &[&str]) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    while !wanted.iter().all(|name| names.contains(*name)) {
        match changes.recv_timeout(SOON).unwrap() {
            Changes::Below(new) => names.extend(new),
            Changes::All => panic!("a full read without a reason"),
        }
    }
    names
}

#[test]
fn the_copy_has_what_was_there_and_what_comes_and_goes() {
    let sandbox = Sandbox::new("zk::cache::life");
    let (session, _thread) = open(&sandbox);
    let zk = sandbox.zk();
    zk.set("/tree/a/b", "old");
    zk.set("/tree/a/b/c", "old");
    let (tree, changes) = TreeCache::start(&session, "/tree", &log()).unwrap();
    assert_eq!(changes.recv_timeout(SOON).unwrap(), Changes::All);
    let data = |path: &str| tree.look(|root| root.at(path).map(|node| node.data.clone()));
    assert_eq!(data("a/b").unwrap(), b"old");

    zk.set("/tree/a/b", "new");
    assert_eq!(announced(&changes, &["a"]), BTreeSet::from(["a".to_owned()]));
    assert_eq!(data("a/b").unwrap(), b"new");
    zk.set("/tree/d/e", "new");
    announced(&changes, &["d"]);
    eventually(SOON, "the new node", || data("d/e"));
    assert_eq!(tree.look(|root| root.at("a/b").unwrap().version), 1);

    {
        let other = sandbox.zk();
        other.hold_lock("/tree/d/lock");
        announced(&changes, &["d"]);
        eventually(SOON, "the lock", || tree.look(|root| root.at("d")?.is_locked("lock").then_some(())));
    }
    eventually(SOON, "its end", || tree.look(|root| (!root.at("d")?.is_locked("lock")).then_some(())));

    while changes.try_recv().is_ok() {}
    zk.delete("/tree/a");
    announced(&changes, &["a"]);
    eventually(SOON, "the subtree to go", || data("a").is_none().then_some(()));
    assert!(is_as_on_the_server(&tree, &session, "/tree"));
}

#[test]
fn a_root_that_is_missing_is_made_and_may_go_and_come_again() {
    let sandbox = Sandbox::new("zk::cache::root");
    let (session, _thread) = open(&sandbox);
    let (tree, changes) = TreeCache::start(&session, "/x/tree", &log()).unwrap();
    changes.recv_timeout(SOON).unwrap();
    let zk = sandbox.zk();
    for round in ["a", "b"] {
        zk.set(&format!("/x/tree/{round}/c"), "");
        eventually(SOON, "the node", || tree.look(|root| root.at(round)?.at("c").map(drop)));
        zk.delete("/x/tree");
        eventually(SOON, "its end", || tree.look(|root| root.children.is_empty().then_some(())));
    }
}

#[test]
fn damaged_records_are_told_and_disturb_nobody() {
    let sandbox = Sandbox::new("zk::cache::damaged");
    let (session, _thread) = open(&sandbox);
    let zk = sandbox.zk();
    let good = serde_json::json!({"state": "ready", "state_time": 1.5, "builder": "b", "builder_id": "i"});
    zk.set_json(&format!("{IMAGES}/vm/builds/good"), &good);
    zk.set(&format!("{IMAGES}/vm/builds/bad"), "{not json");
    zk.set(&format!("{IMAGES}/vm/builds/none"), "");
    let (tree, changes) = TreeCache::start(&session, IMAGES, &log()).unwrap();
    changes.recv_timeout(SOON).unwrap();
    zk.set(&format!("{IMAGES}/vm/builds/later"), [0xff, 0xfe]);
    let read = || {
        let mut damaged = Vec::new();
        let image = tree.look(|root| {
            decode_image("vm", root.at("vm").unwrap(), &mut |path, _| {
                damaged.push(path.rsplit('/').next().unwrap().to_owned());
            })
        });
        (image, damaged)
    };
    let (image, damaged) =
        eventually(SOON, "the damaged record", || Some(read()).filter(|(_, damaged)| damaged.len() == 3));
    assert_eq!(damaged, ["bad", "later", "none"]);
    assert_eq!(image.builds.keys().collect::<Vec<_>>(), ["good"]);
}

#[test]
fn two_thousand_changes_end_in_the_same_tree() {
    let sandbox = Sandbox::new("zk::cache::storm");
    let (session, _thread) = open(&sandbox);
    let (writer, _writing) = open(&sandbox);
    let (tree, changes) = TreeCache::start(&session, "/tree", &log()).unwrap();
    assert_eq!(changes.recv_timeout(SOON).unwrap(), Changes::All);
    let before = session.status();
    std::thread::scope(|scope| {
        for thread in 0..4usize {
            let writer = &writer;
            scope.spawn(move || {
                for round in 0..500usize {
                    let node = format!("/tree/{}/{}", (thread + round) % 3, fastrand::u8(..8));
                    // Several at the same node: whichever comes first may win.
                    match fastrand::u8(..4) {
                        0 => drop(writer.delete_tree(&node)),
                        1 => drop(nodepool::zk::Lock::try_acquire(writer, &node, "lock", "x")),
                        2 => drop(writer.ensure_path(&format!("{node}/child"))),
                        _ => {
                            let version = writer.stat(&node).unwrap().map_or(0, |stat| stat.version);
                            let _ = writer.set(&node, round.to_string().as_bytes(), version);
                        }
                    }
                }
            });
        }
    });
    let began = Instant::now();
    writer.ensure_path("/tree/last").unwrap();
    eventually(SOON, "the last change", || tree.look(|root| root.at("last").map(drop)));
    eprintln!("the copy was complete {:?} after the last change", began.elapsed());
    assert!(is_as_on_the_server(&tree, &session, "/tree"));
    assert_eq!(session.status(), before);
}

/// The owner of both may let them go in any order.
#[test]
fn a_reader_that_never_reads_holds_up_neither_the_copy_nor_its_end() {
    let sandbox = Sandbox::new("zk::cache::deaf");
    let (session, _thread) = open(&sandbox);
    let (tree, changes) = TreeCache::start(&session, "/tree", &log()).unwrap();
    let zk = sandbox.zk();
    for round in 0..200 {
        zk.set(&format!("/tree/{round}"), "");
    }
    eventually(SOON, "the last change", || tree.look(|root| root.at("199").map(drop)));
    let began = Instant::now();
    drop(tree);
    assert!(began.elapsed() < Duration::from_secs(1));
    drop(changes);
}

#[test]
fn what_waits_for_the_copy_and_for_its_reader_is_counted() {
    let sandbox = Sandbox::new("zk::cache::queued");
    let (session, _thread) = open(&sandbox);
    let zk = sandbox.zk();
    let (tree, changes) = TreeCache::start(&session, "/tree", &log()).unwrap();
    let untaken = |count| {
        eventually(SOON, &format!("{count} untaken"), || (tree.queued().1 == count).then_some(()));
    };
    // That everything was read lies there, and the names wait behind it.
    untaken(1);
    for name in ["a", "b", "c", "a"] {
        zk.set(&format!("/tree/{name}"), "");
    }
    untaken(4);
    assert_eq!(changes.recv().unwrap(), Changes::All);
    untaken(3);
    announced(&changes, &["a", "b", "c"]);
    untaken(0);
    tree.look(|_| {
        zk.set("/tree/d", "");
        eventually(SOON, "an event that waits for the copy", || (tree.queued().0 > 0).then_some(()));
    });
    eventually(SOON, "its end", || (tree.queued().0 == 0).then_some(()));
}
