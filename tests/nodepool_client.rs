//! The `nodepool` client over records that were written by hand.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::{Outcome, Sandbox, ZkClient};

const IMAGES: &str = "/nodepool/images";
const OLD: &str = "00000000000000000000000000000000";
const NEW: &str = "ffffffffffffffffffffffffffffffff";

const BODY: &str = "
diskimages:
  - {name: debian, formats: [qcow2]}
  - {name: paused, formats: [qcow2], pause: true}
providers:
  - {name: fake-1, diskimages: [{name: debian}]}
";

/// A time so long ago that its age shows the same days, hours and minutes for the whole test.
fn ago(seconds: u64) -> f64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    (now - seconds) as f64 + 0.5
}

fn build_path(image: &str, build: &str) -> String {
    format!("{IMAGES}/{image}/builds/{build}")
}

fn upload_path(image: &str, build: &str, provider: &str, upload: &str) -> String {
    format!("{}/providers/{provider}/images/{upload}", build_path(image, build))
}

fn put_build(zk: &ZkClient, image: &str, build: &str, state: &str) {
    let record = json!({
        "state": state, "state_time": ago(93784), "builder": "b.example", "builder_id": "id",
        "formats": "qcow2,raw", "username": "zuul", "python_path": "auto",
        "shell_type": null, "from_the_future": [1],
    });
    zk.set_json(&build_path(image, build), &record);
}

fn put_upload(zk: &ZkClient, image: &str, build: &str, provider: &str, upload: &str, state: &str) {
    let ids = (state == "ready").then(|| (format!("{image}-1700000000"), format!("id-{upload}"))).unzip();
    let record = json!({
        "state": state, "state_time": ago(3600), "external_name": ids.0, "external_id": ids.1,
        "format": "qcow2", "username": "zuul", "python_path": "auto", "shell_type": null, "new": true,
    });
    zk.set_json(&upload_path(image, build, provider, upload), &record);
}

/// Ages without their seconds, which go on while the test runs.
fn without_seconds(text: &str) -> String {
    let mut text = text.to_owned();
    for age in ["01:02:03:0", "00:01:00:0", "00:00:00:0"] {
        while let Some(at) = text.find(age) {
            text.replace_range(at + 9..at + 11, "SS");
        }
    }
    text
}

#[track_caller]
fn refused(outcome: &Outcome, why: &str) {
    let expected = (1, String::new(), format!("nodepool: {why}\n"));
    assert_eq!((outcome.code(), outcome.stdout.clone(), outcome.stderr.clone()), expected);
}

/// The tables are those that the original prints for the same records.
#[test]
fn listings_are_those_of_the_original() {
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
    let gentoo =
        json!({"image": "gentoo", "paused": false, "build_request": null, "build_request_age": null});
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
    let near = |value: &Value, seconds: u64| {
        let since = value.as_f64().unwrap();
        assert!((ago(seconds) - 60.0..=ago(seconds)).contains(&since), "{value}");
        value.clone()
    };
    let builds = sandbox.nodepool(&["dib-image-list", "--output", "json"]).json();
    let expected = json!([{
        "id": format!("debian-{OLD}"), "image": "debian", "builder": "b.example",
        "formats": ["qcow2", "raw"], "state": "ready", "age": near(&builds[0]["age"], 93784),
    }]);
    assert_eq!(builds, expected);
    let uploads = sandbox.nodepool(&["image-list", "--output=json"]).json();
    let expected = json!([{
        "id": OLD, "upload_id": "0000000000", "provider": "fake-1", "image": "debian",
        "external_name": null, "external_id": null, "state": "uploading", "age": near(&uploads[0]["age"], 3600),
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
fn images_are_paused_and_unpaused() {
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
    let file = sandbox.config_file();
    let unknown = sandbox.nodepool(&["image-pause", "fedora"]);
    let told = format!("nodepool: warning: the image 'fedora' is not configured in {}\n", file.display());
    assert_eq!((unknown.code(), unknown.stderr), (0, told));
    assert!(zk.exists("/nodepool/images/fedora/pause"));
    refused(&sandbox.nodepool(&["image-pause", "a/b"]), "the name 'a/b' must not contain '/'");
}

#[test]
fn a_build_is_marked_for_deletion_unless_it_is_running() {
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
        refused(&sandbox.nodepool(&["dib-image-delete", id]), &format!("Build {id} not found"));
    }
    assert_eq!(zk.get_json(&build_path("debian-12", NEW)).unwrap()["state"], "building");
}

#[test]
fn an_upload_is_marked_for_deletion_unless_it_is_running() {
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
        refused(&delete(provider, upload), "Image upload not found");
    }
}

#[test]
fn config_validate_shows_every_problem() {
    let sandbox = Sandbox::new("client-validate");
    sandbox.write_body(BODY);
    let file = sandbox.config_file().display().to_string();
    assert_eq!(sandbox.nodepool(&["config-validate"]).ok(), format!("{file}: no problems found\n"));
    let secure = sandbox.path("secure.yaml").display().to_string();
    sandbox.replace("secure.yaml", "diskimages: [{name: debain}]\n");
    sandbox.write_body(&format!("{BODY}colour: red\nlabels: 5\n"));
    let outcome = sandbox.nodepool(&["-s", &secure, "config-validate"]);
    let lines: Vec<_> = outcome.stderr.lines().collect();
    assert_eq!((outcome.code(), outcome.stdout.as_str(), lines.len()), (1, "", 3), "{outcome:?}");
    assert_eq!(lines[0], format!("{file}: colour: unknown key"));
    assert!(lines[1].starts_with(&format!("{file}: labels: expected a list")), "{outcome:?}");
    assert!(
        lines[2].starts_with(&format!("{secure}: diskimages[0].name: the image 'debain'")),
        "{outcome:?}"
    );
    // Only the validator minds an unknown key.
    sandbox.write_body(&format!("{BODY}colour: red\n"));
    assert_eq!(sandbox.nodepool(&["config-validate"]).code(), 1);
    assert_eq!(sandbox.nodepool(&["image-list"]).code(), 0);
    // No other command does anything with a broken file.
    sandbox.write_config("labels: 5\ndiskimages: 6\n");
    let outcome = sandbox.nodepool(&["image-build", "debian"]);
    let lines: Vec<_> = outcome.stderr.lines().collect();
    assert_eq!((outcome.code(), lines.len()), (1, 2), "{outcome:?}");
    assert!(lines.iter().all(|line| line.starts_with(&format!("nodepool: {file}: "))), "{outcome:?}");
}

#[test]
fn the_secure_file_is_read_and_debug_needs_no_logging_file() {
    let sandbox = Sandbox::new("client-secure");
    let (host, port) = ("127.0.0.1", sandbox.server().plain_port());
    let servers =
        format!("zookeeper-servers: [{{host: {host}, port: {port}, chroot: {}}}]\n", sandbox.chroot());
    sandbox.replace("secure.yaml", &servers);
    sandbox.write_config(BODY);
    let file = sandbox.config_file().display().to_string();
    let without = sandbox.nodepool(&["image-list"]);
    let why = "the required key 'zookeeper-servers' is missing; expected a list with at least one 'host'";
    refused(&without, &format!("{file}: {why}"));
    let outcome = sandbox.nodepool(&["-s", "secure.yaml", "-l", "logging.conf", "--debug", "image-list"]);
    assert!(outcome.stderr.contains("connected to ZooKeeper"), "{outcome:?}");
    assert!(outcome.ok().contains("| Build ID |"));
}

#[test]
fn servers_that_cannot_be_reached_are_named_within_the_session_timeout() {
    let sandbox = Sandbox::new("client-unreachable");
    sandbox.write_config(&format!(
        "zookeeper-servers: [{{host: 127.0.0.1, port: 1}}, {{host: 127.0.0.1, port: 2}}]\n\
         zookeeper-timeout: 1.0\n{BODY}"
    ));
    let began = Instant::now();
    let outcome = sandbox.nodepool(&["image-list"]);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert_eq!((outcome.code(), outcome.stdout.as_str(), outcome.stderr.lines().count()), (1, "", 1));
    for part in ["nodepool: ZooKeeper: no connection", "127.0.0.1:1: ", "127.0.0.1:2: ", "refused"] {
        assert!(outcome.stderr.contains(part), "{outcome:?}");
    }
}

#[test]
fn usage_errors_end_with_2_and_help_with_0() {
    let sandbox = Sandbox::new("client-usage");
    for args in [
        &[][..],
        &["no-such-command"],
        &["image-build"],
        &["image-list", "--output", "xml"],
        &["image-delete", "--image", "a"],
    ] {
        let outcome = sandbox.nodepool(args);
        assert_eq!((outcome.code(), outcome.stdout.as_str()), (2, ""), "{args:?}");
        assert!(outcome.stderr.contains("--help"), "{outcome:?}");
    }
    assert_eq!(sandbox.nodepool(&["--version"]).ok(), concat!("nodepool ", env!("CARGO_PKG_VERSION"), "\n"));
    let help = sandbox.nodepool(&["--help"]).ok();
    for command in [
        "image-build",
        "dib-image-list",
        "image-list",
        "image-status",
        "dib-image-delete",
        "image-delete",
        "image-pause",
        "image-unpause",
        "config-validate",
    ] {
        assert!(help.contains(command), "{command}: {help}");
        let own = sandbox.nodepool(&[command, "--help"]).ok();
        assert!(own.contains(&format!("Usage: nodepool {command}")), "{own}");
    }
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let sandbox = Sandbox::new("client-pipe");
    sandbox.write_body(BODY);
    let mut client = Command::new(env!("CARGO_BIN_EXE_nodepool"));
    client.arg("-c").arg(sandbox.config_file()).arg("image-list");
    let mut client = client.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(client.stdout.take());
    let mut told = String::new();
    client.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert_eq!((client.wait().unwrap().code(), told.as_str()), (Some(0), ""));
    // A full disk is one.
    let full = std::fs::File::create("/dev/full").unwrap();
    let mut client = Command::new(env!("CARGO_BIN_EXE_nodepool"));
    client.arg("-c").arg(sandbox.config_file()).arg("image-list").stdout(full);
    let outcome = client.output().unwrap();
    let told = String::from_utf8_lossy(&outcome.stderr).into_owned();
    assert_eq!(outcome.status.code(), Some(1), "{told}");
    assert!(told.starts_with("nodepool: cannot write to standard output: No space left"), "{told}");
}
