//! Uploads that end in their middle: by a stop, a time limit, the death of Glance, a full disk.

use super::*;
use crate::support::Signal;
use crate::support::openstack::{self, Options, Service};

/// Starts a builder with one image, whose upload to this cloud cannot end, and waits until Glance is taking it.
fn in_the_middle(sandbox: &Sandbox<'_>, services: &OpenStack, name: &str, more: &str) -> Daemon {
    let image = qcow2(sandbox, name, 40, "");
    let listed = format!("{{name: {name}}}");
    sandbox.write_body(&body(&[image], &[provider("gate", &listed, more)]));
    let builder = builder(sandbox, services, &[]);
    wait_image(&builder, services, name, "saving");
    builder
}

/// Waits for the first failure. Its record goes at once.
#[track_caller]
fn wait_failure(builder: &Daemon) {
    builder.wait_log("the upload failed", SOON);
}

#[test]
fn a_stop_in_the_middle_of_an_upload_leaves_nothing_in_glance() {
    let services = openstack::shared();
    let sandbox = Sandbox::new("openstack-stop");
    let builder = in_the_middle(&sandbox, &services, "stopped", "");
    builder.signal(Signal::TERM);
    assert_eq!(builder.wait_exit(Duration::from_secs(10)).code(), Some(0));
    assert_eq!(services.image_states("stopped-"), [""; 0]);
}

#[test]
fn an_upload_that_takes_too_long_leaves_nothing_in_glance() {
    let services = openstack::shared();
    let sandbox = Sandbox::new("openstack-timeout");
    // Long enough for a busy machine to get to the middle of it.
    let builder = in_the_middle(&sandbox, &services, "late", "image-upload-timeout: 5");
    let id = wait_image(&builder, &services, "late", "saving")["id"].clone();
    wait_failure(&builder);
    builder.wait_log("did not finish before its deadline", SOON);
    // It is tried again later, and that is another image.
    builder.wait_until("the image to be deleted", SOON, || {
        services.images("late-").iter().all(|image| image["id"] != id).then_some(())
    });
    builder.signal(Signal::TERM);
    builder.wait_exit(Duration::from_secs(10));
    assert_eq!(services.image_states("late-"), [""; 0]);
}

#[test]
fn an_upload_that_glance_does_not_survive_is_made_again() {
    let services = OpenStack::start();
    services.gate().limit(2 << 20);
    let sandbox = Sandbox::new("openstack-killed");
    let builder = in_the_middle(&sandbox, &services, "killed", "");
    services.kill(Service::Glance);
    wait_failure(&builder);
    services.gate().open();
    services.restart(Service::Glance);
    let zk = sandbox.zk();
    let build = wait_ready(&zk, "killed");
    let (_, upload) = wait_upload(&zk, "killed", &build, "gate-here", "ready");
    // The half image of the first attempt goes as its record does.
    let image = wait_image(&builder, &services, "killed", "active");
    assert_eq!(image["id"], upload["external_id"]);
}

#[test]
fn a_full_disk_of_glance_is_told_in_its_words_and_the_next_build_is_uploaded_when_there_is_room() {
    let services = OpenStack::start_with(Options { disk_mb: Some(60), ..Options::default() });
    let filler = services.store().join("filler");
    std::fs::write(&filler, vec![1; 40 << 20]).unwrap();
    let sandbox = Sandbox::new("openstack-full");
    let image = qcow2(&sandbox, "full", 40, "");
    sandbox.write_body(&body(&[image], &[provider("demo", "{name: full}", "")]));
    let zk = sandbox.zk();
    let builder = builder(&sandbox, &services, &[]);
    wait_ready(&zk, "full");
    wait_failure(&builder);
    // In Glance's own words.
    builder.wait_log("Image storage media is full", SOON);
    wait_no_image(&services, "full");
    assert_eq!(std::fs::read_dir(services.store().join("images")).unwrap().count(), 0, "no half file either");
    std::fs::remove_file(&filler).unwrap();
    // What a quota or a full disk has refused is not tried again for minutes, unless there is another build.
    request(&zk, "full");
    let find = || {
        let builds = crate::builder::builds(&zk, "full").into_iter();
        builds.flat_map(|(build, _)| in_state(uploads(&zk, "full", &build, "demo-here"), "ready")).next()
    };
    let (_, upload) = builder.wait_until("an upload that is ready", SOON, find);
    let image = wait_image(&builder, &services, "full", "active");
    assert_eq!(image["id"], upload["external_id"]);
}
