//! Looks at a provider: how it stands, and what others have left there; and the removal of what is no node's.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use nodepool_drivers::api::{
    self, CallContext, Error, ErrorKind, Instance, LabelImage, PoolLabel, PoolSettings, metadata,
};
use nodepool_threads::{Job, StopSource, StopToken};
use slog::warn;

use super::facts::{ProviderFacts, Remark};
use super::metrics;
use super::tools::Tools;
use super::world::Node;
use crate::zk::Generation;

/// How long a provider may take to say how it stands.
const SURVEY_LIMIT: Duration = Duration::from_secs(300);
/// How long it may take to remove what deletions have left.
const CLEAN_UP_LIMIT: Duration = Duration::from_secs(120);

/// A look at the provider: its limits, what its labels need, and what others have left there.
pub(super) struct Survey {
    pub(super) tools: Arc<Tools>,
    /// In which session what others have left is removed. `None`: it stays, because nodes wait to be launched for how
    /// the provider stands, or it cannot be told yet what belongs to nobody.
    pub(super) generation: Option<Generation>,
    /// Ends the look alone.
    pub(super) cancel: Arc<StopSource>,
}

/// What a look has found.
#[derive(Debug, Default)]
pub(super) struct Found {
    pub(super) facts: ProviderFacts,
    /// Instances that are no node's any more.
    pub(super) leaked: Vec<Leaked>,
}

/// An instance whose node has no record, or has got another instance.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Leaked {
    pub(super) external_id: String,
    /// The node that it was made for.
    pub(super) node: String,
}

impl Job for Survey {
    type Outcome = Result<Found, Error>;

    fn describe(&self) -> String {
        format!("looking at the provider {}", self.tools.name)
    }

    fn run(&mut self, stop: &StopToken) -> Self::Outcome {
        let stop = stop.or(&self.cancel.token()).deadline_in(SURVEY_LIMIT);
        self.look(&CallContext { stop, log: self.tools.log.clone() })
    }
}

impl Survey {
    /// How the provider stands, and what of all that runs there is no node's.
    fn look(&self, call: &CallContext) -> Result<Found, Error> {
        let Some((cloud, settings)) = self.tools.provider.nodes().zip(self.tools.config.nodes()) else {
            return Ok(Found::default());
        };
        let before = self.nodes();
        // First: a provider that cannot be reached is found out by one call.
        let instances = cloud.list(call)?;
        let leaked = self.leaked(&instances, before);
        let mut facts = ProviderFacts { limits: cloud.limits(call)?, ..ProviderFacts::default() };
        for instance in &instances {
            let is_leaked = || leaked.iter().any(|leaked| leaked.external_id == instance.external_id);
            if !self.is_ours(instance) || is_leaked() {
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
        Ok(Found { facts, leaked })
    }

    fn is_ours(&self, instance: &Instance) -> bool {
        instance.metadata.get(metadata::PROVIDER_NAME) == Some(&self.tools.name)
    }

    /// The nodes that there are, with their instances; `None` as long as that is not known.
    fn nodes(&self) -> Option<BTreeMap<String, Option<String>>> {
        let state = self.tools.shared.lock();
        let instance = |(id, node): (&String, &Node)| (id.clone(), node.instance.clone());
        state.complete.then(|| state.world.nodes().iter().map(instance).collect())
    }

    /// The instances of a list that are no node's. Each record is older than its instance, and goes after it: so they are
    /// those whose node there was neither before the list nor after it, or was there with another instance.
    fn leaked(
        &self,
        instances: &[Instance],
        before: Option<BTreeMap<String, Option<String>>>,
    ) -> Vec<Leaked> {
        let Some((before, after)) = before.zip(self.nodes()) else { return Vec::new() };
        let of_node = |instance: &Instance| {
            let node = instance.metadata.get(metadata::NODE_ID)?.clone();
            Some(Leaked { external_id: instance.external_id.clone(), node })
        };
        let ours = instances.iter().filter(|instance| self.is_ours(instance)).filter_map(of_node);
        let is_leaked = |Leaked { external_id, node }: &Leaked| {
            let mut looks = [&before, &after].into_iter();
            looks.all(|nodes| is_nobodys(external_id, nodes.get(node).map(Option::as_deref)))
        };
        ours.filter(is_leaked).collect()
    }
}

/// Whether an instance is no node's. `node` is the record of its node, if there is one, and in it the instance that the node
/// has for good, if it has one yet. A cloud may make an instance late, when its node has got another one.
pub(super) fn is_nobodys(external_id: &str, node: Option<Option<&str>>) -> bool {
    node.is_none_or(|instance| instance.is_some_and(|instance| instance != external_id))
}

/// The removal of what deletions have left at the provider besides instances.
pub(super) struct CleanUp {
    pub(super) tools: Arc<Tools>,
}

impl Job for CleanUp {
    type Outcome = ();

    fn describe(&self) -> String {
        format!("cleaning up at the provider {}", self.tools.name)
    }

    fn run(&mut self, stop: &StopToken) {
        let call = CallContext { stop: stop.deadline_in(CLEAN_UP_LIMIT), log: self.tools.log.clone() };
        match self.tools.provider.nodes().map(|cloud| cloud.clean_up(&call)) {
            None => {}
            Some(Ok(cleaned)) => metrics::cleaned_up(&self.tools, cleaned),
            Some(Err(error)) => warn!(call.log, "cannot clean up at the provider"; "reason" => %error),
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
    let mut found = known.and_then(|known| known.labels.get(&key)).cloned().unwrap_or_default();
    let mut remark = |what, error: Error| {
        facts.remarks.insert(Remark { what, of: Some(key.clone()), reason: error.to_string() });
    };
    match cloud.needs(call, pool, &label.name) {
        Ok(needs) => found.needs = Some(needs),
        Err(error) => remark("what a label needs is unknown", error),
    }
    // What there is of disk images is in ZooKeeper.
    let boots = match &label.image {
        LabelImage::Disk(_) => Ok(true),
        LabelImage::Cloud(_) | LabelImage::None => cloud.label_ready(call, pool, &label.name),
    };
    match boots {
        Ok(boots) => found.boots = Some(boots),
        Err(error) => {
            if matches!(error.kind(), ErrorKind::Permanent | ErrorKind::NotFound) {
                found.boots = Some(false);
            }
            remark("whether a label can be launched is unknown", error);
        }
    }
    facts.labels.insert(key, found);
}

#[cfg(test)]
mod tests {
    use nodepool_drivers::api::{NodeRequest, NodeRequestHandler, Nodes, Resources};
    use serde_json::json;
    use slog::{Discard, Logger, o};

    use super::*;
    use crate::launcher::facts::LabelFacts;
    use crate::launcher::tools::testing::fake;

    /// A cloud that says this of each label.
    struct Says(Result<bool, ErrorKind>);

    impl Nodes for Says {
        fn handler(&self, _: NodeRequest) -> Box<dyn NodeRequestHandler> {
            unreachable!("nothing is launched")
        }

        fn delete(&self, _: &CallContext, _: &str) -> Result<(), Error> {
            Ok(())
        }

        fn list(&self, _: &CallContext) -> Result<Vec<Instance>, Error> {
            Ok(Vec::new())
        }

        fn label_ready(&self, _: &CallContext, _: &PoolSettings, _: &str) -> Result<bool, Error> {
            self.0.map_err(|kind| Error::new(kind, "Glance is ill"))
        }
    }

    /// Requests for such a label were declined for as long as Glance was ill, from a start on.
    #[test]
    fn what_is_not_told_of_a_label_is_as_it_was_told_the_last_time() {
        let source = StopSource::new();
        let call = CallContext { stop: source.token(), log: Logger::root(Discard, o!()) };
        let label = json!({"name": "a", "cloud-image": "i"});
        let section = json!({"name": "p", "cloud-images": [{"name": "i"}], "pools": [{"name": "main", "labels": [label]}]});
        let config = fake(section);
        let pool = &config.nodes().unwrap().pools["main"];
        let key = ("main".to_owned(), "a".to_owned());
        let (ill, no) = (Err(ErrorKind::Transient), Err(ErrorKind::NotFound));
        for (before, says, expected) in [
            (None, Ok(true), Some(true)),
            (None, Ok(false), Some(false)),
            (None, ill, None),
            (None, no, Some(false)),
            (Some(true), ill, Some(true)),
            (Some(false), ill, Some(false)),
            (Some(true), no, Some(false)),
            (Some(false), Ok(true), Some(true)),
        ] {
            let known = ProviderFacts {
                labels: [(key.clone(), LabelFacts { needs: None, boots: before })].into(),
                ..ProviderFacts::default()
            };
            let mut facts = ProviderFacts::default();
            look_at_label(&call, &Says(says), pool, &pool.labels["a"], Some(&known), &mut facts);
            let found = &facts.labels[&key];
            assert_eq!(found.boots, expected, "{before:?} {says:?}");
            assert_eq!(found.needs, Some(Resources::one_instance()));
            assert_eq!(facts.remarks.len(), usize::from(says.is_err()));
        }
    }
}
