//! What keeps bad builds out, and the disk from filling up.

use std::fs;

use rustix::process::Signal;

use super::*;
use crate::support::leash::is_alive;

#[test]
fn a_build_that_its_validate_hook_refuses_has_failed_and_is_never_uploaded() {
    let sandbox = Sandbox::new("builder-validate");
    let verdict = sandbox.path("verdict");
    fs::write(&verdict, "exit 3").unwrap();
    let hook = script(
        &sandbox,
        "validate",
        &format!("echo checking \"$@\"; test -s $2 && test -s $3 && . {0}", verdict.display()),
    );
    let more = format!("formats: [raw], validate-hook: '{} --strict'", hook.display());
    let shelf = local(&sandbox, "shelf", &["debian"], "image-format: qcow2");
    sandbox.write_body(&body(&[image(&sandbox, "debian", &more)], &[shelf]));
    let zk = sandbox.zk();
    let builder = sandbox.builder(&NO_JANITOR);
    let id = wait_builds(&zk, "debian", "failed", 1).remove(0);
    builder.wait_log("the validate-hook does not approve of the build", SOON);
    let log = fs::read_to_string(sandbox.logs().join(format!("debian-{id}.log"))).unwrap();
    let base = sandbox.images().join(format!("debian-{id}"));
    let expected = format!(
        "checking --strict {0}.qcow2 {0}.raw\nThe validate-hook does not approve of the build\nExit code: 3\n",
        base.display()
    );
    assert!(log.ends_with(&expected), "{log}");
    assert_eq!(files(&sandbox, "debian"), [""; 0], "its files are gone");
    assert!(uploads(&zk, "debian", &id, "shelf").is_empty());

    fs::write(&verdict, "exit 0").unwrap();
    request(&zk, "debian");
    let id = wait_ready(&zk, "debian");
    wait_upload(&zk, "debian", &id, "shelf", "ready");
}

/// The hook is ended with the build, and nothing of it is left.
#[test]
fn a_validate_hook_is_stopped_with_the_daemon() {
    let sandbox = Sandbox::new("builder-validate-stop");
    let began = sandbox.path("began");
    let hook = script(&sandbox, "validate", &format!("echo $$ > {}; exec sleep 600", began.display()));
    let more = format!("formats: [raw], validate-hook: {}", hook.display());
    sandbox.write_body(&body(&[image(&sandbox, "debian", &more)], &[]));
    let builder = sandbox.builder(&NO_JANITOR);
    let pid =
        eventually(SOON, "the hook to run", || fs::read_to_string(&began).ok()?.trim().parse::<u32>().ok());
    builder.signal(Signal::TERM);
    assert_eq!(builder.wait_exit(SOON).code(), Some(0));
    assert!(!is_alive(pid));
    wait_builds(&sandbox.zk(), "debian", "failed", 1);
}

#[test]
fn builds_wait_for_free_space_and_go_on_by_themselves() {
    let sandbox = Sandbox::new("builder-space");
    let entries = body(&[image(&sandbox, "debian", "formats: [raw]")], &[]);
    let with = |least: &str| sandbox.write_body(&format!("min-free-space: {least}\n{entries}"));
    with("8M");
    let inner = sandbox.builder_command(&["--cleanup-interval", "0.1"]);
    let mut command = sandbox.command("unshare");
    let mount = format!("mount -t tmpfs -o size=16m tmpfs {} && exec \"$@\"", sandbox.images().display());
    command.args(["--mount", "sh", "-c", &mount, "sh"]).arg(inner.get_program()).args(inner.get_args());
    let builder = sandbox.spawn(&command);
    let zk = sandbox.zk();
    wait_ready(&zk, "debian");
    // The disk as the builder sees it.
    let disk = PathBuf::from(format!("/proc/{}/root{}", builder.pid(), sandbox.images().display()));
    let filler = disk.join("filler");
    fs::write(&filler, vec![0; 12 << 20]).unwrap();
    request(&zk, "debian");
    builder.wait_log("no build begins: the disk of images-dir is too full", SOON);
    assert!(builder.log().contains("min-free-space: 8 MiB"), "{}", builder.log());
    // Rounds pass, and it is told once.
    let stray = disk.join("debian-ffffffffffffffffffffffffffffffff.raw");
    fs::write(&stray, "").unwrap();
    eventually(SOON, "the janitor to have been there", || (!stray.exists()).then_some(()));
    assert_eq!(builds(&zk, "debian").len(), 1);
    fs::remove_file(&filler).unwrap();
    builder.wait_log("builds begin again: images-dir has room", SOON);
    wait_builds(&zk, "debian", "ready", 2);
    assert_eq!(builder.log().matches("no build begins").count(), 1);

    // A new limit counts at once.
    with("1T");
    builder.wait_log("the configuration has changed", SOON);
    request(&zk, "debian");
    builder.wait_until("it to be told again", SOON, || {
        (builder.log().matches("no build begins").count() == 2).then_some(())
    });
    with("0");
    wait_builds(&zk, "debian", "ready", 2);
    eventually(SOON, "the request to be carried out", || (!zk.exists(&request_path("debian"))).then_some(()));
}
