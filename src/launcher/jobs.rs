//! What the workers of a provider do, as values: work for node requests, and deletions of nodes.

use std::sync::Arc;
use std::time::Duration;

use nodepool_drivers::api::{self, CallContext, Error, ErrorKind};
use nodepool_threads::{Job, StopSource, StopToken, activity_within, crash_point};
use slog::{Logger, info, o, warn};

use super::allot::{Allotments, Promise, has_room};
use super::assign::Reason;
use super::cleaner::{Rules, Why, still};
use super::handler::{Handler, Step, decline_untaken};
use super::launch::{Launch, LaunchEnd};
use super::metrics;
use super::survey::is_nobodys;
use super::tools::Tools;
use super::world::Node;
use crate::model::{NodeState, now};
use crate::zk::{ListedNode, Nodes, ZkError};

/// How long a provider may take to delete a node. What takes longer is tried again, after those that wait.
const DELETE_LIMIT: Duration = Duration::from_secs(120);

/// A piece of work for a node request.
pub(super) struct Work {
    pub(super) request: String,
    pub(super) task: Task,
    /// Ends the work for this request alone.
    pub(super) cancel: Arc<StopSource>,
    /// Whether it counts as a launch.
    pub(super) launches: bool,
}

impl Work {
    pub(super) fn new(request: String, task: Task, cancel: &Arc<StopSource>) -> Self {
        let launches = task.may_launch();
        Self { request, task, cancel: Arc::clone(cancel), launches }
    }
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
    Leave(Box<Handler>, Vec<Reason>),
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
        match self {
            Self::Take { allotted, .. } => has_room(allotted),
            Self::Pursue(handler) => handler.has_room(),
            Self::Launch(_) => true,
            _ => false,
        }
    }
}

impl Job for Work {
    type Outcome = Outcome;

    fn describe(&self) -> String {
        let what = match &self.task {
            Task::Take { .. } => "taking",
            Task::Decline { .. } => "declining",
            Task::Launch(_) => "launching a node for",
            Task::GiveBack(_) | Task::Withdraw(_) | Task::Leave(..) => "giving back",
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
            Task::Leave(handler, reasons) => handler.decline(&reasons),
            Task::Launch(launch) => {
                return launch.run(stop).map_or_else(Outcome::Error, Outcome::Launched);
            }
            Task::Begun | Task::Launching(_) => Ok(Step::Over(None)),
        };
        step.map_or_else(Outcome::Error, Outcome::Step)
    }
}

/// The deletion of a node, or of what is left of one.
pub(super) struct Deletion {
    pub(super) tools: Arc<Tools>,
    pub(super) node: String,
    pub(super) what: What,
}

/// What is deleted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    /// The node with its instance, for this reason.
    Node(Why),
    /// The instance of this id, which is not the node's any more.
    Leaked(String),
}

/// What a deletion has come to.
#[derive(Debug)]
pub(super) enum Deleted {
    /// The node is gone.
    Gone,
    /// Its record is, which named no instance though one may have been made: whoever made it was interrupted.
    GoneUnnamed,
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
        let deleted = match &self.what {
            What::Node(why) => self.delete(*why, stop, &log),
            What::Leaked(external_id) => self.delete_leaked(external_id, stop, &log),
        };
        deleted.unwrap_or_else(|error| {
            warn!(log, "a node cannot be deleted"; "reason" => %error);
            Deleted::Failed
        })
    }
}

impl Deletion {
    fn delete(&self, why: Why, stop: &StopToken, log: &Logger) -> Result<Deleted, ZkError> {
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
        let unnamed = record.state == NodeState::Building && record.external_id().is_none();
        let listed = ListedNode { id: id.clone(), record: record.clone(), locked: false };
        let config = Arc::clone(&tools.shared.lock().config);
        let rules = Rules { config: &config, now: now() };
        if listed.record.provider.as_deref() != Some(&*tools.name)
            || !still(why, &Node::of(&listed, version), &rules)
        {
            return Ok(Deleted::NotNow);
        }
        info!(log, "deleting the node"; "state" => %record.state, "because" => why.of(record.state),
            "id" => record.external_id().unwrap_or("none"),
            "request" => record.allocated_to.as_deref().unwrap_or("none"));
        if record.state != NodeState::Deleting {
            record.set_state(NodeState::Deleting);
            nodes.write(id, &record, version)?;
        }
        crash_point("node-deleting");
        if let (Some(external_id), Some(cloud)) = (record.external_id(), tools.provider.nodes()) {
            if let Err(error) = delete_at(cloud, external_id, stop, log) {
                warn!(log, "the provider has not deleted a node"; "id" => external_id, "reason" => %error);
                return Ok(Deleted::Failed);
            }
        }
        crash_point("instance-deleted");
        Nodes::delete(id, lock)?;
        info!(log, "the node is deleted");
        Ok(if unnamed { Deleted::GoneUnnamed } else { Deleted::Gone })
    }

    fn delete_leaked(&self, external_id: &str, stop: &StopToken, log: &Logger) -> Result<Deleted, ZkError> {
        let tools = &self.tools;
        let Some(cloud) = tools.provider.nodes().filter(|_| !stop.is_stopped()) else {
            return Ok(Deleted::NotNow);
        };
        // The copy of the tree may be behind.
        let is_nobodys = match tools.nodes.read(&self.node)? {
            None => true,
            Some(Ok((record, _))) => is_nobodys(external_id, Some(record.final_instance())),
            Some(Err(_)) => false,
        };
        if !is_nobodys {
            return Ok(Deleted::NotNow);
        }
        warn!(log, "deleting an instance without a node"; "id" => external_id);
        let deleted = delete_at(cloud, external_id, stop, log);
        // Also one that takes its time, as in the original.
        if deleted.as_ref().err().is_none_or(|error| error.kind() == ErrorKind::Timeout) {
            metrics::leaked_instance(tools);
        }
        match deleted {
            Ok(()) => Ok(Deleted::Gone),
            Err(error) => {
                warn!(log, "an instance without a node cannot be deleted"; "id" => external_id, "reason" => %error);
                Ok(Deleted::Failed)
            }
        }
    }
}

fn delete_at(cloud: &dyn api::Nodes, external_id: &str, stop: &StopToken, log: &Logger) -> Result<(), Error> {
    let call = CallContext { stop: stop.deadline_in(DELETE_LIMIT), log: log.clone() };
    let _doing = activity_within(DELETE_LIMIT, format!("deleting {external_id} at the provider"));
    cloud.delete(&call, external_id)
}
