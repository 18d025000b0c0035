//! Builds that fail.

use super::*;
use crate::support::leash::is_alive;

/// Files of the image, apart from none.
fn nothing_is_left(sandbox: &Sandbox<'_>, image: &str) {
    assert_eq!(files(sandbox, image), [""; 0], "{image}");
}

#[test]
fn a_build_that_fails_is_recorded_and_explained_and_leaves_no_files() {
    let sandbox = Sandbox::new("builder-fails");
    let denied = sandbox.path("not-executable");
    std::fs::write(&denied, "#!/bin/sh\n").unwrap();
    let with =
        |name: &str, command: &str| format!("  - {{name: {name}, dib-cmd: \"{command}\", formats: [raw]}}\n");
    let images = [
        image(&sandbox, "exits", "formats: [raw], env-vars: {FAKE_DIB_FAIL: '7'}"),
        with("killed", "sh -c 'kill -9 $$'"),
        with("missing", "/no/such/command"),
        with("denied", &denied.display().to_string()),
        image(&sandbox, "lacking", "formats: [raw, qcow2], env-vars: {FAKE_DIB_NO_FORMAT: raw}"),
    ];
    sandbox.write_body(&body(&images, &[]));
    let zk = sandbox.zk();
    let builder = sandbox.builder(&[&NO_JANITOR[..], &["--build-workers", "5"]].concat());
    for (image, why, ends) in [
        ("exits", "exit status: 7", "Exit code: 7\n"),
        ("killed", "signal: 9", "Exit code: -9\n"),
        ("missing", "No such file or directory", "(os error 2)\nExit code: 127\n"),
        ("denied", "Permission denied", "(os error 13)\nExit code: 126\n"),
        ("lacking", "format: raw", "no file of the format raw\nExit code: 0\n"),
    ] {
        let id = wait_builds(&zk, image, "failed", 1).remove(0);
        builder.wait_until("the reason in the log", SOON, || {
            let of_build = |line: &&str| line.contains(&format!("build: {id}")) && line.contains(why);
            builder.log().lines().find(of_build).map(drop)
        });
        let log = std::fs::read_to_string(sandbox.logs().join(format!("{image}-{id}.log"))).unwrap();
        assert!(log.ends_with(ends), "{image}: {log}");
        nothing_is_left(&sandbox, image);
        // Who asks now does not wait for the pause after the failure.
        request(&zk, image);
        wait_builds(&zk, image, "failed", 2);
    }
}

#[test]
fn a_failed_build_is_repeated_after_a_pause_and_its_record_goes() {
    let sandbox = Sandbox::new("builder-repeats");
    let once = script(
        &sandbox,
        "fails-once",
        &format!(
            "[ -e {0}/again ] && exec {0}/fake-dib \"$@\"; touch {0}/again; exit 1",
            sandbox.dir().display()
        ),
    );
    sandbox.fake_dib();
    let debian = format!("  - {{name: debian, dib-cmd: '{}', formats: [raw]}}\n", once.display());
    sandbox.write_body(&body(&[debian], &[]));
    let zk = sandbox.zk();
    let builder = sandbox.builder(&[]);
    builder.wait_log("the build command failed", SOON);
    let id = wait_ready(&zk, "debian");
    eventually(SOON, "the record of the failed build to go", || {
        (builds(&zk, "debian").len() == 1).then_some(())
    });
    assert!(files(&sandbox, "debian").iter().all(|name| name.contains(&id)));
}

#[test]
fn a_build_that_takes_too_long_is_ended_with_all_its_processes() {
    let sandbox = Sandbox::new("builder-timeout");
    let keys = format!(
        "formats: [raw], build-timeout: 1, env-vars: {{FAKE_DIB_CHILD: '{}', FAKE_DIB_SLEEP: '300'}}",
        sandbox.path("child").display()
    );
    sandbox.write_body(&body(&[image(&sandbox, "debian", &keys)], &[]));
    let zk = sandbox.zk();
    let builder = sandbox.builder(&NO_JANITOR);
    let child = wait_pid(&sandbox, "child");
    let id = wait_builds(&zk, "debian", "failed", 1).remove(0);
    builder.wait_log("the build took too long", SOON);
    eventually(SOON, "the end of the grandchild", || (!is_alive(child)).then_some(()));
    nothing_is_left(&sandbox, "debian");
    let log = std::fs::read_to_string(sandbox.logs().join(format!("debian-{id}.log"))).unwrap();
    assert!(log.contains("Build timeout: ended after 1 s\n"), "{log}");
}

/// An operator who has mended what was wrong asks again, and must not wait for the pause after the failures.
#[test]
fn asking_again_for_a_build_that_failed_builds_at_once() {
    let sandbox = Sandbox::new("builder-ask-again");
    let failing = image(&sandbox, "debian", "formats: [raw], env-vars: {FAKE_DIB_FAIL: '7'}");
    sandbox.write_body(&body(&[failing], &[]));
    let zk = sandbox.zk();
    let _builder = sandbox.builder(&NO_JANITOR);
    wait_builds(&zk, "debian", "failed", 1);
    let begin = std::time::Instant::now();
    for failed in 2..=5 {
        sandbox.nodepool(&["image-build", "debian"]).ok();
        wait_builds(&zk, "debian", "failed", failed);
    }
    // The pauses would be more than a minute together.
    assert!(begin.elapsed() < SOON);
}
