//! What the tests of several drivers share.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use nodepool_threads::{StopSource, StopToken};
use slog::{Discard, Logger, o};

use crate::api::{CallContext, Driver, Problems, Provider, ProviderConfig, Table, Value};

/// A directory of one test, removed with everything in it.
pub(crate) struct Scratch(PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("nodepool-drivers-{}", uuid::Uuid::new_v4()));
        std::fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

pub(crate) fn logger() -> Logger {
    Logger::root(Discard, o!())
}

pub(crate) fn call(stop: &StopToken) -> CallContext {
    CallContext { stop: stop.clone(), log: logger() }
}

/// A context that nobody stops. The source is kept: its drop would be a stop.
pub(crate) fn unstopped() -> (StopSource, CallContext) {
    let source = StopSource::new();
    let call = call(&source.token());
    (source, call)
}

/// Reads a section as `providers[0]`; returns what was read and the problems as text.
pub(crate) fn read<T>(section: serde_json::Value, with: impl FnOnce(&Table<'_>) -> T) -> (T, Vec<String>) {
    let value: Value = serde_json::from_value(section).unwrap();
    let problems = Problems::new();
    let table = Table::new(&value, "providers[0]", &problems).unwrap();
    let result = with(&table);
    (result, problems.into_vec().iter().map(ToString::to_string).collect())
}

/// Configures a driver as the daemon does, the unknown keys included.
pub(crate) fn configure(
    driver: &dyn Driver,
    section: serde_json::Value,
) -> (Option<Arc<dyn ProviderConfig>>, Vec<String>) {
    let value: Value = serde_json::from_value(section).unwrap();
    let problems = Problems::new();
    let table = Table::new(&value, "providers[0]", &problems).unwrap();
    let config = driver.configure(&table);
    table.finish();
    (config, problems.into_vec().iter().map(ToString::to_string).collect())
}

/// Opens a provider from a section without mistakes.
pub(crate) fn open(driver: &dyn Driver, section: serde_json::Value) -> Arc<dyn Provider> {
    let (config, problems) = configure(driver, section);
    assert_eq!(problems, [""; 0]);
    config.unwrap().open(&logger()).unwrap()
}
