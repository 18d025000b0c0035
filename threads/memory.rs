//! The allocator's manners.

/// A block of at least this size is mapped by itself, and unmapped when it is freed.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const OWN_MAPPING: i32 = 128 << 10;

/// From so many heaps all threads allocate. Each keeps some free memory of its own.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
const HEAPS: i32 = 2;

/// Has the allocator give freed memory back to the system for as long as the process lives. To be called
/// before there are other threads.
///
/// That is what glibc does at first; but each large block that is freed makes it keep larger ones
/// (mallopt(3), `M_MMAP_THRESHOLD`), and a daemon that now and then needs a few megabytes for a moment ends
/// up holding many. And it gives almost every thread a heap of its own, which short-lived threads leave
/// behind. Where the C library is another one, nothing happens.
pub fn give_memory_back() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
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

/// Gives free memory back that lies between what is in use. Takes less than a millisecond for each ten megabytes
/// of heap, so it is for what is done once in a while.
pub fn trim_memory() {
    #[cfg(all(target_os = "linux", target_env = "gnu"))]
    // SAFETY: malloc_trim(3) takes a number and may be called by any thread at any time.
    #[expect(unsafe_code, reason = "the C library has no safe interface to its allocator")]
    unsafe {
        libc::malloc_trim(0);
    }
}
