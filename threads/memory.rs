//! The allocator's manners: memory that was used for a moment is the system's again. Where the C library is not glibc,
//! nothing happens.

/// Has the allocator give freed memory back to the system for as long as the process lives. To be called
/// before there are other threads.
///
/// That is what glibc does at first; but each large block that is freed makes it keep larger ones
/// (mallopt(3), `M_MMAP_THRESHOLD`), and a daemon that now and then needs a few megabytes for a moment ends
/// up holding many. And it gives almost every thread a heap of its own, which short-lived threads leave
/// behind.
pub fn give_memory_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::give_memory_back();
}

/// Gives free memory back that lies between what is in use. Takes less than a millisecond for each ten megabytes
/// of heap, so it is for what is done once in a while.
pub fn trim_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::trim_memory();
}

/// Gives the memory back that this thread has freed, as [`trim_memory`] does for all of it, but in small
/// steps: that one keeps all threads of a heap from allocating for as long as it takes, milliseconds where
/// there is much to free.
pub(crate) fn return_freed_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    glibc::return_freed_memory();
}

#[cfg(all(target_os = "linux", target_env = "gnu"))]
mod glibc {
    /// A block of at least this size is mapped by itself, and unmapped when it is freed.
    const OWN_MAPPING: i32 = 128 << 10;

    /// From so many heaps all threads allocate. Each keeps some free memory of its own.
    const HEAPS: i32 = 2;

    /// The sizes of the blocks: first as large as they can be without getting a mapping of their own, then those
    /// that fit between what is in use.
    const BLOCKS: [usize; 2] = [OWN_MAPPING as usize - (8 << 10), 32 << 10];

    /// So many bytes in a row that are not in memory are the end of what was used.
    const UNUSED: usize = 4 << 20;

    /// As much is looked at.
    const MOST: usize = 512 << 20;

    pub(super) fn give_memory_back() {
        for (parameter, value) in [
            (libc::M_MMAP_THRESHOLD, OWN_MAPPING),
            (libc::M_TRIM_THRESHOLD, OWN_MAPPING),
            (libc::M_ARENA_MAX, HEAPS),
        ] {
            // SAFETY: mallopt(3) takes two numbers, and no other thread allocates meanwhile. One that it does not
            // like changes nothing.
            #[expect(unsafe_code, reason = "the C library has no safe interface to its allocator")]
            unsafe {
                libc::mallopt(parameter, value);
            }
        }
    }

    pub(super) fn trim_memory() {
        // SAFETY: malloc_trim(3) takes a number and may be called by any thread at any time.
        #[expect(unsafe_code, reason = "the C library has no safe interface to its allocator")]
        unsafe {
            libc::malloc_trim(0);
        }
    }

    /// A block that was just allocated is nobody else's, so its pages can be let go without any lock. Blocks are
    /// taken until the allocator has none left that was ever used. No step takes longer than 0.1 ms but the last,
    /// which for 25 MB in small pieces takes up to 1 ms, a third of what it takes alone. What stack dumps take is
    /// less: the sections of the debug information, 30 MB of a release, are large pieces, which are gone when freed.
    pub(super) fn return_freed_memory() {
        for size in BLOCKS {
            let mut blocks = Vec::with_capacity(MOST / size);
            let mut unused = 0;
            while unused < UNUSED && blocks.len() < MOST / size {
                let mut block = Vec::<u8>::new();
                if block.try_reserve_exact(size).is_err() {
                    break;
                }
                unused = if let_go(&mut block) { 0 } else { unused + size };
                blocks.push(block);
            }
            // What was taken last lies next to what has never been used, and goes with it.
            while blocks.pop().is_some() {}
        }
        // Finds little that is left.
        trim_memory();
    }

    /// Lets the pages go that lie within an empty vector's memory. Whether any of them was in use.
    fn let_go(block: &mut Vec<u8>) -> bool {
        let spare = block.spare_capacity_mut();
        let page = rustix::param::page_size();
        let skipped = spare.as_ptr().align_offset(page);
        let Some(pages) = spare.get_mut(skipped..) else { return false };
        let length = pages.len() / page * page;
        let mut in_memory = [0; BLOCKS[0] / 4096];
        let start = pages.as_mut_ptr().cast();
        // SAFETY: `length` bytes from `start` on, whole pages, are memory that is not initialised and belongs to
        // `block` alone, so it does not matter that it reads as zeroes afterwards. A page has 4096 bytes at
        // least, so `in_memory` has room for an entry of each.
        #[expect(unsafe_code, reason = "there is no safe interface to either")]
        unsafe {
            libc::mincore(start, length, in_memory.as_mut_ptr()) == 0
                && in_memory.iter().any(|page| page & 1 != 0)
                && libc::madvise(start, length, libc::MADV_DONTNEED) == 0
        }
    }

    #[cfg(test)]
    mod tests {
        use super::*;

        #[test]
        fn the_pages_of_a_block_are_let_go_once_and_can_be_used_again() {
            for size in BLOCKS {
                let mut block = vec![1_u8; size];
                block.clear();
                assert!(let_go(&mut block), "{size}");
                assert!(!let_go(&mut block), "{size}: nothing is left");
                block.resize(size, 2);
                assert!(block.iter().all(|byte| *byte == 2), "{size}");
            }
            assert!(!let_go(&mut Vec::new()));
        }
    }
}
