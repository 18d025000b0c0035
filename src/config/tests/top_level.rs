//! The keys at the top.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::config::testing::{config, load};
use crate::config::{Config, Label, Server, WebApp};

fn top(text: &str) -> Config {
    config(text, None)
}

/// What a file says that gives none of them.
fn nothing() -> Config {
    top("labels: []")
}

#[test]
fn elements_dir_is_a_list_of_directories_as_it_is_exported() {
    assert_eq!(top("elements-dir: /e1:/e2").elements_dir.as_deref(), Some("/e1:/e2"));
    assert_eq!((nothing().elements_dir, top("elements-dir: ''").elements_dir), (None, None));
}

#[test]
fn images_dir_is_needed_by_the_builder_only() {
    assert_eq!(top("images-dir: /images").require_images_dir().unwrap(), Path::new("/images"));
    let missing = nothing().require_images_dir().unwrap_err().to_string();
    assert!(
        missing.ends_with("'images-dir' is missing; expected the directory to build images in"),
        "{missing}"
    );
}

#[test]
fn min_free_space_is_a_size_and_0_by_default() {
    assert_eq!((nothing().min_free_space, top("min-free-space: 2M").min_free_space), (0, 2 << 20));
}

#[test]
fn build_log_dir_has_the_originals_default() {
    assert_eq!(top("build-log-dir: /logs").build_log_dir, Path::new("/logs"));
    assert_eq!(nothing().build_log_dir, Path::new("/var/log/nodepool/builds"));
}

#[test]
fn build_log_retention_defaults_to_7_and_may_be_negative() {
    assert_eq!(nothing().build_log_retention, 7);
    for number in [-1, 0, 1, 30] {
        assert_eq!(top(&format!("build-log-retention: {number}")).build_log_retention, number);
    }
}

#[test]
fn zookeeper_servers_have_a_host_a_port_that_defaults_to_2281_and_one_chroot() {
    let zookeeper = top(
        "zookeeper-servers: [{host: zk01, port: 2181, chroot: /np}, {host: '[::1]', port: '2182'}, {host: b, chroot: np/}]",
    )
    .zookeeper;
    let expected = [("zk01", 2181), ("::1", 2182), ("b", 2281)];
    assert_eq!(zookeeper.servers, expected.map(|(host, port)| Server { host: host.to_owned(), port }));
    assert_eq!(zookeeper.chroot, "/np");
}

#[test]
fn zookeeper_servers_are_needed_to_run_but_not_to_validate() {
    for config in [nothing(), top("zookeeper-servers: []"), top("zookeeper-servers:")] {
        let missing = config.require_zookeeper().unwrap_err().to_string();
        assert!(
            missing.ends_with("'zookeeper-servers' is missing; expected a list with at least one 'host'")
        );
    }
}

#[test]
fn zookeeper_tls_has_cert_key_and_ca_and_checks_the_name_by_default() {
    assert_eq!(nothing().zookeeper.tls, None);
    let tls = |more: &str| {
        top(&format!("zookeeper-tls: {{cert: /c, key: /k, ca: /a{more}}}")).zookeeper.tls.unwrap()
    };
    let files = tls("");
    assert_eq!([files.cert, files.key, files.ca], ["/c", "/k", "/a"].map(PathBuf::from));
    assert!(files.verify_hostname && !tls(", verify-hostname: false").verify_hostname);
}

#[test]
fn zookeeper_timeout_defaults_to_ten_seconds() {
    assert_eq!(nothing().zookeeper.timeout, Duration::from_secs(10));
    assert_eq!(top("zookeeper-timeout: 15").zookeeper.timeout, Duration::from_secs(15));
    assert_eq!(top("zookeeper-timeout: 2.5").zookeeper.timeout, Duration::from_millis(2500));
}

#[test]
fn max_hold_age_is_unlimited_by_default_and_from_0_down() {
    for text in ["labels: []", "max-hold-age: 0", "max-hold-age: -1"] {
        assert_eq!(top(text).launcher.max_hold_age, None, "{text}");
    }
    assert_eq!(top("max-hold-age: 3600").launcher.max_hold_age, Some(Duration::from_secs(3600)));
}

#[test]
fn labels_have_a_stock_and_an_age() {
    let labels = top(
        "labels: [{name: small, min-ready: 2, max-ready-age: 60}, {name: off, min-ready: -1}, {name: plain}]",
    )
    .launcher
    .labels;
    let small = Label { min_ready: 2, max_ready_age: Some(Duration::from_secs(60)) };
    let plain = Label { min_ready: 0, max_ready_age: None };
    let expected = [("small", small), ("off", plain.clone()), ("plain", plain)];
    assert_eq!(labels, expected.map(|(name, label)| (name.to_owned(), label)).into());
}

#[test]
fn webapp_listens_everywhere_at_8005_by_default() {
    for text in ["labels: []", "webapp:", "webapp: {}"] {
        let webapp = top(text).launcher.webapp;
        assert_eq!((webapp.port, webapp.listen_address.as_str()), (8005, "0.0.0.0"), "{text}");
        assert!(webapp.allowed_hosts.is_empty());
    }
    for (address, expected) in [("'::'", "::"), ("'[::1]'", "::1"), ("nodes", "nodes"), ("''", "127.0.0.1")] {
        let text = format!("webapp: {{port: 0, listen_address: {address}, allowed-hosts: [n.example.org]}}");
        let webapp = top(&text).launcher.webapp;
        let expected = WebApp {
            port: 0,
            listen_address: expected.to_owned(),
            allowed_hosts: vec!["n.example.org".to_owned()],
        };
        assert_eq!(webapp, expected, "{text}");
    }
}

#[test]
fn tenant_resource_limits_may_have_any_resource() {
    let limits =
        top("tenant-resource-limits: [{tenant-name: t, max-servers: 5, my-quota: 7}]").launcher.tenant_limits;
    let expected = [("max-servers".to_owned(), 5), ("my-quota".to_owned(), 7)].into();
    assert_eq!(limits, [("t".to_owned(), expected)].into());
    assert!(nothing().launcher.tenant_limits.is_empty());
}

#[test]
fn diskimages_and_providers_may_be_missing_or_empty() {
    for text in ["labels: []", "diskimages: []\nproviders: []", "diskimages:\nproviders:"] {
        let (loaded, problems) = load(text, None);
        assert_eq!(problems, [""; 0], "{text}");
        let config = loaded.unwrap().config;
        assert!(config.diskimages.is_empty() && config.providers.is_empty(), "{text}");
    }
}
