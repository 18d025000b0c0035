//! The `nodepool` client over records that were written by hand. Each row of the table in spec/cli.md has
//! tests that are named for it; `original` compares what both clients print and write.
#![allow(clippy::unwrap_used)]

mod aliens;
mod backup;
mod build_log;
mod fixtures;
mod listings;
mod nodes;
mod orders;
mod original;
mod provider_data;
mod usage;
mod wait;

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::support::{Outcome, ZkClient};

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
    // Seconds apart: they are made one after the other, and the next second may begin between them.
    let age = if build == NEW { 93780 } else { 93784 };
    let record = json!({
        "state": state, "state_time": ago(age), "builder": "b.example", "builder_id": "id",
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

fn put_node(zk: &ZkClient, id: &str, provider: &str, external_id: Value) {
    let record = json!({
        "state": "ready", "state_time": ago(3600), "provider": provider, "external_id": external_id,
        "type": ["label"], "pool": "main", "host_keys": ["a"], "from_the_future": {"a": 1},
    });
    zk.set_json(&format!("/nodepool/nodes/{id}"), &record);
}

fn not_found(build: &str) -> String {
    format!("Build {build} not found: expected IMAGE-BUILD_ID, the ID that dib-image-list shows")
}

#[track_caller]
fn refused(outcome: &Outcome, why: &str) {
    let expected = (1, String::new(), format!("nodepool: {why}\n"));
    assert_eq!((outcome.code(), outcome.stdout.clone(), outcome.stderr.clone()), expected);
}
