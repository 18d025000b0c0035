//! Uploads one file to a cloud of `clouds.yaml` by the `openstack` driver, and prints the image's id: what
//! scripts/measure-upload measures. An example, so that it is in no package.
//!
//!     upload CLOUD NAME FILE FORMAT [MD5 SHA256]
//!
//! The digests are those that a build leaves beside its file.
#![allow(clippy::print_stdout)]

use std::collections::BTreeMap;
use std::error::Error;

use nodepool_drivers::api::{CallContext, ImageUpload, Problems, Progress, Table, Value};
use nodepool_threads::StopSource;
use slog::{Discard, Logger, o};

fn main() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let ([cloud, name, file, format] | [cloud, name, file, format, _, _]) = arguments.as_slice() else {
        return Err("expected CLOUD NAME FILE FORMAT [MD5 SHA256]".into());
    };
    let section = serde_json::json!({
        "name": cloud, "driver": "openstack", "cloud": cloud, "rate": 0, "diskimages": [],
    });
    let section: Value = serde_json::from_value(section)?;
    let problems = Problems::new();
    let table = Table::new(&section, "providers[0]", &problems).ok_or("no section")?;
    let driver = nodepool_drivers::drivers().iter().find(|driver| driver.name() == "openstack");
    let config = driver.ok_or("there is no driver openstack")?.configure(&table);
    let Some(config) = config else {
        let told: Vec<_> = problems.into_vec().iter().map(ToString::to_string).collect();
        return Err(told.join("; ").into());
    };
    let log = Logger::root(Discard, o!());
    let provider = config.open(&log)?;
    let images = provider.images().ok_or("the provider stores no images")?;
    // Nobody stops it. It is kept: its drop would be a stop.
    let source = StopSource::new();
    let call = CallContext { stop: source.token(), log };
    let image = ImageUpload {
        name: name.clone(),
        file: file.into(),
        format: format.clone(),
        md5: arguments.get(4).cloned(),
        sha256: arguments.get(5).cloned(),
        properties: BTreeMap::new(),
        progress: Progress::default(),
    };
    println!("{}", images.upload(&call, &image)?);
    Ok(())
}
