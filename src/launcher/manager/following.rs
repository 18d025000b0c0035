//! How the launcher follows its configuration: providers are started, changed and stopped.

use super::*;
use crate::model::now;

impl Launcher {
    pub(super) fn take_config(&mut self, change: Result<Box<Loaded>, ConfigError>) {
        let Some(config) = self.reload.take(change, &self.config) else { return };
        self.config = Arc::new(config);
        // What there was no room for may have some now.
        self.own.stock_pauses.clear();
        self.own.stock_failures.clear();
        self.own.reopen.clear();
        self.web_settings.set(&self.config.launcher.webapp);
        self.follow_config();
    }

    /// Starts, changes and stops providers as the configuration says.
    pub(super) fn follow_config(&mut self) {
        self.shared.lock().configure(&self.config.launcher, &self.config.diskimages);
        let wanted: BTreeMap<_, _> = self
            .config
            .providers
            .iter()
            .filter(|(_, config)| config.nodes().is_some_and(|nodes| !nodes.pools.is_empty()))
            .map(|(name, config)| (name.clone(), Arc::clone(config)))
            .collect();
        if wanted.is_empty() {
            warn!(self.log, "no provider has pools: there is nothing to serve requests with");
        }
        let gone: Vec<_> =
            self.own.workers.keys().filter(|name| !wanted.contains_key(*name)).cloned().collect();
        for name in gone {
            if let Some(worker) = self.own.workers.remove(&name) {
                info!(self.log, "the provider is not configured any more"; "provider" => &name);
                self.retire(worker);
            }
        }
        let keepers: Vec<_> =
            self.own.keepers.keys().filter(|name| !wanted.contains_key(*name)).cloned().collect();
        keepers.iter().for_each(|name| self.depart(name));
        self.shared.lock().board.keep_troubles(|provider| wanted.contains_key(provider));
        for (name, config) in wanted {
            // One that is stopping must be gone first: two would not know what the other one does.
            let retiring = self.own.retiring.iter().any(|worker| worker.tools.name == name);
            if retiring || self.own.leaving.iter().any(|(leaving, _)| *leaving == name) {
                continue;
            }
            if self.own.reopen.contains_key(&name) {
                continue;
            }
            let old = self.own.workers.get(&name).map(|worker| &worker.tools.config);
            if old.is_some_and(|old| same_provider(&**old, &*config)) {
                continue;
            }
            let tools = match self.tools(&name, config) {
                Ok(tools) => {
                    self.shared.lock().board.set_trouble(&name, None, now());
                    Arc::new(tools)
                }
                Err(why) => {
                    error!(self.log, "the provider cannot be opened"; "provider" => &name, "reason" => why);
                    self.shared.lock().board.set_trouble(&name, Some("it cannot be opened"), now());
                    self.own.reopen.insert(name, Instant::now() + OPEN_PAUSE);
                    continue;
                }
            };
            match self.own.workers.get_mut(&name) {
                Some(worker) => {
                    if !worker.configure(tools) {
                        self.own.reopen.insert(name, Instant::now() + Duration::from_millis(100));
                    }
                }
                None => match ProviderWorker::start(
                    tools,
                    &self.hostname,
                    &self.session,
                    &self.membership,
                    &self.nudge,
                ) {
                    Ok(worker) => _ = self.own.workers.insert(name, worker),
                    Err(error) => {
                        error!(self.log, "the provider's threads cannot be started"; "provider" => &name, "reason" => %error);
                        self.own.reopen.insert(name, Instant::now() + OPEN_PAUSE);
                    }
                },
            }
        }
        let own = self.open_providers().flat_map(|tools| tools.ids.values().cloned()).collect();
        self.shared.lock().own_pools = own;
    }

    pub(super) fn tools(&mut self, name: &str, config: Arc<dyn ProviderConfig>) -> Result<Tools, String> {
        let log = self.log.new(o!("provider" => name.to_owned()));
        let provider = {
            let _doing = activity(format!("opening the provider {name}"));
            config.open(&log).map_err(|error| error.to_string())?
        };
        let keeper = match provider.machines() {
            Some(machines) => Some(self.keeper(name, machines.machines())?),
            None => {
                self.depart(name);
                None
            }
        };
        let pools = config.nodes().into_iter().flat_map(|nodes| nodes.pools.keys());
        let ids = pools.map(|pool| {
            let key = (name.to_owned(), pool.clone());
            let new = || format!("{}-PoolWorker.{name}-{pool}-{}", self.hostname, Uuid::new_v4().simple());
            (pool.clone(), self.own.ids.entry(key).or_insert_with(new).clone())
        });
        Ok(Tools {
            name: name.to_owned(),
            ids: ids.collect(),
            config,
            provider,
            keeper,
            nodes: self.nodes.clone(),
            requests: self.requests.clone(),
            shared: Arc::clone(&self.shared),
            stats: self.stats.clone(),
            nudge: self.nudge.clone(),
            log,
        })
    }

    pub(super) fn retire(&mut self, worker: ProviderWorker) {
        worker.stop();
        self.own.retiring.push(worker);
    }

    /// Gives up the providers that have lost a thread although nobody has told it to end. They are opened anew, but not
    /// at once: it may happen to them again.
    pub(super) fn retire_dead(&mut self) {
        let Own { workers, keepers, .. } = &self.own;
        let dead = workers.iter().filter_map(|(name, worker)| {
            let keeper_is_over = keepers.get(name).is_some_and(|keeper| keeper.is_over());
            let kind = match (worker.is_over(), keeper_is_over) {
                (true, _) => "provider",
                (false, true) => "standing",
                (false, false) => return None,
            };
            Some((name.clone(), format!("{kind}-{name}")))
        });
        let dead: Vec<_> = dead.collect();
        for (name, thread) in dead {
            error!(self.log, "a thread of the provider has ended by itself; this is a bug";
                "provider" => &name, "thread" => thread);
            let what = Some("a thread of it has ended by itself");
            self.shared.lock().board.set_trouble(&name, what, now());
            if let Some(worker) = self.own.workers.remove(&name) {
                self.retire(worker);
            }
            self.own.reopen.insert(name, Instant::now() + OPEN_PAUSE);
        }
    }

    /// Lets go of providers that have stopped.
    pub(super) fn bury(&mut self) {
        let before = self.own.retiring.len();
        for worker in std::mem::take(&mut self.own.retiring) {
            match worker.is_over() {
                true => {
                    // Another one of this name may be another place.
                    let name = &worker.tools.name;
                    self.shared.lock().facts.remove(name);
                    // One that has panicked leaves them.
                    for (_, pool) in self.own.ids.keys().filter(|(provider, _)| provider == name) {
                        self.membership.set(&entry_key(name, pool), None);
                    }
                    worker.join();
                }
                false => self.own.retiring.push(worker),
            }
        }
        if self.own.retiring.len() < before {
            self.follow_config();
        }
    }
}
