//! Who holds and who waits for which lock, written down where it can be read without taking any lock.
//!
//! Each thread that takes a lock has a [`Slot`] with some [`Entry`]s, which nobody else writes to. A slot is
//! never freed, only used again by a later thread, so that reading one is safe at any time; and nobody waits
//! for anybody here, so that it can be read although a thread was stopped in the middle of writing. An entry
//! has a version, odd while it is written: what was read under one even version belongs together.

use std::cell::Cell;
use std::fmt;
use std::panic::Location;
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicPtr, AtomicU8, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// Which lock: its name, and a number because several may have the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct LockId {
    /// What it is for: `zk session state`.
    pub name: &'static str,
    /// The locks are numbered in the order of their first use.
    pub number: u64,
}

impl fmt::Display for LockId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\" #{}", self.name, self.number)
    }
}

/// What an entry says of its thread and a lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub(super) enum Kind {
    Holds = 1,
    Waits = 2,
    /// Waits, and gives up at some time.
    WaitsAWhile = 3,
}

/// Nothing: the entry is free.
const FREE: u8 = 0;

/// Room for this many locks at once comes with each slot; more is added by the thread that needs it.
const ENTRIES: usize = 4;

struct Entry {
    version: AtomicU64,
    kind: AtomicU8,
    name: AtomicPtr<u8>,
    name_length: AtomicUsize,
    number: AtomicU64,
    place: AtomicPtr<Location<'static>>,
    since: AtomicU64,
}

struct Entries {
    entries: [Entry; ENTRIES],
    more: OnceLock<Box<Entries>>,
}

struct Slot {
    /// The kernel's id of the thread that has it, or 0.
    thread: AtomicU32,
    entries: Entries,
    next: OnceLock<Box<Slot>>,
}

static FIRST: Slot = Slot::new();

thread_local! {
    /// Without a destructor, so that it can be used until the thread's very end.
    static OWN: Cell<Option<&'static Slot>> = const { Cell::new(None) };
    static LEAVING: Leaving = const { Leaving };
}

/// Gives the slot back at the end of the thread.
struct Leaving;

impl Drop for Leaving {
    fn drop(&mut self) {
        // A thread that ends with a lock is its holder for ever, and keeps the slot.
        if let Some(slot) = OWN.take().filter(|slot| slot.entries.iter().all(Entry::is_free)) {
            slot.thread.store(0, Ordering::Release);
        }
    }
}

/// The kernel's id of the current thread.
pub(crate) fn thread_id() -> u32 {
    rustix::thread::gettid().as_raw_nonzero().get().unsigned_abs()
}

/// To be called in a forked process: its thread has a new id.
pub(crate) fn after_fork() {
    if let Some(slot) = OWN.get() {
        slot.thread.store(thread_id(), Ordering::Relaxed);
    }
}

/// A clock that costs next to nothing, and goes in steps of some milliseconds.
#[inline]
fn now() -> u64 {
    let time = clock_gettime(ClockId::MonotonicCoarse);
    time.tv_sec.unsigned_abs() * 1_000_000_000 + time.tv_nsec.unsigned_abs()
}

impl Slot {
    const fn new() -> Self {
        Self { thread: AtomicU32::new(0), entries: Entries::new(), next: OnceLock::new() }
    }

    /// The current thread's slot. None in the last moments of a thread, when it has left its slot already.
    #[inline]
    fn own() -> Option<&'static Self> {
        OWN.get().or_else(Self::enter)
    }

    #[cold]
    fn enter() -> Option<&'static Self> {
        LEAVING.try_with(|_| ()).ok()?;
        let (id, mut slot) = (thread_id(), &FIRST);
        while slot.thread.compare_exchange(0, id, Ordering::Acquire, Ordering::Relaxed).is_err() {
            slot = slot.next.get_or_init(|| Box::new(Self::new()));
        }
        OWN.set(Some(slot));
        Some(slot)
    }
}

impl Entries {
    const fn new() -> Self {
        Self { entries: [const { Entry::new() }; ENTRIES], more: OnceLock::new() }
    }

    fn iter(&self) -> impl Iterator<Item = &Entry> {
        let all = std::iter::successors(Some(self), |entries| entries.more.get().map(|more| &**more));
        all.flat_map(|entries| &entries.entries)
    }

    /// An entry that the current thread, whose entries they must be, may use.
    #[inline]
    fn free(&'static self) -> &'static Entry {
        let mut entries = self;
        loop {
            if let Some(free) = entries.entries.iter().find(|entry| entry.is_free()) {
                return free;
            }
            entries = entries.more.get_or_init(|| Box::new(Self::new()));
        }
    }
}

impl Entry {
    const fn new() -> Self {
        Self {
            version: AtomicU64::new(0),
            kind: AtomicU8::new(FREE),
            name: AtomicPtr::new(ptr::null_mut()),
            name_length: AtomicUsize::new(0),
            number: AtomicU64::new(0),
            place: AtomicPtr::new(ptr::null_mut()),
            since: AtomicU64::new(0),
        }
    }

    #[inline]
    fn is_free(&self) -> bool {
        self.kind.load(Ordering::Relaxed) == FREE
    }

    /// Writes a new state; by the entry's thread only. Without `lock` it stays what it was.
    #[inline]
    fn write(&self, kind: Kind, lock: Option<LockId>, place: &'static Location<'static>) {
        let version = self.version.load(Ordering::Relaxed);
        self.version.store(version + 1, Ordering::Relaxed);
        // Whoever sees one of the changes also sees the odd version, or a later one.
        fence(Ordering::Release);
        if let Some(lock) = lock {
            self.name.store(lock.name.as_ptr().cast_mut(), Ordering::Relaxed);
            self.name_length.store(lock.name.len(), Ordering::Relaxed);
            self.number.store(lock.number, Ordering::Relaxed);
        }
        self.place.store(ptr::from_ref(place).cast_mut(), Ordering::Relaxed);
        self.since.store(now(), Ordering::Relaxed);
        self.kind.store(kind as u8, Ordering::Relaxed);
        self.version.store(version + 2, Ordering::Release);
    }

    #[inline]
    fn clear(&self) {
        self.kind.store(FREE, Ordering::Release);
    }

    /// What it says, unless it is free or just being written.
    #[expect(unsafe_code, reason = "what is written without a lock can only be put together again by hand")]
    fn read(&self) -> Option<Fact> {
        let version = self.version.load(Ordering::Acquire);
        let kind = match self.kind.load(Ordering::Relaxed) {
            kind if kind == Kind::Holds as u8 => Kind::Holds,
            kind if kind == Kind::Waits as u8 => Kind::Waits,
            kind if kind == Kind::WaitsAWhile as u8 => Kind::WaitsAWhile,
            _ => return None,
        };
        let name = self.name.load(Ordering::Relaxed);
        let length = self.name_length.load(Ordering::Relaxed);
        let number = self.number.load(Ordering::Relaxed);
        let place = self.place.load(Ordering::Relaxed);
        let since = self.since.load(Ordering::Relaxed);
        fence(Ordering::Acquire);
        if version % 2 == 1 || self.version.load(Ordering::Relaxed) != version {
            return None;
        }
        // SAFETY: the version was the same even number before and after the fields were read, so they come
        // from finished calls of `write` with nothing written in between. The first of them for this entry
        // had a lock, and a later one without left pointer and length of the name as they were: together
        // they are a `&'static str` taken apart.
        let name = unsafe { std::str::from_utf8_unchecked(std::slice::from_raw_parts(name, length)) };
        // SAFETY: as above; the place was a `&'static Location`.
        let place = unsafe { &*place };
        let age = Duration::from_nanos(now().saturating_sub(since));
        Some(Fact {
            entry: ptr::from_ref(self).addr(),
            version,
            kind,
            lock: LockId { name, number },
            place,
            age,
        })
    }
}

/// What an entry has said.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fact {
    entry: usize,
    version: u64,
    pub(super) kind: Kind,
    pub(super) lock: LockId,
    pub(super) place: &'static Location<'static>,
    pub(super) age: Duration,
}

impl Fact {
    /// Two readings with the same mark are of one state, which lasted from one to the other.
    pub(super) fn mark(&self) -> (usize, u64) {
        (self.entry, self.version)
    }
}

/// What all threads' entries say, each with its thread's id. Waits for nobody.
pub(super) fn read_all() -> impl Iterator<Item = (u32, Fact)> {
    let slots = std::iter::successors(Some(&FIRST), |slot| slot.next.get().map(|next| &**next));
    slots.flat_map(|slot| {
        let thread = slot.thread.load(Ordering::Acquire);
        slot.entries.iter().filter_map(move |entry| Some((thread, entry.read()?)))
    })
}

/// An entry of the current thread, free again when dropped. Must not leave the thread.
pub(super) struct Record(Option<&'static Entry>);

impl Record {
    #[inline]
    pub(super) fn new(kind: Kind, lock: LockId, place: &'static Location<'static>) -> Self {
        let entry = Slot::own().map(|slot| slot.entries.free());
        if let Some(entry) = entry {
            entry.write(kind, Some(lock), place);
        }
        Self(entry)
    }

    /// The same lock, but another state.
    pub(super) fn becomes(&self, kind: Kind, place: &'static Location<'static>) {
        if let Some(entry) = self.0 {
            entry.write(kind, None, place);
        }
    }

    /// Says nothing for now. Until it does again, the thread must not make another record.
    #[inline]
    pub(super) fn pause(&self) {
        if let Some(entry) = self.0 {
            entry.clear();
        }
    }
}

impl Drop for Record {
    #[inline]
    fn drop(&mut self) {
        self.pause();
    }
}
