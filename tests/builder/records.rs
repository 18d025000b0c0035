//! What a build and its upload leave: records as spec/zookeeper.md has them, files, and the image.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use super::*;

fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs_f64()
}

fn keys(record: &Value) -> Vec<&str> {
    record.as_object().unwrap().keys().map(String::as_str).collect()
}

#[test]
fn a_build_and_its_upload_leave_what_the_contract_says() {
    let sandbox = Sandbox::new("builder-records");
    let keys_of_image = "formats: [raw], username: me, python-path: /py, metadata: {os: linux, both: image}";
    let debian = image(&sandbox, "debian", keys_of_image);
    let shelf = format!(
        "  - {{name: shelf, driver: local, path: '{}', image-name-format: '{{image_name}}-{{upload_id}}', \
         diskimages: [{{name: debian, meta: {{both: provider}}}}]}}\n",
        sandbox.store().join("shelf").display()
    );
    sandbox.write_body(&body(&[debian], &[shelf]));
    let zk = sandbox.zk();
    let began = now();
    let _builder = sandbox.builder(&[]);
    let id = wait_ready(&zk, "debian");
    let (upload_id, upload) = wait_upload(&zk, "debian", &id, "shelf", "ready");

    assert!(id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{id}");
    let build = zk.get_json(&build_path("debian", &id)).unwrap();
    let expected =
        ["builder", "builder_id", "formats", "python_path", "shell_type", "state", "state_time", "username"];
    assert_eq!(keys(&build), expected);
    let builder_id = std::fs::read_to_string(sandbox.images().join("builder_id.txt")).unwrap();
    let hostname = rustix::system::uname().nodename().to_str().unwrap().to_owned();
    assert!(build["builder"].as_str().unwrap().starts_with(&hostname), "{build}");
    assert_eq!(build["builder_id"], json!(builder_id.trim()));
    assert_eq!(build["formats"], json!("qcow2,raw"));
    assert_eq!(build["username"], json!("me"));
    assert_eq!(build["python_path"], json!("/py"));
    assert_eq!(build["shell_type"], Value::Null);
    assert!((began..=now()).contains(&build["state_time"].as_f64().unwrap()), "{build}");

    assert!(upload_id.len() == 10 && upload_id.bytes().all(|byte| byte.is_ascii_digit()), "{upload_id}");
    let expected = [
        "external_id",
        "external_name",
        "format",
        "python_path",
        "shell_type",
        "state",
        "state_time",
        "username",
    ];
    assert_eq!(keys(&upload), expected);
    let external_id = upload["external_id"].as_str().unwrap();
    let external_name = format!("debian-{upload_id}");
    assert_eq!(upload["external_name"], json!(external_name));
    assert_eq!(upload["format"], json!("qcow2"));
    assert_eq!(upload["username"], json!("me"));
    assert_eq!(upload["python_path"], json!("/py"));
    assert_eq!(upload["shell_type"], Value::Null);
    assert!(upload["state_time"].as_f64() > build["state_time"].as_f64());

    let suffixes = ["d", "qcow2", "qcow2.md5", "qcow2.sha256", "raw", "raw.md5", "raw.sha256"];
    assert_eq!(files(&sandbox, "debian"), suffixes.map(|suffix| format!("debian-{id}.{suffix}")));

    let file = format!("{external_name}-{external_id}.qcow2");
    assert_eq!(stored(&sandbox, "shelf"), [file.clone(), format!("{file}.json")]);
    let shelf = sandbox.store().join("shelf");
    let built = sandbox.images().join(format!("debian-{id}.qcow2"));
    assert_eq!(std::fs::read(shelf.join(&file)).unwrap(), std::fs::read(&built).unwrap());
    let record = std::fs::read_to_string(shelf.join(format!("{file}.json"))).unwrap();
    let record: Value = serde_json::from_str(&record).unwrap();
    let properties = json!({
        "os": "linux", "both": "provider", "nodepool_build_id": id, "nodepool_upload_id": upload_id,
        "nodepool_provider_name": "shelf",
    });
    assert_eq!(record["properties"], properties);
    for kind in ["md5", "sha256"] {
        let line = std::fs::read_to_string(format!("{}.{kind}", built.display())).unwrap();
        assert_eq!(record[kind].as_str(), line.split_whitespace().next(), "{kind}");
    }
}

#[test]
fn damaged_records_are_logged_once_and_left_alone_while_others_go_on() {
    let sandbox = Sandbox::new("builder-damaged");
    let images = ["debian", "fedora"].map(|name| image(&sandbox, name, "formats: [qcow2]"));
    sandbox.write_body(&body(&images, &[local(&sandbox, "shelf", &["debian", "fedora"], "")]));
    let zk = sandbox.zk();
    let ids = ["00000000000000000000000000000000", "11111111111111111111111111111111"];
    let damaged = [
        (build_path("debian", ids[0]), "no JSON"),
        (build_path("debian", ids[1]), "{\"builder\": \"b\"}"),
        (format!("{}/0000000007", uploads_path("fedora", ids[0], "shelf")), "[]"),
    ];
    zk.set_json(&build_path("fedora", ids[0]), &json!({"state": "failed", "state_time": 1.0}));
    for (path, data) in &damaged {
        zk.set(path, data);
    }
    let file = sandbox.images().join(format!("debian-{}.qcow2", ids[0]));
    std::fs::write(&file, "precious").unwrap();
    let builder = sandbox.builder(&[]);
    for image in ["debian", "fedora"] {
        let id = wait_ready(&zk, image);
        wait_upload(&zk, image, &id, "shelf", "ready");
        request(&zk, image);
        wait_builds(&zk, image, "ready", 2);
    }
    let log = builder.log();
    for (path, data) in &damaged {
        assert_eq!(zk.get(path).unwrap().data, data.as_bytes(), "{path}");
        let lines =
            log.lines().filter(|line| line.contains("damaged record") && line.contains(path.as_str()));
        assert_eq!(lines.count(), 1, "{path} in {log}");
    }
    assert!(zk.exists(&build_path("fedora", ids[0])), "what a damaged record hangs on");
    assert!(file.exists());
}

#[test]
fn the_builders_id_is_made_once_and_kept() {
    let sandbox = Sandbox::new("builder-id");
    sandbox.write_body(&body(&[], &[]));
    let file = sandbox.images().join("builder_id.txt");
    drop(sandbox.builder(&[]));
    let first = std::fs::read_to_string(&file).unwrap();
    drop(sandbox.builder(&[]));
    assert_eq!(std::fs::read_to_string(&file).unwrap(), first);
}
