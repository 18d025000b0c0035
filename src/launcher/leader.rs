//! The election of the launcher that speaks for the statistics of the whole fleet: kazoo's Election, a lock whose
//! holder is the leader.

use std::io;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use nodepool_threads::{StopSource, StopToken, Thread, activity, spawn};
use slog::{Logger, debug, info};

use crate::zk::{Interrupter, Lock, Session};

/// As long as this one stands in line before it begins anew.
const IN_LINE: Duration = Duration::from_secs(24 * 3600);
/// How long to wait after something has failed.
const PAUSE: Duration = Duration::from_secs(5);

/// The thread that stands for election. It ends with the session, which must be ended before.
pub(super) struct Candidate {
    _stop: StopSource,
    _interrupter: Interrupter,
    _thread: Thread<()>,
}

impl Candidate {
    /// Stands for election for as long as it lives. The channel says when it has been elected, and when its session is
    /// lost.
    pub(super) fn start(session: &Session, holder: &str, log: &Logger) -> io::Result<(Self, Receiver<bool>)> {
        let stop = StopSource::new();
        let (session, interrupter) = session.interruptible();
        let (tell, told) = bounded(4);
        let (token, holder, log) = (stop.token(), holder.to_owned(), log.clone());
        let run = move || {
            let changes = session.subscribe();
            while !token.is_stopped() {
                if let Err(why) = stand(&session, &holder, &changes, &tell, &token, &log) {
                    debug!(log, "the election begins anew"; "reason" => why);
                    let _ = token.wait(PAUSE);
                }
            }
        };
        let thread = spawn("stats-election", "statistics election", run)?;
        Ok((Self { _stop: stop, _interrupter: interrupter, _thread: thread }, told))
    }
}

/// Waits for the lock, and keeps it for as long as its session lives.
fn stand(
    session: &Session,
    holder: &str,
    changes: &Receiver<()>,
    tell: &crossbeam_channel::Sender<bool>,
    stop: &StopToken,
    log: &Logger,
) -> Result<(), String> {
    let _doing = activity("standing for election");
    let lock = Lock::acquire_within(session, "", "nodepool/elections/stats", holder, IN_LINE);
    let Some(lock) = lock.map_err(|error| error.to_string())? else { return Ok(()) };
    // Not whatever session there is by now: the lock may have gone with the one before.
    let held_in = lock.session();
    info!(log, "this launcher reports the statistics of the fleet");
    let _ = tell.try_send(true);
    while !held_in.is_lost() {
        if stop.recv_timeout(changes, IN_LINE).is_err() && stop.is_stopped() {
            return Ok(());
        }
    }
    let _ = tell.try_send(false);
    Ok(())
}
