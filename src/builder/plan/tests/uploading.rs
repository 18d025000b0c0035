//! When a build is uploaded.

use super::*;
use crate::builder::Attempt;
use BuildState::Ready;

fn fresh() -> World {
    World::new(BODY).build("b1", Ready, 10.0)
}

fn upload_states() -> [UploadState; 3] {
    [UploadState::Uploading, UploadState::Deleting, UploadState::Failed]
}

#[test]
fn a_new_build_goes_to_each_provider() {
    assert_eq!(fresh().uploads(), ["b1>fake-a", "b1>fake-b"]);
}

#[test]
fn only_the_newest_ready_build_is_uploaded() {
    let world = World::new(BODY).build("b1", Ready, 20.0).build("b2", Ready, 10.0);
    assert_eq!(world.uploads(), ["b2>fake-a", "b2>fake-b"]);
    for state in [BuildState::Building, BuildState::Failed, BuildState::Deleting] {
        let world = World::new(BODY).build("b1", Ready, 20.0).build("b2", state, 10.0);
        assert_eq!(world.uploads(), ["b1>fake-a", "b1>fake-b"], "{state}");
    }
    let elsewhere = World::new(BODY).build("b1", Ready, 20.0).foreign("b2", Ready, 10.0);
    assert_eq!(elsewhere.uploads(), [""; 0], "the other builder uploads its newer one");
}

#[test]
fn only_files_that_are_here_are_uploaded() {
    let without = |here: &str| fresh().with(|world| drop(world.disk.insert("b1".to_owned(), formats(here))));
    assert_eq!(without("raw").uploads(), [""; 0]);
    assert_eq!(without("").uploads(), [""; 0]);
    assert_eq!(without("qcow2").uploads(), ["b1>fake-a", "b1>fake-b"]);
}

#[test]
fn a_provider_gets_its_own_format() {
    let body = BODY.replace("name: fake-b,", "name: fake-b, image-format: vhd,");
    let world = World::new(&body).build("b1", Ready, 10.0);
    assert_eq!(world.uploads(), ["b1>fake-a"], "the build has no vhd");
    let world = world.with(|world| world.get("b1").record.formats = formats("qcow2,raw,vhd"));
    assert_eq!(world.uploads(), ["b1>fake-a"], "the file is not here");
    let world = world.with(|world| drop(world.disk.insert("b1".to_owned(), formats("vhd"))));
    assert_eq!(world.uploads(), ["b1>fake-b"]);
}

#[test]
fn a_provider_that_pauses_the_image_or_does_not_list_it_gets_nothing() {
    let paused = BODY
        .replace("fake-b, diskimages: [{name: debian}]", "fake-b, diskimages: [{name: debian, pause: true}]");
    assert_eq!(World::new(&paused).build("b1", Ready, 10.0).uploads(), ["b1>fake-a"]);
    let unlisted = BODY.replace("fake-b, diskimages: [{name: debian}]", "fake-b, diskimages: []");
    assert_eq!(World::new(&unlisted).build("b1", Ready, 10.0).uploads(), ["b1>fake-a"]);
}

#[test]
fn a_pause_of_builds_is_none_of_uploads() {
    assert_eq!(fresh().with(|world| world.image.paused = true).uploads(), ["b1>fake-a", "b1>fake-b"]);
}

#[test]
fn what_the_provider_has_or_is_getting_is_not_uploaded_again() {
    let ready = fresh().upload("b1", "fake-a", "1", UploadState::Ready, 5.0);
    assert_eq!(ready.uploads(), ["b1>fake-b"]);
    let locked = fresh().with(|world| world.at("b1", "fake-a").locked = true);
    assert_eq!(locked.uploads(), ["b1>fake-b"]);
    let busy = fresh().with(|world| _ = world.busy.uploads.insert(("b1".to_owned(), "fake-a".to_owned())));
    assert_eq!(busy.uploads(), ["b1>fake-b"]);
    for state in upload_states() {
        let other = fresh().upload("b1", "fake-a", "1", state, 5.0);
        assert_eq!(other.uploads(), ["b1>fake-a", "b1>fake-b"], "{state}");
    }
    let older = fresh().build("b0", Ready, 20.0).upload("b0", "fake-a", "1", UploadState::Ready, 15.0);
    assert_eq!(older.uploads(), ["b1>fake-a", "b1>fake-b"], "an upload of an older build does not count");
}

#[test]
fn a_failing_provider_holds_up_no_other_one() {
    let mut world = fresh();
    let pause = world.failures.failed(Attempt::Upload("debian".to_owned(), "fake-a".to_owned()), NOW);
    assert_eq!(world.uploads(), ["b1>fake-b"]);
    assert_eq!(world.plan().look_again, Some(NOW + pause));
    world.now = NOW + pause;
    assert_eq!(world.uploads(), ["b1>fake-a", "b1>fake-b"]);
}

#[test]
fn uploads_do_not_need_the_janitor() {
    assert_eq!(fresh().with(|world| world.janitor = false).uploads(), ["b1>fake-a", "b1>fake-b"]);
}
