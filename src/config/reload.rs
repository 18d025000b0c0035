//! What a daemon does with each new state of its configuration files: it is taken, or refused, and what is odd is told
//! once.

use std::collections::BTreeSet;
use std::time::SystemTime;

use nodepool_drivers::api::Severity;
use slog::{Logger, error, info, warn};

use super::{Config, ConfigError, Loaded};

/// The news of the files, one after the other.
#[derive(Debug)]
pub struct Reload {
    refused: Option<Refused>,
    oddities: BTreeSet<String>,
    log: Logger,
}

/// The files cannot be used as they are now: the last good configuration is in force.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Refused {
    /// Since when, UNIX seconds.
    pub since: f64,
    /// How many errors there are in them.
    pub errors: usize,
}

impl Reload {
    /// Goes on from what a daemon has started with.
    pub fn new(started: &Loaded, log: &Logger) -> Self {
        let mut new = Self { refused: None, oddities: BTreeSet::new(), log: log.clone() };
        new.warn(started);
        new
    }

    /// Whether the files are refused as they are.
    pub fn refused(&self) -> Option<Refused> {
        self.refused
    }

    /// What is to be in force now, if it is something else than before.
    pub fn take(&mut self, change: Result<Box<Loaded>, ConfigError>, in_force: &Config) -> Option<Config> {
        let loaded = match change {
            Ok(loaded) => *loaded,
            Err(error) => {
                self.refuse(&error);
                return None;
            }
        };
        self.refused = None;
        self.warn(&loaded);
        if loaded.config.zookeeper != in_force.zookeeper {
            warn!(self.log, "new ZooKeeper settings take effect with the next start");
        }
        info!(self.log, "the configuration has changed");
        Some(loaded.config)
    }

    fn refuse(&mut self, error: &ConfigError) {
        // What would only be warned of is not why.
        let is_error = |severity| severity == Severity::Error;
        let errors = error.problems().iter().filter(|found| is_error(found.problem.severity));
        for problem in errors.clone() {
            error!(self.log, "the new configuration is refused, the last good one stays"; "problem" => %problem);
        }
        let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let since = self.refused.map_or(now.as_secs_f64(), |refused| refused.since);
        self.refused = Some(Refused { since, errors: errors.count() });
    }

    fn warn(&mut self, loaded: &Loaded) {
        for warning in &loaded.warnings {
            // Without its line, which changes with each edit above it.
            if self.oddities.insert(warning.problem.to_string()) {
                warn!(self.log, "something is odd about the configuration"; "problem" => %warning);
            }
        }
    }
}
