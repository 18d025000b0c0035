//! Looks at a provider: how it stands, and what others have left there.

use std::sync::Arc;
use std::time::Duration;

use nodepool_drivers::api::{
    self, CallContext, Error, ErrorKind, Instance, LabelImage, PoolLabel, PoolSettings, metadata,
};
use nodepool_threads::{Job, StopToken};
use slog::{debug, warn};

use super::facts::{ProviderFacts, Remark};
use super::metrics;
use super::tools::Tools;
use crate::zk::Generation;

/// How long a provider may take to say how it stands.
const SURVEY_LIMIT: Duration = Duration::from_secs(300);
/// How long it may take to remove what deletions have left.
const CLEAN_UP_LIMIT: Duration = Duration::from_secs(120);
/// How long it may take to delete an instance without a node, and all of them: the next look goes on with them.
const LEAKED_LIMIT: Duration = Duration::from_secs(20);
const ALL_LEAKED_LIMIT: Duration = Duration::from_secs(60);

/// A look at the provider: its limits, what its labels need, and what others have left there.
pub(super) struct Survey {
    pub(super) tools: Arc<Tools>,
    /// In which session what others have left is removed. `None`: it stays, because nodes wait to be launched for how
    /// the provider stands, or it cannot be told yet what belongs to nobody.
    pub(super) generation: Option<Generation>,
}

impl Job for Survey {
    type Outcome = Result<ProviderFacts, Error>;

    fn describe(&self) -> String {
        format!("looking at the provider {}", self.tools.name)
    }

    fn run(&mut self, stop: &StopToken) -> Self::Outcome {
        let (facts, instances) = self.look(&self.within(stop, SURVEY_LIMIT))?;
        if self.generation.is_none() {
            return Ok(facts);
        }
        self.clean_up(&self.within(stop, CLEAN_UP_LIMIT));
        self.delete_leaked(&self.within(stop, ALL_LEAKED_LIMIT), instances);
        Ok(facts)
    }
}

impl Survey {
    fn within(&self, stop: &StopToken, limit: Duration) -> CallContext {
        CallContext { stop: stop.deadline_in(limit), log: self.tools.log.clone() }
    }

    /// How the provider stands, and all that runs there.
    fn look(&self, call: &CallContext) -> Result<(ProviderFacts, Vec<Instance>), Error> {
        let Some((cloud, settings)) = self.tools.provider.nodes().zip(self.tools.config.nodes()) else {
            return Ok(Default::default());
        };
        // First: a provider that cannot be reached is found out by one call.
        let instances = cloud.list(call)?;
        let mut facts = ProviderFacts { limits: cloud.limits(call)?, ..ProviderFacts::default() };
        for instance in &instances {
            if instance.metadata.get(metadata::PROVIDER_NAME) != Some(&self.tools.name) {
                facts.limits.lower_by(&instance.resources);
            }
        }
        let known = self.tools.shared.lock().facts(&self.tools.name);
        facts.zones = cloud.zones(call).unwrap_or_else(|error| {
            let what = "the provider does not tell its zones";
            facts.remarks.insert(Remark { what, of: None, reason: error.to_string() });
            known.as_ref().map(|known| known.zones.clone()).unwrap_or_default()
        });
        for pool in settings.pools.values() {
            for label in pool.labels.values() {
                look_at_label(call, cloud, pool, label, known.as_deref(), &mut facts);
            }
        }
        Ok((facts, instances))
    }

    fn clean_up(&self, call: &CallContext) {
        match self.tools.provider.nodes().map(|cloud| cloud.clean_up(call)) {
            None => {}
            Some(Ok(cleaned)) => metrics::cleaned_up(&self.tools, cleaned),
            Some(Err(error)) => warn!(call.log, "cannot clean up at the provider"; "reason" => %error),
        }
    }

    /// Deletes the instances whose nodes have no record any more. Each record is older than its instance, so one that
    /// is not there now is gone.
    fn delete_leaked(&self, call: &CallContext, instances: Vec<Instance>) {
        let tools = &self.tools;
        let ours = |instance: &Instance| instance.metadata.get(metadata::PROVIDER_NAME) == Some(&tools.name);
        let mut nodes: Vec<_> = {
            let state = tools.shared.lock();
            if !state.complete {
                return;
            }
            let of_node = |instance: Instance| {
                let node = instance.metadata.get(metadata::NODE_ID)?.clone();
                Some((instance.external_id, node))
            };
            let unknown = |(_, node): &(String, String)| !state.world.nodes().contains_key(node);
            instances.into_iter().filter(ours).filter_map(of_node).filter(unknown).collect()
        };
        // Those that cannot be deleted must not always come before the others.
        fastrand::shuffle(&mut nodes);
        for (external_id, node) in nodes {
            if call.stop.check().is_err() {
                return;
            }
            // The copy of the tree may be behind.
            match tools.nodes.exists(&node) {
                Ok(false) => {}
                Ok(true) => continue,
                Err(error) => {
                    debug!(call.log, "cannot look for leaked instances"; "reason" => %error);
                    return;
                }
            }
            warn!(call.log, "deleting an instance without a node"; "id" => &external_id, "node" => &node);
            match tools
                .provider
                .nodes()
                .map(|cloud| cloud.delete(&self.within(&call.stop, LEAKED_LIMIT), &external_id))
            {
                Some(Err(error)) => {
                    warn!(call.log, "an instance without a node cannot be deleted"; "id" => &external_id, "reason" => %error);
                }
                _ => metrics::leaked_instance(tools),
            }
        }
    }
}

/// What is not told now is as it was told the last time.
fn look_at_label(
    call: &CallContext,
    cloud: &dyn api::Nodes,
    pool: &PoolSettings,
    label: &PoolLabel,
    known: Option<&ProviderFacts>,
    facts: &mut ProviderFacts,
) {
    let key = (pool.name.clone(), label.name.clone());
    let remark = |what, error: Error| Remark { what, of: Some(key.clone()), reason: error.to_string() };
    match cloud.needs(call, pool, &label.name) {
        Ok(needs) => _ = facts.needs.insert(key.clone(), needs),
        Err(error) => {
            if let Some(needs) = known.and_then(|known| known.needs.get(&key)) {
                facts.needs.insert(key.clone(), needs.clone());
            }
            facts.remarks.insert(remark("what a label needs is unknown", error));
        }
    }
    if matches!(label.image, LabelImage::Disk(_)) {
        return;
    }
    match cloud.label_ready(call, pool, &label.name) {
        Ok(true) => {}
        Ok(false) => facts.unready.push(key),
        Err(error) => {
            let was_ready = known.is_some_and(|known| !known.unready.contains(&key));
            let says_no = matches!(error.kind(), ErrorKind::Permanent | ErrorKind::NotFound);
            if says_no || !was_ready {
                facts.unready.push(key.clone());
            }
            facts.remarks.insert(remark("whether a label can be launched is unknown", error));
        }
    }
}
