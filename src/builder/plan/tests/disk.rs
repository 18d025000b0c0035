//! What is cleaned up: files.

use super::*;
use BuildState::{Building, Ready};

const NOTHING: [&str; 0] = [];

/// The image, and whatever stands in its mapping besides.
fn body(keys: &str) -> String {
    BODY.replace("rebuild-age: 1000", &format!("rebuild-age: 1000, {keys}"))
}

fn with_files(mut world: World, build: &str, here: &str) -> World {
    world.disk.insert(build.to_owned(), formats(here));
    world
}

#[test]
fn files_whose_build_has_no_record_go() {
    assert_eq!(with_files(World::new(BODY), "b1", "raw").cleanups(), ["files b1"]);
    assert_eq!(with_files(World::new(BODY), "b1", "").cleanups(), ["files b1"], "a checksum alone too");
    assert_eq!(with_files(World::new(WITHOUT_IMAGE), "b1", "raw").cleanups(), ["files b1"]);
    let old = |body| with_files(World::new(body), "1700000000", "raw");
    assert_eq!(old(BODY).cleanups(), ["files 1700000000"]);
    assert_eq!(old(WITHOUT_IMAGE).cleanups(), NOTHING, "ten digits may be anything in a stranger's name");
}

#[test]
fn files_of_a_build_that_runs_here_never_go() {
    let unseen = with_files(World::new(BODY), "b1", "raw").with(|world| world.busy.build = true);
    assert_eq!(unseen.cleanups(), NOTHING, "its record may not have been seen yet");
    let seen = World::new(BODY).build("b1", Building, 1.0).with(|world| world.busy.build = true);
    assert_eq!(seen.cleanups(), NOTHING);
}

#[test]
fn a_build_that_runs_elsewhere_protects_no_files_here() {
    let world = with_files(World::new(BODY), "b1", "raw").with(|world| world.image.build_locked = true);
    assert_eq!(world.cleanups(), ["files b1"]);
}

#[test]
fn a_format_goes_once_all_its_providers_have_it() {
    let world = World::new(&body("delete-after-upload: true")).build("b1", Ready, 10.0);
    assert_eq!(world.cleanups(), ["format b1.raw"], "no provider takes raw");
    let world = world.upload("b1", "fake-a", "1", UploadState::Ready, 5.0);
    assert_eq!(world.cleanups(), ["format b1.raw"]);
    let world = world.upload("b1", "fake-b", "1", UploadState::Uploading, 5.0);
    let world = world.with(|world| world.at("b1", "fake-b").locked = true);
    assert_eq!(world.cleanups(), ["format b1.raw"]);
    let world = world.upload("b1", "fake-b", "1", UploadState::Ready, 1.0);
    assert_eq!(world.cleanups(), ["format b1.qcow2", "format b1.raw"]);
    let world = with_files(world, "b1", "");
    assert_eq!(world.cleanups(), NOTHING);
    assert_eq!(world.plan().build, None, "what was uploaded is not built again");
    assert_eq!(world.uploads(), NOTHING);
}

#[test]
fn a_paused_provider_still_needs_its_format() {
    let body = body("delete-after-upload: true")
        .replace("fake-b, diskimages: [{name: debian}]", "fake-b, diskimages: [{name: debian, pause: true}]");
    let world =
        World::new(&body).build("b1", Ready, 10.0).upload("b1", "fake-a", "1", UploadState::Ready, 5.0);
    assert_eq!(with_files(world, "b1", "qcow2").cleanups(), NOTHING);
}

#[test]
fn formats_to_keep_are_kept() {
    let world = World::new(&body("delete-after-upload: true, keep-formats: [raw]")).build("b1", Ready, 10.0);
    let world = world.upload("b1", "fake-a", "1", UploadState::Ready, 5.0);
    let world = world.upload("b1", "fake-b", "1", UploadState::Ready, 5.0);
    assert_eq!(world.cleanups(), ["format b1.qcow2"]);
}

#[test]
fn without_delete_after_upload_files_stay() {
    let world = World::new(BODY).build("b1", Ready, 10.0);
    let world = world.upload("b1", "fake-a", "1", UploadState::Ready, 5.0);
    assert_eq!(world.upload("b1", "fake-b", "1", UploadState::Ready, 5.0).cleanups(), NOTHING);
}
