//! Plans that are carried out lead somewhere: from any state, after a few rounds, there is nothing left to
//! do, and on the way nothing goes that must stay.

use fastrand::Rng;

use super::*;
use crate::builder::plan::Reason;
use BuildState::{Building, Deleting, Failed, Ready};

const LISTED: [&str; 2] = ["fake-a", "fake-b"];
const PROVIDERS: [&str; 4] = ["fake-a", "fake-b", "fake-idle", "gone"];

fn random_world(rng: &mut Rng) -> World {
    let body = match rng.u8(..8) {
        0 => WITHOUT_IMAGE.to_owned(),
        1 => BODY.replace("rebuild-age: 1000", "rebuild-age: 1000, delete-after-upload: true"),
        2 => BODY.replace("rebuild-age: 1000", "rebuild-age: 1000, pause: true"),
        3 => BODY.replace(
            "fake-b, diskimages: [{name: debian}]",
            "fake-b, diskimages: [{name: debian, pause: true}]",
        ),
        _ => BODY.to_owned(),
    };
    let mut world = World::new(&format!("{body}      - {{name: fake-idle, diskimages: []}}\n"));
    for number in 0..rng.usize(..6) {
        let id = format!("b{number}");
        let state = [Building, Ready, Ready, Ready, Deleting, Failed][rng.usize(..6)];
        let age = f64::from(rng.u32(1..2000));
        world = if rng.bool() { world.build(&id, state, age) } else { world.foreign(&id, state, age) };
        if rng.u8(..8) == 0 {
            world.get(&id).record.formats = formats("raw");
        }
        if rng.u8(..8) == 0 {
            world.disk.remove(&id);
        }
        for provider in PROVIDERS {
            for upload in 0..rng.usize(..3) {
                use UploadState as S;
                let state = [S::Uploading, S::Ready, S::Ready, S::Deleting, S::Failed][rng.usize(..5)];
                let age = f64::from(rng.u32(1..2000));
                world = world.upload(&id, provider, &upload.to_string(), state, age);
            }
        }
        if rng.u8(..10) == 0 {
            world.at(&id, "fake-a").damaged = true;
        }
        if rng.u8(..10) == 0 {
            world.at(&id, "fake-b").locked = true;
        }
    }
    for name in ["x1", "x2"] {
        if rng.bool() {
            world.disk.insert(name.to_owned(), formats("qcow2"));
        }
    }
    if rng.u8(..4) == 0 {
        world.image.damaged.insert("x1".to_owned());
    }
    world.image.paused = rng.u8(..6) == 0;
    world.image.request = (rng.u8(..4) == 0).then_some(NOW - 5.0);
    world.image.build_locked = rng.u8(..6) == 0;
    world
}

/// The uploads of `ready` builds that a provider must not lose.
fn recent(world: &World, provider: &str) -> BTreeSet<(String, String)> {
    let mut all = Vec::new();
    for build in world.image.builds.values().filter(|build| build.record.state == Ready) {
        for upload in build.providers.get(provider).into_iter().flat_map(|at| at.uploads.values()) {
            if upload.record.state == UploadState::Ready {
                all.push((upload.record.state_time, build.id.clone(), upload.id.clone()));
            }
        }
    }
    all.sort_by(|a, b| b.0.total_cmp(&a.0));
    all.into_iter().take(2).map(|(_, build, upload)| (build, upload)).collect()
}

/// What may not be ordered, in words of its own.
fn check(world: &World, order: &Cleanup) {
    let configured = world.config.diskimages.contains_key("debian");
    let build = world.image.builds.get(&order.build);
    assert!(!world.image.damaged.contains(&order.build), "{order:?}");
    match &order.what {
        Garbage::Abandoned => {
            assert!(build.unwrap().record.state == Building && !world.image.build_locked, "{order:?}");
        }
        Garbage::Build(_) => {
            let build = build.unwrap();
            let kept = world.image.ready_builds().iter().take(2).any(|kept| kept.id == build.id);
            assert!(!configured || !kept, "{order:?}");
            assert!(
                build.uploads().all(|(_, upload)| upload.record.state == UploadState::Deleting),
                "{order:?}"
            );
            assert!(build.providers.values().all(|at| !at.damaged && !at.locked), "{order:?}");
            assert!(build.record.state != Building, "{order:?}");
            let foreign = build.record.builder_id.as_deref() != Some("me");
            let never_uploaded = build.record.state == Ready && build.uploads().next().is_none();
            assert!(!foreign || !never_uploaded, "{order:?}");
        }
        Garbage::Files => assert!(build.is_none_or(|build| build.record.state == Deleting), "{order:?}"),
        Garbage::Format(_) => assert!(build.is_some_and(|build| build.record.state == Ready), "{order:?}"),
        Garbage::MarkUpload { provider, upload, .. } => {
            let build = build.unwrap();
            let record = &build.providers[provider].uploads[upload].record;
            let listed = configured && LISTED.contains(&provider.as_str());
            if record.state == UploadState::Ready && listed && build.record.state == Ready {
                assert!(!recent(world, provider).contains(&(build.id.clone(), upload.clone())), "{order:?}");
            }
            assert_ne!(provider, "gone");
        }
        Garbage::Upload { provider, upload } => {
            assert_eq!(
                build.unwrap().providers[provider].uploads[upload].record.state,
                UploadState::Deleting
            );
        }
    }
}

/// Does what a worker would do.
fn carry_out(world: &mut World, plan: &Plan, round: usize) {
    for order in &plan.cleanups {
        check(world, order);
    }
    for order in &plan.cleanups {
        let id = &order.build;
        match &order.what {
            Garbage::Files => drop(world.disk.remove(id)),
            Garbage::Format(format) => drop(world.disk.get_mut(id).map(|here| here.remove(format))),
            Garbage::Abandoned => world.get(id).record.state = Failed,
            Garbage::Build(_) => {
                world.disk.remove(id);
                let build = world.get(id);
                build.record.state = Deleting;
                if build.uploads().next().is_none() {
                    world.image.builds.remove(id);
                }
            }
            Garbage::MarkUpload { provider, upload, .. } => {
                world.at(id, provider).uploads.get_mut(upload).unwrap().record.state = UploadState::Deleting;
            }
            Garbage::Upload { provider, upload } => drop(world.at(id, provider).uploads.remove(upload)),
        }
    }
    for (build, provider) in &plan.uploads {
        let id = format!("new-{round}");
        let moved = std::mem::replace(world, World::new(BODY));
        *world = moved.upload(build, provider, &id, UploadState::Ready, -(round as f64));
    }
    if let Some(reason) = plan.build {
        let moved = std::mem::replace(world, World::new(BODY));
        *world = moved.build(&format!("new-{round}"), Ready, -(round as f64));
        if reason == Reason::Requested {
            world.image.request = None;
        }
    }
}

#[test]
fn every_state_comes_to_rest_and_nothing_goes_that_must_stay() {
    let mut worked = 0;
    for seed in 0..600 {
        let mut rng = Rng::with_seed(seed);
        let mut world = random_world(&mut rng);
        let mut round = 0;
        loop {
            let plan = world.plan();
            if plan.build.is_none() && plan.uploads.is_empty() && plan.cleanups.is_empty() {
                break;
            }
            round += 1;
            assert!(round < 30, "seed {seed} does not come to rest: {plan:?}");
            carry_out(&mut world, &plan, round);
        }
        worked += round;
        at_rest(&world, seed);
    }
    assert!(worked > 600, "the states are too tame: {worked}");
}

/// What is left once there is nothing to do.
fn at_rest(world: &World, seed: u64) {
    let configured = world.config.diskimages.contains_key("debian");
    for build in world.image.builds.values() {
        let stuck = build
            .providers
            .iter()
            .any(|(provider, at)| at.damaged || at.locked || (provider == "gone" && !at.uploads.is_empty()));
        let locked = build.record.state == Building && world.image.build_locked;
        let kept = world.image.ready_builds().iter().take(2).any(|kept| kept.id == build.id);
        let recent = build.uploads().any(|(provider, upload)| {
            recent(world, provider).contains(&(build.id.clone(), upload.id.clone()))
        });
        let foreign = build.record.builder_id.as_deref() != Some("me");
        let never_uploaded = build.record.state == Ready && build.uploads().next().is_none();
        let stays = stuck || locked || (foreign && never_uploaded) || (configured && (kept || recent));
        assert!(stays, "seed {seed}: {build:?}");
    }
    let known = |id: &String| world.image.builds.contains_key(id) || world.image.damaged.contains(id);
    assert!(world.disk.keys().all(known), "seed {seed}: {:?}", world.disk);
    assert!(!world.image.damaged.contains("x1") || world.disk.keys().all(|id| id != "x2"), "seed {seed}");
}
