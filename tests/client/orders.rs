//! The commands that leave an order for the builders.

use super::{
    BODY, IMAGES, NEW, OLD, ago, build_path, not_found, put_build, put_upload, refused, upload_path,
};
use crate::support::Sandbox;

#[test]
fn image_build_makes_a_request_or_refuses() {
    let sandbox = Sandbox::new("client-request");
    sandbox.write_body(BODY);
    let zk = sandbox.zk();
    let request = "/nodepool/images/debian/request-build";
    for _ in 0..2 {
        assert_eq!(sandbox.nodepool(&["image-build", "debian"]).ok(), "debian: build requested\n");
        assert_eq!(zk.get(request).unwrap().data, b"");
    }
    zk.create("/nodepool/images/debian/pause", "");
    let said = sandbox.nodepool(&["image-build", "debian"]).ok();
    assert_eq!(said, "debian: build requested; it is paused, and will be built when it is unpaused\n");
    let file = sandbox.config_file();
    let file = file.display();
    let unknown = sandbox.nodepool(&["image-build", "debain"]);
    refused(&unknown, &format!("the image 'debain' is not configured in {file}"));
    let paused = sandbox.nodepool(&["image-build", "paused"]);
    refused(&paused, &format!("the image 'paused' is paused in {file}"));
    assert_eq!(zk.children(IMAGES), ["debian"]);
}

#[test]
fn image_pause_and_image_unpause_set_and_clear_the_mark() {
    let sandbox = Sandbox::new("client-pause");
    sandbox.write_body(BODY);
    let zk = sandbox.zk();
    for (command, exists) in
        [("image-pause", true), ("image-pause", true), ("image-unpause", false), ("image-unpause", false)]
    {
        let outcome = sandbox.nodepool(&[command, "debian"]);
        assert_eq!((outcome.stderr.as_str(), outcome.clone().ok().as_str()), ("", ""));
        assert_eq!(zk.exists("/nodepool/images/debian/pause"), exists, "{command}");
    }
    refused(&sandbox.nodepool(&["image-pause", "a/b"]), "the name 'a/b' must not contain '/'");
}

#[test]
fn image_pause_and_image_unpause_refuse_what_nobody_knows_and_leave_no_trace() {
    let sandbox = Sandbox::new("client-pause-unknown");
    sandbox.write_body(BODY);
    let zk = sandbox.zk();
    let file = sandbox.config_file();
    for command in ["image-pause", "image-unpause"] {
        let why = format!("the image 'fedora' is neither configured in {} nor in ZooKeeper", file.display());
        refused(&sandbox.nodepool(&[command, "fedora"]), &why);
    }
    assert_eq!(zk.children("/"), [""; 0]);
    // Builders may have another file.
    zk.create("/nodepool/images/fedora/builds", "");
    assert_eq!(sandbox.nodepool(&["image-pause", "fedora"]).ok(), "");
    assert!(zk.exists("/nodepool/images/fedora/pause"));
    assert_eq!(sandbox.nodepool(&["image-unpause", "fedora"]).ok(), "");
    assert_eq!(zk.children("/nodepool/images/fedora"), ["builds"]);
}

#[test]
fn dib_image_delete_marks_a_build_unless_it_is_running() {
    let sandbox = Sandbox::new("client-dib-delete");
    sandbox.write_body(BODY);
    let zk = sandbox.zk();
    put_build(&zk, "debian-12", OLD, "ready");
    put_build(&zk, "debian-12", NEW, "building");
    zk.create("/nodepool/images/debian-12/builds/lock", "");
    let path = build_path("debian-12", OLD);
    let mut expected = zk.get_json(&path).unwrap();
    let outcome = sandbox.nodepool(&["dib-image-delete", &format!("debian-12-{OLD}")]);
    assert_eq!((outcome.stdout.as_str(), outcome.stderr.as_str(), outcome.code()), ("", "", 0));
    let record = zk.get_json(&path).unwrap();
    assert!(record["state_time"].as_f64().unwrap() > ago(60), "{record}");
    expected["state"] = "deleting".into();
    expected["state_time"] = record["state_time"].clone();
    assert_eq!(record, expected);
    // Again: nothing is left to be done.
    assert_eq!(sandbox.nodepool(&["dib-image-delete", &format!("debian-12-{OLD}")]).ok(), "");
    assert_eq!(zk.get(&path).unwrap().version, 1);

    let running = sandbox.nodepool(&["dib-image-delete", &format!("debian-12-{NEW}")]);
    refused(&running, "Cannot delete a build in progress");
    for id in ["debian-12-0000000001", "debian-12-lock", "debian", "a/b-c", "debian-12-"] {
        refused(&sandbox.nodepool(&["dib-image-delete", id]), &not_found(id));
    }
    assert_eq!(zk.get_json(&build_path("debian-12", NEW)).unwrap()["state"], "building");
}

#[test]
fn image_delete_marks_an_upload_unless_it_is_running() {
    let sandbox = Sandbox::new("client-delete");
    sandbox.write_body(BODY);
    let zk = sandbox.zk();
    put_build(&zk, "debian", OLD, "ready");
    put_upload(&zk, "debian", OLD, "fake-1", "0000000001", "ready");
    put_upload(&zk, "debian", OLD, "fake-1", "0000000002", "uploading");
    let delete = |provider: &str, upload: &str| {
        let which = ["--provider", provider, "--image", "debian", "--build-id", OLD, "--upload-id", upload];
        sandbox.nodepool(&[&["image-delete"], &which[..]].concat())
    };
    let path = upload_path("debian", OLD, "fake-1", "0000000001");
    let mut expected = zk.get_json(&path).unwrap();
    assert_eq!(delete("fake-1", "0000000001").ok(), "");
    let record = zk.get_json(&path).unwrap();
    expected["state"] = "deleting".into();
    expected["state_time"] = record["state_time"].clone();
    assert_eq!(record, expected);
    refused(&delete("fake-1", "0000000002"), "Cannot delete because image upload in progress");
    for (provider, upload) in
        [("fake-2", "0000000001"), ("fake-1", "0000000003"), ("fake-1", "lock"), ("fake-1", "..")]
    {
        let wanted =
            "expected the Build ID and the Upload ID that image-list shows, without the image's name";
        refused(&delete(provider, upload), &format!("Image upload not found: {wanted}"));
    }
}
