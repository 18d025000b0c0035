//! Something of a cloud that many threads want to know: one of them asks, and the others wait for its answer.
//!
//! Whoever asks says how new the answer must be. An answer counts as of when it was asked for: what happened after
//! that may or may not be in it.

use std::sync::Arc;
use std::time::{Duration, Instant};

use nodepool_threads::{Condvar, Mutex};

use crate::api::{CallContext, Error};

/// How long an answer counts that seldom changes.
pub(super) const SELDOM: Duration = Duration::from_secs(300);
/// The longest pause after an answer that took long.
const LONGEST_PAUSE: Duration = Duration::from_secs(5);
/// How often who waits for another thread looks whether it may still wait.
const LOOK: Duration = Duration::from_millis(100);

/// An answer that is shared.
#[derive(Debug)]
pub(super) struct Shared<T> {
    /// How long after one question the next one is asked at the soonest. If answering takes longer, the next one waits
    /// for as long as it took: who answers is busy with us half of the time at most.
    apart: Duration,
    state: Mutex<State<T>>,
    changed: Condvar,
}

#[derive(Debug)]
struct State<T> {
    last: Option<Arc<Told<T>>>,
    /// When the next question may be asked.
    next: Option<Instant>,
    asking: bool,
}

/// An answer.
#[derive(Debug)]
pub(super) struct Told<T> {
    /// When it was asked for.
    pub(super) asked: Instant,
    pub(super) value: T,
}

impl<T> Told<T> {
    /// What a newer answer is asked for after at the soonest.
    pub(super) fn next(&self) -> Instant {
        self.asked + Duration::from_nanos(1)
    }
}

impl<T> Shared<T> {
    pub(super) fn new(name: &'static str, apart: Duration) -> Self {
        let state = State { last: None, next: None, asking: false };
        Self { apart, state: Mutex::new(name, state), changed: Condvar::new() }
    }

    /// An answer that was asked for at `since` or later.
    pub(super) fn since(
        &self,
        call: &CallContext,
        since: Instant,
        ask: impl FnOnce(&CallContext) -> Result<T, Error>,
    ) -> Result<Arc<Told<T>>, Error> {
        self.get(call, |asked| asked >= since, ask)
    }

    /// An answer that is not older than `age`.
    pub(super) fn within(
        &self,
        call: &CallContext,
        age: Duration,
        ask: impl FnOnce(&CallContext) -> Result<T, Error>,
    ) -> Result<Arc<Told<T>>, Error> {
        self.get(call, |asked| asked.elapsed() <= age, ask)
    }

    /// The last answer, however old.
    pub(super) fn last(&self) -> Option<Arc<Told<T>>> {
        self.state.lock().last.clone()
    }

    /// Has the next one who wants to know ask again.
    pub(super) fn forget(&self) {
        self.state.lock().last = None;
    }

    fn get(
        &self,
        call: &CallContext,
        is_new_enough: impl Fn(Instant) -> bool,
        ask: impl FnOnce(&CallContext) -> Result<T, Error>,
    ) -> Result<Arc<Told<T>>, Error> {
        let mut state = self.state.lock();
        let asked = loop {
            call.stop.check()?;
            if let Some(told) = state.last.as_ref().filter(|told| is_new_enough(told.asked)) {
                return Ok(Arc::clone(told));
            }
            let now = Instant::now();
            let next = state.next.unwrap_or(now);
            if !state.asking && next <= now {
                state.asking = true;
                break now;
            }
            let until = if state.asking { now + LOOK } else { next.min(now + LOOK) };
            self.changed.wait_until(&mut state, until);
        };
        drop(state);
        let asking = Asking { shared: self, asked };
        // Whoever waits does not fail with us: the next one asks for itself.
        let told = Arc::new(Told { asked, value: ask(call)? });
        self.state.lock().last = Some(Arc::clone(&told));
        drop(asking);
        Ok(told)
    }
}

/// Held by the thread that asks; lets the next one try when it has failed.
struct Asking<'a, T> {
    shared: &'a Shared<T>,
    asked: Instant,
}

impl<T> Drop for Asking<'_, T> {
    fn drop(&mut self) {
        let took = self.asked.elapsed().min(LONGEST_PAUSE);
        let apart = self.shared.apart;
        {
            let mut state = self.shared.state.lock();
            state.asking = false;
            state.next = (!apart.is_zero()).then(|| (self.asked + apart).max(Instant::now() + took));
        }
        self.shared.changed.notify_all();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use nodepool_threads::StopSource;

    use super::*;
    use crate::api::ErrorKind;
    use crate::testing;

    #[test]
    fn many_threads_share_one_question() {
        let shared = Shared::new("test", Duration::from_millis(20));
        let asked = AtomicUsize::new(0);
        let (_source, call) = testing::unstopped();
        let since = Instant::now();
        let ask = |_: &CallContext| Ok(asked.fetch_add(1, Ordering::SeqCst));
        std::thread::scope(|scope| {
            for _ in 0..20 {
                scope.spawn(|| assert_eq!(shared.since(&call, since, ask).unwrap().value, 0));
            }
        });
        let told = shared.within(&call, Duration::from_secs(60), ask).unwrap();
        assert_eq!(told.value, 0);
        let newer = shared.since(&call, told.next(), ask).unwrap();
        assert_eq!(newer.value, 1);
        assert!(newer.asked - told.asked >= Duration::from_millis(20));
        shared.forget();
        assert_eq!(shared.within(&call, Duration::from_secs(60), ask).unwrap().value, 2);
    }

    #[test]
    fn who_fails_or_is_stopped_takes_nobody_along() {
        let shared = Shared::new("test", Duration::ZERO);
        let source = StopSource::new();
        let stopped = testing::call(&source.token());
        let (_source, patient) = testing::unstopped();
        let begun = StopSource::new();
        std::thread::scope(|scope| {
            let first = scope.spawn(|| {
                shared.within(&stopped, Duration::MAX, |call| {
                    begun.stop();
                    call.stop.wait(Duration::from_secs(600))?;
                    Ok(1)
                })
            });
            let _ = begun.token().wait(Duration::from_secs(60));
            let second = scope.spawn(|| shared.within(&patient, Duration::MAX, |_| Ok(2)));
            let late = testing::call(&patient.stop.deadline_in(Duration::from_millis(50)));
            let third = shared.within(&late, Duration::MAX, |_| Ok(3)).unwrap_err();
            assert_eq!(third.kind(), ErrorKind::Timeout);
            source.stop();
            assert_eq!(first.join().unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
            assert_eq!(second.join().unwrap().unwrap().value, 2);
        });
    }

    /// Each list of 150 servers takes Nova seconds: one after the other they kept it from all else.
    #[test]
    fn what_takes_long_is_asked_for_less_often() {
        let (apart, took) = (Duration::from_millis(1), Duration::from_millis(60));
        let shared = Shared::new("test", apart);
        let (_source, call) = testing::unstopped();
        let slow = |call: &CallContext| Ok(call.stop.wait(took)?);
        let told = shared.within(&call, Duration::MAX, slow).unwrap();
        let newer = shared.since(&call, told.next(), |_| Ok(())).unwrap();
        assert!(newer.asked - told.asked >= 2 * took);
    }
}
