//! The `openstack` driver: what the original does through openstacksdk, by calls of our own.
//!
//! Layers, each of which knows those below only:
//!
//! ```text
//! mod       the traits of the interfaces
//! node      a node's way: launched, reached, deleted, counted
//! image  compute  network  volume
//!           Glance, Nova, Neutron, Cinder
//! service   requests to one of them, lists page by page; limits: what Nova and Cinder say of these; shared: answers
//!           that many threads wait for
//! config    the provider's section
//! identity  Keystone: token, catalog, versions
//! http      requests that end when they must, repeated where they may be
//! clouds    clouds.yaml
//! ```
//!
//! A provider has one `Client`, one `Identity` and one of each service, which all its threads share: the pace of
//! its calls, its token, its connections and what it knows are one each.

mod clouds;
mod compute;
mod config;
mod http;
mod identity;
mod image;
mod limits;
mod network;
mod node;
mod service;
mod shared;
mod volume;

use std::sync::Arc;

use slog::{Logger, debug};

use crate::api::{
    CallContext, Driver, Error, ImageSettings, ImageUpload, Images, NodeSettings, Nodes, Provider,
    ProviderConfig, ProviderSettings, StoredImage, Table,
};
use clouds::Search;
use compute::Nova;
use config::OpenStackConfig;
use http::Client;
use identity::{COMPUTE, IMAGE, Identity, NETWORK, VOLUME};
use image::Glance;
use network::Neutron;
use node::{OpenStackNodes, Settings};
use service::Service;
use volume::Cinder;

/// The `openstack` driver.
#[derive(Debug)]
pub struct OpenStackDriver;

impl Driver for OpenStackDriver {
    fn name(&self) -> &'static str {
        "openstack"
    }

    fn configure(&self, section: &Table<'_>) -> Option<Arc<dyn ProviderConfig>> {
        let search = Search::of_environment();
        Some(Arc::new(OpenStackConfig::read(section, self.name(), &search)?))
    }
}

impl ProviderConfig for OpenStackConfig {
    fn settings(&self) -> &ProviderSettings {
        &self.settings
    }

    fn images(&self) -> Option<&ImageSettings> {
        Some(&*self.images)
    }

    fn nodes(&self) -> Option<&NodeSettings> {
        Some(&self.nodes)
    }

    fn open(&self, log: &Logger) -> Result<Arc<dyn Provider>, Error> {
        let cloud = &self.cloud;
        debug!(log, "opening the cloud"; "cloud" => &cloud.name, "auth_url" => &cloud.auth_url, "region" => &cloud.region);
        let whose = format!("provider '{}' (cloud '{}')", self.settings.name, cloud.name);
        let http = Arc::new(Client::new(whose, &cloud.tls, self.rate, cloud.timeout)?);
        let identity = Arc::new(Identity::new(Arc::clone(&http), Arc::clone(cloud)));
        let service = |kind| Service::new(Arc::clone(&http), Arc::clone(&identity), kind);
        let glance = Arc::new(Glance::new(service(IMAGE), Arc::clone(cloud)));
        let settings = Settings {
            provider: self.settings.name.clone(),
            nodes: Arc::clone(&self.nodes),
            images: Arc::clone(&self.images),
            own: Arc::clone(&self.own),
        };
        let services =
            (Nova::new(service(COMPUTE)), Neutron::new(service(NETWORK)), Cinder::new(service(VOLUME)));
        let nodes = OpenStackNodes::new(services, Arc::clone(&glance), Arc::clone(cloud), settings);
        Ok(Arc::new(OpenStackProvider { glance, nodes }))
    }
}

struct OpenStackProvider {
    glance: Arc<Glance>,
    nodes: OpenStackNodes,
}

impl Provider for OpenStackProvider {
    fn images(&self) -> Option<&dyn Images> {
        Some(&*self.glance)
    }

    fn nodes(&self) -> Option<&dyn Nodes> {
        Some(&self.nodes)
    }
}

impl Images for Glance {
    fn upload(&self, call: &CallContext, image: &ImageUpload) -> Result<String, Error> {
        self.upload(call, image)
    }

    fn delete(&self, call: &CallContext, external_id: &str) -> Result<(), Error> {
        self.delete(call, external_id)
    }

    fn list(&self, call: &CallContext) -> Result<Vec<StoredImage>, Error> {
        self.list(call)
    }
}

#[cfg(test)]
mod tests;
