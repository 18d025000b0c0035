//! The allocator's caches: each thread of a program with glibc keeps pieces that it has freed for itself. Where the C
//! library is another one, its settings mean nothing.

use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};

use crate::privileges::change_environment;

/// What settings of the C library a program gets from whoever starts it.
const TUNABLES: &str = "GLIBC_TUNABLES";
/// How many freed pieces of a size each thread keeps.
const CACHES: &[u8] = b"glibc.malloc.tcache_count";
/// What our settings begin with. An operator's own do not begin with a colon, so they are not taken for ours.
const NO_CACHES: &[u8] = b":glibc.malloc.tcache_count=0";

/// Has the allocator keep no freed pieces for each thread, by starting the program again: glibc takes that setting
/// from the environment only. Children get the environment as it was. To be called before everything else.
///
/// What a thread keeps are hundreds of small pieces, wherever they were last in use. Each keeps its page from being
/// given back, and the free memory around it from becoming one piece: after a burst that ran on a dozen threads, that
/// was several times what was in use. Nothing happens where an operator has set how many there are, or where the
/// program cannot be started again.
pub fn keep_no_thread_caches() {
    if !cfg!(target_env = "gnu") {
        return;
    }
    let found = std::env::var_os(TUNABLES).unwrap_or_default();
    let before = match next_step(&found) {
        Step::Leave => return,
        Step::Begin(_) if settings_are_ignored() => return,
        Step::Begin(tunables) => {
            if change_environment(|_| false, &[(TUNABLES, tunables)]).is_ok() {
                start_again();
            }
            found
        }
        Step::Begun(before) => before,
    };
    let before = (!before.is_empty()).then_some((TUNABLES, before));
    // If it fails, the threads of children keep no pieces either.
    let _ = change_environment(|name| name == TUNABLES, before.as_slice());
}

/// Starts the program as it was started, so that others know it by the same names. Returns only if that fails.
fn start_again() {
    let arguments = std::env::args_os().map(|argument| CString::new(argument.into_vec()));
    let Ok(arguments) = arguments.collect::<Result<Vec<_>, _>>() else { return };
    let mut pointers: Vec<_> = arguments.iter().map(|argument| argument.as_ptr()).collect();
    pointers.push(std::ptr::null());
    // SAFETY: execv(3) gets strings that end with a zero, and of them a list that ends with a null pointer. The standard
    // library's way leaves signals changed when it fails.
    #[expect(unsafe_code, reason = "the process goes on if it fails")]
    unsafe {
        libc::execv(rustix::param::linux_execfn().as_ptr(), pointers.as_ptr());
    }
}

/// What the settings that a program has found say of its start.
#[derive(Debug, PartialEq, Eq)]
enum Step {
    /// It is to be started again with these.
    Begin(OsString),
    /// That was done, and these are whose it was started with at first.
    Begun(OsString),
    /// Somebody else has decided.
    Leave,
}

fn next_step(tunables: &OsStr) -> Step {
    let found = tunables.as_bytes();
    match found.strip_prefix(NO_CACHES) {
        Some([]) => return Step::Begun(OsString::new()),
        Some([b':', before @ ..]) => return Step::Begun(OsString::from_vec(before.to_vec())),
        _ => {}
    }
    if found.windows(CACHES.len()).any(|part| part == CACHES) {
        return Step::Leave;
    }
    // Ours comes first: a linker that cuts the settings off at a colon would have the program started without end.
    // A colon at the end makes newer ones ignore all of it.
    let separator: &[u8] = if found.is_empty() { b"" } else { b":" };
    Step::Begin(OsString::from_vec([NO_CACHES, separator, found].concat()))
}

/// Whether the program has more rights than its starter: then the linker removes settings from the environment, and it
/// would be started again without end.
fn settings_are_ignored() -> bool {
    // SAFETY: getauxval(3) takes a number and reads what the kernel has told the process at its start.
    #[expect(unsafe_code, reason = "what the kernel has told has no safe interface")]
    unsafe {
        libc::getauxval(libc::AT_SECURE) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_started_again_once_and_its_children_get_what_it_got() {
        for before in ["", "glibc.malloc.check=3", ":glibc.malloc.check=3:"] {
            let Step::Begin(tunables) = next_step(before.as_ref()) else { panic!("{before}") };
            assert_eq!(next_step(&tunables), Step::Begun(before.into()));
        }
        for own in ["glibc.malloc.tcache_count=0", "glibc.malloc.check=3:glibc.malloc.tcache_count=7"] {
            assert_eq!(next_step(own.as_ref()), Step::Leave, "{own}");
        }
    }
}
