//! What is written of a request that is declined, before work for it has begun or after.

use super::*;

/// Locks a request and reads it again. `None` if somebody else has taken it.
pub(super) fn lock(
    tools: &Tools,
    id: &str,
    stop: &StopToken,
) -> ZkResult<Option<(Lock, Requests, NodeRequest)>> {
    if stop.is_stopped() {
        return Ok(None);
    }
    let Some(lock) = tools.requests.try_lock(id)? else { return Ok(None) };
    crash_point("request-locked");
    let requests = tools.requests.under(&lock);
    let Some(Ok(request)) = requests.read(id)? else { return Ok(None) };
    let open = request.record.state == RequestState::Requested;
    Ok(open.then_some((lock, requests, request)))
}

/// Declines a request that was not taken.
pub(in super::super) fn decline_untaken(
    tools: &Tools,
    pool: &str,
    id: &str,
    reasons: &[Reason],
    stop: &StopToken,
) -> ZkResult<Step> {
    let Some((_lock, requests, mut request)) = lock(tools, id, stop)? else {
        return Ok(Step::Over(None));
    };
    let log = tools.log.new(o!("request" => id.to_owned(), "pool" => pool.to_owned()));
    decline(tools, pool, &requests, &mut request, reasons, &log).map(Step::Over)
}

/// Writes that a pool declines a request; and that nobody can serve it, if all have declined.
pub(super) fn decline(
    tools: &Tools,
    pool: &str,
    requests: &Requests,
    request: &mut NodeRequest,
    reasons: &[Reason],
    log: &Logger,
) -> ZkResult<Option<i32>> {
    let ours = tools.id(pool);
    let why: Vec<_> = reasons.iter().map(Reason::to_string).collect();
    info!(log, "declining the node request"; "reasons" => why.join("; "));
    let pools: Vec<String> = tools.shared.lock().world.pools().map(|pool| pool.id.clone()).collect();
    let found = requests.change(request, |record| {
        if !record.declined_by.iter().any(|by| by == ours) {
            record.declined_by.push(ours.to_owned());
        }
        let by_all = pools.iter().all(|id| record.declined_by.contains(id));
        record.nodes.clear();
        record.set_state(if by_all { RequestState::Failed } else { RequestState::Requested });
    })?;
    crash_point("request-declined");
    if request.record.state == RequestState::Failed {
        let what = "every pool has declined the node request: it has failed";
        // There is not always room for what nobody waits for.
        match request.record.requestor.as_deref() == Some(min_ready::REQUESTOR) {
            true => info!(log, "{what}"),
            false => warn!(log, "{what}"),
        }
    }
    Ok(found.then_some(request.version))
}

/// Says why a piece of work for a request has come to nothing.
pub(in super::super) fn tell_of(error: &ZkError, request: &str, log: &Logger) {
    if is_lost(error) {
        debug!(log, "work for a node request is thrown away: the session is lost"; "request" => request);
    } else {
        warn!(log, "work for a node request has failed, somebody will begin anew"; "request" => request, "reason" => %error);
    }
}
