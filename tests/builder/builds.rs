//! When images are built, seen from outside.

use serde_json::json;

use super::*;
use crate::support::{Header, Transport};

#[test]
fn a_request_is_answered_by_a_build_and_is_gone_with_it() {
    let sandbox = Sandbox::new("builder-request");
    sandbox.write_body(&body(&[image(&sandbox, "debian", "formats: [raw]")], &[]));
    let zk = sandbox.zk();
    let _builder = sandbox.builder(&[]);
    let first = wait_ready(&zk, "debian");
    request(&zk, "debian");
    let both = wait_builds(&zk, "debian", "ready", 2);
    assert!(both.contains(&first));
    eventually(SOON, "the request to be gone", || (!zk.exists(&request_path("debian"))).then_some(()));
}

#[test]
fn a_request_stays_until_a_build_succeeds() {
    let sandbox = Sandbox::new("builder-request-fails");
    let env = |fails: &str| format!("formats: [raw], env-vars: {{{fails}}}");
    sandbox.write_body(&body(&[image(&sandbox, "debian", &env("FAKE_DIB_FAIL: '3'"))], &[]));
    let zk = sandbox.zk();
    request(&zk, "debian");
    let _builder = sandbox.builder(&NO_JANITOR);
    wait_builds(&zk, "debian", "failed", 1);
    assert!(zk.exists(&request_path("debian")));
    // A changed image is tried at once.
    sandbox.write_body(&body(&[image(&sandbox, "debian", &env(""))], &[]));
    wait_ready(&zk, "debian");
    eventually(SOON, "the request to be gone", || (!zk.exists(&request_path("debian"))).then_some(()));
}

#[test]
fn an_image_is_built_again_by_age_and_the_third_build_removes_the_first() {
    let sandbox = Sandbox::new("builder-age");
    let debian = image(&sandbox, "debian", "formats: [qcow2], rebuild-age: 1");
    sandbox.write_body(&body(&[debian], &[local(&sandbox, "shelf", &["debian"], "")]));
    let zk = sandbox.zk();
    let builder = sandbox.builder(&[]);
    let first = wait_ready(&zk, "debian");
    let (_, upload) = wait_upload(&zk, "debian", &first, "shelf", "ready");
    let external_id = upload["external_id"].as_str().unwrap().to_owned();
    assert!(stored(&sandbox, "shelf").iter().any(|name| name.contains(&external_id)));
    builder.wait_until("the first build to go", SOON, || {
        let record = zk.exists(&build_path("debian", &first));
        let file = files(&sandbox, "debian").iter().any(|name| name.contains(&first));
        let image = stored(&sandbox, "shelf").iter().any(|name| name.contains(&external_id));
        (!record && !file && !image).then_some(())
    });
    assert!(builds(&zk, "debian").len() >= 2);
}

#[test]
fn a_paused_image_is_built_once_it_is_unpaused() {
    let sandbox = Sandbox::new("builder-pause");
    let with = |pause: &str| {
        let paused = image(&sandbox, "in-file", &format!("formats: [raw], pause: {pause}"));
        let others = ["by-znode", "free"].map(|name| image(&sandbox, name, "formats: [raw]"));
        body(&[paused, others[0].clone(), others[1].clone()], &[])
    };
    sandbox.write_body(&with("true"));
    let zk = sandbox.zk();
    zk.create(&format!("{IMAGES}/by-znode/pause"), "");
    request(&zk, "by-znode");
    request(&zk, "in-file");
    let _builder = sandbox.builder(&[]);
    wait_ready(&zk, "free");
    // One worker, and requests come first: these would have been built before.
    assert!(builds(&zk, "in-file").is_empty() && builds(&zk, "by-znode").is_empty());
    zk.delete(&format!("{IMAGES}/by-znode/pause"));
    wait_ready(&zk, "by-znode");
    assert!(builds(&zk, "in-file").is_empty());
    sandbox.write_body(&with("false"));
    wait_ready(&zk, "in-file");
}

/// Found while reading: images were built in the order of their names, so two that are always due kept a
/// third one out for ever.
#[test]
fn images_that_are_always_due_hold_up_no_other_one() {
    let sandbox = Sandbox::new("builder-fair");
    let keys = "formats: [raw], rebuild-age: 1, env-vars: {FAKE_DIB_SLEEP: '1.2'}";
    let images = ["a", "b", "z"].map(|name| image(&sandbox, name, keys));
    sandbox.write_body(&body(&images, &[]));
    let zk = sandbox.zk();
    let _builder = sandbox.builder(&[]);
    eventually(SOON, "a second build of z", || (builds(&zk, "z").len() >= 2).then_some(()));
}

#[test]
fn a_build_that_prints_a_lot_is_logged_completely() {
    let sandbox = Sandbox::new("builder-output");
    let debian = image(&sandbox, "debian", "formats: [raw], env-vars: {FAKE_DIB_OUTPUT_MB: '200'}");
    sandbox.write_body(&body(&[debian], &[]));
    let zk = sandbox.zk();
    let _builder = sandbox.builder(&[]);
    let id = wait_ready(&zk, "debian");
    let log = std::fs::read(sandbox.logs().join(format!("debian-{id}.log"))).unwrap();
    assert!(log.len() > 200 << 20, "{}", log.len());
    assert!(log.starts_with(b"fake-dib: arguments: "));
    assert!(log.ends_with(b"Exit code: 0\n"));
}

#[test]
fn old_build_logs_go_but_those_of_other_images_stay() {
    let sandbox = Sandbox::new("builder-logs");
    let debian = image(&sandbox, "debian", "formats: [raw]");
    sandbox.write_body(&format!("build-log-retention: 1\n{}", body(&[debian], &[])));
    let (old, other) = ("debian-0000000001.log", "debian-arm-0000000001.log");
    for name in [old, "debian-0000000002.log", other] {
        std::fs::write(sandbox.logs().join(name), "old").unwrap();
    }
    let zk = sandbox.zk();
    let _builder = sandbox.builder(&[]);
    let id = wait_ready(&zk, "debian");
    let left = names(sandbox.logs());
    assert_eq!(left.len(), 3, "{left:?}");
    assert!(left.contains(&other.to_owned()) && left.contains(&format!("debian-{id}.log")));
}

#[test]
fn an_image_is_built_of_what_its_parents_the_secure_file_and_nodepool_variables_give_it() {
    let sandbox = Sandbox::new("builder-parents");
    let base =
        "abstract: true, shell-type: sh, release: 11, env-vars: {DIB_A: base, DIB_B: base, DIB_C: base}";
    let child = "  - {name: child, parent: middle, elements: [top], formats: [raw], env-vars: {DIB_C: '%(NODEPOOL_C)'}}\n";
    let images = [
        image(&sandbox, "base", base),
        "  - {name: middle, parent: base, abstract: true, release: 12.0, elements: [more]}\n".to_owned(),
        child.to_owned(),
    ];
    sandbox.write_body(&body(&images, &[]));
    sandbox.replace("secure.yaml", "diskimages: [{name: child, env-vars: {DIB_B: secret}}]\n");
    let secure = sandbox.path("secure.yaml").display().to_string();
    let mut command = sandbox.builder_command(&["-s", &secure]);
    let _builder = sandbox.spawn(command.env("NODEPOOL_C", "variable"));
    let zk = sandbox.zk();
    let id = wait_ready(&zk, "child");
    let log = std::fs::read_to_string(sandbox.logs().join(format!("child-{id}.log"))).unwrap();
    assert!(log.lines().next().unwrap().ends_with(" vm more top"), "{log}");
    for line in ["DIB_RELEASE=12.0", "DIB_A=base", "DIB_B=secret", "DIB_C=variable"] {
        assert!(log.contains(&format!("fake-dib: environment: {line}\n")), "{line} in {log}");
    }
    assert_eq!(zk.get_json(&build_path("child", &id)).unwrap()["shell_type"], "sh");
    assert!(builds(&zk, "base").is_empty() && builds(&zk, "middle").is_empty(), "they are abstract");
}

#[test]
fn an_image_is_built_again_when_its_formats_no_longer_cover_the_configured_ones() {
    let sandbox = Sandbox::new("builder-formats");
    let with = |formats: &str| body(&[image(&sandbox, "debian", &format!("formats: [{formats}]"))], &[]);
    sandbox.write_body(&with("raw, vhd"));
    let zk = sandbox.zk();
    let builder = sandbox.builder(&[]);
    let first = wait_ready(&zk, "debian");
    sandbox.write_body(&with("raw"));
    builder.wait_log("the configuration has changed", SOON);
    sandbox.write_body(&with("raw, qcow2"));
    let both = wait_builds(&zk, "debian", "ready", 2);
    let second = both.iter().find(|id| **id != first).unwrap();
    assert_eq!(zk.get_json(&build_path("debian", second)).unwrap()["formats"], "qcow2,raw");
    assert!(builder.log().contains("lacks a format"));
}

#[test]
fn the_build_command_gets_its_arguments_and_environment() {
    let sandbox = Sandbox::new("builder-command");
    let keys = "formats: [raw, qcow2], release: 12, env-vars: {DIB_MORE: 'a b'}";
    sandbox.write_body(&body(&[image(&sandbox, "debian", keys)], &[]));
    let zk = sandbox.zk();
    let mut command = sandbox.builder_command(&[]);
    let builder = sandbox.spawn(command.env("GLIBC_TUNABLES", "glibc.malloc.check=0"));
    let id = wait_ready(&zk, "debian");
    let log = std::fs::read_to_string(sandbox.logs().join(format!("debian-{id}.log"))).unwrap();
    let out = sandbox.images().join(format!("debian-{id}")).display().to_string();
    let arguments = format!(
        "fake-dib: arguments: -x -t qcow2,raw --checksum --no-tmpfs --qemu-img-options compat=0.10 -o {out} vm\n"
    );
    assert!(log.starts_with(&arguments), "{log}");
    let elements = sandbox.path("elements").display().to_string();
    for (key, value) in [
        ("DIB_RELEASE", "12"),
        ("DIB_IMAGE_NAME", "debian"),
        ("DIB_IMAGE_FILENAME", out.as_str()),
        ("DIB_MORE", "a b"),
        ("ELEMENTS_PATH", elements.as_str()),
        ("GLIBC_TUNABLES", "glibc.malloc.check=0"),
    ] {
        assert!(log.contains(&format!("fake-dib: environment: {key}={value}\n")), "{key} in {log}");
    }
    assert!(log.ends_with("Exit code: 0\n"), "{log}");
    // Its own the daemon has changed.
    let own = std::fs::read(format!("/proc/{}/environ", builder.pid())).unwrap();
    assert!(String::from_utf8_lossy(&own).contains("GLIBC_TUNABLES=:glibc.malloc.tcache_count=0"));
    let record = zk.get_json(&build_path("debian", &id)).unwrap();
    assert_eq!(record["formats"], json!("qcow2,raw"));
}

#[test]
fn an_image_is_built_and_listed_over_tls() {
    let sandbox = Sandbox::new("builder-tls");
    let body =
        body(&[image(&sandbox, "debian", "formats: [qcow2]")], &[local(&sandbox, "shelf", &["debian"], "")]);
    let header = sandbox.header(&Header { transport: Transport::Tls, ..Header::default() });
    sandbox.write_config(&(header + &body));
    let zk = sandbox.zk();
    let _builder = sandbox.builder(&[]);
    let id = wait_ready(&zk, "debian");
    wait_upload(&zk, "debian", &id, "shelf", "ready");
    assert!(sandbox.nodepool(&["dib-image-list"]).ok().contains(&id));
}
