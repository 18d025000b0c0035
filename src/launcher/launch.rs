//! The launch of one node, from its record to the state `ready`. Runs on a launch worker.

mod record;

use std::sync::Arc;
use std::time::{Duration, Instant};

use nodepool_drivers::api::{
    CallContext, Error, ErrorKind, LabelImage, NodeRequestHandler, NodeSettings, NodeSpec, PoolSettings,
    UNDO_LIMIT, metadata,
};
use nodepool_threads::{Pauses, StopToken, activity_within, crash_point};
use serde_json::Value;
use slog::{Logger, info, warn};

use super::allot::Reserved;
use super::assign::Reason;
use super::board::{Fault, LaunchNote, Launching, PoolName};
use super::key_scan::keys_of_node;
use super::metrics;
use super::tools::Tools;
use super::world::ReadyUpload;
use crate::model::{NodeRecord, NodeState, now};
use crate::zk::{Lock, Nodes, ZkError, ZkErrorKind, ZkResult};

use record::describe;

/// How long the question for a console may take.
const CONSOLE_LIMIT: Duration = Duration::from_secs(60);
/// How long to wait when a provider asks for fewer calls.
const RATE_PAUSE: Duration = Duration::from_secs(2);

/// The pauses after attempts that nobody was there for: three attempts, as they are the default, survive an outage of a
/// minute, and however many there are, the last of them is not long after the outage.
const OUTAGE_PAUSES: Pauses = Pauses { first: Duration::from_secs(20), longest: Duration::from_secs(60) };

/// A node that is locked by us.
pub(super) struct HeldNode {
    pub(super) id: String,
    pub(super) record: NodeRecord,
    pub(super) version: i32,
    pub(super) nodes: Nodes,
    /// Dropped last: then it is anybody's.
    pub(super) lock: Lock,
}

impl HeldNode {
    /// Writes the record.
    pub(super) fn write(&mut self) -> ZkResult<()> {
        self.version = self.nodes.write(&self.id, &self.record, self.version)?;
        Ok(())
    }

    /// Gives the node back, to whoever wants it. Answers its id, and the version that its record has now.
    pub(super) fn deallocate(mut self) -> ZkResult<(String, i32)> {
        self.record.allocated_to = None;
        self.write()?;
        Ok((self.id, self.version))
    }
}

/// A launch that has room, and is still to be made.
pub(super) struct Launch {
    pub(super) tools: Arc<Tools>,
    /// In the session that the request is locked in.
    pub(super) nodes: Nodes,
    pub(super) driver: Arc<dyn NodeRequestHandler>,
    pub(super) reserved: Reserved,
    /// Which of the request's nodes it is.
    pub(super) slot: usize,
    pub(super) pool: String,
    pub(super) label: String,
    pub(super) zone: Option<String>,
    pub(super) request: String,
    pub(super) requestor: Option<String>,
    pub(super) tenant: Option<String>,
    pub(super) log: Logger,
}

/// How a launch has ended.
pub(super) enum LaunchEnd {
    /// The node can be used.
    Ready(Box<HeldNode>),
    /// It cannot be had, for this reason if it is one that a request can be told.
    Failed(Option<Reason>),
    /// The provider has no room now.
    NoRoom,
    /// It was given up.
    Cancelled,
}

impl Launch {
    /// Launches the node, as often as the configuration says.
    pub(super) fn run(self, stop: &StopToken) -> ZkResult<LaunchEnd> {
        let began = Instant::now();
        let limits = self.tools.config.nodes();
        let launching = Launching {
            at: PoolName { provider: self.tools.name.clone(), pool: self.pool.clone() },
            label: self.label.clone(),
            request: self.request.clone(),
            node: None,
            attempt: (1, limits.map_or(1, |limits| limits.launch_retries.into())),
            since: now(),
            limit: limits.map_or(Duration::ZERO, |limits| limits.launch_timeout),
        };
        let note = LaunchNote::put(&self.tools.shared, launching);
        let ended = self.try_all(&note, stop);
        if ended.as_ref().is_err_and(is_lost) {
            note.failed(Fault::Session);
            metrics::launch(
                &self.tools,
                metrics::key_of(Fault::Session),
                began.elapsed(),
                self.zone.as_deref(),
                self.requestor.as_deref(),
            );
        }
        ended
    }

    fn try_all(&self, note: &LaunchNote, stop: &StopToken) -> ZkResult<LaunchEnd> {
        let tools = Arc::clone(&self.tools);
        // invariant: a request is taken for a pool and a label of this configuration.
        let Some((settings, pool)) = tools.config.nodes().zip(tools.pool(&self.pool)) else {
            return Ok(LaunchEnd::Failed(None));
        };
        if stop.is_stopped() {
            return Ok(LaunchEnd::Cancelled);
        }
        let Ok(upload) = self.upload(pool) else {
            warn!(self.log, "the node cannot be launched: its image is not there any more"; "label" => &self.label);
            return Ok(LaunchEnd::Failed(Some(Reason::NoImage(self.label.clone()))));
        };
        let began = Instant::now();
        let mut node = match self.record(settings, pool, upload.as_ref())? {
            Some(node) => node,
            None => return Ok(LaunchEnd::NoRoom),
        };
        let log = self.log.new(slog::o!("node" => node.id.clone()));
        let spec = self.spec(&node.id, upload.as_ref());
        let mut attempt = 0;
        let failed = loop {
            attempt += 1;
            note.attempt(&node.id, attempt.into());
            let (fault, error) = match self.attempt(settings, pool, &spec, &mut node, stop, &log)? {
                Ok(()) => {
                    node.record.set_state(NodeState::Ready);
                    node.write()?;
                    crash_point("node-ready");
                    info!(log, "the node is ready"; "label" => &self.label, "address" => node.record.get("interface_ip").as_str(),
                        "seconds" => format!("{:.1}", began.elapsed().as_secs_f64()));
                    note.succeeded();
                    self.measure("ready", began, &node);
                    return Ok(LaunchEnd::Ready(Box::new(node)));
                }
                Err(failed) => failed,
            };
            if stop.is_stopped() {
                info!(log, "the launch is given up");
                if error.leaves_something() {
                    // For whoever deletes nodes: only the record knows its id.
                    node.record.set_state(NodeState::Deleting);
                    node.write()?;
                } else {
                    Nodes::delete(&node.id, node.lock)?;
                }
                return Ok(LaunchEnd::Cancelled);
            }
            note.failed(fault);
            self.measure(metrics::key_of(fault), began, &node);
            if error.kind() == ErrorKind::Quota {
                info!(log, "the provider has no room for the node"; "reason" => %error);
                node.record.set_state(NodeState::Aborted);
                node.write()?;
                crash_point("node-aborted");
                return Ok(LaunchEnd::NoRoom);
            }
            warn!(log, "a launch has failed"; "reason" => %error, "of" => settings.launch_retries, "attempt" => attempt);
            // What it has left is known by this record alone, so there is no other one for the same node.
            let ends = error.kind() == ErrorKind::Permanent || error.leaves_something();
            if attempt >= settings.launch_retries || ends {
                break error;
            }
            if error.kind() == ErrorKind::Unavailable {
                tools.note_outage();
            }
            // The next attempt, if there is one, finds out when the wait has been ended.
            let _ = stop.wait(pause_after(error.kind(), attempt));
        };
        warn!(log, "the node cannot be launched"; "label" => &self.label, "reason" => %failed);
        node.record.set_state(NodeState::Failed);
        node.write()?;
        crash_point("node-failed");
        Ok(LaunchEnd::Failed(None))
    }

    fn measure(&self, what: &str, since: Instant, node: &HeldNode) {
        let az = node.record.az.as_str();
        metrics::launch(&self.tools, what, since.elapsed(), az, self.requestor.as_deref());
    }

    /// The upload that the node shall boot. The error is that there is none.
    fn upload(&self, pool: &PoolSettings) -> Result<Option<ReadyUpload>, ()> {
        match pool.labels.get(&self.label).map(|label| &label.image) {
            Some(LabelImage::Disk(image)) => {
                let state = self.tools.shared.lock();
                state.world.upload(image, &self.tools.name).cloned().map(Some).ok_or(())
            }
            _ => Ok(None),
        }
    }

    fn spec(&self, id: &str, upload: Option<&ReadyUpload>) -> NodeSpec {
        let known_by = [
            (metadata::NODE_ID, id),
            (metadata::POOL_NAME, self.pool.as_str()),
            (metadata::PROVIDER_NAME, self.tools.name.as_str()),
        ];
        NodeSpec {
            // Windows takes 15 characters at most.
            hostname: format!("np{id}"),
            pool: self.pool.clone(),
            label: self.label.clone(),
            image: upload.map(|upload| upload.external_id.clone()),
            zone: self.zone.clone(),
            metadata: known_by.map(|(key, value)| (key.to_owned(), value.to_owned())).into(),
        }
    }

    /// Tries once. After an error of the provider nothing of the attempt is left there, as far as that can be had.
    fn attempt(
        &self,
        settings: &NodeSettings,
        pool: &PoolSettings,
        spec: &NodeSpec,
        node: &mut HeldNode,
        stop: &StopToken,
        log: &Logger,
    ) -> ZkResult<Result<(), (Fault, Error)>> {
        let call = CallContext { stop: stop.deadline_in(settings.launch_timeout), log: log.clone() };
        let (mut written, mut made) = (Ok(()), false);
        let launched = {
            let _doing = activity_within(settings.launch_timeout, format!("launching the node {}", node.id));
            self.driver.launch(&call, spec, &mut |external_id| {
                made = true;
                crash_point("instance-created");
                node.record.external_id = Value::from(external_id);
                written = node.write();
                crash_point("instance-recorded");
            })
        };
        let launched = match launched {
            Ok(launched) => launched,
            Err(error) if made && error.kind() == ErrorKind::Transient => {
                return Ok(Err((Fault::Instance, error)));
            }
            Err(error) => return Ok(Err((Fault::of(error.kind()), error))),
        };
        crash_point("node-launched");
        describe(&mut node.record, &launched, pool.use_internal_ip);
        let unwanted = match written {
            // Unknown, or done by somebody else: then this is not our node any more.
            Err(error) if !error.is(ZkErrorKind::Unavailable) => Some(error),
            _ => None,
        };
        if let Some(error) = unwanted {
            self.undo(&launched.external_id, stop, log);
            return Err(error);
        }
        let label = pool.labels.get(&self.label);
        if label.is_some_and(|label| label.host_key_checking) {
            match self.scan(settings, node, stop, log) {
                Ok(keys) => node.record.set("host_keys", keys),
                Err(why) => {
                    if label.is_some_and(|label| label.console_log) {
                        self.show_console(&launched.external_id, stop, log);
                    }
                    let error = Error::new(ErrorKind::Timeout, why);
                    let undone = self.undo(&launched.external_id, stop, log);
                    return Ok(Err((Fault::Keys, if undone { error } else { error.leaving_something() })));
                }
            }
        }
        Ok(Ok(()))
    }

    fn scan(
        &self,
        settings: &NodeSettings,
        node: &HeldNode,
        stop: &StopToken,
        log: &Logger,
    ) -> Result<Vec<String>, String> {
        let address = node.record.get("interface_ip").as_str().unwrap_or_default();
        let port = node.record.port().unwrap_or(22);
        let _doing = activity_within(settings.boot_timeout, format!("reading the host keys of {address}"));
        let kind = node.record.get("connection_type").as_str().unwrap_or("ssh");
        info!(log, "the server is there; waiting for it to answer"; "address" => address, "port" => port,
            "seconds" => settings.boot_timeout.as_secs());
        let keys = keys_of_node(kind, address, port, settings.boot_timeout, stop);
        keys.map_err(|why| format!("cannot read the host keys of the node: {why}"))
    }

    fn show_console(&self, external_id: &str, stop: &StopToken, log: &Logger) {
        let call = CallContext { stop: stop.deadline_in(CONSOLE_LIMIT), log: log.clone() };
        let _doing = activity_within(CONSOLE_LIMIT, "asking for a console");
        let said = self.tools.provider.nodes().map(|nodes| nodes.console(&call, external_id));
        if let Some(Ok(Some(said))) = said {
            info!(log, "what the node has said on its console"; "console" => said.trim_end());
        }
    }

    /// Deletes an instance that must not stay. Whether it is gone.
    fn undo(&self, external_id: &str, stop: &StopToken, log: &Logger) -> bool {
        let call = CallContext { stop: stop.clone(), log: log.clone() };
        let _doing = activity_within(UNDO_LIMIT, "deleting an unwanted instance");
        let Some(nodes) = self.tools.provider.nodes() else { return true };
        let deleted = call.insist(|call, _| nodes.delete(call, external_id));
        if let Err(error) = &deleted {
            warn!(log, "an unwanted instance stays at the provider for now"; "id" => external_id, "reason" => %error);
        }
        crash_point("instance-undone");
        deleted.is_ok()
    }
}

/// How long to wait for the next attempt when the last one, counted from 1, has failed in this way.
fn pause_after(kind: ErrorKind, attempt: u32) -> Duration {
    match kind {
        ErrorKind::RateLimited => RATE_PAUSE,
        ErrorKind::Unavailable => OUTAGE_PAUSES.after(attempt - 1),
        _ => Duration::ZERO,
    }
}

/// What of a failure is a lost session, which everything else is lost with.
pub(super) fn is_lost(error: &ZkError) -> bool {
    error.is(ZkErrorKind::SessionLost)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// With `launch-retries: 20` the last pause was over six minutes, although the cloud might have been back for long.
    #[test]
    fn an_outage_is_waited_for_in_pauses_of_a_minute_at_most() {
        let pauses =
            [1, 2, 3, 4, 20, u32::MAX].map(|attempt| pause_after(ErrorKind::Unavailable, attempt).as_secs());
        assert_eq!(pauses, [20, 40, 60, 60, 60, 60]);
        assert_eq!(pause_after(ErrorKind::RateLimited, 20), RATE_PAUSE);
        assert_eq!(pause_after(ErrorKind::Transient, 20), Duration::ZERO);
    }
}
