//! Which plans an edit of the configuration touches.

use super::*;
use crate::builder::Attempt;
use crate::builder::edit::touched;

const DEBIAN: &str = "{name: debian, formats: [raw], rebuild-age: 1000}";
const FEDORA: &str = "{name: fedora, formats: [raw]}";
const A: &str = "{name: fake-a, diskimages: [{name: debian}, {name: fedora}]}";
const B: &str = "{name: fake-b, diskimages: [{name: debian}, {name: fedora}]}";

fn body(images: &[&str], providers: &[&str]) -> String {
    format!("diskimages: [{}]\nproviders: [{}]", images.join(", "), providers.join(", "))
}

/// Something of everything that a plan can be about.
fn worlds(config: &Config) -> Vec<World> {
    let states = [UploadState::Uploading, UploadState::Ready, UploadState::Failed, UploadState::Deleting];
    let mut worlds = vec![World::new(BODY)];
    for state in states {
        for provider in ["fake-a", "fake-b", "fake-c"] {
            let world = World::new(BODY)
                .build("new", BuildState::Ready, 10.0)
                .build("old", BuildState::Ready, 5000.0)
                .build("older", BuildState::Ready, 6000.0);
            worlds.push(
                world.upload("older", provider, "1", state, 5.0).upload("new", provider, "1", state, 5.0),
            );
        }
    }
    for world in &mut worlds {
        world.config = config.clone();
    }
    worlds
}

#[test]
fn an_edit_touches_the_images_whose_plans_it_changes_and_no_other_one() {
    let old = body(&[DEBIAN, FEDORA], &[A, B]);
    let cases: [(&str, String, Option<&[&str]>); 11] = [
        ("nothing", old.clone(), Some(&[])),
        ("another thing", format!("build-log-retention: 3\n{old}"), Some(&[])),
        (
            "a variable",
            body(&[DEBIAN, "{name: fedora, formats: [raw], env-vars: {A: b}}"], &[A, B]),
            Some(&["fedora"]),
        ),
        ("a new image", body(&[DEBIAN, FEDORA, "{name: suse, formats: [raw]}"], &[A, B]), Some(&["suse"])),
        (
            "an image goes",
            body(
                &[DEBIAN],
                &[
                    "{name: fake-a, diskimages: [{name: debian}]}",
                    "{name: fake-b, diskimages: [{name: debian}]}",
                ],
            ),
            Some(&["fedora"]),
        ),
        (
            "a provider lists an image no more",
            body(&[DEBIAN, FEDORA], &[A, "{name: fake-b, diskimages: [{name: debian}]}"]),
            Some(&["fedora"]),
        ),
        (
            "an image is paused at a provider",
            body(
                &[DEBIAN, FEDORA],
                &["{name: fake-a, diskimages: [{name: debian, pause: true}, {name: fedora}]}", B],
            ),
            Some(&["debian"]),
        ),
        (
            "something else about a provider",
            body(
                &[DEBIAN, FEDORA],
                &["{name: fake-a, image-name-format: x, diskimages: [{name: debian}, {name: fedora}]}", B],
            ),
            Some(&[]),
        ),
        (
            "another format",
            body(
                &[DEBIAN, FEDORA],
                &["{name: fake-a, image-format: raw, diskimages: [{name: debian}, {name: fedora}]}", B],
            ),
            None,
        ),
        ("a provider goes", body(&[DEBIAN, FEDORA], &[A]), None),
        ("a new provider", body(&[DEBIAN, FEDORA], &[A, B, "{name: fake-c, diskimages: []}"]), None),
    ];
    let old = config(&old);
    for (what, new, expected) in cases {
        let new = config(&new);
        let found = touched(&old, &new, &mut Failures::default());
        let names = found.as_ref().map(|images| images.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(names.as_deref(), expected, "{what}");
        if found.is_some_and(|images| !images.contains("debian")) {
            for (before, after) in worlds(&old).iter().zip(worlds(&new)) {
                assert_eq!(before.plan(), after.plan(), "{what}");
            }
        }
    }
}

#[test]
fn an_edit_of_a_provider_touches_what_waits_after_a_failure_there() {
    let (old, new) = (config(&body(&[DEBIAN], &["{name: fake-a, diskimages: [{name: debian}]}"])), {
        let edited = "{name: fake-a, image-name-format: x, diskimages: [{name: debian}]}";
        config(&body(&[DEBIAN], &[edited]))
    });
    let attempt = Attempt::Upload("debian".to_owned(), "fake-a".to_owned());
    let mut failures = Failures::default();
    failures.failed(attempt.clone(), NOW);
    assert_eq!(touched(&old, &new, &mut failures).unwrap().into_iter().collect::<Vec<_>>(), ["debian"]);
    assert_eq!(failures.not_before(&attempt), None);
}
