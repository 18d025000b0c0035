//! The `local` driver: a directory of this machine as a store of images.
//!
//! An upload is copied (as a clone that shares its blocks, where the file system can), checked against its
//! SHA-256, and stands complete beside a JSON file that describes it:
//! `debian-1700000000-<id>.qcow2` and `debian-1700000000-<id>.qcow2.json`. An operator boots from it with a
//! layer above it, for it is read-only. Images without that file, and hidden files, are not complete.
//!
//! The rest of the driver is about leaving nothing half done: `names` says which files there are, `journal`
//! how they come and go so that no crash loses track of one, `copy` moves the bytes, `store` puts the three
//! together.

mod config;
mod copy;
mod journal;
mod names;
mod record;
mod store;

use std::sync::Arc;

use slog::Logger;

use crate::api::{
    CallContext, Driver, Error, ImageSettings, ImageUpload, Images, Nodes, Provider, ProviderConfig,
    ProviderSettings, StoredImage, Table,
};
use config::LocalConfig;
use store::Store;

/// The `local` driver.
#[derive(Debug)]
pub struct LocalDriver;

impl Driver for LocalDriver {
    fn name(&self) -> &'static str {
        "local"
    }

    fn configure(&self, section: &Table<'_>) -> Option<Arc<dyn ProviderConfig>> {
        Some(Arc::new(LocalConfig::read(section, self.name())?))
    }
}

impl ProviderConfig for LocalConfig {
    fn settings(&self) -> &ProviderSettings {
        &self.settings
    }

    fn images(&self) -> Option<&ImageSettings> {
        Some(&self.images)
    }

    fn open(&self, log: &Logger) -> Result<Arc<dyn Provider>, Error> {
        Ok(Arc::new(LocalProvider { store: Store::open(&self.path, log)? }))
    }

    fn open_to_ask(&self, _log: &Logger) -> Result<Arc<dyn Provider>, Error> {
        Ok(Arc::new(LocalProvider { store: Store::at(&self.path) }))
    }
}

struct LocalProvider {
    store: Store,
}

impl Provider for LocalProvider {
    fn images(&self) -> Option<&dyn Images> {
        Some(self)
    }

    fn nodes(&self) -> Option<&dyn Nodes> {
        None
    }
}

impl Images for LocalProvider {
    fn upload(&self, call: &CallContext, image: &ImageUpload) -> Result<String, Error> {
        call.stop.check()?;
        self.store.upload(call, image)
    }

    fn delete(&self, call: &CallContext, external_id: &str) -> Result<(), Error> {
        call.stop.check()?;
        self.store.delete(external_id)
    }

    fn list(&self, call: &CallContext) -> Result<Vec<StoredImage>, Error> {
        call.stop.check()?;
        self.store.list(call)
    }
}

#[cfg(test)]
mod tests;
