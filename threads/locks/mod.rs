//! Locks with a name, which can say who holds them, since when and taken where, and who waits for them.
//!
//! They are parking_lot's, with a record ([`record`]) of each thread's locks beside them that costs a few
//! nanoseconds. The record says less rather than more than is true: a lock is held before the record says so,
//! and until after it has stopped to say so. [`locks`] reads the records, [`deadlocks`] looks for cycles.
//!
//! All locks of the program are of this kind, but those of the thread registry, which this module asks for
//! the threads' names, and the gate in [`Condvar`].
#![allow(clippy::disallowed_types, reason = "parking_lot's are what these are made of")]

mod record;
mod report;
#[cfg(test)]
mod tests;

use std::fmt;
use std::ops::{Deref, DerefMut};
use std::panic::Location;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

pub use record::LockId;
use record::{Kind, Record};
pub(crate) use record::{after_fork, thread_id};
pub use report::{Cycle, Link, LockInfo, LockUser, deadlocks, locks};

/// A lock around a value, with a name.
pub struct Mutex<T> {
    name: &'static str,
    /// Given at the first use, so that a lock can be a static.
    number: AtomicU64,
    inner: parking_lot::Mutex<T>,
}

/// A lock that is held. Released when dropped.
#[must_use = "the lock is released when this is dropped"]
pub struct MutexGuard<'a, T> {
    // Dropped in this order: the record is gone before another thread can be the holder.
    record: Record,
    inner: parking_lot::MutexGuard<'a, T>,
}

impl<T> Mutex<T> {
    /// A lock that is free. The name says what it protects; several locks may have the same one.
    pub const fn new(name: &'static str, value: T) -> Self {
        Self { name, number: AtomicU64::new(0), inner: parking_lot::Mutex::new(value) }
    }

    /// Takes the lock, waiting for it as long as it takes.
    #[track_caller]
    #[inline]
    pub fn lock(&self) -> MutexGuard<'_, T> {
        let place = Location::caller();
        match self.inner.try_lock() {
            Some(inner) => MutexGuard { record: Record::new(Kind::Holds, self.id(), place), inner },
            None => self.wait(place),
        }
    }

    #[cold]
    fn wait(&self, place: &'static Location<'static>) -> MutexGuard<'_, T> {
        let record = Record::new(Kind::Waits, self.id(), place);
        let inner = self.inner.lock();
        record.becomes(Kind::Holds, place);
        MutexGuard { record, inner }
    }

    /// Takes the lock if it can be had within `limit`.
    #[track_caller]
    pub fn try_lock_for(&self, limit: Duration) -> Option<MutexGuard<'_, T>> {
        let place = Location::caller();
        let record = Record::new(Kind::WaitsAWhile, self.id(), place);
        let inner = self.inner.try_lock_for(limit)?;
        record.becomes(Kind::Holds, place);
        Some(MutexGuard { record, inner })
    }

    #[inline]
    fn id(&self) -> LockId {
        let number = self.number.load(Ordering::Relaxed);
        LockId { name: self.name, number: if number == 0 { self.first_use() } else { number } }
    }

    #[cold]
    fn first_use(&self) -> u64 {
        static LAST: AtomicU64 = AtomicU64::new(0);
        let new = LAST.fetch_add(1, Ordering::Relaxed) + 1;
        let before = self.number.compare_exchange(0, new, Ordering::Relaxed, Ordering::Relaxed);
        before.map_or_else(|given_by_another| given_by_another, |_| new)
    }
}

impl<T: fmt::Debug> fmt::Debug for Mutex<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Mutex").field(&self.name).field(&self.inner).finish()
    }
}

impl<T> Deref for MutexGuard<'_, T> {
    type Target = T;

    #[inline]
    fn deref(&self) -> &T {
        &self.inner
    }
}

impl<T> DerefMut for MutexGuard<'_, T> {
    #[inline]
    fn deref_mut(&mut self) -> &mut T {
        &mut self.inner
    }
}

/// Lets threads wait for a change of what a [`Mutex`] protects. A thread that waits here does not hold the
/// lock; once it is woken it waits for it like any other.
///
/// parking_lot's own would take the lock again out of our sight. So it waits under a gate, which is held for
/// a moment only: from before the lock is released until the wait has begun, and to wake.
#[derive(Debug)]
pub struct Condvar {
    gate: parking_lot::Mutex<()>,
    inner: parking_lot::Condvar,
}

impl Default for Condvar {
    fn default() -> Self {
        Self::new()
    }
}

impl Condvar {
    /// One that nobody waits for.
    pub const fn new() -> Self {
        Self { gate: parking_lot::Mutex::new(()), inner: parking_lot::Condvar::new() }
    }

    /// Releases the lock, waits to be woken, and takes it again.
    #[track_caller]
    pub fn wait<T>(&self, guard: &mut MutexGuard<'_, T>) {
        self.wait_with(guard, Location::caller(), |inner, gate| inner.wait(gate));
    }

    /// The same, but only until `deadline`. Whether that has passed is returned.
    #[track_caller]
    pub fn wait_until<T>(&self, guard: &mut MutexGuard<'_, T>, deadline: Instant) -> bool {
        self.wait_with(guard, Location::caller(), |inner, gate| inner.wait_until(gate, deadline).timed_out())
    }

    fn wait_with<T, R>(
        &self,
        guard: &mut MutexGuard<'_, T>,
        place: &'static Location<'static>,
        wait: impl FnOnce(&parking_lot::Condvar, &mut parking_lot::MutexGuard<'_, ()>) -> R,
    ) -> R {
        let MutexGuard { record, inner } = guard;
        let mut gate = self.gate.lock();
        record.pause();
        let waited = parking_lot::MutexGuard::unlocked(inner, || {
            let waited = wait(&self.inner, &mut gate);
            drop(gate);
            record.becomes(Kind::Waits, place);
            waited
        });
        record.becomes(Kind::Holds, place);
        waited
    }

    /// Wakes all threads that wait.
    pub fn notify_all(&self) {
        let _gate = self.gate.lock();
        self.inner.notify_all();
    }
}
