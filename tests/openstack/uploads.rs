//! What reaches Glance, and goes from there again.

use std::process::Command;

use serde_json::json;

use super::*;
use crate::support::openstack;

#[test]
fn a_build_of_300_megabytes_arrives_as_it_was_built_and_goes_with_its_configuration() {
    let services = openstack::shared();
    let sandbox = Sandbox::new("openstack-whole");
    let image =
        qcow2(&sandbox, "whole", 300, "metadata: {os_distro: debian, min_disk: '1', text: 'of the image'},");
    let listed = "{name: whole, meta: {text: 'of the provider, in ünicode'}}";
    sandbox.write_body(&body(std::slice::from_ref(&image), &[provider("demo", "", "")]));
    let zk = sandbox.zk();
    let builder = builder(&sandbox, &services, &[]);
    let build = wait_ready(&zk, "whole");
    builder.wait_log("the build is ready", SOON);
    builder.forget_peak();
    let idle = builder.memory("VmRSS:");
    sandbox.write_body(&body(std::slice::from_ref(&image), &[provider("demo", listed, "")]));
    let (upload, record) = wait_upload(&zk, "whole", &build, "demo-here", "ready");
    let peak = builder.memory("VmHWM:");
    println!("{idle} kB before the upload, {peak} kB at most");
    assert!(peak < idle + (4 << 10), "{idle} kB before the upload, {peak} kB at most");

    let stored = wait_image(&builder, &services, "whole", "active");
    assert_eq!(record["external_id"], stored["id"]);
    assert_eq!(record["external_name"], stored["name"]);
    let file = sandbox.images().join(format!("whole-{build}.qcow2"));
    let digest = |ending: &str| {
        let text = std::fs::read_to_string(format!("{}.{ending}", file.display())).unwrap();
        text.split(' ').next().unwrap().to_owned()
    };
    for (key, value) in [
        ("disk_format", json!("qcow2")),
        ("container_format", json!("bare")),
        ("visibility", json!("private")),
        ("size", json!(std::fs::metadata(&file).unwrap().len())),
        ("checksum", json!(digest("md5"))),
        ("owner_specified.openstack.md5", json!(digest("md5"))),
        ("owner_specified.openstack.sha256", json!(digest("sha256"))),
        ("nodepool_build_id", json!(build)),
        ("nodepool_upload_id", json!(upload)),
        ("os_distro", json!("debian")),
        ("min_disk", json!(1)),
        ("text", json!("of the provider, in ünicode")),
    ] {
        assert_eq!(stored[key], value, "{key}");
    }
    let copy = sandbox.path("copy");
    services.download(stored["id"].as_str().unwrap(), &copy);
    assert!(Command::new("cmp").arg(&copy).arg(&file).status().unwrap().success(), "not the same bytes");

    // One that a builder has made and that no record knows; one of somebody else.
    let alien =
        services.create_image("whole-alien", &json!({"nodepool_build_id": build, "nodepool_upload_id": "0"}));
    let other = services.create_image("whole-other", &json!({}));
    let table = nodepool(&sandbox, &services, &["alien-image-list", "demo-here"]).ok();
    assert!(table.contains(&format!("| demo-here | whole-alien | {alien} |")), "{table}");
    assert!(!table.contains(stored["id"].as_str().unwrap()) && !table.contains(&other), "{table}");
    services.delete_image(&alien);
    services.delete_image(&other);

    sandbox.write_body(&body(&[image], &[provider("demo", "", "")]));
    wait_no_image(&services, "whole");
    eventually(SOON, "no record of the upload", || {
        uploads(&zk, "whole", &build, "demo-here").is_empty().then_some(())
    });
}

#[test]
fn an_image_reaches_glance_by_way_of_the_stage() {
    let services = openstack::shared();
    let sandbox = Sandbox::new("openstack-import");
    let image = qcow2(&sandbox, "staged", 5, "");
    sandbox.write_body(&body(&[image], &[provider("import", "{name: staged}", "")]));
    let zk = sandbox.zk();
    let builder = builder(&sandbox, &services, &[]);
    let build = wait_ready(&zk, "staged");
    wait_upload(&zk, "staged", &build, "import-here", "ready");
    let stored = wait_image(&builder, &services, "staged", "active");
    let sum = std::fs::read_to_string(sandbox.images().join(format!("staged-{build}.qcow2.md5"))).unwrap();
    assert!(sum.starts_with(stored["checksum"].as_str().unwrap()));
    services.delete_image(stored["id"].as_str().unwrap());
}

#[test]
fn an_image_that_somebody_has_deleted_counts_as_deleted() {
    let services = openstack::shared();
    let sandbox = Sandbox::new("openstack-gone");
    let image = qcow2(&sandbox, "gone", 1, "");
    sandbox.write_body(&body(std::slice::from_ref(&image), &[provider("demo", "{name: gone}", "")]));
    let zk = sandbox.zk();
    let builder = builder(&sandbox, &services, &[]);
    let build = wait_ready(&zk, "gone");
    wait_upload(&zk, "gone", &build, "demo-here", "ready");
    let stored = wait_image(&builder, &services, "gone", "active");
    services.delete_image(stored["id"].as_str().unwrap());
    sandbox.write_body(&body(&[image], &[provider("demo", "", "")]));
    builder.wait_until("no record of the upload", SOON, || {
        uploads(&zk, "gone", &build, "demo-here").is_empty().then_some(())
    });
}
