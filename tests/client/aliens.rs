//! `alien-image-list` with a real store.

use serde_json::json;

use super::{BODY, NEW, OLD, put_build, refused, upload_path};
use crate::support::{Sandbox, ZkClient};

/// Puts an image into the store as the local driver does; `made` is what its properties say of its origin.
pub(super) fn store_image(sandbox: &Sandbox<'_>, number: u8, made: &[(&str, &str)]) -> String {
    let id = format!("00000000-0000-4000-8000-0000000000{number:02}");
    let name = format!("debian-{number}");
    let properties: serde_json::Map<_, _> =
        made.iter().map(|(key, value)| ((*key).to_owned(), json!(value))).collect();
    let file = format!("{name}-{id}.qcow2");
    let record = json!({
        "id": id, "name": name, "file": file, "format": "qcow2", "size": 1, "sha256": "00",
        "properties": properties, "created": 1,
    });
    std::fs::write(sandbox.store().join(&file), "x").unwrap();
    std::fs::write(sandbox.store().join(format!("{file}.json")), record.to_string()).unwrap();
    id
}

pub(super) fn record_upload(
    zk: &ZkClient,
    build: &str,
    provider: &str,
    upload: &str,
    external_id: Option<&str>,
) {
    let state = if external_id.is_some() { "ready" } else { "uploading" };
    let record = json!({"state": state, "state_time": 1.0, "external_id": external_id, "format": "qcow2"});
    zk.set_json(&upload_path("debian", build, provider, upload), &record);
}

pub(super) fn origin<'a>(build: &'a str, upload: &'a str) -> [(&'a str, &'a str); 2] {
    [("nodepool_build_id", build), ("nodepool_upload_id", upload)]
}

fn with_store(sandbox: &Sandbox<'_>, more: &str) {
    let store = sandbox.store();
    sandbox.write_body(&format!(
        "{BODY}  - {{name: here, driver: local, path: {}, diskimages: [{{name: debian}}]}}\n{more}",
        store.display()
    ));
}

#[test]
fn alien_image_list_shows_images_of_builders_that_no_record_knows() {
    let sandbox = Sandbox::new("client-aliens");
    with_store(&sandbox, "");
    let zk = sandbox.zk();
    put_build(&zk, "debian", OLD, "ready");
    let recorded = store_image(&sandbox, 1, &origin(OLD, "0000000000"));
    record_upload(&zk, OLD, "here", "0000000000", Some(&recorded));
    store_image(&sandbox, 2, &origin(OLD, "0000000001"));
    record_upload(&zk, OLD, "here", "0000000001", None);
    store_image(&sandbox, 3, &[("somebody", "else")]);
    let empty = "\
+----------+------+----------+
| Provider | Name | Image ID |
+----------+------+----------+
+----------+------+----------+
";
    assert_eq!(sandbox.nodepool(&["alien-image-list"]).ok(), empty);
    let alien = store_image(&sandbox, 4, &origin(NEW, "0000000001"));
    let expected = "\
+----------+----------+--------------------------------------+
| Provider | Name     | Image ID                             |
+----------+----------+--------------------------------------+
| here     | debian-4 | 00000000-0000-4000-8000-000000000004 |
+----------+----------+--------------------------------------+
";
    assert_eq!(sandbox.nodepool(&["alien-image-list"]).ok(), expected);
    assert_eq!(sandbox.nodepool(&["alien-image-list", "here"]).ok(), expected);
    assert_eq!(sandbox.nodepool(&["alien-image-list", "fake-1"]).ok(), empty);
    let json_of = |args: &[&str]| sandbox.nodepool(&[args, &["--output", "json"]].concat()).json();
    let row = json!({"provider": "here", "external_name": "debian-4", "external_id": alien});
    assert_eq!(json_of(&["alien-image-list"]), json!([row]));
    assert_eq!(json_of(&["alien-image-list", "fake-1"]), json!([]));
}

#[test]
fn alien_image_list_shows_what_it_can_and_fails_where_a_provider_cannot_be_asked() {
    let sandbox = Sandbox::new("client-aliens-unheard");
    let gone = sandbox.path("gone");
    with_store(&sandbox, &format!("  - {{name: gone, driver: local, path: {}}}\n", gone.display()));
    let alien = store_image(&sandbox, 1, &origin(NEW, "0000000001"));
    let outcome = sandbox.nodepool(&["alien-image-list"]);
    assert!(outcome.code() == 1 && outcome.stdout.contains(&alien), "{outcome:?}");
    let why = format!("nodepool: the provider 'gone': cannot list the images in {}", gone.display());
    assert!(outcome.stderr.starts_with(&why) && outcome.stderr.contains("No such file"), "{outcome:?}");
    assert!(!gone.exists(), "whoever asks makes nothing");
    let file = sandbox.config_file().display().to_string();
    let unknown = sandbox.nodepool(&["alien-image-list", "nowhere"]);
    refused(&unknown, &format!("the provider 'nowhere' is not configured in {file}"));
}
