//! The listings, as tables and as JSON.

use serde_json::{Value, json};

use super::{BODY, NEW, OLD, ago, build_path, put_build, put_upload, upload_path};
use crate::support::Sandbox;

/// Ages without their seconds, which go on while the test runs.
fn without_seconds(text: &str) -> String {
    let mut text = text.to_owned();
    for age in ["01:02:03:", "00:01:00:", "00:00:00:"] {
        let hidden = format!("{age}SS");
        while let Some(at) =
            text.match_indices(age).map(|(at, _)| at).find(|at| !text[*at..].starts_with(&hidden))
        {
            text.replace_range(at..at + hidden.len(), &hidden);
        }
    }
    text
}

/// The tables are those that the original prints for the same records.
#[test]
fn dib_image_list_image_list_and_image_status_draw_the_originals_tables() {
    let sandbox = Sandbox::new("client-listings");
    sandbox.write_body(BODY);
    let zk = sandbox.zk();
    // Made in another order than their ids.
    put_build(&zk, "debian", NEW, "ready");
    put_build(&zk, "debian", OLD, "building");
    put_build(&zk, "fedora", OLD, "failed");
    zk.create("/nodepool/images/fedora/pause", "");
    put_upload(&zk, "debian", NEW, "fake-2", "0000000001", "uploading");
    put_upload(&zk, "debian", NEW, "fake-1", "0000000002", "ready");
    put_upload(&zk, "debian", NEW, "fake-1", "0000000001", "deleting");
    zk.hold_lock(&format!("{}/lock", upload_path("debian", NEW, "fake-1", "0000000001")));
    zk.hold_lock("/nodepool/images/debian/builds/lock");
    zk.create("/nodepool/images/debian/request-build", "");
    zk.create("/nodepool/images/fedora/request-build", "");
    zk.create("/nodepool/images/gentoo", "");

    let listing = |args: &[&str]| without_seconds(&sandbox.nodepool(args).ok());
    assert_eq!(
        listing(&["dib-image-list"]),
        "\
+-----------------------------------------+--------+-----------+-----------+----------+-------------+
| ID                                      | Image  | Builder   | Formats   | State    | Age         |
+-----------------------------------------+--------+-----------+-----------+----------+-------------+
| debian-ffffffffffffffffffffffffffffffff | debian | b.example | qcow2,raw | ready    | 01:02:03:SS |
| debian-00000000000000000000000000000000 | debian | b.example | qcow2,raw | building | 01:02:03:SS |
| fedora-00000000000000000000000000000000 | fedora | b.example | qcow2,raw | paused   | 01:02:03:SS |
+-----------------------------------------+--------+-----------+-----------+----------+-------------+
"
    );
    assert_eq!(
        listing(&["image-list"]),
        "\
+----------------------------------+------------+----------+--------+---------------------+-------------------+-----------+-------------+
| Build ID                         | Upload ID  | Provider | Image  | Provider Image Name | Provider Image ID | State     | Age         |
+----------------------------------+------------+----------+--------+---------------------+-------------------+-----------+-------------+
| ffffffffffffffffffffffffffffffff | 0000000001 | fake-1   | debian |                     |                   | deleting  | 00:01:00:SS |
| ffffffffffffffffffffffffffffffff | 0000000002 | fake-1   | debian | debian-1700000000   | id-0000000002     | ready     | 00:01:00:SS |
| ffffffffffffffffffffffffffffffff | 0000000001 | fake-2   | debian |                     |                   | uploading | 00:01:00:SS |
+----------------------------------+------------+----------+--------+---------------------+-------------------+-----------+-------------+
"
    );
    // The lock was made after the builds, so the request of debian still waits; nobody builds fedora.
    assert_eq!(
        listing(&["image-status"]),
        "\
+--------+--------+---------------+-------------------+
| Image  | Paused | Build Request | Build Request Age |
+--------+--------+---------------+-------------------+
| debian | False  | pending       | 00:00:00:SS       |
| fedora | True   | pending       | 00:00:00:SS       |
| gentoo | False  |               |                   |
+--------+--------+---------------+-------------------+
"
    );
    zk.delete(&build_path("debian", OLD));
    put_build(&zk, "debian", OLD, "building");
    let status = sandbox.nodepool(&["image-status", "--output", "json"]).json();
    assert_eq!(status[0]["build_request"], "building");
    assert!(status[0]["build_request_age"].is_u64(), "{status}");
    let (since, made) = (&status[0]["build_request_age"], &status[0]["build_request_time"]);
    assert_eq!(made.as_f64().map(f64::floor), since.as_f64());
    assert!(status[0]["build_request_age_seconds"].as_u64().unwrap() < 60, "{status}");
    let gentoo = json!({
        "image": "gentoo", "paused": false, "build_request": null, "build_request_age": null,
        "build_request_time": null, "build_request_age_seconds": null,
    });
    assert_eq!(status[2], gentoo);
}

#[test]
fn json_listings_have_the_keys_of_the_original() {
    let sandbox = Sandbox::new("client-json");
    sandbox.write_body(BODY);
    let zk = sandbox.zk();
    for listing in ["dib-image-list", "image-list", "image-status"] {
        assert_eq!(sandbox.nodepool(&[listing, "--output", "json"]).json(), json!([]), "{listing}");
    }
    put_build(&zk, "debian", OLD, "ready");
    put_upload(&zk, "debian", OLD, "fake-1", "0000000000", "uploading");
    // Under the original's key stands the time itself.
    let since = |row: &Value, seconds: u64| {
        let (time, age) = (row["state_time"].as_f64().unwrap(), row["age_seconds"].as_u64().unwrap());
        assert!((ago(seconds) - 60.0..=ago(seconds)).contains(&time), "{row}");
        assert!((seconds..seconds + 60).contains(&age), "{row}");
        (time, time as u64, age)
    };
    let builds = sandbox.nodepool(&["dib-image-list", "--output", "json"]).json();
    let (time, age, seconds) = since(&builds[0], 93784);
    let expected = json!([{
        "id": format!("debian-{OLD}"), "image": "debian", "builder": "b.example", "formats": ["qcow2", "raw"],
        "state": "ready", "age": age, "state_time": time, "age_seconds": seconds,
    }]);
    assert_eq!(builds, expected);
    let uploads = sandbox.nodepool(&["image-list", "--output=json"]).json();
    let (time, age, seconds) = since(&uploads[0], 3600);
    let expected = json!([{
        "id": OLD, "upload_id": "0000000000", "provider": "fake-1", "image": "debian", "external_name": null,
        "external_id": null, "state": "uploading", "age": age, "state_time": time, "age_seconds": seconds,
    }]);
    assert_eq!(uploads, expected);
}

#[test]
fn an_empty_zookeeper_has_empty_tables() {
    let sandbox = Sandbox::new("client-empty");
    sandbox.write_body(BODY);
    let table = "\
+-------+--------+---------------+-------------------+
| Image | Paused | Build Request | Build Request Age |
+-------+--------+---------------+-------------------+
+-------+--------+---------------+-------------------+
";
    assert_eq!(sandbox.nodepool(&["image-status"]).ok(), table);
}

#[test]
fn a_damaged_record_is_told_and_left_out() {
    let sandbox = Sandbox::new("client-damaged");
    sandbox.write_body(BODY);
    let zk = sandbox.zk();
    put_build(&zk, "debian", OLD, "ready");
    zk.create(&build_path("debian", NEW), "{");
    put_upload(&zk, "debian", NEW, "fake-1", "0000000000", "ready");
    zk.create(&upload_path("debian", OLD, "fake-1", "0000000000"), "");
    let builds = sandbox.nodepool(&["dib-image-list"]);
    let told = format!("the record of the build debian-{NEW} is left out: it is no valid record");
    assert_eq!(builds.stderr, format!("nodepool: warning: {told}\n"));
    assert!(builds.stdout.contains(OLD) && !builds.stdout.contains(NEW), "{builds:?}");
    let uploads = sandbox.nodepool(&["image-list"]);
    let path = upload_path("debian", OLD, "fake-1", "0000000000");
    let told = format!("nodepool: warning: the record at {path} is left out: the record is empty\n");
    assert_eq!(uploads.stderr, told);
    // The original does not look at the builds for this list.
    assert!(uploads.stdout.contains(NEW) && !uploads.stdout.contains(OLD), "{uploads:?}");
}
