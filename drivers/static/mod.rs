//! The `static` driver: machines that stand there already, one node each or several.
//!
//! It reads which machines there are, and does nothing with them: nobody has to launch or delete them. That they
//! answer, and that each has its nodes, is the launcher's work.

mod config;

use std::sync::Arc;

use slog::Logger;

use crate::api::{
    Driver, Error, ImageSettings, Images, Machine, Machines, NodeSettings, Nodes, Provider, ProviderConfig,
    ProviderSettings, Table,
};
use config::StaticConfig;

/// The `static` driver.
#[derive(Debug)]
pub struct StaticDriver;

impl Driver for StaticDriver {
    fn name(&self) -> &'static str {
        "static"
    }

    fn configure(&self, section: &Table<'_>) -> Option<Arc<dyn ProviderConfig>> {
        Some(Arc::new(StaticConfig::read(section, self.name())?))
    }
}

impl ProviderConfig for StaticConfig {
    fn settings(&self) -> &ProviderSettings {
        &self.settings
    }

    fn images(&self) -> Option<&ImageSettings> {
        None
    }

    fn nodes(&self) -> Option<&NodeSettings> {
        Some(&self.nodes)
    }

    fn open(&self, _log: &Logger) -> Result<Arc<dyn Provider>, Error> {
        Ok(Arc::new(StaticProvider { machines: Arc::clone(&self.machines) }))
    }
}

struct StaticProvider {
    machines: Arc<[Machine]>,
}

impl Provider for StaticProvider {
    fn images(&self) -> Option<&dyn Images> {
        None
    }

    fn nodes(&self) -> Option<&dyn Nodes> {
        None
    }

    fn machines(&self) -> Option<&dyn Machines> {
        Some(self)
    }
}

impl Machines for StaticProvider {
    fn machines(&self) -> &[Machine] {
        &self.machines
    }
}

#[cfg(test)]
mod tests;
