//! The end of the daemon, and signals that are not its end.

use super::*;
use crate::support::leash::is_alive;
use crate::support::{Header, Signal, ZooKeeper};

/// A stopping daemon has ten seconds; some more are for a machine under load.
const STOP: Duration = Duration::from_secs(15);

#[test]
fn a_stop_ends_running_work_and_leaves_nothing_half_done() {
    let sandbox = Sandbox::new("builder-stop");
    let dir = sandbox.dir().display().to_string();
    let hook = script(
        &sandbox,
        "hook",
        &format!("echo $$ >{dir}/hook.new; mv {dir}/hook.new {dir}/hook.pid; sleep 300"),
    );
    let endless =
        format!("formats: [raw], env-vars: {{FAKE_DIB_CHILD: '{dir}/child', FAKE_DIB_SLEEP: '300'}}");
    let images = [image(&sandbox, "debian", "formats: [qcow2]"), image(&sandbox, "fedora", &endless)];
    let more = format!("post-upload-hook: '{}'", hook.display());
    sandbox.write_body(&body(&images, &[local(&sandbox, "shelf", &["debian"], &more)]));
    let zk = sandbox.zk();
    let builder = sandbox.builder(&["--build-workers", "2"]);
    let (child, hook) = (wait_pid(&sandbox, "child"), wait_pid(&sandbox, "hook.pid"));
    let ready = wait_ready(&zk, "debian");
    let running = wait_builds(&zk, "fedora", "building", 1).remove(0);
    assert_eq!(stored(&sandbox, "shelf").len(), 2);

    builder.signal(Signal::TERM);
    assert_eq!(builder.wait_exit(STOP).code(), Some(0));
    assert_eq!(zk.get_json(&build_path("fedora", &running)).unwrap()["state"], "failed");
    let of_debian = uploads(&zk, "debian", &ready, "shelf");
    assert!(of_debian.iter().all(|(_, record)| record["state"] == "failed"), "{of_debian:?}");
    assert_eq!(files(&sandbox, "fedora"), [""; 0]);
    assert_eq!(files(&sandbox, "debian").len(), 4);
    assert_eq!(stored(&sandbox, "shelf"), [""; 0]);
    assert!(!is_alive(child) && !is_alive(hook));
    assert_eq!(zk.children("/nodepool/components/builder"), [""; 0]);
    let log = builder.log();
    assert!(!log.contains("ERRO") && !log.contains("panic"), "{log}");
}

#[test]
fn a_stop_cancels_an_upload_that_a_cloud_is_slow_to_take() {
    let sandbox = Sandbox::new("builder-stop-upload");
    let providers = [fake("slow", &["debian"], "upload-delay: 300")];
    sandbox.write_body(&body(&[image(&sandbox, "debian", "formats: [qcow2]")], &providers));
    let zk = sandbox.zk();
    let builder = sandbox.builder(&[]);
    let id = wait_ready(&zk, "debian");
    wait_upload(&zk, "debian", &id, "slow", "uploading");
    builder.signal(Signal::INT);
    assert_eq!(builder.wait_exit(STOP).code(), Some(0));
    wait_upload(&zk, "debian", &id, "slow", "failed");
    builder.wait_exit(STOP);
    assert!(builder.log().contains("the upload was cancelled"));
}

#[test]
fn a_build_that_ignores_the_request_to_end_is_killed() {
    let sandbox = Sandbox::new("builder-stop-stubborn");
    let keys = format!(
        "formats: [raw], env-vars: {{FAKE_DIB_IGNORE_TERM: '1', FAKE_DIB_CHILD: '{}', FAKE_DIB_SLEEP: '300'}}",
        sandbox.path("child").display()
    );
    sandbox.write_body(&body(&[image(&sandbox, "debian", &keys)], &[]));
    let zk = sandbox.zk();
    let builder = sandbox.builder(&[]);
    let child = wait_pid(&sandbox, "child");
    builder.signal(Signal::TERM);
    assert_eq!(builder.wait_exit(STOP).code(), Some(0));
    eventually(SOON, "the end of the grandchild", || (!is_alive(child)).then_some(()));
    wait_builds(&zk, "debian", "failed", 1);
    assert_eq!(files(&sandbox, "debian"), [""; 0]);
}

#[test]
fn a_second_signal_ends_it_at_once() {
    let sandbox = Sandbox::new("builder-stop-twice");
    let keys = format!(
        "formats: [raw], env-vars: {{FAKE_DIB_IGNORE_TERM: '1', FAKE_DIB_CHILD: '{}', FAKE_DIB_SLEEP: '300'}}",
        sandbox.path("child").display()
    );
    sandbox.write_body(&body(&[image(&sandbox, "debian", &keys)], &[]));
    let builder = sandbox.builder(&[]);
    let child = wait_pid(&sandbox, "child");
    builder.signal(Signal::TERM);
    builder.wait_log("stopping", SOON);
    // Not at once: what comes within half a second is the same request.
    let status = eventually(SOON, "the daemon's end", || {
        builder.signal(Signal::TERM);
        builder.exited()
    });
    assert_eq!(status.code(), Some(128 + 15));
    assert!(builder.log().contains("a second signal: leaving at once"), "{}", builder.log());
    eventually(SOON, "the end of the grandchild", || (!is_alive(child)).then_some(()));
}

#[test]
fn a_builder_without_zookeeper_stops_too() {
    let sandbox = Sandbox::new("builder-stop-alone");
    let header = sandbox.header(&crate::support::Header::default());
    let port = format!("port: {}", sandbox.server().plain_port());
    // Nobody listens on the discard port.
    let config = format!("{}{}", header.replace(&port, "port: 9"), body(&[], &[]));
    sandbox.write_config(&config);
    let builder = sandbox.spawn(&sandbox.builder_command(&[]));
    builder.wait_log("starting", SOON);
    builder.wait_until("the handling of signals", SOON, || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", builder.pid())).ok()?;
        let caught = status.lines().find_map(|line| line.strip_prefix("SigCgt:"))?.trim();
        (u64::from_str_radix(caught, 16).ok()? & (1 << 14) != 0).then_some(())
    });
    builder.signal(Signal::TERM);
    assert_eq!(builder.wait_exit(STOP).code(), Some(0));
}

#[test]
fn other_signals_do_not_end_it() {
    let sandbox = Sandbox::new("builder-signals");
    sandbox.write_body(&body(&[image(&sandbox, "debian", "formats: [raw]")], &[]));
    let zk = sandbox.zk();
    let builder = sandbox.builder(&[]);
    wait_ready(&zk, "debian");
    builder.signal(Signal::HUP);
    builder.wait_log("SIGHUP", SOON);
    builder.signal(Signal::USR2);
    builder.wait_log("build-worker-0", SOON);
    request(&zk, "debian");
    wait_builds(&zk, "debian", "ready", 2);
}

/// The record of the cancelled build waits for a connection, and the connection for a server that says nothing.
#[test]
fn a_stop_during_an_outage_with_a_running_build_is_in_time_and_clean() {
    let server = ZooKeeper::start();
    let sandbox = Sandbox::on(&server, "builder-stop-outage");
    let dir = sandbox.dir().display().to_string();
    let keys = format!("formats: [raw], env-vars: {{FAKE_DIB_CHILD: '{dir}/child', FAKE_DIB_SLEEP: '300'}}");
    let header = sandbox.header(&Header { timeout: 15.0, ..Header::default() });
    sandbox.write_config(&format!("{header}{}", body(&[image(&sandbox, "debian", &keys)], &[])));
    let builder = sandbox.builder(&[]);
    let child = wait_pid(&sandbox, "child");
    server.stop_signal();
    builder.wait_log("the connection to ZooKeeper is lost", SOON);
    builder.wait_log("cannot connect to ZooKeeper", SOON);

    builder.signal(Signal::TERM);
    assert_eq!(builder.wait_exit(STOP).code(), Some(0), "{}", builder.log());
    assert!(!is_alive(child));
    assert_eq!(files(&sandbox, "debian"), [""; 0]);
    server.cont_signal();
}
