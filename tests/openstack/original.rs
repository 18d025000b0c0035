//! Beside the Python original: what its upload leaves in Glance, and what ours does.

use std::path::Path;

use serde_json::json;

use super::*;
use crate::support::{Original, openstack};

#[test]
fn an_image_in_glance_has_the_same_properties_as_the_originals() {
    let services = openstack::shared();
    let sandbox = Sandbox::new("openstack-original");
    let image = qcow2(
        &sandbox,
        "alike",
        1,
        "metadata: {os_distro: debian, min_ram: '64', hw_vif_multiqueue_enabled: 'true'},",
    );
    sandbox.write_body(&body(&[image], &[provider("demo", "{name: alike, meta: {from: here}}", "")]));
    let zk = sandbox.zk();
    let builder = builder(&sandbox, &services, &[]);
    let build = wait_ready(&zk, "alike");
    let (upload, _) = wait_upload(&zk, "alike", &build, "demo-here", "ready");
    let mut ours = wait_image(&builder, &services, "alike", "active");
    let name = ours["name"].as_str().unwrap().to_owned();
    services.delete_image(ours["id"].as_str().unwrap());

    let file = sandbox.images().join(format!("alike-{build}.qcow2"));
    let digest = |ending: &str| {
        let text = std::fs::read_to_string(format!("{}.{ending}", file.display())).unwrap();
        text.split(' ').next().unwrap().to_owned()
    };
    let meta = json!({
        "os_distro": "debian", "min_ram": "64", "hw_vif_multiqueue_enabled": "true", "from": "here",
        "nodepool_build_id": build, "nodepool_upload_id": upload,
    });
    let mut python = Original::get().python();
    python.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/openstack/original-upload.py"));
    python.args(["demo", &name]).arg(&file);
    python.args(["qcow2", &digest("md5"), &digest("sha256"), &meta.to_string()]);
    python.env("OS_CLIENT_CONFIG_FILE", services.clouds());
    let id = sandbox.run_client(python, "", SOON).ok();
    // Ours says besides which provider the image is for.
    let own = ours.as_object_mut().unwrap().remove("nodepool_provider_name");
    assert_eq!(own, Some(json!("demo-here")));
    let mut theirs = services.images("alike-").into_iter().find(|image| image["id"] == id.trim()).unwrap();
    services.delete_image(id.trim());
    for image in [&mut ours, &mut theirs] {
        // What differs from upload to upload.
        for key in ["id", "created_at", "updated_at", "file", "self"] {
            assert!(image.as_object_mut().unwrap().remove(key).is_some(), "{key}");
        }
    }
    assert_eq!(ours, theirs);
}
