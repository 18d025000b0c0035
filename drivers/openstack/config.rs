//! The section of an OpenStack provider: the keys of the original's (`nodepool/driver/openstack/config.py`),
//! and the cloud of `clouds.yaml` that it names.

mod labels;
mod template;

use std::sync::Arc;
use std::time::Duration;

use super::clouds::{Cloud, Search};
use crate::api::{ImageSettings, NodeSettings, ProviderSettings, Table};
pub(super) use labels::{FlavorWish, Own, OwnLabel, OwnPool};

/// The seconds between two calls, if the section does not say.
const DEFAULT_RATE: f64 = 1.0;
const DEFAULT_FORMAT: &str = "qcow2";

/// The resolved section.
#[derive(Debug)]
pub(super) struct OpenStackConfig {
    pub(super) settings: ProviderSettings,
    pub(super) images: Arc<ImageSettings>,
    pub(super) nodes: Arc<NodeSettings>,
    pub(super) own: Arc<Own>,
    pub(super) cloud: Arc<Cloud>,
    /// How long to wait between two calls.
    pub(super) rate: Duration,
}

impl OpenStackConfig {
    pub(super) fn read(section: &Table<'_>, driver: &str, search: &Search) -> Option<Self> {
        let settings = ProviderSettings::read(section, driver);
        let cloud = cloud(section, search);
        let format = cloud.as_ref().map_or(DEFAULT_FORMAT, |cloud| cloud.image_format.as_str());
        let images = ImageSettings::read(section, format);
        let rate = rate(section);
        // Of no meaning in the original any more.
        section.accept(&["nodepool-id"]);
        let (own, nodes) = Own::read(section);
        let (mut settings, cloud) = (settings?, cloud?);
        settings.outside = Some(cloud.digest.clone());
        let (images, nodes, own) = (Arc::new(images), Arc::new(nodes), Arc::new(own));
        Some(Self { settings, images, nodes, own, cloud: Arc::new(cloud), rate: rate? })
    }
}

/// The cloud, with every mistake in its files noted at the key that names it.
fn cloud(section: &Table<'_>, search: &Search) -> Option<Cloud> {
    for file in search.files() {
        section.problems().depends_on(file);
    }
    let region = section.string("region-name");
    let name = section.required_string("cloud")?;
    match search.resolve(&name, region.as_deref()) {
        Ok((cloud, warnings)) => {
            for warning in warnings {
                section.problems().warning(section.path_of("cloud"), warning);
            }
            Some(cloud)
        }
        Err(mistakes) => {
            for mistake in mistakes {
                section.error("cloud", mistake);
            }
            None
        }
    }
}

/// The original takes this number as text, too.
fn rate(section: &Table<'_>) -> Option<Duration> {
    let text = section.text("rate");
    let seconds = text.as_deref().map_or(Ok(DEFAULT_RATE), str::parse::<f64>);
    let rate = seconds.ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    if rate.is_none() {
        section.error(
            "rate",
            format!("expected a number of seconds between calls, found '{}'", text.unwrap_or_default()),
        );
    }
    rate
}
