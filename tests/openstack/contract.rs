//! The contract that all drivers keep, on real services.

use std::path::Path;
use std::sync::Arc;

use nodepool_drivers::api::contract::{Subject, check};
use nodepool_drivers::api::{Images, Nodes, Problems, Provider, Table, Value as Section};
use serde_json::{Value, json};
use slog::{Discard, Logger, o};

use crate::support::{again, openstack, passes, scratch_dir};

/// Runs a test of this folder in a process of its own, and returns what it prints: the driver finds `clouds.yaml` by the
/// environment, which a process with threads cannot change for itself.
#[track_caller]
pub(super) fn check_with(clouds: &Path, test: &str) -> String {
    let mut process = again(&format!("openstack::{test}"));
    process.env("OS_CLIENT_CONFIG_FILE", clouds);
    passes(process)
}

#[test]
fn the_driver_keeps_the_contract_of_images() {
    let services = openstack::shared();
    check_with(&services.clouds(), "contract::of_images");
    assert!(services.images("contract-").is_empty());
}

#[test]
fn the_driver_keeps_the_contract_of_nodes() {
    let services = openstack::shared_with_servers();
    let project = services.project("contract");
    project.create_image("cloud");
    check_with(&project.clouds(), "contract::of_nodes");
    project.wait_empty(super::SOON);
}

/// Not a test: what one of the above runs in a process of its own, as the one after it.
#[test]
#[ignore = "run by the_driver_keeps_the_contract_of_images"]
fn of_images() {
    let (provider, slow) = (open("demo", json!({})), open("gate", json!({})));
    // More than the gate lets through and the kernel keeps on the way.
    check_both(&OnlyImages(provider), &OnlyImages(slow), 256 << 20);
}

#[test]
#[ignore = "run by the_driver_keeps_the_contract_of_nodes"]
fn of_nodes() {
    let nodes = |properties: Value| {
        let label = json!({
            "name": "small", "cloud-image": "cloud", "flavor-name": "m1.tiny", "instance-properties": properties,
        });
        let pool = json!({"name": "main", "networks": ["private"], "labels": [label]});
        OnlyNodes(open("demo", json!({"cloud-images": [{"name": "cloud"}], "pools": [pool]})))
    };
    check_both(&nodes(json!({})), &nodes(json!({"osp_delay": 600})), 1);
}

fn check_both(provider: &dyn Provider, slow: &dyn Provider, slow_size: u64) {
    let scratch = scratch_dir("openstack-contract");
    check(&Subject {
        provider,
        slow,
        slow_size,
        format: "raw",
        label: "small",
        scratch: &scratch,
        log: &logger(),
    });
    std::fs::remove_dir_all(&scratch).unwrap();
}

struct OnlyImages(Arc<dyn Provider>);

impl Provider for OnlyImages {
    fn images(&self) -> Option<&dyn Images> {
        self.0.images()
    }

    fn nodes(&self) -> Option<&dyn Nodes> {
        None
    }
}

struct OnlyNodes(Arc<dyn Provider>);

impl Provider for OnlyNodes {
    fn images(&self) -> Option<&dyn Images> {
        None
    }

    fn nodes(&self) -> Option<&dyn Nodes> {
        self.0.nodes()
    }
}

pub(super) fn logger() -> Logger {
    Logger::root(Discard, o!())
}

/// With these keys of the section.
pub(super) fn open(cloud: &str, more: Value) -> Arc<dyn Provider> {
    let driver = nodepool_drivers::drivers().iter().find(|driver| driver.name() == "openstack").unwrap();
    let mut section =
        json!({"name": cloud, "driver": "openstack", "cloud": cloud, "rate": 0.01, "diskimages": []});
    section.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let section: Section = serde_json::from_value(section).unwrap();
    let problems = Problems::new();
    let table = Table::new(&section, "providers[0]", &problems).unwrap();
    let config = driver.configure(&table);
    table.finish();
    let problems: Vec<_> = problems.into_vec().iter().map(ToString::to_string).collect();
    assert_eq!(problems, [""; 0]);
    config.unwrap().open(&logger()).unwrap()
}
