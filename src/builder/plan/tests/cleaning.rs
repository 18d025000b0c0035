//! What is cleaned up: builds and uploads.

use super::*;
use crate::builder::Attempt;
use BuildState::{Building, Deleting, Failed, Ready};

const NOTHING: [&str; 0] = [];

/// A build whose uploads are ready at both providers.
fn uploaded(world: World, id: &str, age: f64) -> World {
    let world = world.build(id, Ready, age);
    let world = world.upload(id, "fake-a", "1", UploadState::Ready, age);
    world.upload(id, "fake-b", "1", UploadState::Ready, age)
}

#[test]
fn the_two_newest_ready_builds_are_kept() {
    let two = uploaded(uploaded(World::new(BODY), "b1", 30.0), "b2", 20.0);
    assert_eq!(two.cleanups(), NOTHING);
    let three = uploaded(two, "b3", 10.0);
    assert_eq!(three.cleanups(), ["mark b1>fake-a/1", "mark b1>fake-b/1"]);
    // Whatever their ids are, and whatever has failed since.
    let world = World::new(BODY).build("b9", Ready, 30.0).build("b1", Ready, 20.0).build("b2", Failed, 10.0);
    assert_eq!(world.cleanups(), ["build b2"]);
}

#[test]
fn as_many_builds_and_uploads_are_kept_as_keep_builds_says() {
    let three = |keep: &str| {
        let body = BODY.replace("name: debian,", &format!("name: debian, keep-builds: {keep},"));
        uploaded(uploaded(uploaded(World::new(&body), "b1", 30.0), "b2", 20.0), "b3", 10.0)
    };
    assert_eq!(three("3").cleanups(), NOTHING);
    let marked = ["mark b1>fake-a/1", "mark b1>fake-b/1", "mark b2>fake-a/1", "mark b2>fake-b/1"];
    assert_eq!(three("1").cleanups(), marked);
    // A provider whose newer uploads fail keeps as many as that, too.
    let world = three("1").with(|world| world.at("b3", "fake-b").uploads.clear());
    assert_eq!(world.cleanups(), ["mark b1>fake-a/1", "mark b1>fake-b/1", "mark b2>fake-a/1"]);
}

#[test]
fn a_third_build_goes_with_its_uploads_step_by_step() {
    let world = uploaded(uploaded(World::new(BODY), "b2", 20.0), "b3", 10.0).build("b1", Ready, 30.0);
    assert_eq!(world.cleanups(), ["build b1"]);
    let world = world.upload("b1", "fake-a", "1", UploadState::Ready, 30.0);
    assert_eq!(world.cleanups(), ["mark b1>fake-a/1"]);
    let world = world.upload("b1", "fake-a", "1", UploadState::Deleting, 5.0);
    assert_eq!(world.cleanups(), ["delete b1>fake-a/1", "build b1"], "before the cloud has answered");
    let world = world.with(|world| world.get("b1").record.state = Deleting);
    assert_eq!(world.cleanups(), ["delete b1>fake-a/1", "files b1"]);
    let world = world.with(|world| drop(world.disk.remove("b1")));
    assert_eq!(world.cleanups(), ["delete b1>fake-a/1"]);
    let world = world.with(|world| world.at("b1", "fake-a").uploads.clear());
    assert_eq!(world.cleanups(), ["build b1"]);
}

#[test]
fn the_two_newest_uploads_at_a_provider_are_kept_whatever_build_they_belong_to() {
    let world = World::new(BODY)
        .build("b1", Ready, 50.0)
        .upload("b1", "fake-a", "1", UploadState::Ready, 45.0)
        .upload("b1", "fake-b", "1", UploadState::Ready, 45.0)
        .build("b2", Ready, 40.0)
        .upload("b2", "fake-a", "1", UploadState::Ready, 35.0)
        .build("b3", Ready, 30.0)
        .upload("b3", "fake-a", "1", UploadState::Ready, 25.0)
        .upload("b3", "fake-b", "1", UploadState::Ready, 25.0)
        .build("b4", Ready, 20.0)
        .upload("b4", "fake-b", "1", UploadState::Failed, 15.0);
    // At fake-b, those of b1 and b3 are the newest; at fake-a, those of b2 and b3.
    assert_eq!(world.cleanups(), ["mark b1>fake-a/1", "mark b4>fake-b/1"]);
    let world = world.upload("b4", "fake-b", "2", UploadState::Ready, 5.0);
    assert_eq!(world.cleanups(), ["mark b1>fake-a/1", "mark b1>fake-b/1", "mark b4>fake-b/1"]);
}

#[test]
fn uploads_of_builds_that_are_not_ready_are_not_kept() {
    for state in [Failed, Deleting] {
        let world =
            World::new(BODY).build("b1", state, 10.0).upload("b1", "fake-a", "1", UploadState::Ready, 5.0);
        assert_eq!(world.cleanups(), ["mark b1>fake-a/1"], "{state}");
    }
}

#[test]
fn failed_builds_and_uploads_go() {
    assert_eq!(World::new(BODY).build("b1", Failed, 10.0).cleanups(), ["build b1"]);
    assert_eq!(World::new(BODY).foreign("b1", Failed, 10.0).cleanups(), ["build b1"]);
    let world =
        World::new(BODY).build("b1", Ready, 10.0).upload("b1", "fake-a", "1", UploadState::Failed, 5.0);
    assert_eq!(world.cleanups(), ["mark b1>fake-a/1"]);
    let world = world.upload("b1", "fake-a", "1", UploadState::Deleting, 1.0);
    assert_eq!(world.cleanups(), ["delete b1>fake-a/1"]);
}

#[test]
fn a_building_record_has_failed_unless_somebody_holds_the_lock() {
    let world =
        |builder: fn(World, &str, BuildState, f64) -> World| builder(World::new(BODY), "b1", Building, 10.0);
    for builder in [World::build, World::foreign] {
        assert_eq!(world(builder).cleanups(), ["abandoned b1"]);
        assert_eq!(world(builder).with(|world| world.image.build_locked = true).cleanups(), NOTHING);
        assert_eq!(world(builder).with(|world| world.busy.build = true).cleanups(), NOTHING);
    }
}

#[test]
fn an_uploading_record_goes_unless_somebody_holds_the_lock() {
    let world =
        || World::new(BODY).build("b1", Ready, 10.0).upload("b1", "fake-a", "1", UploadState::Uploading, 5.0);
    assert_eq!(world().cleanups(), ["mark b1>fake-a/1"]);
    assert_eq!(world().with(|world| world.at("b1", "fake-a").locked = true).cleanups(), NOTHING);
    let busy = |world: &mut World| _ = world.busy.uploads.insert(("b1".to_owned(), "fake-a".to_owned()));
    assert_eq!(world().with(busy).cleanups(), NOTHING);
}

#[test]
fn nothing_of_a_build_that_is_being_uploaded_goes() {
    for state in [Failed, Deleting] {
        let locked =
            World::new(BODY).build("b1", state, 10.0).with(|world| world.at("b1", "fake-a").locked = true);
        assert_eq!(locked.cleanups(), NOTHING, "{state}");
        let busy = |world: &mut World| _ = world.busy.uploads.insert(("b1".to_owned(), "fake-a".to_owned()));
        assert_eq!(World::new(BODY).build("b1", state, 10.0).with(busy).cleanups(), NOTHING, "{state}");
    }
}

#[test]
fn a_build_that_is_marked_takes_its_uploads_with_it_even_recent_ones() {
    let world = uploaded(uploaded(World::new(BODY), "b1", 20.0), "b2", 10.0);
    let world = world.with(|world| world.get("b2").record.state = Deleting);
    assert_eq!(world.cleanups(), ["mark b2>fake-a/1", "mark b2>fake-b/1"]);
}

#[test]
fn uploads_of_a_provider_that_no_longer_lists_the_image_go() {
    let body = BODY.replace("fake-b, diskimages: [{name: debian}]", "fake-b, diskimages: []");
    let world = uploaded(World::new(&body), "b1", 10.0);
    assert_eq!(world.cleanups(), ["mark b1>fake-b/1"]);
    let paused = BODY
        .replace("fake-b, diskimages: [{name: debian}]", "fake-b, diskimages: [{name: debian, pause: true}]");
    assert_eq!(uploaded(World::new(&paused), "b1", 10.0).cleanups(), NOTHING, "a pause is no removal");
}

#[test]
fn records_of_a_provider_that_is_gone_stay_and_so_does_their_build() {
    for state in [UploadState::Uploading, UploadState::Ready, UploadState::Deleting, UploadState::Failed] {
        let world = World::new(BODY).build("b1", Ready, 10.0).upload("b1", "gone", "1", state, 5.0);
        assert_eq!(world.cleanups(), NOTHING, "{state}");
    }
    let world = World::new(BODY).build("b1", Failed, 10.0).upload("b1", "gone", "1", UploadState::Ready, 5.0);
    assert_eq!(world.cleanups(), NOTHING);
    // On its way already: the files need not wait for the provider's return.
    let world =
        World::new(BODY).build("b1", Deleting, 10.0).upload("b1", "gone", "1", UploadState::Deleting, 5.0);
    assert_eq!(world.cleanups(), ["files b1"]);
}

#[test]
fn everything_of_an_image_that_is_gone_from_the_configuration_goes() {
    let world = uploaded(uploaded(World::new(WITHOUT_IMAGE), "b1", 20.0), "b2", 10.0);
    let world = world.foreign("b3", Ready, 5.0).build("b4", Failed, 1.0);
    assert_eq!(world.plan().build, None);
    let expected = [
        "mark b1>fake-a/1",
        "mark b1>fake-b/1",
        "mark b2>fake-a/1",
        "mark b2>fake-b/1",
        // b3 is left to its own builder, whose file may still have the image.
        "build b4",
    ];
    assert_eq!(world.cleanups(), expected);
    let running = World::new(WITHOUT_IMAGE).build("b1", Building, 1.0);
    assert_eq!(
        running.with(|world| world.image.build_locked = true).cleanups(),
        NOTHING,
        "once it has ended"
    );
}

#[test]
fn another_builders_build_that_was_not_uploaded_yet_is_left_to_it() {
    let newer = |world: World| uploaded(uploaded(world, "b2", 20.0), "b3", 10.0);
    assert_eq!(newer(World::new(BODY)).foreign("b1", Ready, 30.0).cleanups(), NOTHING);
    assert_eq!(newer(World::new(BODY)).build("b1", Ready, 30.0).cleanups(), ["build b1"], "one's own");
    let nobodys = newer(World::new(BODY))
        .build("b1", Ready, 30.0)
        .with(|world| world.get("b1").record.builder_id = None);
    assert_eq!(nobodys.cleanups(), NOTHING);
    // It was uploaded once, and the uploads are on their way out.
    let world = newer(World::new(BODY)).foreign("b1", Ready, 30.0);
    let world = world.upload("b1", "fake-a", "1", UploadState::Deleting, 5.0);
    assert_eq!(world.cleanups(), ["delete b1>fake-a/1", "build b1"]);
    for (state, expected) in [(Failed, "build b1"), (Building, "abandoned b1"), (Deleting, "build b1")] {
        assert_eq!(newer(World::new(BODY)).foreign("b1", state, 30.0).cleanups(), [expected], "{state}");
    }
}

#[test]
fn damaged_records_protect_themselves_and_what_they_hang_on() {
    let world = World::new(BODY).with(|world| {
        world.image.damaged.insert("b1".to_owned());
        world.disk.insert("b1".to_owned(), formats("raw"));
    });
    assert_eq!(world.cleanups(), NOTHING);
    for state in [Failed, Deleting] {
        let world =
            World::new(BODY).build("b1", state, 10.0).with(|world| world.at("b1", "fake-a").damaged = true);
        assert_eq!(world.cleanups(), NOTHING, "{state}");
    }
}

#[test]
fn without_the_janitor_nothing_is_cleaned_up() {
    let mut world = World::new(BODY).build("b1", Failed, 10.0);
    world.disk.insert("nobody's".to_owned(), formats("raw"));
    world.janitor = false;
    assert_eq!(world.cleanups(), NOTHING);
}

#[test]
fn what_is_being_cleaned_up_is_not_ordered_again() {
    let world = World::new(BODY).build("b1", Failed, 10.0).build("b2", Failed, 10.0);
    let busy =
        world.with(|world| _ = world.busy.cleanups.insert(cleanup("b1", Garbage::Build(BuildState::Failed))));
    assert_eq!(busy.cleanups(), ["build b2"]);
}

#[test]
fn a_clean_up_that_failed_is_repeated_after_a_pause_and_holds_up_no_other_one() {
    let mut world = World::new(BODY).build("b1", Failed, 10.0).build("b2", Failed, 10.0);
    let pause = world.failures.failed(Attempt::Clean(cleanup("b1", Garbage::Build(BuildState::Failed))), NOW);
    assert_eq!(world.cleanups(), ["build b2"]);
    assert!(world.plan().look_again.is_some_and(|time| time <= NOW + pause));
    world.now = NOW + pause;
    assert_eq!(world.cleanups(), ["build b1", "build b2"]);
}
