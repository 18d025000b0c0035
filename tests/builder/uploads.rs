//! Uploads, the hook after them, and what becomes of failed ones.

use std::fs;

use rustix::process::Signal;

use super::*;

fn one_image(sandbox: &Sandbox<'_>, providers: &[String]) {
    sandbox.write_body(&body(&[image(sandbox, "debian", "formats: [qcow2]")], providers));
}

#[test]
fn the_hook_gets_the_provider_the_id_and_the_file() {
    let sandbox = Sandbox::new("builder-hook");
    let hook = script(&sandbox, "hook", &format!("echo \"$@\" >{}/called", sandbox.dir().display()));
    let more = format!("post-upload-hook: '{}'", hook.display());
    one_image(&sandbox, &[local(&sandbox, "shelf", &["debian"], &more)]);
    let zk = sandbox.zk();
    let _builder = sandbox.builder(&[]);
    let id = wait_ready(&zk, "debian");
    let (_, upload) = wait_upload(&zk, "debian", &id, "shelf", "ready");
    let called = std::fs::read_to_string(sandbox.path("called")).unwrap();
    let file = sandbox.images().join(format!("debian-{id}.qcow2"));
    assert_eq!(called, format!("shelf {} {}\n", upload["external_id"].as_str().unwrap(), file.display()));
}

#[test]
fn a_hook_that_fails_takes_the_upload_back() {
    let sandbox = Sandbox::new("builder-hook-fails");
    let hook = script(&sandbox, "hook", "echo it was not liked; exit 3");
    let more = format!("post-upload-hook: '{}'", hook.display());
    let missing = "post-upload-hook: /no/such/hook";
    let providers =
        [local(&sandbox, "shelf", &["debian"], &more), local(&sandbox, "other", &["debian"], missing)];
    one_image(&sandbox, &providers);
    let zk = sandbox.zk();
    let builder = sandbox.builder(&NO_JANITOR);
    let id = wait_ready(&zk, "debian");
    for provider in ["shelf", "other"] {
        let (_, upload) = wait_upload(&zk, "debian", &id, provider, "failed");
        assert_eq!(upload["external_id"], Value::Null, "{provider}");
    }
    builder.wait_log("it was not liked", SOON);
    builder.wait_log("/no/such/hook", SOON);
    // Tried again and again, and taken back each time.
    builder.wait_until("an empty store", SOON, || stored(&sandbox, "shelf").is_empty().then_some(()));
}

#[test]
fn a_failing_provider_does_not_hold_up_another_one() {
    let sandbox = Sandbox::new("builder-bad-provider");
    let providers =
        [fake("bad", &["debian"], "upload-failures: -1"), local(&sandbox, "shelf", &["debian"], "")];
    one_image(&sandbox, &providers);
    let zk = sandbox.zk();
    let _builder = sandbox.builder(&[&NO_JANITOR[..], &["--upload-workers", "1"]].concat());
    let id = wait_ready(&zk, "debian");
    wait_upload(&zk, "debian", &id, "shelf", "ready");
    eventually(SOON, "three attempts", || {
        (in_state(uploads(&zk, "debian", &id, "bad"), "failed").len() >= 3).then_some(())
    });
}

#[test]
fn a_provider_that_recovers_gets_the_build_and_its_failed_records_go() {
    let sandbox = Sandbox::new("builder-flaky-provider");
    one_image(&sandbox, &[fake("flaky", &["debian"], "upload-failures: 2")]);
    let zk = sandbox.zk();
    let builder = sandbox.builder(&[]);
    let id = wait_ready(&zk, "debian");
    wait_upload(&zk, "debian", &id, "flaky", "ready");
    assert_eq!(builder.log().matches("the upload failed").count(), 2);
    eventually(SOON, "the failed records to go", || {
        (uploads(&zk, "debian", &id, "flaky").len() == 1).then_some(())
    });
}

#[test]
fn a_slow_provider_does_not_occupy_all_workers() {
    let sandbox = Sandbox::new("builder-slow-provider");
    let names = ["a", "b", "c", "d"];
    let images = names.map(|name| image(&sandbox, name, "formats: [qcow2]"));
    let providers = [fake("slow", &names, "upload-delay: 300"), local(&sandbox, "shelf", &names, "")];
    sandbox.write_body(&body(&images, &providers));
    let zk = sandbox.zk();
    let _builder = sandbox.builder(&["--upload-workers", "2"]);
    for name in names {
        let id = wait_ready(&zk, name);
        wait_upload(&zk, name, &id, "shelf", "ready");
    }
    let running = names.iter().filter(|name| {
        let id = wait_ready(&zk, name);
        !in_state(uploads(&zk, name, &id, "slow"), "uploading").is_empty()
    });
    assert_eq!(running.count(), 1);
}

#[test]
fn an_upload_that_takes_longer_than_image_upload_timeout_has_failed() {
    let sandbox = Sandbox::new("builder-upload-timeout");
    let slow =
        fake("slow", &["debian"], "upload-delay: 300").replace("fake:", "image-upload-timeout: 0.5, fake:");
    one_image(&sandbox, &[slow]);
    let zk = sandbox.zk();
    let _builder = sandbox.builder(&NO_JANITOR);
    let id = wait_ready(&zk, "debian");
    wait_upload(&zk, "debian", &id, "slow", "failed");
}

#[test]
fn formats_go_after_all_uploads_when_they_are_not_to_be_kept() {
    let sandbox = Sandbox::new("builder-delete-after-upload");
    let keys = "formats: [raw, vhd], delete-after-upload: true, keep-formats: [raw]";
    let providers = [local(&sandbox, "shelf", &["debian"], "")];
    sandbox.write_body(&body(&[image(&sandbox, "debian", keys)], &providers));
    let zk = sandbox.zk();
    let _builder = sandbox.builder(&[]);
    let id = wait_ready(&zk, "debian");
    wait_upload(&zk, "debian", &id, "shelf", "ready");
    let left = ["d", "raw", "raw.md5", "raw.sha256"].map(|suffix| format!("debian-{id}.{suffix}"));
    eventually(SOON, "the spent formats to go", || (files(&sandbox, "debian") == left).then_some(()));
    assert_eq!(wait_ready(&zk, "debian"), id);
}

/// Nothing tells of it but the look at the disk.
#[test]
fn a_file_that_comes_back_is_uploaded_after_the_next_look_at_the_disk() {
    let sandbox = Sandbox::new("builder-file-back");
    let debian = || image(&sandbox, "debian", "formats: [raw]");
    sandbox.write_body(&body(&[debian()], &[]));
    let zk = sandbox.zk();
    let builder = sandbox.builder(&[]);
    let id = wait_ready(&zk, "debian");
    builder.signal(Signal::TERM);
    assert_eq!(builder.wait_exit(SOON).code(), Some(0));
    let (file, elsewhere) =
        (sandbox.images().join(format!("debian-{id}.raw")), sandbox.images().join("elsewhere"));
    fs::rename(&file, &elsewhere).unwrap();
    let images = [debian(), image(&sandbox, "another", "formats: [raw]")];
    sandbox.write_body(&body(&images, &[local(&sandbox, "shelf", &["debian"], "image-format: raw")]));
    let _builder = sandbox.builder(&["--cleanup-interval", "0.1"]);
    // By then it has seen all records, and that the file is missing.
    wait_ready(&zk, "another");
    fs::rename(&elsewhere, &file).unwrap();
    wait_upload(&zk, "debian", &id, "shelf", "ready");
}
