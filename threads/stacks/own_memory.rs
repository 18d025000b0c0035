//! The process's own memory, read through the kernel.
//!
//! Whoever looks at another thread's stack cannot know that an address is still mapped, or ever was. Through
//! `/proc/self/mem` a wrong address is an error instead of the end of the process.

use std::cell::RefCell;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::FileExt as _;

/// As much is read at once of a stack; most stacks need no second read.
const WINDOW: usize = 8 << 10;

/// The memory of this process, and of this process only: a child that was forked must open it anew.
#[derive(Debug)]
pub(super) struct OwnMemory(File);

impl OwnMemory {
    pub(super) fn open() -> io::Result<Self> {
        File::open("/proc/self/mem").map(Self)
    }

    /// Reads as much as is mapped from `at` on, at most what fits.
    fn read_some(&self, at: u64, buffer: &mut [u8]) -> usize {
        self.0.read_at(buffer, at).unwrap_or(0)
    }

    /// Exactly `length` bytes, if all of them are mapped.
    pub(super) fn bytes(&self, at: u64, length: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; length];
        self.0.read_exact_at(&mut bytes, at).ok()?;
        Some(bytes)
    }

    pub(super) fn word(&self, at: u64) -> Option<u64> {
        let mut word = [0; 8];
        self.0.read_exact_at(&mut word, at).ok()?;
        Some(u64::from_ne_bytes(word))
    }
}

impl AsFd for OwnMemory {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// A stack: what the unwinder reads words from.
pub(super) trait Words {
    fn word(&self, at: u64) -> Option<u64>;
}

/// The stack of a thread that does not run, read as far as it is looked at.
pub(super) struct Live<'a> {
    memory: &'a OwnMemory,
    window: RefCell<(u64, Vec<u8>)>,
}

impl<'a> Live<'a> {
    pub(super) fn new(memory: &'a OwnMemory) -> Self {
        Self { memory, window: RefCell::new((0, Vec::new())) }
    }
}

impl Words for Live<'_> {
    fn word(&self, at: u64) -> Option<u64> {
        let (start, bytes) = &mut *self.window.borrow_mut();
        if let Some(word) = word_in(*start, bytes, at) {
            return Some(word);
        }
        bytes.resize(WINDOW, 0);
        let length = self.memory.read_some(at, bytes);
        bytes.truncate(length);
        *start = at;
        word_in(*start, bytes, at)
    }
}

/// A stack that was copied from the address `start` on.
pub(super) struct Copied<'a> {
    pub(super) start: u64,
    pub(super) bytes: &'a [u8],
}

impl Words for Copied<'_> {
    fn word(&self, at: u64) -> Option<u64> {
        word_in(self.start, self.bytes, at)
    }
}

fn word_in(start: u64, bytes: &[u8], at: u64) -> Option<u64> {
    let offset = usize::try_from(at.checked_sub(start)?).ok()?;
    let word = bytes.get(offset..offset.checked_add(8)?)?;
    Some(u64::from_ne_bytes(word.try_into().ok()?))
}
