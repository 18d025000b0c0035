//! The errands that are to be done: each once at a time, and none in a hot loop. What is still necessary right after it
//! was done could not be done, or the copy of the tree does not show it yet.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use nodepool_threads::Pauses;

use super::errands::What;

/// The pauses after a repeated errand before it may be ordered again.
const PAUSES: Pauses = Pauses { first: Duration::from_millis(100), longest: Duration::from_secs(60) };
/// How long after its pause an errand that was not ordered again is forgotten.
const SETTLED: Duration = Duration::from_secs(10);

/// Errands that wait, are being done, or may not be done again yet.
#[derive(Default)]
pub(super) struct ErrandQueue {
    waiting: VecDeque<What>,
    busy: BTreeSet<What>,
    done: BTreeMap<What, Done>,
}

struct Done {
    /// How often in a row.
    times: u32,
    /// Not again before.
    until: Instant,
}

impl ErrandQueue {
    /// Has an errand done, unless that is going on or was done a moment ago.
    pub(super) fn order(&mut self, what: What, now: Instant) {
        let pauses = self.done.get(&what).is_some_and(|done| done.until > now);
        if !pauses && self.busy.insert(what.clone()) {
            self.waiting.push_back(what);
        }
    }

    /// Has an errand done that may be done several times at once.
    pub(super) fn order_another(&mut self, what: What) {
        self.waiting.push_back(what);
    }

    /// The next one that waits.
    pub(super) fn next(&mut self) -> Option<What> {
        self.waiting.pop_front()
    }

    /// One that nobody has had time for is the next one again.
    pub(super) fn put_back(&mut self, what: What) {
        self.waiting.push_front(what);
    }

    /// An errand that was ordered by [`ErrandQueue::order`] has been done.
    pub(super) fn done(&mut self, what: &What, now: Instant) {
        self.done.retain(|_, done| done.until + SETTLED > now);
        if !self.busy.remove(what) || !what.is_repeated() {
            return;
        }
        let done = self.done.entry(what.clone()).or_insert(Done { times: 0, until: now });
        done.until = now + PAUSES.after(done.times);
        done.times += 1;
    }

    /// When something may be done again that may not now.
    pub(super) fn next_pause(&self, now: Instant) -> Option<Instant> {
        self.done.values().map(|done| done.until).filter(|until| *until > now).min()
    }
}

#[cfg(test)]
mod tests {
    use std::slice;

    use super::*;

    fn all(queue: &mut ErrandQueue) -> Vec<What> {
        std::iter::from_fn(|| queue.next()).collect()
    }

    #[test]
    fn an_errand_is_done_once_at_a_time_and_later_again() {
        let (mut queue, now) = (ErrandQueue::default(), Instant::now());
        let Pauses { first, longest } = PAUSES;
        let what = What::Deallocate("1".to_owned());
        queue.order(what.clone(), now);
        queue.order(what.clone(), now);
        assert_eq!(all(&mut queue), slice::from_ref(&what));
        queue.order(what.clone(), now);
        assert_eq!(all(&mut queue), [], "it is being done");
        queue.done(&what, now);
        assert_eq!(queue.next_pause(now), Some(now + first));
        queue.order(what.clone(), now);
        assert_eq!(all(&mut queue), [], "it was just done");
        let mut now = now + first;
        for _ in 0..30 {
            assert_eq!(queue.next_pause(now), None);
            queue.order(what.clone(), now);
            assert_eq!(all(&mut queue), slice::from_ref(&what));
            queue.done(&what, now);
            now = queue.next_pause(now).unwrap();
        }
        queue.order(what.clone(), now);
        assert_eq!(all(&mut queue), slice::from_ref(&what));
        queue.done(&what, now);
        assert_eq!(queue.next_pause(now), Some(now + longest));
    }

    #[test]
    fn what_has_not_been_ordered_for_a_while_has_no_long_pause() {
        let (mut queue, mut now) = (ErrandQueue::default(), Instant::now());
        let first = PAUSES.first;
        let (what, other) = (What::Collect("1".to_owned()), What::Collect("2".to_owned()));
        for _ in 0..5 {
            queue.order(what.clone(), now);
            queue.done(&what, now);
            now = queue.next_pause(now).unwrap();
        }
        now += SETTLED;
        queue.order(other.clone(), now);
        queue.done(&other, now);
        queue.order(what.clone(), now);
        queue.done(&what, now);
        assert_eq!(queue.next_pause(now), Some(now + first));
    }

    #[test]
    fn what_an_event_has_ordered_is_done_at_once_each_time() {
        let (mut queue, now) = (ErrandQueue::default(), Instant::now());
        let what = What::RemoveEmpty("1".to_owned());
        for _ in 0..2 {
            queue.order(what.clone(), now);
            assert_eq!(all(&mut queue), slice::from_ref(&what));
            queue.done(&what, now);
        }
        assert_eq!(queue.next_pause(now), None);
    }

    #[test]
    fn several_of_a_kind_are_done_at_once() {
        let (mut queue, now) = (ErrandQueue::default(), Instant::now());
        let what = What::Ask("a".to_owned());
        queue.order_another(what.clone());
        queue.order_another(what.clone());
        assert_eq!(all(&mut queue), [what.clone(), what.clone()]);
        queue.put_back(what.clone());
        queue.done(&what, now);
        assert_eq!(queue.next_pause(now), None);
        assert_eq!(all(&mut queue), [what]);
    }
}
