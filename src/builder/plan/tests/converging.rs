//! Plans that are carried out lead somewhere: from any state, after a few rounds, there is nothing left to
//! do, and on the way nothing goes that must stay.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::RngSeed;

use super::*;
use crate::builder::plan::Reason;
use BuildState::{Building, Deleting, Failed, Ready};

const PROVIDERS: [&str; 4] = ["fake-a", "fake-b", "fake-idle", "gone"];

/// A build to begin with.
#[derive(Debug, Clone)]
struct SomeBuild {
    state: BuildState,
    age: u32,
    ours: bool,
    raw_only: bool,
    on_disk: bool,
    /// Provider, state and age.
    uploads: Vec<(&'static str, UploadState, u32)>,
    damaged_at_a: bool,
    locked_at_b: bool,
}

/// A world to begin with, as far as it is drawn by lot.
#[derive(Debug, Clone)]
struct SomeWorld {
    configured: bool,
    /// Whether the image has a format of its own.
    own_format: bool,
    /// Whether `fake-a` and `fake-b` list the image.
    listed: [bool; 2],
    raw_at_b: bool,
    janitor: bool,
    keep_builds: usize,
    delete_after_upload: bool,
    keep_formats: bool,
    paused_in_file: bool,
    paused_at_b: bool,
    builds: Vec<SomeBuild>,
    /// Files of builds without a record.
    strays: [bool; 2],
    damaged_record: bool,
    paused: bool,
    requested: bool,
    build_locked: bool,
}

fn some_build() -> impl Strategy<Value = SomeBuild> {
    let state = prop_oneof![3 => Just(Ready), 1 => Just(Building), 1 => Just(Deleting), 1 => Just(Failed)];
    let upload_state = prop_oneof![
        2 => Just(UploadState::Ready),
        1 => Just(UploadState::Uploading),
        1 => Just(UploadState::Deleting),
        1 => Just(UploadState::Failed),
    ];
    let uploads = vec((prop::sample::select(&PROVIDERS[..]), upload_state, 1..2000_u32), 0..8);
    let flags = (any::<bool>(), seldom(8), seldom(8), seldom(10), seldom(10));
    (state, 1..2000_u32, uploads, flags).prop_map(|(state, age, uploads, flags)| {
        let (ours, raw_only, lost, damaged_at_a, locked_at_b) = flags;
        SomeBuild { state, age, ours, raw_only, on_disk: !lost, uploads, damaged_at_a, locked_at_b }
    })
}

fn some_world() -> impl Strategy<Value = SomeWorld> {
    let of_file = (seldom(8), 1..4_usize, seldom(4), any::<bool>(), seldom(8), seldom(8));
    let of_lists = (seldom(4), seldom(8), seldom(6), any::<bool>(), seldom(12));
    let of_records = (any::<[bool; 2]>(), seldom(4), seldom(6), seldom(4), seldom(6));
    let all = (of_file, of_lists, of_records, vec(some_build(), 0..6));
    all.prop_map(|(of_file, of_lists, of_records, builds)| {
        let (no_format, not_at_a, not_at_b, raw_at_b, no_janitor) = of_lists;
        let (gone, keep_builds, delete_after_upload, keep_formats, paused_in_file, paused_at_b) = of_file;
        let (strays, damaged_record, paused, requested, build_locked) = of_records;
        SomeWorld {
            configured: !gone,
            own_format: !no_format,
            listed: [!not_at_a, !not_at_b],
            raw_at_b,
            janitor: !no_janitor,
            keep_builds,
            delete_after_upload,
            keep_formats,
            paused_in_file,
            paused_at_b,
            builds,
            strays,
            damaged_record,
            paused,
            requested,
            build_locked,
        }
    })
}

/// Once in so many times.
fn seldom(times: u32) -> impl Strategy<Value = bool> {
    prop::bool::weighted(1.0 / f64::from(times))
}

impl SomeWorld {
    fn body(&self) -> String {
        let mut more = format!("rebuild-age: 1000, keep-builds: {}", self.keep_builds);
        if self.delete_after_upload {
            more.push_str(", delete-after-upload: true");
        }
        if self.keep_formats {
            more.push_str(", keep-formats: [raw]");
        }
        if self.paused_in_file {
            more.push_str(", pause: true");
        }
        let body = if self.configured { BODY } else { WITHOUT_IMAGE };
        let mut body = body.replace("rebuild-age: 1000", &more);
        if !self.own_format {
            body = body.replace("{name: debian, formats: [raw], ", "{name: debian, ");
        }
        if self.paused_at_b {
            let listed = "fake-b, diskimages: [{name: debian";
            body = body.replace(listed, &format!("{listed}, pause: true"));
        }
        if self.raw_at_b {
            body = body.replace("fake-b, ", "fake-b, image-format: raw, ");
        }
        for (name, _) in ["fake-a", "fake-b"].iter().zip(self.listed).filter(|(_, listed)| !listed) {
            body = body
                .lines()
                .map(|line| match line.split_once("diskimages: [{") {
                    Some((before, _)) if line.contains(name) => format!("{before}diskimages: []}}\n"),
                    _ => format!("{line}\n"),
                })
                .collect();
        }
        format!("{body}      - {{name: fake-idle, diskimages: []}}\n")
    }

    fn world(&self) -> World {
        let mut world = World::new(&self.body());
        world.janitor = self.janitor;
        for (number, build) in self.builds.iter().enumerate() {
            let (id, age) = (format!("b{number}"), f64::from(build.age));
            world = if build.ours {
                world.build(&id, build.state, age)
            } else {
                world.foreign(&id, build.state, age)
            };
            if build.raw_only {
                world.get(&id).record.formats = formats("raw");
            }
            if !build.on_disk {
                world.disk.remove(&id);
            }
            for (upload, (provider, state, age)) in build.uploads.iter().enumerate() {
                world = world.upload(&id, provider, &upload.to_string(), *state, f64::from(*age));
            }
            if build.damaged_at_a {
                world.at(&id, "fake-a").damaged = true;
            }
            if build.locked_at_b {
                world.at(&id, "fake-b").locked = true;
            }
        }
        for (name, _) in ["x1", "x2"].into_iter().zip(self.strays).filter(|(_, there)| *there) {
            world.disk.insert(name.to_owned(), formats("qcow2"));
        }
        if self.damaged_record {
            world.image.damaged.insert("x1".to_owned());
        }
        world.image.paused = self.paused;
        world.image.request = self.requested.then_some(NOW - 5.0);
        world.image.build_locked = self.build_locked;
        world
    }
}

/// How many builds, and uploads at each provider, are kept.
fn keep(world: &World) -> usize {
    world.config.diskimages.get("debian").map_or(2, |image| image.keep_builds)
}

/// The providers that list the image, with the format that they take, and whether the image is paused there.
fn listed(world: &World) -> Vec<(String, String, bool)> {
    let providers = world.config.providers.iter().filter_map(|(name, provider)| {
        let images = provider.images()?;
        Some((name.clone(), images.format.clone(), images.diskimages.get("debian")?.pause))
    });
    providers.collect()
}

fn lists(world: &World, provider: &str) -> bool {
    listed(world).iter().any(|(name, ..)| name == provider)
}

/// Whether a build is one of the newest `ready` ones that stay.
fn is_kept(world: &World, build: &str) -> bool {
    let configured = world.config.diskimages.contains_key("debian");
    configured && world.image.ready_builds().iter().take(keep(world)).any(|kept| kept.id == build)
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
    all.into_iter().take(keep(world)).map(|(_, build, upload)| (build, upload)).collect()
}

/// What may not be ordered, in words of its own.
fn check(world: &World, order: &Cleanup) {
    let build = world.image.builds.get(&order.build);
    assert!(!world.image.damaged.contains(&order.build), "{order:?}");
    match &order.what {
        Garbage::Abandoned => {
            assert!(build.unwrap().record.state == Building && !world.image.build_locked, "{order:?}");
        }
        Garbage::Build(_) => {
            let build = build.unwrap();
            assert!(!is_kept(world, &build.id), "{order:?}");
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
        Garbage::Format(format) => {
            let (build, image) = (build.unwrap(), &world.config.diskimages["debian"]);
            assert!(image.delete_after_upload && !image.keep_formats.contains(format), "{order:?}");
            assert_eq!(build.record.state, Ready);
            let has = |(name, takes, _): &(String, String, bool)| takes != format || build.is_ready_at(name);
            assert!(listed(world).iter().all(has), "{order:?}");
        }
        Garbage::MarkUpload { provider, upload, .. } => {
            let build = build.unwrap();
            let record = &build.providers[provider].uploads[upload].record;
            if record.state == UploadState::Ready && lists(world, provider) && build.record.state == Ready {
                assert!(!is_kept(world, &build.id), "{order:?}");
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

/// What a paused image must not get.
fn check_pauses(case: &SomeWorld, plan: &Plan) {
    let may_build = case.configured && !case.paused && !case.paused_in_file && !case.build_locked;
    assert!(plan.build.is_none() || may_build, "{plan:?}");
    let never_built = !case.own_format && case.listed == [false, false];
    assert!(plan.build.is_none() || !never_built, "{plan:?}");
    for (_, provider) in &plan.uploads {
        let listed = case.configured
            && (provider == "fake-a" && case.listed[0] || provider == "fake-b" && case.listed[1]);
        assert!(listed && !(provider == "fake-b" && case.paused_at_b), "{plan:?}");
    }
    assert!(plan.cleanups.is_empty() || case.janitor, "{plan:?}");
    assert!(plan.look_again.is_none_or(|time| time > NOW), "{plan:?}");
}

/// Whether a provider that lists the image has a ready upload of a ready build.
fn has_image(world: &World, provider: &str) -> bool {
    !recent(world, provider).is_empty()
}

proptest! {
    // The same cases each time. PROPTEST_CASES and PROPTEST_RNG_SEED ask for others.
    #![proptest_config(ProptestConfig {
        cases: option("PROPTEST_CASES").unwrap_or(600) as u32,
        rng_seed: RngSeed::Fixed(option("PROPTEST_RNG_SEED").unwrap_or(1)),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn every_state_comes_to_rest_and_nothing_goes_that_must_stay(case in some_world()) {
        let mut world = case.world();
        let providers = listed(&world);
        let mut had = BTreeSet::new();
        let mut round = 0;
        loop {
            let plan = world.plan();
            check_pauses(&case, &plan);
            if plan.build.is_none() && plan.uploads.is_empty() && plan.cleanups.is_empty() {
                break;
            }
            round += 1;
            assert!(round < 30, "it does not come to rest: {plan:?}");
            had.extend(providers.iter().map(|(name, ..)| name).filter(|name| has_image(&world, name)));
            let kept: Vec<String> = world.image.builds.keys().filter(|id| is_kept(&world, id)).cloned().collect();
            carry_out(&mut world, &plan, round);
            for provider in &had {
                assert!(has_image(&world, provider), "{provider} has lost its last image");
            }
            let gone = kept.iter().find(|id| !world.image.builds.contains_key(*id));
            assert!(gone.is_none(), "{gone:?} was to be kept: {plan:?}");
        }
        nothing_is_due(&world);
        if case.janitor {
            at_rest(&world);
        }
    }
}

fn option(name: &str) -> Option<u64> {
    std::env::var(name).ok()?.parse().ok()
}

/// What has been built and uploaded once there is nothing to do.
fn nothing_is_due(world: &World) {
    let Some(image) = world.config.diskimages.get("debian") else { return };
    let ready = world.image.ready_builds();
    let may_build =
        !image.pause && !world.image.paused && !image.formats.is_empty() && !world.image.build_locked;
    if may_build {
        let newest = &ready[0].record;
        assert!(
            NOW - newest.state_time < REBUILD_AGE && newest.formats.is_superset(&image.formats),
            "{newest:?}"
        );
        assert!(world.image.request.is_none());
    }
    let Some(newest) = ready.first() else { return };
    for (provider, format, paused) in listed(world) {
        let here = world.disk.get(&newest.id).is_some_and(|formats| formats.contains(&format));
        let possible = here && newest.record.formats.contains(&format) && !paused;
        let locked = newest.providers.get(&provider).is_some_and(|at| at.locked);
        assert!(!possible || locked || newest.is_ready_at(&provider), "{provider} lacks {newest:?}");
    }
}

/// What is left once there is nothing to do.
fn at_rest(world: &World) {
    for build in world.image.builds.values() {
        let stuck = build
            .providers
            .iter()
            .any(|(provider, at)| at.damaged || at.locked || (provider == "gone" && !at.uploads.is_empty()));
        let locked = build.record.state == Building && world.image.build_locked;
        let recent = build.uploads().any(|(provider, upload)| {
            lists(world, provider) && recent(world, provider).contains(&(build.id.clone(), upload.id.clone()))
        });
        let foreign = build.record.builder_id.as_deref() != Some("me");
        let never_uploaded = build.record.state == Ready && build.uploads().next().is_none();
        let stays = stuck || locked || (foreign && never_uploaded) || is_kept(world, &build.id) || recent;
        assert!(stays, "{build:?}");
    }
    let known = |id: &String| world.image.builds.contains_key(id) || world.image.damaged.contains(id);
    assert!(world.disk.keys().all(known), "{:?}", world.disk);
    assert!(!world.image.damaged.contains("x1") || world.disk.keys().all(|id| id != "x2"));
}
