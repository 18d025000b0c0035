//! Tests of the fake driver beyond the contract.

use std::time::Duration;

use nodepool_threads::StopSource;
use serde_json::json;

use super::config::{Behaviour, Failures};
use super::*;
use crate::api::contract::{self, Subject};
use crate::api::{CallContext, ErrorKind, ImageUpload, NodeRequest, NodeSpec};
use crate::testing::{self, Scratch, call, logger, unstopped};

fn open(fake: serde_json::Value) -> Arc<dyn Provider> {
    testing::open(&FakeDriver, json!({"name": "fake-provider", "cloud": "fake", "fake": fake}))
}

fn image(scratch: &Scratch) -> ImageUpload {
    let file = scratch.path().join("image.qcow2");
    std::fs::write(&file, "an image").unwrap();
    ImageUpload {
        name: "image-1".into(),
        file,
        format: "qcow2".into(),
        md5: None,
        sha256: None,
        properties: Default::default(),
        progress: Default::default(),
    }
}

fn upload(provider: &dyn Provider, call: &CallContext, image: &ImageUpload) -> Result<String, ErrorKind> {
    provider.images().unwrap().upload(call, image).map_err(|error| error.kind())
}

#[test]
fn keeps_the_contract() {
    let scratch = Scratch::new();
    contract::check(&Subject {
        provider: &*open(json!({"launch-delay": 0.01})),
        slow: &*open(json!({"upload-delay": 3600, "launch-delay": 3600})),
        slow_size: 1,
        format: "qcow2",
        label: "any",
        scratch: scratch.path(),
        log: &logger(),
    });
}

#[test]
fn takes_a_section_of_the_original() {
    let (config, problems) = testing::configure(
        &FakeDriver,
        json!({
            "name": "fake-provider", "driver": "fake", "cloud": "fake", "region-name": "fake-region",
            "boot-timeout": 120, "launch-timeout": 600, "launch-retries": 2, "nodepool-id": "x",
            "rate": "0.0001", "image-name-format": "{image_name}-{upload_id}", "clean-floating-ips": true,
            "port-cleanup-interval": 0, "post-upload-hook": "/bin/true", "image-upload-timeout": 60,
            "max-concurrency": 10, "priority": 1,
            "diskimages": [{"name": "fake-image", "meta": {"key": "value"}, "connection-port": 22}],
            "cloud-images": [{"name": "fake-cloud-image", "image-id": "abc"}],
            "pools": [{
                "name": "main", "max-servers": 96, "availability-zones": ["az1"], "networks": ["net-name"],
                "node-attributes": {"key1": "value1"},
                "labels": [{"name": "fake-label", "diskimage": "fake-image", "min-ram": 8192}],
            }],
        }),
    );
    assert_eq!(problems, [""; 0]);
    let config = config.unwrap();
    assert_eq!(config.settings().name, "fake-provider");
    let images = config.images().unwrap();
    assert_eq!((images.format.as_str(), images.diskimages.len()), ("qcow2", 1));
}

#[test]
fn mistakes_in_a_section_are_all_reported() {
    let section = json!({
        "name": "f", "cloud": 1, "boot-timeout": "soon", "rate": "fast", "pools": [{"max-servers": 1}, 2],
        "clouds": "x", "fake": {"upload-delay": -1, "upload-failures": -2, "lunch-delay": 1},
    });
    let (_, problems) = testing::configure(&FakeDriver, section);
    let expected = [
        "providers[0].cloud: expected a string, found 1",
        "providers[0].rate: expected a number of seconds",
        "providers[0].pools[1]: expected a mapping, found a whole number",
        "providers[0].pools[0]: the required key 'name' is missing",
        "providers[0].boot-timeout: expected a number of at least 0, found 'soon'",
        "providers[0].fake.upload-delay: expected a number of at least 0, found -1",
        "providers[0].fake.upload-failures: expected how many calls fail, or -1 for all, found -2",
        "providers[0].fake.lunch-delay: unknown key, did you mean 'launch-delay'?",
        "providers[0].clouds: unknown key, did you mean 'cloud'?",
    ];
    assert_eq!(problems, expected);
}

#[test]
fn the_fake_mapping_is_read() {
    let fake = json!({"fake": {
        "upload-delay": 1.5, "upload-failures": 2, "delete-delay": 2, "delete-failures": -1,
        "launch-delay": 3, "launch-failures": 4, "quota-failures": 5, "max-servers": 6, "max-cores": 7,
        "max-ram": 8, "state-dir": "/state", "left-ports": 9, "silent-while": "/off",
    }, "name": "f"});
    let (config, problems) = testing::read(fake, |table| FakeConfig::read(table, "fake"));
    assert_eq!(problems, [""; 0]);
    let expected = Behaviour {
        upload_delay: Duration::from_millis(1500),
        upload_failures: Failures::First(2),
        delete_delay: Duration::from_secs(2),
        delete_failures: Failures::All,
        launch_delay: Duration::from_secs(3),
        launch_failures: Failures::First(4),
        quota_failures: Failures::First(5),
        left_ports: 9,
        limits: [("instances", 6), ("cores", 7), ("ram", 8)].into_iter().collect(),
        state_dir: Some("/state".into()),
        silent_while: Some("/off".into()),
    };
    assert_eq!(config.unwrap().behaviour, expected);
}

#[test]
fn the_first_uploads_fail_and_then_one_succeeds() {
    let (scratch, (_source, call)) = (Scratch::new(), unstopped());
    let (provider, image) = (open(json!({"upload-failures": 2})), image(&scratch));
    assert_eq!(upload(&*provider, &call, &image), Err(ErrorKind::Transient));
    assert_eq!(upload(&*provider, &call, &image), Err(ErrorKind::Transient));
    assert!(provider.images().unwrap().list(&call).unwrap().is_empty());
    let id = upload(&*provider, &call, &image).unwrap();
    assert_eq!(provider.images().unwrap().list(&call).unwrap()[0].id, id);
}

#[test]
fn deletions_and_launches_fail_for_ever_with_minus_one() {
    let (scratch, (_source, call)) = (Scratch::new(), unstopped());
    let provider = open(json!({"delete-failures": -1, "launch-failures": -1, "launch-delay": 0}));
    let images = provider.images().unwrap();
    let id = images.upload(&call, &image(&scratch)).unwrap();
    let request = NodeRequest { id: "1".into(), labels: vec!["l".into()], ..NodeRequest::default() };
    let handler = provider.nodes().unwrap().handler(request);
    let node = spec("l");
    for _ in 0..3 {
        assert_eq!(images.delete(&call, &id).unwrap_err().kind(), ErrorKind::Transient);
        assert_eq!(handler.launch(&call, &node, &mut |_| {}).unwrap_err().kind(), ErrorKind::Transient);
    }
    assert_eq!(images.list(&call).unwrap().len(), 1);
}

fn spec(label: &str) -> NodeSpec {
    NodeSpec { label: label.to_owned(), ..NodeSpec::default() }
}

fn launch(provider: &dyn Provider, call: &CallContext) -> Result<String, ErrorKind> {
    let request = NodeRequest { id: "1".into(), labels: vec!["l".into()], ..NodeRequest::default() };
    let mut told = None;
    let handler = provider.nodes().unwrap().handler(request);
    let launched = handler.launch(call, &spec("l"), &mut |id| told = Some(id.to_owned()));
    let launched = launched.map_err(|error| error.kind())?;
    assert_eq!(told, Some(launched.external_id.clone()));
    Ok(launched.external_id)
}

#[test]
fn a_full_cloud_says_so() {
    let (_source, call) = unstopped();
    let provider = open(json!({"launch-delay": 0, "max-cores": 9, "quota-failures": 1}));
    assert_eq!(launch(&*provider, &call), Err(ErrorKind::Quota));
    let first = launch(&*provider, &call).unwrap();
    launch(&*provider, &call).unwrap();
    assert_eq!(launch(&*provider, &call), Err(ErrorKind::Quota));
    provider.nodes().unwrap().delete(&call, &first).unwrap();
    launch(&*provider, &call).unwrap();
    assert_eq!(provider.nodes().unwrap().limits(&call).unwrap().get("cores"), Some(9));
}

#[test]
fn instances_in_a_state_dir_outlive_the_provider() {
    let (scratch, (_source, call)) = (Scratch::new(), unstopped());
    let state = scratch.path().join("state");
    std::fs::create_dir(&state).unwrap();
    let fake = json!({"launch-delay": 0, "state-dir": state});
    let id = launch(&*open(fake.clone()), &call).unwrap();
    let other = open(fake);
    let nodes = other.nodes().unwrap();
    assert_eq!(nodes.list(&call).unwrap()[0].external_id, id);
    nodes.delete(&call, "../x").unwrap();
    nodes.delete(&call, &id).unwrap();
    assert!(nodes.list(&call).unwrap().is_empty());
    contract::check(&Subject {
        provider: &*other,
        slow: &*open(json!({"upload-delay": 3600, "launch-delay": 3600, "state-dir": state})),
        slow_size: 1,
        format: "qcow2",
        label: "any",
        scratch: scratch.path(),
        log: &logger(),
    });
}

#[test]
fn a_deadline_ends_each_delay() {
    let scratch = Scratch::new();
    let source = StopSource::new();
    let call = call(&source.token().deadline_in(Duration::from_millis(20)));
    let provider = open(json!({"upload-delay": 3600, "delete-delay": 3600, "launch-delay": 3600}));
    assert_eq!(upload(&*provider, &call, &image(&scratch)), Err(ErrorKind::Timeout));
    assert_eq!(provider.images().unwrap().delete(&call, "x").unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(provider.nodes().unwrap().delete(&call, "x").unwrap_err().kind(), ErrorKind::Timeout);
}

#[test]
fn each_opened_provider_is_a_cloud_of_its_own() {
    let (scratch, (_source, call)) = (Scratch::new(), unstopped());
    let (config, _) = testing::configure(&FakeDriver, json!({"name": "f"}));
    let config = config.unwrap();
    let (one, other) = (config.open(&logger()).unwrap(), config.open(&logger()).unwrap());
    upload(&*one, &call, &image(&scratch)).unwrap();
    assert!(other.images().unwrap().list(&call).unwrap().is_empty());
}
