//! A session that is lost in the middle of a build.

use super::*;
use crate::support::history::Change;
use crate::support::leash::is_alive;
use crate::support::{Header, Signal, ZooKeeper};

#[test]
fn a_build_whose_session_is_lost_is_thrown_away_and_made_again() {
    let server = ZooKeeper::start();
    let sandbox = Sandbox::on(&server, "builder-lost-session");
    let dir = sandbox.dir().display().to_string();
    let keys =
        format!("formats: [raw], env-vars: {{FAKE_DIB_CHILD: '{dir}/child', FAKE_DIB_WAIT_FOR: '{dir}/go'}}");
    let header = sandbox.header(&Header { timeout: 2.0, ..Header::default() });
    sandbox.write_config(&format!("{header}{}", body(&[image(&sandbox, "debian", &keys)], &[])));
    let zk = sandbox.zk();
    let builder = sandbox.builder(&[]);
    let first = wait_builds(&zk, "debian", "building", 1).remove(0);
    let child = wait_pid(&sandbox, "child");
    std::fs::remove_file(sandbox.path("child")).unwrap();
    drop(zk);
    // A server that has lost everything does not know the session either.
    server.kill();
    std::fs::remove_dir_all(server.dir().join("data")).unwrap();
    std::fs::create_dir(server.dir().join("data")).unwrap();
    server.restart();

    builder.wait_log("the ZooKeeper session was lost", SOON);
    builder.wait_until("the end of the build command", SOON, || (!is_alive(child)).then_some(()));
    wait_pid(&sandbox, "child");
    std::fs::write(sandbox.path("go"), "").unwrap();
    let zk = sandbox.zk();
    let second = wait_ready(&zk, "debian");
    assert_ne!(first, second);
    assert!(!zk.exists(&build_path("debian", &first)));
    builder.wait_until("the files of the first build to go", SOON, || {
        files(&sandbox, "debian").iter().all(|name| name.contains(&second)).then_some(())
    });
    assert!(!builder.log().contains("panicked"));
}

/// The servers keep the sessions while they are away, so a build is not lost by ending at the wrong time.
#[test]
fn a_build_that_ends_during_a_long_outage_is_recorded_after_it() {
    const TIMEOUT: Duration = Duration::from_secs(2);
    let server = ZooKeeper::start();
    let sandbox = Sandbox::on(&server, "builder-outage");
    let dir = sandbox.dir().display().to_string();
    let keys = format!(
        "formats: [raw], env-vars: {{FAKE_DIB_STARTED: '{dir}/started', FAKE_DIB_WAIT_FOR: '{dir}/go'}}"
    );
    let header = sandbox.header(&Header { timeout: TIMEOUT.as_secs_f64(), ..Header::default() });
    let providers = [local(&sandbox, "shelf", &["debian"], "")];
    sandbox.write_config(&format!("{header}{}", body(&[image(&sandbox, "debian", &keys)], &providers)));
    let zk = sandbox.zk();
    let builder = sandbox.builder(&[]);
    let build = wait_builds(&zk, "debian", "building", 1).remove(0);
    let command = wait_pid(&sandbox, "started");
    drop(zk);
    server.kill();
    std::fs::write(sandbox.path("go"), "").unwrap();
    builder.wait_until("the end of the build command", SOON, || (!is_alive(command)).then_some(()));
    // Longer than any call of the builder's waits for a connection.
    let ended = std::time::Instant::now();
    builder.wait_until("a long outage", SOON, || (ended.elapsed() > 2 * TIMEOUT).then_some(()));
    server.restart();

    let zk = sandbox.zk();
    assert_eq!(wait_ready(&zk, "debian"), build);
    wait_upload(&zk, "debian", &build, "shelf", "ready");
    assert_eq!(builds(&zk, "debian").len(), 1);
}

#[test]
fn an_upload_whose_session_is_lost_is_taken_back_and_made_again() {
    let sandbox = Sandbox::new("builder-upload-lost-session");
    let dir = sandbox.dir().display().to_string();
    let wait = "echo $$ >hook.new; mv hook.new hook.pid; [ -e pass ] || exec sleep 300";
    let hook = script(&sandbox, "hook", &format!("cd {dir}; {wait}"));
    let providers =
        [local(&sandbox, "shelf", &["debian"], &format!("post-upload-hook: '{}'", hook.display()))];
    let header = sandbox.header(&Header { timeout: 2.0, ..Header::default() });
    let image = image(&sandbox, "debian", "formats: [qcow2]");
    sandbox.write_config(&format!("{header}{}", body(&[image], &providers)));
    let zk = sandbox.zk();
    let builder = sandbox.builder(&[]);
    let build = wait_ready(&zk, "debian");
    let hook = wait_pid(&sandbox, "hook.pid");
    let first = stored(&sandbox, "shelf");
    assert_eq!(first.len(), 2, "the image and its record");

    // A process that stands still for long is dead to the servers.
    builder.freeze();
    eventually(SOON, "the end of the session", || {
        zk.children("/nodepool/components/builder").is_empty().then_some(())
    });
    std::fs::write(sandbox.path("pass"), "").unwrap();
    builder.signal(Signal::CONT);
    builder.wait_log("the ZooKeeper session was lost", SOON);
    builder.wait_until("the end of the hook", SOON, || (!is_alive(hook)).then_some(()));
    let (_, upload) = wait_upload(&zk, "debian", &build, "shelf", "ready");
    eventually(SOON, "one upload, and one image", || {
        let records = uploads(&zk, "debian", &build, "shelf").len();
        (records == 1 && stored(&sandbox, "shelf").len() == 2).then_some(())
    });
    let left = stored(&sandbox, "shelf");
    assert!(left[0].contains(upload["external_id"].as_str().unwrap()), "{left:?} {upload}");
    assert_ne!(left, first);
}

#[test]
fn a_build_whose_session_has_expired_ends_failed_before_it_is_removed() {
    let server = ZooKeeper::start();
    let sandbox = Sandbox::on(&server, "builder-expired");
    let dir = sandbox.dir().display().to_string();
    let keys = format!("formats: [raw], env-vars: {{FAKE_DIB_WAIT_FOR: '{dir}/go'}}");
    let header = sandbox.header(&Header { timeout: 2.0, ..Header::default() });
    sandbox.write_config(&format!("{header}{}", body(&[image(&sandbox, "debian", &keys)], &[])));
    let zk = sandbox.zk();
    let builder = sandbox.builder(&[]);
    let first = wait_builds(&zk, "debian", "building", 1).remove(0);
    builder.freeze();
    eventually(SOON, "the end of the session", || {
        zk.children("/nodepool/components/builder").is_empty().then_some(())
    });
    std::fs::write(sandbox.path("go"), "").unwrap();
    builder.signal(Signal::CONT);
    let second = eventually(SOON, "another build", || {
        in_state(builds(&zk, "debian"), "ready").into_iter().map(|(id, _)| id).find(|id| *id != first)
    });
    eventually(SOON, "the first one to go", || (!zk.exists(&build_path("debian", &first))).then_some(()));
    assert_ne!(first, second);
    let of_first = format!("{}{}", sandbox.chroot(), build_path("debian", &first));
    let states: Vec<Value> = server
        .history()
        .into_iter()
        .filter_map(|entry| match entry.change {
            Change::Create { path, data, .. } | Change::Set { path, data } if path == of_first => {
                Some(serde_json::from_slice::<Value>(&data).unwrap()["state"].clone())
            }
            _ => None,
        })
        .collect();
    assert_eq!(states, ["building", "failed", "deleting"]);
}
