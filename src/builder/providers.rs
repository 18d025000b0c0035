//! The opened providers. One is opened anew only when its own section of the configuration has changed.

use std::collections::BTreeMap;
use std::sync::Arc;

use nodepool_drivers::api::{Provider, ProviderConfig};
use nodepool_threads::activity;
use slog::{Logger, error, info};

use super::failures::{Attempt, Failures};
use crate::config::{Config, same_provider};

/// Providers by name.
#[derive(Default)]
pub(super) struct OpenProviders(BTreeMap<String, Opened>);

struct Opened {
    config: Arc<dyn ProviderConfig>,
    provider: Arc<dyn Provider>,
}

impl OpenProviders {
    /// Follows the configuration: closes what is gone or changed, opens what is new. What cannot be opened
    /// is left out until [`OpenProviders::follow`] is called again after the pause that `failures` has.
    pub(super) fn follow(&mut self, config: &Config, failures: &mut Failures, now: f64, log: &Logger) {
        self.0.retain(|name, opened| {
            config.providers.get(name).is_some_and(|new| same_provider(&**new, &*opened.config))
        });
        for (name, config) in &config.providers {
            let attempt = Attempt::Open(name.clone());
            let waits = failures.not_before(&attempt).is_some_and(|time| time > now);
            if config.images().is_none() || self.0.contains_key(name) || waits {
                continue;
            }
            let log = log.new(slog::o!("provider" => name.clone()));
            let _doing = activity(format!("opening the provider {name}"));
            match config.open(&log) {
                Ok(provider) => {
                    info!(log, "provider opened"; "driver" => &config.settings().driver);
                    failures.succeeded(&attempt);
                    self.0.insert(name.clone(), Opened { config: Arc::clone(config), provider });
                }
                Err(error) => {
                    let pause = failures.failed(attempt, now);
                    error!(log, "the provider cannot be opened"; "reason" => %error, "again in s" => pause as u64);
                }
            }
        }
    }

    /// The provider, if it is open.
    pub(super) fn get(&self, name: &str) -> Option<&Arc<dyn Provider>> {
        self.0.get(name).map(|opened| &opened.provider)
    }

    /// When a provider that could not be opened may be tried again.
    pub(super) fn look_again(config: &Config, failures: &Failures) -> Option<f64> {
        let waiting = config.providers.keys().map(|name| Attempt::Open(name.clone()));
        waiting.filter_map(|attempt| failures.not_before(&attempt)).min_by(f64::total_cmp)
    }
}
