//! `providers[]`: the keys that each driver for images has.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use nodepool_drivers::api::{ImageSettings, ProviderConfig};

use crate::config::testing::{config, load};

/// A provider of the driver `local` with these keys.
fn provider(keys: &str) -> Arc<dyn ProviderConfig> {
    let file = format!(
        "diskimages: [{{name: i}}, {{name: j}}]\nproviders: [{{name: p, driver: local, path: /p, {keys}}}]"
    );
    config(&file, None).providers["p"].clone()
}

fn images(keys: &str) -> ImageSettings {
    provider(keys).images().expect("it manages images").clone()
}

#[test]
fn name_is_required_and_stands_once() {
    assert_eq!(provider("").settings().name, "p");
    let (_, problems) = load("providers: [{driver: local, path: /p}]", None);
    assert_eq!(problems, ["n.yaml:1:14: providers[0]: the required key 'name' is missing"]);
    let (_, problems) =
        load("providers: [{name: p, driver: local, path: /p}, {name: p, driver: local, path: /p}]", None);
    assert!(problems[0].contains("the provider 'p' is configured twice"), "{problems:?}");
}

#[test]
fn driver_defaults_to_openstack_and_is_fake_for_a_name_that_begins_so() {
    let (_, problems) = load("providers: [{name: p}]", None);
    // What only an OpenStack provider needs.
    assert!(problems[0].contains("providers[0]: the required key 'cloud' is missing"), "{problems:?}");
    let file = "providers: [{name: fake}, {name: fake-b, driver: openstack}, {name: c, driver: fake}]";
    for (name, provider) in config(file, None).providers {
        assert_eq!(provider.settings().driver, "fake", "{name}");
    }
}

#[test]
fn max_concurrency_is_left_to_the_launcher_by_default() {
    let number = |keys: &str| provider(keys).settings().max_concurrency;
    assert_eq!(
        [number(""), number("max-concurrency: -1"), number("max-concurrency: 3")],
        [None, None, Some(3)]
    );
}

#[test]
fn priority_is_none_by_default() {
    let number = |keys: &str| provider(keys).settings().priority;
    assert_eq!([number(""), number("priority: 100"), number("priority: -2")], [None, Some(100), Some(-2)]);
}

#[test]
fn diskimages_may_be_paused_and_have_meta() {
    assert!(images("").diskimages.is_empty() && images("diskimages: []").diskimages.is_empty());
    let listed = images("diskimages: [{name: i}, {name: j, pause: yes, meta: {k: 1, l: x}}]").diskimages;
    assert!(!listed["i"].pause && listed["i"].meta.is_empty() && listed["j"].pause);
    let meta = [("k", "1"), ("l", "x")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    assert_eq!(listed["j"].meta, meta.into());
}

#[test]
fn image_name_format_defaults_to_name_and_time() {
    let name = |keys: &str| images(keys).external_name("debian", "0000000007", 1700000000);
    assert_eq!(name(""), "debian-1700000000");
    assert_eq!(
        name("image-name-format: 'ci-{image_name}.{upload_id}@{timestamp}'"),
        "ci-debian.0000000007@1700000000"
    );
}

#[test]
fn image_format_defaults_to_that_of_the_driver() {
    assert_eq!([images("").format, images("image-format: raw").format], ["qcow2", "raw"]);
}

#[test]
fn post_upload_hook_is_a_path_and_none_by_default() {
    assert_eq!(images("").post_upload_hook, None);
    let hook = images("post-upload-hook: /usr/bin/hook").post_upload_hook;
    assert_eq!(hook.as_deref(), Some(Path::new("/usr/bin/hook")));
}

#[test]
fn image_upload_timeout_defaults_to_an_hour() {
    let timeout = |keys: &str| images(keys).upload_timeout;
    assert_eq!(timeout(""), Duration::from_secs(3600));
    assert_eq!(timeout("image-upload-timeout: 1.5"), Duration::from_millis(1500));
}

/// They mean something to a real cloud only, and are checked all the same.
#[test]
fn rate_timeouts_and_pools_of_a_fake_cloud_are_accepted() {
    let file = |keys: &str| format!("providers: [{{name: fake-1, {keys}}}]");
    let good = "rate: 0.5, boot-timeout: 120, launch-timeout: 600, pools: [{name: main, max-servers: 5}]";
    let (loaded, problems) = load(&file(good), None);
    assert!(loaded.is_some() && problems.is_empty(), "{problems:?}");
    for (bad, path) in [
        ("rate: fast", "rate"),
        ("boot-timeout: soon", "boot-timeout"),
        ("launch-timeout: [1]", "launch-timeout"),
        ("pools: main", "pools"),
        ("pools: [{max-servers: 5}]", "pools[0]"),
    ] {
        let (loaded, problems) = load(&file(bad), None);
        assert!(loaded.is_none() && problems.len() == 1, "{bad}: {problems:?}");
        assert!(problems[0].contains(&format!(" providers[0].{path}: ")), "{bad}: {problems:?}");
    }
}
