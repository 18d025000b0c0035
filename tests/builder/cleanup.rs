//! What the janitor removes, and what it leaves.

use serde_json::json;

use super::*;

const OLD: &str = "0123456789abcdef0123456789abcdef";

#[test]
fn a_build_that_is_marked_goes_with_uploads_files_and_record() {
    let sandbox = Sandbox::new("builder-marked");
    let providers = ["one", "two"].map(|name| local(&sandbox, name, &["debian"], ""));
    sandbox.write_body(&body(&[image(&sandbox, "debian", "formats: [qcow2]")], &providers));
    let zk = sandbox.zk();
    let _builder = sandbox.builder(&[]);
    let id = wait_ready(&zk, "debian");
    for provider in ["one", "two"] {
        wait_upload(&zk, "debian", &id, provider, "ready");
    }
    // Otherwise it would be built again at once.
    zk.create(&format!("{IMAGES}/debian/pause"), "");
    let mut record = zk.get_json(&build_path("debian", &id)).unwrap();
    record["state"] = json!("deleting");
    zk.set_json(&build_path("debian", &id), &record);
    eventually(SOON, "everything of the build to go", || {
        let left = builds(&zk, "debian").len() + files(&sandbox, "debian").len();
        let at_providers = stored(&sandbox, "one").len() + stored(&sandbox, "two").len();
        (left + at_providers == 0).then_some(())
    });
}

#[test]
fn an_upload_that_is_marked_goes_and_is_made_again() {
    let sandbox = Sandbox::new("builder-marked-upload");
    let providers = [local(&sandbox, "shelf", &["debian"], "")];
    sandbox.write_body(&body(&[image(&sandbox, "debian", "formats: [qcow2]")], &providers));
    let zk = sandbox.zk();
    let _builder = sandbox.builder(&[]);
    let id = wait_ready(&zk, "debian");
    let (first, mut record) = wait_upload(&zk, "debian", &id, "shelf", "ready");
    record["state"] = json!("deleting");
    zk.set_json(&format!("{}/{first}", uploads_path("debian", &id, "shelf")), &record);
    eventually(SOON, "another upload in the place of the first", || {
        let ready = uploads(&zk, "debian", &id, "shelf");
        let external_id = record["external_id"].as_str().unwrap();
        let gone = !stored(&sandbox, "shelf").iter().any(|name| name.contains(external_id));
        (ready.len() == 1 && ready[0].0 != first && ready[0].1["state"] == "ready" && gone).then_some(())
    });
}

#[test]
fn files_on_disk_do_not_wait_for_slow_clouds() {
    let sandbox = Sandbox::new("builder-slow-delete");
    let providers = [fake("slow", &["debian"], "delete-delay: 300")];
    sandbox.write_body(&body(&[image(&sandbox, "debian", "formats: [qcow2]")], &providers));
    let zk = sandbox.zk();
    let _builder = sandbox.builder(&[]);
    let id = wait_ready(&zk, "debian");
    wait_upload(&zk, "debian", &id, "slow", "ready");
    zk.create(&format!("{IMAGES}/debian/pause"), "");
    let mut record = zk.get_json(&build_path("debian", &id)).unwrap();
    record["state"] = json!("deleting");
    zk.set_json(&build_path("debian", &id), &record);
    eventually(SOON, "the files to go", || files(&sandbox, "debian").is_empty().then_some(()));
    assert_eq!(uploads(&zk, "debian", &id, "slow")[0].1["state"], "deleting");
}

#[test]
fn a_cloud_that_refuses_to_delete_is_asked_again() {
    let sandbox = Sandbox::new("builder-refused-delete");
    let providers = [fake("stubborn", &["debian"], "delete-failures: 2")];
    sandbox.write_body(&body(&[image(&sandbox, "debian", "formats: [qcow2]")], &providers));
    let zk = sandbox.zk();
    let builder = sandbox.builder(&[]);
    let id = wait_ready(&zk, "debian");
    wait_upload(&zk, "debian", &id, "stubborn", "ready");
    zk.create(&format!("{IMAGES}/debian/pause"), "");
    let mut record = zk.get_json(&build_path("debian", &id)).unwrap();
    record["state"] = json!("deleting");
    zk.set_json(&build_path("debian", &id), &record);
    eventually(SOON, "the build to go", || builds(&zk, "debian").is_empty().then_some(()));
    assert_eq!(builder.log().matches("cleaning up failed").count(), 2);
}

#[test]
fn as_many_builds_stay_as_keep_builds_says() {
    let sandbox = Sandbox::new("builder-keep-builds");
    let providers = [local(&sandbox, "shelf", &["debian"], "")];
    sandbox.write_body(&body(&[image(&sandbox, "debian", "formats: [qcow2], keep-builds: 1")], &providers));
    let zk = sandbox.zk();
    let _builder = sandbox.builder(&[]);
    let first = wait_ready(&zk, "debian");
    wait_upload(&zk, "debian", &first, "shelf", "ready");
    request(&zk, "debian");
    eventually(SOON, "the first build to go, and the second alone to be at the provider", || {
        let left = builds(&zk, "debian");
        let uploaded = left.len() == 1 && uploads(&zk, "debian", &left[0].0, "shelf").len() == 1;
        let gone = files(&sandbox, "debian").iter().all(|file| !file.contains(&first));
        (uploaded && left[0].0 != first && gone && stored(&sandbox, "shelf").len() == 2).then_some(())
    });
}

#[test]
fn a_provider_whose_newer_uploads_fail_keeps_a_working_image() {
    let sandbox = Sandbox::new("builder-working-image");
    let verdict = sandbox.path("verdict");
    std::fs::write(&verdict, "exit 0").unwrap();
    let hook = script(&sandbox, "hook", &format!(". {}", verdict.display()));
    let providers = [
        local(&sandbox, "shelf", &["debian"], &format!("post-upload-hook: '{}'", hook.display())),
        local(&sandbox, "other", &["debian"], ""),
    ];
    sandbox.write_body(&body(&[image(&sandbox, "debian", "formats: [qcow2], keep-builds: 1")], &providers));
    let zk = sandbox.zk();
    let _builder = sandbox.builder(&[]);
    let first = wait_ready(&zk, "debian");
    let (upload, _) = wait_upload(&zk, "debian", &first, "shelf", "ready");
    std::fs::write(&verdict, "exit 1").unwrap();
    let mut newest = first.clone();
    for _ in 0..2 {
        let before = newest.clone();
        request(&zk, "debian");
        newest = eventually(SOON, "a newer build", || {
            let ready = in_state(builds(&zk, "debian"), "ready").into_iter().map(|(id, _)| id);
            ready.into_iter().find(|id| *id != first && *id != before)
        });
        wait_upload(&zk, "debian", &newest, "other", "ready");
    }
    eventually(SOON, "the build between to go", || (builds(&zk, "debian").len() == 2).then_some(()));
    let kept = uploads(&zk, "debian", &first, "shelf");
    assert_eq!((kept.len(), kept[0].0.as_str(), &kept[0].1["state"]), (1, upload.as_str(), &json!("ready")));
    eventually(SOON, "the first to go from the provider that has newer ones", || {
        uploads(&zk, "debian", &first, "other").is_empty().then_some(())
    });
}

/// What a builder that was killed leaves: records in the middle of their work, and files.
fn leave_behind(sandbox: &Sandbox<'_>, zk: &ZkClient) {
    let ready = "f123456789abcdef0123456789abcdef";
    zk.set_json(&build_path("debian", OLD), &json!({"state": "building", "state_time": 1.0}));
    let upload = format!("{}/0000000003", uploads_path("debian", ready, "shelf"));
    zk.set_json(
        &build_path("debian", ready),
        &json!({"state": "ready", "state_time": 1.0, "formats": "qcow2"}),
    );
    zk.set_json(&upload, &json!({"state": "uploading", "state_time": 1.0}));
    zk.create(&format!("{IMAGES}/debian/pause"), "");
    for id in [OLD, "a123456789abcdef0123456789abcdef"] {
        std::fs::write(sandbox.images().join(format!("debian-{id}.qcow2")), "half an im").unwrap();
        std::fs::create_dir(sandbox.images().join(format!("debian-{id}.d"))).unwrap();
    }
    let images = [image(sandbox, "debian", "formats: [qcow2]"), image(sandbox, "fedora", "formats: [qcow2]")];
    sandbox.write_body(&body(&images, &[local(sandbox, "shelf", &["debian"], "")]));
}

#[test]
fn what_a_killed_builder_left_is_removed_at_the_start() {
    let sandbox = Sandbox::new("builder-stale");
    let zk = sandbox.zk();
    leave_behind(&sandbox, &zk);
    let _builder = sandbox.builder(&[]);
    eventually(SOON, "the leftovers to go", || {
        let left = builds(&zk, "debian");
        let uploads = uploads(&zk, "debian", &left[0].0, "shelf");
        (left.len() == 1 && uploads.is_empty() && files(&sandbox, "debian").is_empty()).then_some(())
    });
}

#[test]
fn without_the_janitor_everything_stays() {
    let sandbox = Sandbox::new("builder-no-janitor");
    let zk = sandbox.zk();
    leave_behind(&sandbox, &zk);
    let before = zk.dump(&format!("{IMAGES}/debian"));
    let _builder = sandbox.builder(&NO_JANITOR);
    wait_ready(&zk, "fedora");
    assert_eq!(zk.dump(&format!("{IMAGES}/debian")), before);
    assert_eq!(files(&sandbox, "debian").len(), 4);
}

/// Two providers may share one store, and upload ids count for each of them by itself: the deletion of a failed
/// upload to one of them must not find the image of the other.
#[test]
fn a_failed_upload_takes_no_image_of_another_provider_with_it() {
    let sandbox = Sandbox::new("builder-shared-store");
    let hook = script(&sandbox, "refuse", "exit 1");
    let refusing =
        local(&sandbox, "refusing", &["debian"], &format!("post-upload-hook: '{}'", hook.display()));
    let shared = refusing.replace("store/refusing", "store/shelf");
    let providers = [local(&sandbox, "shelf", &["debian"], ""), shared];
    sandbox.write_body(&body(&[image(&sandbox, "debian", "formats: [qcow2]")], &providers));
    let zk = sandbox.zk();
    let builder = sandbox.builder(&[]);
    let id = wait_ready(&zk, "debian");
    let (upload, _) = wait_upload(&zk, "debian", &id, "shelf", "ready");
    // Its image is gone by the hook's refusal; its record is looked for at the provider, and then removed.
    eventually(SOON, "two failed uploads to be cleaned up", || {
        let log = builder.log();
        let deleted =
            log.lines().filter(|line| line.contains("the upload is deleted") && line.contains("refusing"));
        (deleted.count() >= 2).then_some(())
    });
    assert_eq!(stored(&sandbox, "shelf").len(), 2, "the image and what describes it");
    let records = uploads(&zk, "debian", &id, "shelf");
    assert_eq!(records.len(), 1);
    assert_eq!((records[0].0.as_str(), &records[0].1["state"]), (upload.as_str(), &"ready".into()));
}

/// kazoo's locks make their paths, and so may bring back what has just been deleted, without any data.
#[test]
fn an_upload_without_any_data_holds_up_no_deletion() {
    let sandbox = Sandbox::new("builder-ghost-upload");
    sandbox.write_body(&body(&[image(&sandbox, "debian", "formats: [qcow2]")], &[]));
    let zk = sandbox.zk();
    let build = build_path("debian", "00000000000000000000000000000000");
    zk.set_json(&build, &json!({"state": "failed", "state_time": 1.0}));
    zk.create(
        &format!("{}/0000000007", uploads_path("debian", "00000000000000000000000000000000", "shelf")),
        "",
    );
    let _builder = sandbox.builder(&[]);
    eventually(SOON, "the failed build to go", || (!zk.exists(&build)).then_some(()));
}
