//! What every driver must do, as a suite that panics with a sentence on the first violation.
//!
//! A driver's own tests call [`check`] with opened providers; so may integration tests of other crates, which
//! is why the suite is part of the library. The suite needs a provider that nobody else changes meanwhile,
//! and a slow one, on which it can see a call end in the middle. As long as the contract holds, it leaves
//! nothing at either of them.

// A test suite speaks by panicking.
#![allow(clippy::panic)]

mod images;
mod machines;
mod nodes;

use std::fmt::Debug;
use std::path::Path;
use std::time::{Duration, Instant};

use nodepool_threads::{StopSource, StopToken};
use slog::Logger;

use super::{CallContext, Error, ErrorKind, Provider};

/// How soon a stopped call must return: far more than it needs, far less than a slow call takes.
const PROMPT: Duration = Duration::from_secs(10);

/// How long a slow call is left running before it is stopped. It need not be long: a stop that comes too
/// early finds the call before its first wait, and must end it all the same.
const HEAD_START: Duration = Duration::from_millis(100);

/// What the suite is run on.
#[derive(Clone, Copy)]
pub struct Subject<'a> {
    /// The provider under test.
    pub provider: &'a dyn Provider,
    /// A provider of the same driver whose launches, and whose uploads of a file of `slow_size` bytes, take
    /// much longer than ten seconds. Where the size alone makes an upload slow it is the provider under test.
    pub slow: &'a dyn Provider,
    /// The size in bytes of the (sparse) file that is uploaded to `slow`.
    pub slow_size: u64,
    /// A format of images that the provider takes.
    pub format: &'a str,
    /// A label that the provider can launch; of no meaning without the ability to run nodes.
    pub label: &'a str,
    /// An empty directory for the files that are uploaded; not a part of the provider, and the caller's to remove.
    pub scratch: &'a Path,
    /// Where the calls log.
    pub log: &'a Logger,
}

/// Checks every rule of the contract for the abilities that the provider has.
///
/// # Panics
/// When a rule is broken, with a message that names it.
pub fn check(subject: &Subject<'_>) {
    let (images, nodes) = (subject.provider.images(), subject.provider.nodes());
    let machines = subject.provider.machines();
    if images.is_none() && nodes.is_none() && machines.is_none() {
        violated("a provider has at least one ability");
    }
    if let Some(images) = images {
        images::check(subject, images);
    }
    if let Some(nodes) = nodes {
        nodes::check(subject, nodes);
    }
    if let Some(machines) = machines {
        machines::check(machines);
    }
}

impl Subject<'_> {
    fn call(&self, stop: StopToken) -> CallContext {
        CallContext { stop, log: self.log.clone() }
    }
}

fn violated(what: &str) -> ! {
    panic!("the driver breaks its contract: {what}")
}

/// Fails with `rule` unless `holds`.
fn require(holds: bool, rule: &str) {
    if !holds {
        violated(rule);
    }
}

/// The value of a call that must succeed.
fn succeeds<T>(rule: &str, result: Result<T, Error>) -> T {
    result.unwrap_or_else(|error| violated(&format!("{rule}; it failed ({:?}): {error}", error.kind())))
}

/// A call that must fail with one of `kinds`.
fn fails<T: Debug>(rule: &str, kinds: &[ErrorKind], result: Result<T, Error>) {
    match result {
        Err(error) if kinds.contains(&error.kind()) => {
            require(!error.to_string().is_empty(), "an error says what is wrong");
        }
        Err(error) => {
            violated(&format!("{rule} fails with one of {kinds:?}; it was {:?}: {error}", error.kind()))
        }
        Ok(value) => violated(&format!("{rule} fails with one of {kinds:?}; it succeeded with {value:?}")),
    }
}

/// Checks that a slow call ends when it is stopped in the middle, and when its deadline passes.
fn ends_promptly<T: Debug + Send>(
    subject: &Subject<'_>,
    what: &str,
    slow_call: impl Fn(&CallContext) -> Result<T, Error> + Sync,
) {
    let source = StopSource::new();
    let call = subject.call(source.token());
    let (result, took) = std::thread::scope(|scope| {
        let running = scope.spawn(|| slow_call(&call));
        let patience = StopSource::new();
        // Ends by itself: nobody stops it.
        let _ = patience.token().wait(HEAD_START);
        require(!running.is_finished(), &format!("{what} on the slow provider is slow"));
        let stopped_at = Instant::now();
        source.stop();
        let result = running.join().unwrap_or_else(|_| violated(&format!("{what} does not panic")));
        (result, stopped_at.elapsed())
    });
    fails(&format!("{what}, stopped in the middle,"), &[ErrorKind::Cancelled], result);
    require(took < PROMPT, &format!("{what}, stopped in the middle, returns promptly; it took {took:?}"));

    let source = StopSource::new();
    let call = subject.call(source.token().deadline_in(HEAD_START));
    let begun_at = Instant::now();
    fails(&format!("{what} past its deadline"), &[ErrorKind::Timeout], slow_call(&call));
    let took = begun_at.elapsed();
    require(took < PROMPT, &format!("{what} returns promptly at its deadline; it took {took:?}"));
}

/// Checks that a call with a context that has ended already does nothing.
fn does_not_begin<T: Debug>(
    subject: &Subject<'_>,
    what: &str,
    call: impl Fn(&CallContext) -> Result<T, Error>,
) {
    let source = StopSource::new();
    let late = subject.call(source.token().deadline_in(Duration::ZERO));
    fails(&format!("{what} with a deadline in the past"), &[ErrorKind::Timeout], call(&late));
    source.stop();
    let stopped = subject.call(source.token());
    fails(&format!("{what} after the stop"), &[ErrorKind::Cancelled], call(&stopped));
}

#[cfg(test)]
mod tests;
