//! The section of a provider.

use std::time::Duration;

use serde_json::json;

use super::*;
use crate::api::Problems;

const CLOUDS: &str = "clouds:
  c: {image_format: raw, regions: [one, two], auth: {auth_url: 'https://k', user_id: u, password: p, project_id: q}}
  open: {verify: false, auth: {auth_url: 'https://k', user_id: u, password: p, project_id: q}}
";

fn with_clouds() -> Scratch {
    let scratch = Scratch::new();
    std::fs::write(scratch.path().join("clouds.yaml"), CLOUDS).unwrap();
    scratch
}

#[test]
fn every_key_of_the_original_is_taken() {
    let (config, problems) = read(
        &with_clouds(),
        serde_json::from_str(
            r#"{
            "name": "p", "driver": "openstack", "cloud": "c", "region-name": "two", "rate": "0.5", "nodepool-id": "x",
            "max-concurrency": 10, "priority": 1, "boot-timeout": 120, "launch-timeout": 3600, "launch-retries": 3,
            "image-upload-timeout": 60, "image-name-format": "{image_name}", "post-upload-hook": "/hook",
            "clean-floating-ips": true, "port-cleanup-interval": 0,
            "diskimages": [{"name": "debian", "config-drive": true, "connection-type": "ssh", "connection-port": 22,
                            "pause": false, "meta": {"hw_disk_bus": "scsi"}}],
            "cloud-images": [{"name": "centos", "image-id": "i", "config-drive": true, "username": "u", "python-path": "auto",
                              "shell-type": "sh", "connection-type": "winrm", "connection-port": 5986}],
            "pools": [{"name": "main", "max-servers": 5, "max-cores": 9, "max-ram": 9, "max-volumes": 1, "max-volume-gb": 1,
                       "ignore-provider-quota": true, "availability-zones": ["az"], "networks": ["n"], "security-groups": ["s"],
                       "auto-floating-ip": false, "host-key-checking": true, "node-attributes": {"a": "b"}, "priority": 1,
                       "labels": [{"name": "l", "diskimage": "debian", "min-ram": 1, "flavor-name": "f", "key-name": "k",
                                   "console-log": true, "boot-from-volume": true, "volume-size": 5, "userdata": "d",
                                   "instance-properties": {"a": 1}, "dynamic-instance-properties": {"b": "{request.id}"},
                                   "networks": ["n"], "host-key-checking": false},
                                  {"name": "m", "cloud-image": "centos", "flavor-name": "f"}]}]
            }"#,
        )
        .unwrap(),
    );
    assert_eq!(problems, [""; 0]);
    let config = config.unwrap();
    assert_eq!((config.rate, config.cloud.region.as_deref()), (Duration::from_millis(500), Some("two")));
    assert_eq!(
        (config.images.format.as_str(), config.images.upload_timeout),
        ("raw", Duration::from_secs(60))
    );
    assert_eq!(config.images.diskimages["debian"].meta["hw_disk_bus"], "scsi");
    assert!(
        config.images.diskimages["debian"].config_drive && config.nodes.cloud_images["centos"].config_drive
    );
    assert_eq!(
        (config.nodes.boot_timeout, config.own.port_cleanup),
        (Duration::from_secs(120), Duration::ZERO)
    );
    assert!(config.own.clean_floating_ips && config.own.region_name.as_deref() == Some("two"));
    let pool = config.own.pool("main").unwrap();
    assert_eq!(
        (pool.networks[0].as_str(), pool.security_groups[0].as_str(), pool.auto_floating_ip),
        ("n", "s", false)
    );
    let label = config.own.label("main", "l").unwrap();
    assert_eq!((label.flavor.min_ram, label.flavor.name.as_deref()), (1, Some("f")));
    assert_eq!((label.key_name.as_deref(), label.userdata.as_deref()), (Some("k"), Some("d")));
    assert_eq!(label.volume, Some(5));
    assert_eq!(
        (label.networks.as_deref(), label.properties["a"].as_str()),
        (Some(&["n".to_owned()][..]), "1")
    );
    let plain = config.own.label("main", "m").unwrap();
    assert_eq!((plain.volume, &plain.networks), (None, &None));
}

#[test]
fn what_is_left_out_is_as_in_the_original() {
    let config = read(&with_clouds(), json!({"name": "p", "cloud": "c"})).0.unwrap();
    assert_eq!((config.rate, config.images.format.as_str()), (Duration::from_secs(1), "raw"));
    assert_eq!(config.cloud.region.as_deref(), Some("one"));
    assert_eq!(config.own.port_cleanup, Duration::from_secs(600));
    assert!(!config.own.clean_floating_ips && config.own.region_name.is_none());
}

#[test]
fn mistakes_are_named() {
    let scratch = with_clouds();
    let at = scratch.path().join("clouds.yaml");
    let at = at.display();
    let cases = [
        (json!({}), vec!["providers[0]: the required key 'cloud' is missing".to_owned()]),
        (json!({"cloud": "d"}), vec![format!("providers[0].cloud: {at} has no cloud 'd', only: c, open; did you mean 'c'?")]),
        (
            json!({"cloud": "c", "region-name": "three"}),
            vec![format!("providers[0].cloud: {at}: clouds.c.regions: no region 'three' (the provider's region-name), only: one, two")],
        ),
        (
            json!({"cloud": "c", "rate": -1, "boot-timeout": -5, "image_format": "raw"}),
            vec![
                "providers[0].rate: expected a number of seconds between calls, found '-1'".to_owned(),
                "providers[0].boot-timeout: expected a number of at least 0, found -5".to_owned(),
                "providers[0].image_format: unknown key, did you mean 'image-format'?".to_owned(),
            ],
        ),
        (
            json!({"cloud": "c", "pools": [{"name": "p", "labels": [
                {"name": "a", "cloud-image": "x"}, {"name": "b", "diskimage": "y", "cloud-image": "x", "min-ram": 1},
                {"name": "c", "diskimage": "y", "min-ram": 1, "volume-size": -1,
                 "dynamic-instance-properties": {"a": "{request.id}", "b": "{x}"}}]}]}),
            vec![
                "providers[0].pools[0].labels[0].cloud-image: the image 'x' is not in the provider's 'cloud-images'".to_owned(),
                "providers[0].pools[0].labels[0]: one of 'min-ram' and 'flavor-name' is needed".to_owned(),
                "providers[0].pools[0].labels[1].cloud-image: either 'diskimage' or 'cloud-image' can be given, not both".to_owned(),
                "providers[0].pools[0].labels[2].volume-size: expected a number of at least 0, found -1".to_owned(),
                "providers[0].pools[0].labels[2].dynamic-instance-properties.b: warning: '{x}' stands for nothing; known are: \
                 {request.id}, {request.labels}, {request.requestor}, {request.requestor_data}, {request.relative_priority}, \
                 {request.event_id}, {request.created_time}, {request.tenant_name}; nodes are launched without it".to_owned(),
            ],
        ),
        (
            json!({"cloud": "open"}),
            vec![format!("providers[0].cloud: warning: {at}: clouds.open.verify: the certificates of its servers are not \
                          checked: whoever is between can read the password")],
        ),
    ];
    for (mut section, expected) in cases {
        section["name"] = json!("p");
        let search = Search::of_directory(scratch.path());
        let value = serde_json::from_value(section.clone()).unwrap();
        let problems = Problems::new();
        let table = Table::new(&value, "providers[0]", &problems).unwrap();
        let _ = OpenStackConfig::read(&table, "openstack", &search);
        table.finish();
        assert!(problems.files().contains(&scratch.path().join("secure.yaml")));
        let found: Vec<_> = problems.into_vec().iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "{section}");
    }
}

#[test]
fn another_password_is_another_provider() {
    let scratch = with_clouds();
    let section = || json!({"name": "p", "cloud": "c"});
    let first = read(&scratch, section()).0.unwrap();
    assert_eq!(first.settings, read(&scratch, section()).0.unwrap().settings);
    std::fs::write(scratch.path().join("secure.yaml"), "clouds: {c: {auth: {password: other}}}").unwrap();
    assert_ne!(first.settings, read(&scratch, section()).0.unwrap().settings);
}
