//! `diskimages[]`.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::config::testing::{config, load};
use crate::config::{DiskImage, KEEP_BUILDS};

/// The image `i` with these keys.
fn image(keys: &str) -> Arc<DiskImage> {
    config(&format!("diskimages: [{{name: i, {keys}}}]"), None).diskimages["i"].clone()
}

/// The image `i` without any keys of its own, whose parent has these.
fn child_of(keys: &str) -> Arc<DiskImage> {
    let file = format!("diskimages: [{{name: p, abstract: true, {keys}}}, {{name: i, parent: p}}]");
    config(&file, None).diskimages["i"].clone()
}

/// The only problem of the image `i` with these keys.
fn mistake(keys: &str) -> String {
    let (loaded, problems) = load(&format!("diskimages: [{{name: i, formats: [raw], {keys}}}]"), None);
    assert!(loaded.is_none() && problems.len() == 1, "{keys}: {problems:?}");
    problems[0].split_once("diskimages[0].").expect("it has a path").1.to_owned()
}

fn texts<'a, C: FromIterator<String>>(words: impl IntoIterator<Item = &'a str>) -> C {
    words.into_iter().map(str::to_owned).collect()
}

#[test]
fn name_is_required_and_is_that_of_files_and_znodes() {
    assert_eq!(image("").name, "i");
    let (_, problems) = load("diskimages: [{formats: [raw]}]", None);
    assert_eq!(problems, ["n.yaml:1:15: diskimages[0]: the required key 'name' is missing"]);
    for name in ["a/b", "..", "a..b", "-x"] {
        let (loaded, problems) = load(&format!("diskimages: [{{name: {name}, formats: [raw]}}]"), None);
        assert!(
            loaded.is_none() && problems[0].contains(&format!("the name '{name}' must not")),
            "{problems:?}"
        );
    }
}

#[test]
fn abstract_images_are_only_parents_and_never_built() {
    let config =
        config("diskimages: [{name: a, abstract: true}, {name: b, abstract: false, parent: a}]", None);
    assert_eq!(config.diskimages.keys().collect::<Vec<_>>(), ["b"]);
}

#[test]
fn parent_gives_its_values_down_the_chain() {
    // Children stand before their parents on purpose.
    let images = config(
        "diskimages:
        - {name: child, parent: middle, elements: [c], env-vars: {C: c, B: c}, release: 12, pause: false,
           formats: []}
        - {name: middle, parent: base, abstract: true, elements: [m], env-vars: {B: m, A: m}, pause: true,
           dib-cmd: dib -m, keep-formats: [raw], metadata: {m: m}, rebuild-age: 0}
        - {name: base, elements: [b], env-vars: {A: b, Z: b}, formats: [raw, qcow2], rebuild-age: 5,
           build-timeout: 7, username: u, python-path: p, shell-type: s, delete-after-upload: true,
           release: 11, metadata: {b: b}, keep-builds: 3, validate-hook: check -v}",
        None,
    )
    .diskimages;
    assert_eq!(images.keys().collect::<Vec<_>>(), ["base", "child"]);
    let text = str::to_owned;
    let expected = DiskImage {
        name: text("child"),
        elements: texts(["b", "m", "c"]),
        release: text("12"),
        env_vars: [("A", "m"), ("B", "c"), ("C", "c"), ("Z", "b")].map(|(k, v)| (text(k), text(v))).into(),
        formats: texts(["qcow2", "raw"]),
        rebuild_age: Duration::from_secs(5),
        build_timeout: Duration::from_secs(7),
        dib_cmd: texts(["dib", "-m"]),
        pause: false,
        username: text("u"),
        python_path: text("p"),
        shell_type: Some(text("s")),
        delete_after_upload: true,
        keep_formats: texts(["raw"]),
        metadata: BTreeMap::new(),
        keep_builds: 3,
        validate_hook: texts(["check", "-v"]),
    };
    assert_eq!(*images["child"], expected);
    assert_eq!(images["base"].metadata, [(text("b"), text("b"))].into());
}

/// As in the original: a child cannot take away what its parent gives.
#[test]
fn parent_values_stay_where_the_childs_are_empty() {
    let child = "release: '', formats: [], keep-formats: [], rebuild-age: 0, build-timeout: 0, username: '',
        python-path: '', shell-type: '', dib-cmd: , pause: ";
    let parent =
        "name: p, release: 12, formats: [raw], keep-formats: [raw], rebuild-age: 1, build-timeout: 2,
        username: u, python-path: y, shell-type: s, dib-cmd: d, pause: true";
    let images =
        config(&format!("diskimages: [{{{parent}}}, {{name: i, parent: p, {child}}}]"), None).diskimages;
    assert_eq!(*images["i"], DiskImage { name: "i".to_owned(), ..(*images["p"]).clone() });
    let (_, problems) = load("diskimages: [{name: i, parent: '', formats: [raw]}]", None);
    assert_eq!(problems, [""; 0]);
}

#[test]
fn parent_must_exist_and_not_be_below_its_child() {
    assert!(mistake("parent: p").starts_with("parent: the parent 'p' of the image 'i' is not configured"));
    assert_eq!(mistake("parent: i"), "parent: the parents form a cycle: i -> i");
}

#[test]
fn elements_keep_their_order_and_are_split_as_by_a_shell() {
    assert!(image("").elements.is_empty());
    let elements: Vec<String> = texts(["vm", "b", "a", "-p", "vim git"]);
    assert_eq!(image("elements: [vm, 'b a', -p 'vim git']").elements, elements);
}

#[test]
fn release_is_text_as_it_is_written_and_none_by_default() {
    assert_eq!(image("").release, "");
    for (written, expected) in [
        ("9.0", "9.0"),
        ("24.04", "24.04"),
        ("21", "21"),
        ("bookworm", "bookworm"),
        ("'20.10'", "20.10"),
        ("8-stream", "8-stream"),
    ] {
        assert_eq!(image(&format!("release: {written}")).release, expected);
    }
}

#[test]
fn env_vars_are_text_whatever_they_look_like() {
    assert!(image("").env_vars.is_empty());
    let expected = [("A", "x"), ("B", "1"), ("C", "true"), ("D", "1e3")];
    let expected: BTreeMap<_, _> = expected.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
    assert_eq!(image("env-vars: {A: x, B: 1, C: true, D: 1e3}").env_vars, expected);
}

#[test]
fn formats_are_the_images_own_and_that_of_each_provider_that_lists_it() {
    let config = config(
        "diskimages: [{name: a, formats: [tar, tar]}, {name: b}, {name: c}]
providers:
- {name: fake-1, image-format: raw, diskimages: [{name: a}, {name: b, pause: true}]}
- {name: fake-2, image-format: vhd, diskimages: [{name: a}]}",
        None,
    );
    let formats = |name: &str| Vec::from_iter(config.diskimages[name].formats.clone()).join(" ");
    assert_eq!([formats("a"), formats("b"), formats("c")], ["raw tar vhd", "raw", ""]);
}

#[test]
fn rebuild_age_defaults_to_a_day() {
    assert_eq!(image("").rebuild_age, Duration::from_secs(86400));
    assert_eq!(image("rebuild-age: 60").rebuild_age, Duration::from_secs(60));
    assert_eq!(child_of("rebuild-age: 60").rebuild_age, Duration::from_secs(60));
}

#[test]
fn build_timeout_defaults_to_eight_hours() {
    assert_eq!(image("").build_timeout, Duration::from_secs(28800));
    assert_eq!(image("build-timeout: 1.5").build_timeout, Duration::from_millis(1500));
    assert_eq!(child_of("build-timeout: 60").build_timeout, Duration::from_secs(60));
}

#[test]
fn dib_cmd_defaults_to_disk_image_create_and_may_have_arguments() {
    assert_eq!(image("").dib_cmd, ["disk-image-create"]);
    assert_eq!(
        image("dib-cmd: \"/opt/dib/%p 'a b' -x $HOME\"").dib_cmd,
        ["/opt/dib/%p", "a b", "-x", "$HOME"]
    );
}

#[test]
fn pause_is_off_by_default() {
    assert!(!image("").pause && !image("pause: off").pause && image("pause: yes").pause);
    assert!(child_of("pause: true").pause);
}

#[test]
fn username_defaults_to_zuul() {
    assert_eq!(image("").username, "zuul");
    assert_eq!(image("username: u").username, "u");
    assert_eq!(child_of("username: u").username, "u");
}

#[test]
fn python_path_defaults_to_auto() {
    assert_eq!(image("").python_path, "auto");
    assert_eq!(image("python-path: /p").python_path, "/p");
    assert_eq!(child_of("python-path: /p").python_path, "/p");
}

#[test]
fn shell_type_is_unknown_by_default() {
    assert_eq!(image("").shell_type, None);
    assert_eq!(image("shell-type: sh").shell_type.as_deref(), Some("sh"));
    assert_eq!(child_of("shell-type: sh").shell_type.as_deref(), Some("sh"));
}

#[test]
fn delete_after_upload_is_off_by_default() {
    assert!(!image("").delete_after_upload && image("delete-after-upload: true").delete_after_upload);
    assert!(child_of("delete-after-upload: true").delete_after_upload);
}

#[test]
fn keep_formats_are_none_by_default() {
    let kept: BTreeSet<String> = texts(["raw"]);
    assert!(image("").keep_formats.is_empty());
    assert_eq!(image("keep-formats: [raw]").keep_formats, kept);
    assert_eq!(child_of("keep-formats: [raw]").keep_formats, kept);
}

#[test]
fn metadata_is_text_and_the_images_own() {
    assert!(image("").metadata.is_empty());
    assert_eq!(image("metadata: {m: 1}").metadata, [("m".to_owned(), "1".to_owned())].into());
    assert!(child_of("metadata: {m: 1}").metadata.is_empty());
}

#[test]
fn keep_builds_defaults_to_what_the_original_keeps() {
    assert_eq!((image("").keep_builds, KEEP_BUILDS), (2, 2));
    assert_eq!(image("keep-builds: 5").keep_builds, 5);
}

#[test]
fn validate_hook_is_a_command_and_none_by_default() {
    assert!(image("").validate_hook.is_empty());
    assert_eq!(image("validate-hook: check -v 'a b'").validate_hook, ["check", "-v", "a b"]);
}
