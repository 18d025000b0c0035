//! The `fake` driver: a cloud in memory, for tests, benchmarks and for trying out a configuration.
//!
//! It takes the sections that the original's fake provider takes, and a mapping `fake:` that makes it slow or
//! makes it fail. Each opened provider is a cloud of its own; what it holds is gone with it, unless `state-dir` keeps its
//! instances. Of an uploaded file it only checks that it is there.
//!
//! This is the driver to copy for a new one: `config` reads, `cloud` holds the state, and the two
//! abilities `images` and `nodes` are a file each.

mod cloud;
mod config;
mod images;
mod instances;
mod nodes;

use std::sync::Arc;

use slog::Logger;

use crate::api::{
    Driver, Error, ImageSettings, Images, NodeSettings, Nodes, Provider, ProviderConfig, ProviderSettings,
    Table,
};
use cloud::Cloud;
use config::FakeConfig;

/// The `fake` driver.
#[derive(Debug)]
pub struct FakeDriver;

impl Driver for FakeDriver {
    fn name(&self) -> &'static str {
        "fake"
    }

    fn configure(&self, section: &Table<'_>) -> Option<Arc<dyn ProviderConfig>> {
        Some(Arc::new(FakeConfig::read(section, self.name())?))
    }
}

impl ProviderConfig for FakeConfig {
    fn settings(&self) -> &ProviderSettings {
        &self.settings
    }

    fn images(&self) -> Option<&ImageSettings> {
        Some(&self.images)
    }

    fn nodes(&self) -> Option<&NodeSettings> {
        Some(&self.nodes)
    }

    fn open(&self, _log: &Logger) -> Result<Arc<dyn Provider>, Error> {
        Ok(Arc::new(FakeProvider { cloud: Arc::new(Cloud::new(self.behaviour.clone())) }))
    }
}

struct FakeProvider {
    cloud: Arc<Cloud>,
}

impl Provider for FakeProvider {
    fn images(&self) -> Option<&dyn Images> {
        Some(self)
    }

    fn nodes(&self) -> Option<&dyn Nodes> {
        Some(self)
    }
}

#[cfg(test)]
mod tests;
