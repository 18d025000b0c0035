//! `export-image-data` and `import-image-data`.

use std::os::unix::fs::PermissionsExt;

use serde_json::{Map, Value, json};

use super::{BODY, IMAGES, NEW, OLD, build_path, put_build, put_upload, refused, upload_path};
use crate::support::{Sandbox, ZkClient};

/// Records of every kind, and some that no record can be.
pub(super) fn put_data(zk: &ZkClient) {
    put_build(zk, "debian", OLD, "ready");
    put_build(zk, "debian", NEW, "deleting");
    put_build(zk, "fedora", "0000000012", "ready");
    zk.create("/nodepool/images/fedora/pause", "");
    zk.create("/nodepool/images/fedora/request-build", "");
    zk.create("/nodepool/images/gentoo", "");
    put_upload(zk, "debian", OLD, "east", "0000000003", "ready");
    put_upload(zk, "debian", OLD, "east", "0000000007", "failed");
    put_upload(zk, "debian", OLD, "west", "0000000001", "ready");
    put_upload(zk, "fedora", "0000000012", "west", "0000000000", "uploading");
    zk.set(&upload_path("debian", NEW, "west", "0000000002"), "{\"an unfinished \u{fc}");
    zk.create("/nodepool/images/debian/builds/lock", "");
    zk.create(&format!("{}/lock", upload_path("debian", OLD, "east", "0000000003")), "");
}

/// The paths and data that a backup has, from what there is.
fn expected(zk: &ZkClient) -> Value {
    let is_record = |path: &str| {
        let names: Vec<_> = path.split('/').collect();
        names.last() != Some(&"lock")
            && matches!((names.len(), names.last()), (6 | 10, _) | (5, Some(&"pause")))
    };
    let records = zk.dump(IMAGES).into_iter().filter(|(path, _)| is_record(path));
    records.map(|(path, data)| (path, Value::String(data))).collect::<Map<_, _>>().into()
}

#[test]
fn export_image_data_writes_every_record_byte_for_byte_into_a_file_of_its_owner() {
    let sandbox = Sandbox::new("client-export");
    sandbox.write_body(BODY);
    let zk = sandbox.zk();
    let file = sandbox.path("backup.json");
    let export = || sandbox.nodepool(&["export-image-data", file.to_str().unwrap()]);
    assert_eq!(export().ok(), "");
    assert_eq!(std::fs::read_to_string(&file).unwrap().trim_end(), "{}");
    put_data(&zk);
    // What is there is replaced, whoever could read it.
    std::fs::write(&file, "x".repeat(100_000)).unwrap();
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).unwrap();
    assert_eq!(export().ok(), "");
    let written: Value = serde_json::from_str(&std::fs::read_to_string(&file).unwrap()).unwrap();
    assert_eq!(written, expected(&zk));
    assert_eq!(written.as_object().unwrap().len(), 9);
    assert_eq!(std::fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    // What is no text is told.
    zk.set(&build_path("debian", NEW), [0xff]);
    let outcome = export();
    let why = format!("the record at {} is left out: it is no text", build_path("debian", NEW));
    assert_eq!((outcome.code(), outcome.stderr), (0, format!("nodepool: warning: {why}\n")));
    put_build(&zk, "debian", NEW, "ready");
    let nowhere = sandbox.path("none/backup.json").display().to_string();
    let outcome = sandbox.nodepool(&["export-image-data", &nowhere]);
    refused(&outcome, &format!("cannot write {nowhere}: No such file or directory (os error 2)"));
    let beside: Vec<_> =
        std::fs::read_dir(sandbox.dir()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(beside.iter().all(|name| !name.to_string_lossy().ends_with(".new")), "{beside:?}");
}

#[test]
fn import_image_data_puts_records_back_and_keeps_counters_ahead() {
    let (from, to) = (Sandbox::new("client-export-from"), Sandbox::new("client-import-to"));
    from.write_body(BODY);
    to.write_body(BODY);
    let (before, zk) = (from.zk(), to.zk());
    put_data(&before);
    let file = from.path("backup.json").display().to_string();
    from.nodepool(&["export-image-data", &file]).ok();
    // What is there gets the data of the file, or stays.
    put_build(&zk, "debian", OLD, "failed");
    put_upload(&zk, "debian", OLD, "east", "0000000009", "ready");
    let stays = expected(&zk);
    // One that the server did not count as far as its number.
    put_upload(&zk, "debian", OLD, "west", "0000000001", "failed");
    for _ in 0..2 {
        let outcome = to.nodepool(&["import-image-data", &file]);
        assert_eq!((outcome.stderr.clone(), outcome.ok()), (String::new(), String::new()));
        let mut wanted = expected(&before);
        let (path, data) = stays.as_object().unwrap().iter().next_back().unwrap();
        wanted[path] = data.clone();
        assert_eq!(expected(&zk), wanted);
    }
    // The server names the next upload as a builder of the original asks it to.
    for (image, build, provider, last) in
        [("debian", OLD, "east", 9), ("debian", OLD, "west", 1), ("fedora", "0000000012", "west", 0)]
    {
        let parent = format!("{}/providers/{provider}/images", build_path(image, build));
        let ids = zk.children(&parent);
        assert!(ids.iter().all(|id| id.len() == 10), "{ids:?}");
        let made = zk.create_sequential(&format!("{parent}/x-"), "");
        let number: u32 = made.rsplit('-').next().unwrap().parse().unwrap();
        assert!(number > last, "{parent}: {number}");
    }
}

#[test]
fn import_image_data_refuses_what_is_no_backup_and_imports_nothing_of_it() {
    let sandbox = Sandbox::new("client-import-refused");
    sandbox.write_body(BODY);
    let file = sandbox.path("backup.json").display().to_string();
    let import = || sandbox.nodepool(&["import-image-data", &file]);
    let why = format!("cannot import {file}: No such file or directory (os error 2)");
    refused(&import(), &why);
    let good = build_path("debian", OLD);
    for (path, data, why) in [
        ("/zookeeper/config", json!(""), "it is no build, upload or pause mark of an image"),
        (
            "/nodepool/images/debian/builds/lock",
            json!(""),
            "it is no build, upload or pause mark of an image",
        ),
    ] {
        sandbox.replace("backup.json", &json!({good.as_str(): "{}", path: data}).to_string());
        refused(&import(), &format!("cannot import {file}: {path}: {why}"));
    }
    sandbox.replace("backup.json", &json!({good.as_str(): "{}", "/nodepool/images/a/pause": 1}).to_string());
    let outcome = import();
    let why = format!("nodepool: cannot import {file}: it is no JSON object of paths with their data: ");
    assert!(outcome.code() == 1 && outcome.stderr.starts_with(&why), "{outcome:?}");
    assert_eq!(sandbox.zk().children("/"), [""; 0]);
}

#[test]
fn import_image_data_warns_while_builders_run() {
    let sandbox = Sandbox::new("client-import-running");
    sandbox.write_body(BODY);
    let zk = sandbox.zk();
    zk.create_ephemeral("/nodepool/components/builder/b.example0000000000", "{}");
    sandbox.replace("backup.json", "{\"/nodepool/images/debian/pause\": \"\"}");
    let outcome = sandbox.nodepool(&["import-image-data", sandbox.path("backup.json").to_str().unwrap()]);
    assert!(outcome.stderr.starts_with("nodepool: warning: builders are running"), "{outcome:?}");
    assert_eq!(outcome.code(), 0);
    assert!(zk.exists("/nodepool/images/debian/pause"));
}
