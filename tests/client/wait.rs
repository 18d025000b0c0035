//! `nodepool image-build --wait`, with a builder that is played by the test.

use std::process::Command;
use std::time::Duration;

use serde_json::json;

use crate::support::{Daemon, Sandbox, Signal, ZkClient, ZooKeeper};

const SOON: Duration = Duration::from_secs(20);
const REQUEST: &str = "/nodepool/images/debian/request-build";

const BODY: &str = "
diskimages:
  - {name: debian, formats: [qcow2]}
providers:
  - {name: fake-1, diskimages: [{name: debian}]}
  - {name: fake-2, diskimages: [{name: debian}]}
  - {name: fake-3, diskimages: [{name: debian, pause: true}]}
  - {name: fake-4, diskimages: []}
";

fn start(sandbox: &Sandbox<'_>) -> Daemon {
    let mut client = Command::new(env!("CARGO_BIN_EXE_nodepool"));
    client.arg("-c").arg(sandbox.config_file()).args(["image-build", "debian", "--wait"]);
    sandbox.spawn(&client)
}

fn build_path(build: &str) -> String {
    format!("/nodepool/images/debian/builds/{build}")
}

fn put_build(zk: &ZkClient, build: &str, state: &str) {
    let record = json!({"state": state, "state_time": 0.0, "builder": "b.example", "formats": "qcow2"});
    zk.set_json(&build_path(build), &record);
}

fn put_upload(zk: &ZkClient, build: &str, provider: &str, state: &str) {
    let path = format!("{}/providers/{provider}/images/0000000000", build_path(build));
    zk.set_json(&path, &json!({"state": state, "state_time": 0.0}));
}

/// Until the client has seen what `zk` has written so far, it must not write on: changes that come together
/// are told together.
#[track_caller]
fn says(client: &Daemon, text: &str) {
    client.wait_log(&format!("{text}\n"), SOON);
}

#[test]
fn the_wait_ends_when_all_providers_have_the_build() {
    let sandbox = Sandbox::new("wait-ready");
    sandbox.write_body(BODY);
    let zk = sandbox.zk();
    zk.create("/nodepool/components/builder/b.example0000000000", "{}");
    let lock = zk.hold_lock("/nodepool/images/debian/builds/lock");
    put_build(&zk, "0", "building");
    let client = start(&sandbox);
    says(&client, "debian: waiting until debian-0, which began earlier, is built");
    assert!(zk.exists(REQUEST));
    put_build(&zk, "0", "ready");
    zk.delete(&lock);
    says(&client, "debian: waiting for a builder");
    zk.create("/nodepool/images/debian/pause", "");
    says(&client, "debian: paused; builders wait until it is let go on with `nodepool image-unpause debian`");
    zk.delete("/nodepool/images/debian/pause");
    put_build(&zk, "1", "building");
    says(&client, "debian-1: building on b.example");
    put_build(&zk, "1", "ready");
    put_upload(&zk, "1", "fake-1", "uploading");
    says(&client, "debian-1: fake-1: uploading");
    put_upload(&zk, "1", "fake-1", "ready");
    says(&client, "debian-1: fake-1: ready");
    put_upload(&zk, "1", "fake-2", "ready");
    assert!(client.wait_exit(SOON).success(), "{}", client.log());
    says(&client, "debian-1: fake-2: ready");
    assert!(client.log().ends_with(" after the request\n"), "{}", client.log());
    assert!(!client.log().contains('\x1b') && !client.log().contains("warning"), "{}", client.log());
}

#[test]
fn a_failed_build_ends_the_wait_with_the_end_of_its_log() {
    let sandbox = Sandbox::new("wait-failed");
    sandbox.write_body(BODY);
    let zk = sandbox.zk();
    let lines: Vec<_> = (1..=30).map(|number| format!("line {number}")).collect();
    let log = sandbox.logs().join("debian-1.log");
    std::fs::write(&log, format!("{}\nExit code: 3\n", lines.join("\n"))).unwrap();
    let client = start(&sandbox);
    says(&client, "debian: waiting for a builder");
    put_build(&zk, "1", "building");
    says(&client, "debian-1: building on b.example");
    put_build(&zk, "1", "failed");
    assert_eq!(client.wait_exit(SOON).code(), Some(1));
    let expected = format!(
        "the end of {}:\n{}\nExit code: 3\nnodepool: the build debian-1 on b.example failed\n",
        log.display(),
        lines[11..].join("\n")
    );
    assert!(client.log().ends_with(&expected), "{}", client.log());
    assert!(zk.exists(REQUEST));
    // On another machine there is no log.
    std::fs::remove_file(&log).unwrap();
    let client = start(&sandbox);
    says(&client, "debian: waiting for a builder");
    put_build(&zk, "2", "failed");
    assert_eq!(client.wait_exit(SOON).code(), Some(1));
    assert!(client.log().contains("debian-2.log is not on this machine"), "{}", client.log());
}

#[test]
fn a_failed_upload_ends_the_wait_when_the_others_are_done() {
    let sandbox = Sandbox::new("wait-upload");
    sandbox.write_body(BODY);
    let zk = sandbox.zk();
    let client = start(&sandbox);
    says(&client, "debian: waiting for a builder");
    put_build(&zk, "1", "ready");
    put_upload(&zk, "1", "fake-1", "failed");
    says(&client, "debian-1: fake-1: the upload failed; builders try again later");
    put_upload(&zk, "1", "fake-2", "ready");
    assert_eq!(client.wait_exit(SOON).code(), Some(1));
    assert!(
        client.log().ends_with("nodepool: the upload of debian-1 failed at fake-1\n"),
        "{}",
        client.log()
    );
}

#[test]
fn a_missing_builder_is_told_and_waited_for() {
    let sandbox = Sandbox::new("wait-builder");
    sandbox.write_body(BODY);
    let zk = sandbox.zk();
    let client = start(&sandbox);
    says(&client, "nodepool: warning: no builder is running; the request stays until one is started");
    put_build(&zk, "1", "building");
    says(&client, "debian-1: building on b.example");
    // The request stays when the client is interrupted.
    client.signal(Signal::INT);
    client.wait_exit(SOON);
    assert!(zk.exists(REQUEST));
}

#[test]
fn the_wait_goes_on_after_a_lost_connection() {
    let server = ZooKeeper::start();
    let sandbox = Sandbox::on(&server, "wait-restart");
    sandbox.write_body(BODY);
    let client = start(&sandbox);
    says(&client, "debian: waiting for a builder");
    server.kill();
    says(&client, "nodepool: warning: the connection to ZooKeeper is lost; waiting for it to come back");
    server.restart();
    says(&client, "nodepool: warning: connected to ZooKeeper again");
    let zk = sandbox.zk();
    put_build(&zk, "1", "ready");
    put_upload(&zk, "1", "fake-1", "ready");
    put_upload(&zk, "1", "fake-2", "ready");
    assert!(client.wait_exit(SOON).success(), "{}", client.log());
}
