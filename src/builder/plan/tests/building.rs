//! When an image is built.

use super::*;
use crate::builder::Attempt;
use crate::builder::plan::Reason;
use BuildState::{Building, Deleting, Failed, Ready};

/// A world with one ready build that needs nothing.
fn settled() -> World {
    World::new(BODY).build("b1", Ready, 10.0)
}

#[test]
fn an_image_without_a_ready_build_is_built() {
    assert_eq!(World::new(BODY).plan().build, Some(Reason::Missing));
    for state in [Building, Deleting, Failed] {
        assert_eq!(World::new(BODY).build("b1", state, 10.0).plan().build, Some(Reason::Missing), "{state}");
    }
    assert_eq!(settled().plan().build, None);
}

#[test]
fn an_image_is_built_again_at_exactly_its_age_and_looked_at_then() {
    for (age, expected) in [(999.0, None), (1000.0, Some(Reason::Aged)), (5000.0, Some(Reason::Aged))] {
        let plan = World::new(BODY).build("b1", Ready, age).plan();
        assert_eq!(plan.build, expected, "{age}");
        assert_eq!(plan.look_again, expected.is_none().then_some(NOW - age + REBUILD_AGE), "{age}");
    }
    // The age of the newest one counts.
    let plan = World::new(BODY).build("b1", Ready, 5000.0).build("b2", Ready, 10.0).plan();
    assert_eq!((plan.build, plan.look_again), (None, Some(NOW - 10.0 + REBUILD_AGE)));
}

#[test]
fn an_image_whose_newest_build_lacks_a_format_is_built() {
    let of = |built: &str| settled().with(|world| world.get("b1").record.formats = formats(built));
    assert_eq!(of("raw").plan().build, Some(Reason::Formats));
    assert_eq!(
        of("qcow2").plan().build,
        Some(Reason::Formats),
        "a provider's format is a format of the image"
    );
    assert_eq!(of("").plan().build, Some(Reason::Formats));
    assert_eq!(of("qcow2,raw,vhd").plan().build, None, "more than needed");
    let older = of("raw").build("b0", Ready, 20.0);
    assert_eq!(older.plan().build, Some(Reason::Formats), "an older build does not help");
}

#[test]
fn a_request_is_a_reason_before_all_others() {
    let requested = |world: World| world.with(|world| world.image.request = Some(NOW - 1.0)).plan().build;
    assert_eq!(requested(settled()), Some(Reason::Requested));
    assert_eq!(requested(World::new(BODY)), Some(Reason::Requested));
    assert_eq!(requested(World::new(BODY).build("b1", Ready, 5000.0)), Some(Reason::Requested));
}

#[test]
fn a_paused_image_is_not_built_even_on_request() {
    let paused_in_file = BODY.replace("rebuild-age: 1000", "rebuild-age: 1000, pause: true");
    for request in [None, Some(NOW - 1.0)] {
        let in_file = World::new(&paused_in_file).with(|world| world.image.request = request);
        assert_eq!(in_file.plan().build, None);
        let by_znode = World::new(BODY).with(|world| {
            world.image.request = request;
            world.image.paused = true;
        });
        assert_eq!(by_znode.plan().build, None);
    }
}

/// Found as a builder that was busy for ever: it waited for a time that had passed.
#[test]
fn a_paused_image_that_is_too_old_is_not_waited_for() {
    let paused = World::new(BODY).build("b1", Ready, 5000.0).with(|world| world.image.paused = true);
    assert_eq!((paused.plan().build, paused.plan().look_again), (None, None));
}

#[test]
fn a_plan_never_waits_for_a_time_that_has_passed() {
    for age in [-5000.0, 0.0, 999.0, 1000.0, 5000.0, f64::MAX, f64::MIN] {
        for paused in [false, true] {
            let world = World::new(BODY).build("b1", Ready, age).with(|world| world.image.paused = paused);
            assert!(world.plan().look_again.is_none_or(|time| time > NOW), "{age} {paused}");
        }
    }
}

#[test]
fn an_image_without_formats_is_not_built() {
    let none = World::new("diskimages: [{name: debian}]");
    assert_eq!(none.plan(), Plan::default());
    assert_eq!(none.with(|world| world.image.request = Some(NOW)).plan(), Plan::default());
}

#[test]
fn an_abstract_or_unknown_image_is_not_built() {
    let world = World::new("diskimages: [{name: debian, formats: [raw], abstract: true}]");
    assert_eq!(world.with(|world| world.image.request = Some(NOW)).plan(), Plan::default());
    let world = World::new(WITHOUT_IMAGE).with(|world| world.image.request = Some(NOW));
    assert_eq!(world.plan(), Plan::default());
}

#[test]
fn an_image_that_is_being_built_here_or_elsewhere_is_not_built() {
    let locked = World::new(BODY).with(|world| world.image.build_locked = true);
    assert_eq!(locked.plan(), Plan::default());
    let busy = World::new(BODY).with(|world| world.busy.build = true);
    assert_eq!(busy.plan(), Plan::default());
}

#[test]
fn a_failed_build_is_repeated_after_a_pause() {
    let mut world = World::new(BODY);
    let pause = world.failures.failed(Attempt::build("debian", None, 0), NOW);
    assert_eq!(world.plan(), Plan { look_again: Some(NOW + pause), ..Plan::default() });
    world.now = NOW + pause;
    assert_eq!(world.plan().build, Some(Reason::Missing));
}

#[test]
fn a_new_request_overrides_the_pause_after_a_failure() {
    let mut world = World::new(BODY);
    world.failures.failed(Attempt::build("debian", None, 0), NOW);
    // Whatever the server's clock says: it may be behind.
    world.image.request = Some(NOW - 3600.0);
    assert_eq!(world.plan().build, Some(Reason::Requested));
}

/// Found as a loop of failing builds: the server's clock was ahead, so the request seemed to be newer than
/// each failure of its own build.
#[test]
fn a_request_whose_build_has_failed_waits_whatever_the_clocks_say() {
    for skew in [-3600.0, 0.0, 3600.0] {
        let mut world = World::new(BODY);
        world.image.request = Some(NOW + skew);
        let pause = world.failures.failed(Attempt::build("debian", world.image.request, 0), NOW);
        assert_eq!((world.plan().build, world.plan().look_again), (None, Some(NOW + pause)), "{skew}");
        world.image.request = Some(NOW + skew + 0.001);
        assert_eq!(world.plan().build, Some(Reason::Requested), "another request");
    }
}

/// Found as an order that was given and refused without a pause.
#[test]
fn a_request_that_turned_out_not_to_be_needed_is_put_off() {
    let mut world = World::new(BODY);
    world.image.request = Some(NOW - 1.0);
    world.failures.put_off(Attempt::build("debian", world.image.request, 0), NOW);
    assert_eq!((world.plan().build, world.plan().look_again), (None, Some(NOW + 0.25)));
}
