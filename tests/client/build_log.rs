//! `dib-image-log`, with a builder that is played by the test.

use std::fs::OpenOptions;
use std::io::Write;
use std::process::Command;
use std::time::Duration;

use serde_json::json;

use super::{BODY, NEW, OLD, build_path, not_found, put_build, refused};
use crate::support::{Daemon, Sandbox, Signal};

const SOON: Duration = Duration::from_secs(20);

fn id(build: &str) -> String {
    format!("debian-{build}")
}

fn append(sandbox: &Sandbox<'_>, text: &str) {
    let file = sandbox.logs().join(format!("debian-{NEW}.log"));
    let mut log = OpenOptions::new().append(true).create(true).open(file).unwrap();
    log.write_all(text.as_bytes()).unwrap();
}

fn follow(sandbox: &Sandbox<'_>) -> Daemon {
    let mut client = Command::new(env!("CARGO_BIN_EXE_nodepool"));
    client.arg("-c").arg(sandbox.config_file()).args(["dib-image-log", &id(NEW), "--follow"]);
    sandbox.spawn(&client)
}

#[test]
fn dib_image_log_prints_the_log_or_says_which_builder_has_it() {
    let sandbox = Sandbox::new("client-log");
    sandbox.write_body(BODY);
    let zk = sandbox.zk();
    let log = sandbox.logs().join(format!("debian-{OLD}.log"));
    for args in [&["dib-image-log", &id(OLD)][..], &["dib-image-log", "--follow", &id(OLD)]] {
        refused(&sandbox.nodepool(args), &not_found(&id(OLD)));
    }
    put_build(&zk, "debian", OLD, "ready");
    for args in [&["dib-image-log", &id(OLD)][..], &["dib-image-log", "--follow", &id(OLD)]] {
        let why =
            format!("{} is not on this machine: the log of debian-{OLD} is on b.example", log.display());
        refused(&sandbox.nodepool(args), &why);
    }
    sandbox.replace("images/builder_id.txt", "id\n");
    let why = "is not there any more: only the newest logs of an image are kept (build-log-retention)";
    refused(&sandbox.nodepool(&["dib-image-log", &id(OLD)]), &format!("{} {why}", log.display()));
    for id in ["../logs/debian-x", "debian", "debian-", ""] {
        refused(&sandbox.nodepool(&["dib-image-log", id]), &not_found(id));
    }
    // Larger than any buffer, and no text.
    let text = [b"line\n".repeat(50_000), vec![0xff, b'\n']].concat();
    std::fs::write(&log, &text).unwrap();
    let printed = || String::from_utf8_lossy(&text) == sandbox.nodepool(&["dib-image-log", &id(OLD)]).ok();
    assert!(printed());
    // A log outlives its record, and needs no ZooKeeper.
    zk.delete(&build_path("debian", OLD));
    sandbox.write_config(&format!(
        "zookeeper-servers: [{{host: 127.0.0.1, port: 1}}]\nbuild-log-dir: {}\n",
        sandbox.logs().display()
    ));
    assert!(printed());
}

#[test]
fn dib_image_log_follows_a_build_until_it_ends() {
    let sandbox = Sandbox::new("client-log-follow");
    sandbox.write_body(BODY);
    let (zk, builder) = (sandbox.zk(), sandbox.zk());
    builder.hold_lock("/nodepool/images/debian/builds/lock");
    put_build(&zk, "debian", NEW, "building");
    append(&sandbox, "one\n");
    let client = follow(&sandbox);
    client.wait_log("one\n", SOON);
    append(&sandbox, "two, in");
    client.wait_log("one\ntwo, in", SOON);
    append(&sandbox, " two steps\n");
    client.wait_log("two, in two steps\n", SOON);
    // Another build has nothing to do with it.
    put_build(&zk, "debian", OLD, "failed");
    append(&sandbox, "three\n");
    client.wait_log("three\n", SOON);
    append(&sandbox, "the end\n");
    put_build(&zk, "debian", NEW, "ready");
    assert!(client.wait_exit(SOON).success());
    assert_eq!(client.log(), "one\ntwo, in two steps\nthree\nthe end\n");
    // One that has ended is not waited for.
    let client = follow(&sandbox);
    assert!(client.wait_exit(SOON).success());
    assert_eq!(client.log(), "one\ntwo, in two steps\nthree\nthe end\n");
}

#[test]
fn dib_image_log_follows_until_it_is_interrupted_or_the_builder_dies() {
    let sandbox = Sandbox::new("client-log-interrupt");
    sandbox.write_body(BODY);
    let (zk, builder) = (sandbox.zk(), sandbox.zk());
    builder.hold_lock("/nodepool/images/debian/builds/lock");
    // The record comes before the log.
    zk.set_json(
        &build_path("debian", NEW),
        &json!({"state": "building", "state_time": 1.0, "builder_id": "own"}),
    );
    sandbox.replace("images/builder_id.txt", "own");
    let [interrupted, waiting] = [follow(&sandbox), follow(&sandbox)];
    let begun = format!("debian-{NEW}: waiting for its log\n");
    for client in [&interrupted, &waiting] {
        client.wait_log(&begun, SOON);
    }
    append(&sandbox, "one\n");
    for client in [&interrupted, &waiting] {
        client.wait_log("one\n", SOON);
    }
    interrupted.signal(Signal::INT);
    assert!(!interrupted.wait_exit(SOON).success());
    assert!(waiting.exited().is_none());
    drop(builder);
    assert!(waiting.wait_exit(SOON).success());
    assert_eq!(waiting.log(), format!("{begun}one\n"));
}
