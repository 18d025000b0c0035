//! Requests that are made again where they may be, and errors for callers.

use std::time::{Duration, SystemTime};

use nodepool_threads::{Pauses, StopToken};
use slog::{Logger, debug, info};

use super::client::{Client, Failed, Origin};
use super::{Body, Repeat, Reply, Request, text};
use crate::api::{CallContext, Error, ErrorKind};

/// How often a request is made again.
const MOST_REPEATS: u32 = 5;
/// The pauses before that.
const PAUSES: Pauses = Pauses { first: Duration::from_millis(500), longest: Duration::from_secs(20) };
/// A server that asks for more patience than this is told to the caller.
const MOST_PATIENCE: Duration = Duration::from_secs(120);
/// How long one request with its answer may take, but for those that carry a file.
const WHOLE: Duration = Duration::from_secs(300);
/// How many redirects are followed.
const MOST_REDIRECTS: usize = 5;

impl Client {
    /// Makes a request until it is answered, and returns the answer, whatever it is. An error means that there
    /// is none.
    pub(in crate::openstack) fn send(
        &self,
        call: &CallContext,
        request: &mut Request<'_>,
    ) -> Result<Reply, Error> {
        let mut repeats = 0;
        let mut redirects = 0;
        loop {
            if request.paced {
                self.pacer.wait(&call.stop)?;
            }
            let answer = self.attempt(&call.stop, request);
            request.in_doubt |= matches!(answer, Err(Failed::Broken(_) | Failed::Interrupted(_)));
            let again = match &answer {
                Ok(reply) if is_redirect(reply) => {
                    redirects += 1;
                    self.follow(request, reply, redirects)?;
                    continue;
                }
                Ok(reply) => match reply.status {
                    429 => request.repeat != Repeat::Never,
                    500 | 502 | 503 | 504 => request.repeat == Repeat::Always,
                    _ => false,
                },
                Err(Failed::Unreached(_)) => request.repeat != Repeat::Never,
                Err(Failed::Broken(_)) => request.repeat == Repeat::Always,
                Err(Failed::Interrupted(_) | Failed::Source(_)) => false,
            };
            let asked_for = answer.as_ref().ok().and_then(retry_after);
            let pause = asked_for.unwrap_or_else(|| PAUSES.jittered(repeats));
            let in_time = call
                .stop
                .deadline()
                .is_none_or(|deadline| deadline.saturating_duration_since(std::time::Instant::now()) > pause);
            if !again || repeats == MOST_REPEATS || pause > MOST_PATIENCE || !in_time {
                return answer.map_err(|failed| self.unanswered(request, failed));
            }
            repeats += 1;
            tell(&call.log, request, &answer, pause);
            call.stop.wait(pause)?;
        }
    }

    /// One attempt, with a limit of its own unless it carries a file.
    fn attempt(&self, stop: &StopToken, request: &mut Request<'_>) -> Result<Reply, Failed> {
        if matches!(request.body, Body::Stream(..)) {
            return self.once(stop, request);
        }
        match self.once(&stop.deadline_in(WHOLE), request) {
            // The limit was the attempt's, not the caller's.
            Err(Failed::Interrupted(_)) if stop.check().is_ok() => {
                Err(Failed::Broken(format!("no whole answer within {} s", WHOLE.as_secs())))
            }
            answer => answer,
        }
    }

    /// Turns a request to where a server points, if a token may go there.
    fn follow(&self, request: &mut Request<'_>, reply: &Reply, redirects: usize) -> Result<(), Error> {
        let target = reply.header("location").and_then(|to| absolute(&request.url, to));
        let refused = |why: &str| {
            let to = target.as_deref().unwrap_or("nowhere");
            let message = format!(
                "{}: {} {}: it is redirected to {to}, which is not followed: {why}",
                self.whose,
                request.method,
                request.path()
            );
            Err(Error::new(ErrorKind::Permanent, message))
        };
        if request.method != "GET" {
            return refused("correct the address in clouds.yaml or the catalog");
        }
        if redirects > MOST_REDIRECTS {
            return refused("there are too many redirects");
        }
        let (Some(from), Some(to)) = (Origin::of(&request.url), target.as_deref().and_then(Origin::of))
        else {
            return refused("that is no address");
        };
        let upgraded = from.host == to.host && from.scheme == "http" && to.scheme == "https";
        if from != to && !upgraded {
            return refused("it is another server");
        }
        match target {
            Some(target) => request.url = target,
            None => return refused("that is no address"),
        }
        Ok(())
    }

    /// The error for a request without an answer.
    fn unanswered(&self, request: &Request<'_>, failed: Failed) -> Error {
        let (whose, method, url) = (&self.whose, request.method, &request.url);
        let server = Origin::of(url).map_or_else(String::new, |origin| {
            format!(" at {}://{}:{}", origin.scheme, origin.host, origin.port)
        });
        let at = format!("{whose}: {method} {}{server}", request.path());
        match failed {
            Failed::Interrupted(why) => why.into(),
            Failed::Source(cause) => {
                Error::new(ErrorKind::Transient, format!("{at}: cannot read what is to be sent"))
                    .caused_by(cause)
            }
            Failed::Unreached(why) => {
                Error::new(ErrorKind::Unavailable, format!("{at}: the server cannot be reached: {why}"))
            }
            Failed::Broken(why) => {
                Error::new(ErrorKind::Transient, format!("{at}: the connection was lost: {why}"))
            }
        }
    }

    /// The error for a request that was refused: the server's words, and a kind by its status.
    pub(in crate::openstack) fn refused(&self, request: &Request<'_>, reply: &Reply) -> Error {
        let mut said = text::of(reply);
        if let Some(token) = request.token.as_ref().filter(|token| token.reveal().len() > 3) {
            said = said.replace(token.reveal(), "(secret)");
        }
        let about_quota = {
            let lower = said.to_ascii_lowercase();
            // The last one is Nova's, for Neutron's.
            let words = ["quota", "limit exceeded", "exceeds the limit", "number of ports exceeded"];
            words.iter().any(|word| lower.contains(word))
        };
        let kind = match reply.status {
            404 => ErrorKind::NotFound,
            403 | 409 if about_quota => ErrorKind::Quota,
            413 => ErrorKind::Quota,
            429 => ErrorKind::RateLimited,
            408 | 409 | 423 => ErrorKind::Transient,
            400..=499 => ErrorKind::Permanent,
            501 | 505 => ErrorKind::Permanent,
            502..=504 => ErrorKind::Unavailable,
            500..=599 => ErrorKind::Transient,
            _ => ErrorKind::Permanent,
        };
        let colon = if said.is_empty() { "" } else { ": " };
        let reason = text::reason(reply.status);
        let message = format!("{}: {} {}: {reason}{colon}{said}", self.whose, request.method, request.path());
        Error::new(kind, message)
    }
}

fn is_redirect(reply: &Reply) -> bool {
    matches!(reply.status, 301 | 302 | 303 | 307 | 308)
}

/// What a `Location` means that came in answer to `url`.
fn absolute(url: &str, to: &str) -> Option<String> {
    if to.contains("://") {
        return Some(to.to_owned());
    }
    let path_at = url.find("://").map(|at| at + 3)?;
    let end = url[path_at..].find('/').map_or(url.len(), |at| path_at + at);
    to.starts_with('/').then(|| format!("{}{to}", &url[..end]))
}

/// How long the server wants to be left alone: in seconds, or until a time.
fn retry_after(reply: &Reply) -> Option<Duration> {
    let text = reply.header("retry-after")?.trim();
    if let Ok(seconds) = text.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = httpdate::parse_http_date(text).ok()?;
    Some(at.duration_since(SystemTime::now()).unwrap_or_default())
}

fn tell(log: &Logger, request: &Request<'_>, answer: &Result<Reply, Failed>, pause: Duration) {
    let (what, why) = match answer {
        Ok(reply) => ("the cloud puts a call off", text::reason(reply.status)),
        Err(Failed::Unreached(why) | Failed::Broken(why)) => {
            ("a call has not reached the cloud", why.clone())
        }
        Err(Failed::Interrupted(_) | Failed::Source(_)) => ("a call was not made", String::new()),
    };
    let request = format!("{} {}", request.method, request.path());
    if pause > Duration::from_secs(5) {
        info!(log, "{what}, it is made again"; "call" => request, "reason" => why, "again in s" => pause.as_secs());
    } else {
        debug!(log, "{what}, it is made again"; "call" => request, "reason" => why, "again in ms" => pause.as_millis() as u64);
    }
}
