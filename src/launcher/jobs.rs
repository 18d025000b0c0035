//! What the workers of a provider do, as values: work for node requests, deletions of nodes, and looks at the provider.

use std::sync::Arc;
use std::time::Duration;

use nodepool_drivers::api::{self, CallContext, Error, Instance, LabelImage, metadata};
use nodepool_threads::{Job, StopSource, StopToken, activity_within, crash_point};
use slog::{Logger, debug, info, o, warn};

use super::allot::{Allotments, Promise};
use super::assign::{ProviderFacts, Reason};
use super::cleaner::{Rules, Why, still};
use super::handler::{Handler, Step, decline_untaken};
use super::launch::{Launch, LaunchEnd};
use super::metrics;
use super::shared::Tools;
use super::world::Node;
use crate::model::{NodeState, now};
use crate::zk::{Generation, ListedNode, Nodes, ZkError};

/// How long a provider may take to delete a node. What takes longer is tried again, after those that wait.
const DELETE_LIMIT: Duration = Duration::from_secs(120);
/// How long a provider may take to say how it stands.
const SURVEY_LIMIT: Duration = Duration::from_secs(300);
/// How long it may take to remove what deletions have left.
const CLEAN_UP_LIMIT: Duration = Duration::from_secs(120);
/// How long it may take to delete an instance without a node, and all of them: the next look goes on with them.
const LEAKED_LIMIT: Duration = Duration::from_secs(20);
const ALL_LEAKED_LIMIT: Duration = Duration::from_secs(60);

/// A piece of work for a node request.
pub(super) struct Work {
    pub(super) request: String,
    pub(super) task: Task,
    /// Ends the work for this request alone.
    pub(super) cancel: Arc<StopSource>,
    /// Whether it counts as a launch.
    pub(super) launches: bool,
}

/// What is to be done.
pub(super) enum Task {
    Take {
        tools: Arc<Tools>,
        pool: String,
        allotted: Allotments,
        promise: Promise,
    },
    Decline {
        tools: Arc<Tools>,
        pool: String,
        reasons: Vec<Reason>,
    },
    Pursue(Box<Handler>),
    Conclude(Box<Handler>),
    GiveBack(Box<Handler>),
    Withdraw(Box<Handler>),
    /// Leaves the request to others.
    Leave(Box<Handler>),
    Launch(Box<Launch>),
    /// It is being done.
    Begun,
    /// A launch of this slot is.
    Launching(usize),
}

/// What it has come to.
pub(super) enum Outcome {
    Step(Step),
    Launched(LaunchEnd),
    Error(ZkError),
}

impl Task {
    /// Whether a node may be launched by it.
    pub(super) fn may_launch(&self) -> bool {
        matches!(self, Self::Take { .. } | Self::Pursue(_) | Self::Launch(_))
    }
}

impl Job for Work {
    type Outcome = Outcome;

    fn describe(&self) -> String {
        let what = match &self.task {
            Task::Take { .. } => "taking",
            Task::Decline { .. } => "declining",
            Task::Launch(_) => "launching a node for",
            Task::GiveBack(_) | Task::Withdraw(_) | Task::Leave(_) => "giving back",
            Task::Pursue(_) | Task::Conclude(_) | Task::Begun | Task::Launching(_) => "serving",
        };
        format!("{what} the request {}", self.request)
    }

    fn run(&mut self, stop: &StopToken) -> Outcome {
        let stop = &stop.or(&self.cancel.token());
        let begun = match &self.task {
            Task::Launch(launch) => Task::Launching(launch.slot),
            _ => Task::Begun,
        };
        let id = &self.request;
        let step = match std::mem::replace(&mut self.task, begun) {
            Task::Take { tools, pool, allotted, promise } => {
                Handler::take(&tools, &pool, id, (allotted, promise), stop)
            }
            Task::Decline { tools, pool, reasons } => decline_untaken(&tools, &pool, id, &reasons, stop),
            Task::Pursue(handler) => handler.pursue(stop),
            Task::Conclude(handler) => handler.conclude(stop),
            Task::GiveBack(handler) => handler.give_back(),
            Task::Withdraw(handler) => handler.withdraw(),
            Task::Leave(handler) => handler.decline(&[Reason::NoRoom]),
            Task::Launch(launch) => {
                return launch.run(stop).map_or_else(Outcome::Error, Outcome::Launched);
            }
            Task::Begun | Task::Launching(_) => Ok(Step::Over(None)),
        };
        step.map_or_else(Outcome::Error, Outcome::Step)
    }
}

/// The deletion of a node.
pub(super) struct Deletion {
    pub(super) tools: Arc<Tools>,
    pub(super) node: String,
    pub(super) why: Why,
}

/// What a deletion has come to.
#[derive(Debug)]
pub(super) enum Deleted {
    /// The node is gone.
    Gone,
    /// Somebody has it, or it is wanted again.
    NotNow,
    /// It could not be deleted.
    Failed,
}

impl Job for Deletion {
    type Outcome = Deleted;

    fn describe(&self) -> String {
        format!("deleting the node {}", self.node)
    }

    fn run(&mut self, stop: &StopToken) -> Deleted {
        let log = self.tools.log.new(o!("node" => self.node.clone()));
        self.delete(stop, &log).unwrap_or_else(|error| {
            warn!(log, "a node cannot be deleted"; "reason" => %error);
            Deleted::Failed
        })
    }
}

impl Deletion {
    fn delete(&self, stop: &StopToken, log: &Logger) -> Result<Deleted, ZkError> {
        let (tools, id) = (&self.tools, &self.node);
        if stop.is_stopped() {
            return Ok(Deleted::NotNow);
        }
        let Some(lock) = tools.nodes.try_lock(id)? else { return Ok(Deleted::NotNow) };
        let nodes = tools.nodes.under(&lock);
        let (mut record, version) = match nodes.read(id)? {
            Some(Ok(found)) => found,
            // What a lock has left of a node.
            None => {
                Nodes::delete(id, lock)?;
                return Ok(Deleted::Gone);
            }
            Some(Err(_)) => return Ok(Deleted::NotNow),
        };
        let listed = ListedNode { id: id.clone(), record: record.clone(), locked: false };
        let config = Arc::clone(&tools.shared.lock().config);
        let rules = Rules { config: &config, now: now() };
        if listed.record.provider.as_deref() != Some(&*tools.name)
            || !still(self.why, &Node::of(&listed, version), &rules)
        {
            return Ok(Deleted::NotNow);
        }
        info!(log, "deleting the node"; "state" => %record.state, "because" => ?self.why,
            "id" => record.external_id(), "request" => &record.allocated_to);
        if record.state != NodeState::Deleting {
            record.set_state(NodeState::Deleting);
            nodes.write(id, &record, version)?;
        }
        crash_point("node-deleting");
        if let (Some(external_id), Some(cloud)) = (record.external_id(), tools.provider.nodes()) {
            let call = CallContext { stop: stop.deadline_in(DELETE_LIMIT), log: log.clone() };
            let _doing = activity_within(DELETE_LIMIT, format!("deleting {external_id} at the provider"));
            if let Err(error) = cloud.delete(&call, external_id) {
                warn!(log, "the provider has not deleted a node"; "id" => external_id, "reason" => %error);
                return Ok(Deleted::Failed);
            }
        }
        crash_point("instance-deleted");
        Nodes::delete(id, lock)?;
        Ok(Deleted::Gone)
    }
}

/// A look at the provider: its limits, what its labels need, and what others have left there.
pub(super) struct Survey {
    pub(super) tools: Arc<Tools>,
    /// In which session what others have left is removed. `None`: it stays, because nodes wait to be launched for how the
    /// provider stands, or it cannot be told yet what belongs to nobody.
    pub(super) generation: Option<Generation>,
}

impl Job for Survey {
    type Outcome = Result<ProviderFacts, String>;

    fn describe(&self) -> String {
        format!("looking at the provider {}", self.tools.name)
    }

    fn run(&mut self, stop: &StopToken) -> Self::Outcome {
        let (facts, instances) =
            self.look(&self.within(stop, SURVEY_LIMIT)).map_err(|error| error.to_string())?;
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
        let tools = &self.tools;
        let Some((cloud, settings)) = tools.provider.nodes().zip(tools.config.nodes()) else {
            return Ok(Default::default());
        };
        let mut facts = ProviderFacts { zones: self.zones(call, cloud), ..ProviderFacts::default() };
        for pool in settings.pools.values() {
            for label in pool.labels.values() {
                let key = (pool.name.clone(), label.name.clone());
                match cloud.needs(call, pool, &label.name) {
                    Ok(needs) => _ = facts.needs.insert(key.clone(), needs),
                    Err(error) => {
                        warn!(call.log, "what a label needs is unknown"; "pool" => &pool.name, "label" => &label.name, "reason" => %error);
                    }
                }
                if matches!(label.image, LabelImage::Disk(_)) {
                    continue;
                }
                match cloud.label_ready(call, pool, &label.name) {
                    Ok(true) => {}
                    Ok(false) => facts.unready.push(key),
                    Err(error) => {
                        warn!(call.log, "whether a label can be launched is unknown"; "label" => &label.name, "reason" => %error);
                        facts.unready.push(key);
                    }
                }
            }
        }
        facts.limits = cloud.limits(call)?;
        let instances = cloud.list(call)?;
        for instance in &instances {
            if instance.metadata.get(metadata::PROVIDER_NAME) != Some(&tools.name) {
                facts.limits.lower_by(&instance.resources);
            }
        }
        Ok((facts, instances))
    }

    /// The zones, or those that were told the last time.
    fn zones(&self, call: &CallContext, cloud: &dyn api::Nodes) -> Vec<String> {
        cloud.zones(call).unwrap_or_else(|error| {
            warn!(call.log, "the provider does not tell its zones"; "reason" => %error);
            let state = self.tools.shared.lock();
            state.facts.get(&self.tools.name).map(|facts| facts.zones.clone()).unwrap_or_default()
        })
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
