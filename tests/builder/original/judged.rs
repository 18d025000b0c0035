//! The judge itself: what it lets pass, and that each kind of breach is one.

use super::laws::Judge;
use crate::support::history::{Change, Entry};

const OURS: i64 = 1;
const THEIRS: i64 = 2;
const CLIENT: i64 = 3;
const BUILDS: &str = "/x/nodepool/images/i/builds";

fn entry(session: i64, change: Change) -> Entry {
    Entry { session, time: 0, change }
}

fn component(session: i64, version: &str) -> Entry {
    let path = format!("/x/nodepool/components/builder/host{session}");
    let data = format!(r#"{{"version": "{version}"}}"#).into_bytes();
    entry(session, Change::Create { path, data, ephemeral: true })
}

/// A contender below `record`.
fn lock(session: i64, record: &str) -> Entry {
    let path = format!("{record}/lock/{session:032x}__lock__{session:010}");
    entry(session, Change::Create { path, data: Vec::new(), ephemeral: true })
}

fn record(state: &str, time: u32) -> Vec<u8> {
    format!(r#"{{"state": "{state}", "state_time": {time}.5}}"#).into_bytes()
}

fn create(session: i64, path: &str, state: &str) -> Entry {
    entry(session, Change::Create { path: path.to_owned(), data: record(state, 0), ephemeral: false })
}

fn set(session: i64, path: &str, state: &str, time: u32) -> Entry {
    entry(session, Change::Set { path: path.to_owned(), data: record(state, time) })
}

fn delete(session: i64, path: &str) -> Entry {
    entry(session, Change::Delete { path: path.to_owned() })
}

fn close(session: i64) -> Entry {
    entry(session, Change::Close)
}

/// A build of ours that became ready, while we hold the image's lock still.
fn built(id: &str, time: u32) -> Vec<Entry> {
    let path = format!("{BUILDS}/{id}");
    vec![lock(OURS, BUILDS), create(OURS, &path, "building"), set(OURS, &path, "ready", time)]
}

fn breaches(story: Vec<Entry>) -> Vec<String> {
    let mut judge = Judge::new("/x");
    let components = [component(OURS, "0.1.0"), component(THEIRS, "11.0.0")];
    components.iter().chain(&story).for_each(|entry| judge.judge(entry));
    judge.breaches
}

#[test]
fn the_judge_lets_an_ordinary_life_pass() {
    let (build, uploads) = (format!("{BUILDS}/a"), format!("{BUILDS}/a/providers/p/images"));
    let upload = format!("{uploads}/0000000000");
    let mut story = built("a", 1);
    story.extend([
        lock(OURS, &uploads),
        create(OURS, &upload, "uploading"),
        set(OURS, &upload, "ready", 1),
        set(CLIENT, &build, "deleting", 2),
        set(THEIRS, &upload, "deleting", 2),
        delete(THEIRS, &upload),
        delete(THEIRS, &build),
    ]);
    // Two newer ones are a reason to go.
    story.extend(["b", "c", "d"].into_iter().zip(3..).flat_map(|(id, time)| built(id, time)));
    story.extend([set(THEIRS, &format!("{BUILDS}/b"), "deleting", 9), delete(OURS, &format!("{BUILDS}/b"))]);
    // So is the end of the session that built.
    story.extend([create(OURS, &format!("{BUILDS}/e"), "building"), close(OURS)]);
    story.push(delete(THEIRS, &format!("{BUILDS}/e")));
    // Whoever takes the lock then may say so first.
    let abandoned = format!("{BUILDS}/f");
    story.extend([lock(OURS, BUILDS), create(OURS, &abandoned, "building"), close(OURS)]);
    story.extend([lock(THEIRS, BUILDS), set(THEIRS, &abandoned, "failed", 9), delete(THEIRS, &abandoned)]);
    assert_eq!(breaches(story), [""; 0]);
}

#[test]
fn the_judge_finds_each_breach() {
    let (build, uploads) = (format!("{BUILDS}/a"), format!("{BUILDS}/a/providers/p/images"));
    let upload = format!("{uploads}/0000000000");
    let building = || vec![lock(OURS, BUILDS), create(OURS, &build, "building")];
    let uploading =
        || [built("a", 1), vec![lock(OURS, &uploads), create(OURS, &upload, "uploading")]].concat();
    let ready = || [uploading(), vec![set(OURS, &upload, "ready", 1)]].concat();
    let stories = [
        ("a build without the lock", vec![], create(OURS, &build, "building")),
        (
            "two builds of an image",
            [building(), vec![lock(THEIRS, BUILDS)]].concat(),
            create(THEIRS, &format!("{BUILDS}/b"), "building"),
        ),
        ("the other's build is failed", building(), set(THEIRS, &build, "failed", 1)),
        ("a build is removed while it runs", building(), delete(THEIRS, &build)),
        ("a build is marked while it runs", building(), set(THEIRS, &build, "deleting", 1)),
        ("a ready build goes without a reason", built("a", 1), set(THEIRS, &build, "deleting", 2)),
        ("its own builder has none either", built("a", 1), set(OURS, &build, "deleting", 2)),
        ("a ready build is removed unmarked", built("a", 1), delete(THEIRS, &build)),
        ("an upload without the lock", built("a", 1), create(OURS, &upload, "uploading")),
        (
            "an upload of what the other has",
            [built("a", 1), vec![lock(THEIRS, &uploads)]].concat(),
            create(THEIRS, &upload, "uploading"),
        ),
        ("a second upload", ready(), create(OURS, &format!("{uploads}/0000000001"), "uploading")),
        ("an upload is removed while it runs", uploading(), delete(THEIRS, &upload)),
        ("a ready upload goes without a reason", ready(), set(THEIRS, &upload, "deleting", 2)),
        (
            "what was deleted comes back",
            [built("a", 1), vec![set(CLIENT, &build, "deleting", 2)]].concat(),
            set(OURS, &build, "ready", 3),
        ),
    ];
    for (what, before, last) in stories {
        assert_eq!(breaches(before.clone()), [""; 0], "{what}");
        let found = breaches([before, vec![last]].concat());
        assert_eq!(found.len(), 1, "{what}: {found:?}");
    }
}
