//! Many questions at the same time: each costs a round trip, and a call makes one only.

use std::panic::resume_unwind;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use nodepool_threads::spawn;

use super::error::ZkResult;

/// How many round trips are on their way at the same time.
const READERS: usize = 16;

/// Does `work` for each of `items`, several at a time, and returns what came of it in their order, or the
/// first error.
pub(super) fn at_once<T, R>(
    items: Vec<T>,
    work: impl Fn(&T) -> ZkResult<R> + Send + Sync + 'static,
) -> ZkResult<Vec<R>>
where
    T: Send + Sync + 'static,
    R: Send + 'static,
{
    let next = AtomicUsize::new(0);
    let helpers = READERS.min(items.len()).saturating_sub(1);
    let share = Arc::new(move || {
        let mut done = Vec::new();
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let Some(item) = items.get(number) else { return done };
            let result = work(item);
            if result.is_err() {
                // Nobody asks for the rest, and without a connection each of it would take its time.
                next.store(items.len(), Ordering::Relaxed);
            }
            done.push((number, result));
        }
    });
    let started = (0..helpers).map_while(|number| {
        let share = Arc::clone(&share);
        // Without a helper the others, and at least this thread, do its work.
        spawn(format!("zk-reader-{number}"), "ZooKeeper reader", move || share()).ok()
    });
    let threads: Vec<_> = started.collect();
    let mut results = share();
    for thread in threads {
        results.extend(thread.join().unwrap_or_else(|panic| resume_unwind(panic)));
    }
    results.sort_by_key(|(number, _)| *number);
    results.into_iter().map(|(_, result)| result).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::zk::{ZkError, ZkErrorKind};

    #[test]
    fn results_come_in_the_order_of_the_items() {
        let items: Vec<u32> = (0..100).collect();
        let doubled = at_once(items.clone(), |item| Ok(2 * item)).unwrap();
        assert_eq!(doubled, items.iter().map(|item| 2 * item).collect::<Vec<_>>());
        assert_eq!(at_once(Vec::new(), |item: &u32| Ok(*item)).unwrap(), Vec::<u32>::new());
    }

    #[test]
    fn one_error_is_the_answer() {
        let error = ZkError::new(ZkErrorKind::Refused, "no");
        let expected = error.clone();
        let work = move |item: &u32| if *item == 7 { Err(error.clone()) } else { Ok(*item) };
        assert_eq!(at_once((0..20).collect(), work).unwrap_err(), expected);
    }
}
