//! What a daemon must not keep of whoever started it: root's rights, the environment, signals that were ignored or
//! blocked, open files.
//!
//! Everything here is for the very start of a program, while it has one thread; what would be unsound later is refused
//! then. Which user and which variables is the caller's decision.

use std::ffi::{CStr, CString, OsStr, OsString};
use std::fs;
use std::io;
use std::os::unix::ffi::{OsStrExt as _, OsStringExt as _};
use std::path::PathBuf;
use std::ptr;

use rustix::process::{DumpableBehavior, Resource, getegid, geteuid, getrlimit, setrlimit};

use crate::signals;

/// Entries of the user and group databases are a few hundred bytes; a group with thousands of members is longer.
const LARGEST_ENTRY: usize = 1 << 20;

/// The number after those of the standard streams.
const FIRST_INHERITED: libc::c_int = 3;

/// A user as the system's user database knows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// The login name.
    pub name: OsString,
    /// The user's number.
    pub uid: u32,
    /// The number of the group to run in: the user's own, unless another one was chosen.
    pub gid: u32,
    /// The home directory.
    pub home: PathBuf,
    /// The login shell.
    pub shell: PathBuf,
}

impl Account {
    /// The user of that name, if there is one.
    pub fn named(name: &str) -> io::Result<Option<Self>> {
        let Ok(name) = CString::new(name) else { return Ok(None) };
        // SAFETY: getpwnam_r(3) gets a string that ends with a zero, and pointers to what outlives the call.
        #[expect(unsafe_code, reason = "the user database is read by the C library")]
        find(|entry, buffer, size, found| unsafe {
            libc::getpwnam_r(name.as_ptr(), entry, buffer, size, found)
        })
    }

    /// The user that this process is, if the database knows it.
    pub fn of_process() -> io::Result<Option<Self>> {
        let uid = geteuid().as_raw();
        // SAFETY: getpwuid_r(3) gets pointers to what outlives the call.
        #[expect(unsafe_code, reason = "the user database is read by the C library")]
        find(|entry, buffer, size, found| unsafe { libc::getpwuid_r(uid, entry, buffer, size, found) })
    }

    /// Makes the process this user for good, with the user's groups, and makes sure that there is no way back. The
    /// process may go on to look at itself below `/proc`, which belongs to root otherwise.
    pub fn assume(&self) -> io::Result<()> {
        let name = CString::new(self.name.as_bytes())?;
        // SAFETY: initgroups(3) gets a string that ends with a zero; the others take numbers only. The order is that
        // of the rights that each one needs.
        #[expect(unsafe_code, reason = "credentials of a whole process have no safe interface")]
        let done = unsafe {
            libc::initgroups(name.as_ptr(), self.gid) == 0
                && libc::setresgid(self.gid, self.gid, self.gid) == 0
                && libc::setresuid(self.uid, self.uid, self.uid) == 0
        };
        if !done {
            return Err(io::Error::last_os_error());
        }
        if self.uid != 0 {
            // SAFETY: both take numbers only.
            #[expect(unsafe_code, reason = "credentials of a whole process have no safe interface")]
            let way_back = unsafe {
                libc::setresuid(libc::uid_t::MAX, 0, libc::uid_t::MAX) == 0
                    || (self.gid != 0 && libc::setresgid(libc::gid_t::MAX, 0, libc::gid_t::MAX) == 0)
            };
            if way_back || geteuid().as_raw() != self.uid || getegid().as_raw() != self.gid {
                return Err(io::Error::other("root's rights could be had again"));
            }
        }
        rustix::process::set_dumpable_behavior(DumpableBehavior::Dumpable)?;
        Ok(())
    }
}

/// The number of the group of that name, if there is one.
pub fn group_named(name: &str) -> io::Result<Option<u32>> {
    let Ok(name) = CString::new(name) else { return Ok(None) };
    look_up(
        // SAFETY: getgrnam_r(3) gets a string that ends with a zero, and pointers to what outlives the call.
        #[expect(unsafe_code, reason = "the group database is read by the C library")]
        |entry, buffer, size, found| unsafe { libc::getgrnam_r(name.as_ptr(), entry, buffer, size, found) },
        |group: &libc::group| group.gr_gid,
    )
}

fn find(
    call: impl FnMut(*mut libc::passwd, *mut libc::c_char, usize, *mut *mut libc::passwd) -> i32,
) -> io::Result<Option<Account>> {
    look_up(call, |entry: &libc::passwd| {
        let text = |pointer: *mut libc::c_char| {
            // SAFETY: the texts of an entry that was found end with a zero and live as long as its buffer, which
            // `look_up` keeps until this has returned.
            #[expect(unsafe_code, reason = "the C library's entry is made of pointers")]
            let text = unsafe { CStr::from_ptr(pointer) };
            OsString::from_vec(text.to_bytes().to_vec())
        };
        Account {
            name: text(entry.pw_name),
            uid: entry.pw_uid,
            gid: entry.pw_gid,
            home: text(entry.pw_dir).into(),
            shell: text(entry.pw_shell).into(),
        }
    })
}

/// Calls one of the C library's `get…_r` with as large a buffer as it wants, and hands on what it finds.
fn look_up<Entry, T>(
    mut call: impl FnMut(*mut Entry, *mut libc::c_char, usize, *mut *mut Entry) -> i32,
    read: impl FnOnce(&Entry) -> T,
) -> io::Result<Option<T>> {
    let mut buffer: Vec<libc::c_char> = vec![0; 1024];
    let mut entry = std::mem::MaybeUninit::<Entry>::uninit();
    loop {
        let mut found = ptr::null_mut();
        match call(entry.as_mut_ptr(), buffer.as_mut_ptr(), buffer.len(), &mut found) {
            0 if found.is_null() => return Ok(None),
            // SAFETY: the call has succeeded, so `found` points to `entry`, which it has filled in.
            #[expect(unsafe_code, reason = "the C library's entry is behind a pointer")]
            0 => return Ok(Some(read(unsafe { &*found }))),
            libc::ERANGE if buffer.len() < LARGEST_ENTRY => buffer.resize(buffer.len() * 2, 0),
            libc::EINTR => {}
            // What some databases answer for a name that they do not know (getpwnam(3)).
            libc::ENOENT | libc::ESRCH => return Ok(None),
            error => return Err(io::Error::from_raw_os_error(error)),
        }
    }
}

/// Removes variables from the environment of the process and sets others.
pub fn change_environment(unwanted: impl Fn(&OsStr) -> bool, wanted: &[(&str, OsString)]) -> io::Result<()> {
    // Reading it would be as wrong as writing it while another thread does the other.
    if fs::read_dir("/proc/self/task")?.count() != 1 {
        return Err(io::Error::other("the environment can be changed only before there are threads"));
    }
    let names: Vec<OsString> = std::env::vars_os().map(|(name, _)| name).collect();
    for name in names.iter().filter(|name| unwanted(name)) {
        // SAFETY: the process has one thread, as was just seen.
        #[expect(unsafe_code, reason = "the environment belongs to all threads")]
        unsafe {
            std::env::remove_var(name);
        }
    }
    for (name, value) in wanted {
        // SAFETY: as above.
        #[expect(unsafe_code, reason = "the environment belongs to all threads")]
        unsafe {
            std::env::set_var(name, value);
        }
    }
    Ok(())
}

/// Has signals that are ignored do what they do by default, and none be blocked: `nohup` and shells hand such on, and
/// all children would get them as well.
pub fn default_signals() {
    // The standard library ignores SIGPIPE, for this process only.
    for signal in (1..=libc::SIGRTMAX()).filter(|signal| *signal != libc::SIGPIPE) {
        let mut now = std::mem::MaybeUninit::<libc::sigaction>::uninit();
        // SAFETY: `now` is read only after the call has filled it in; the default action needs no code of ours.
        #[expect(unsafe_code, reason = "the disposition of a signal has no safe interface")]
        unsafe {
            if libc::sigaction(signal, ptr::null(), now.as_mut_ptr()) == 0
                && now.assume_init().sa_sigaction == libc::SIG_IGN
            {
                libc::signal(signal, libc::SIG_DFL);
            }
        }
    }
    // Fails for a mask that is none only.
    let _ = signals::change(libc::SIG_SETMASK, &signals::mask(&[]));
}

/// Closes all files but the standard streams: a daemon would keep its starter's locks and pipes for ever. Nothing
/// must have been opened yet.
pub fn close_inherited_files() -> io::Result<()> {
    // SAFETY: nobody in this process has a file of its own yet (the caller's duty), so none is closed under its owner.
    #[expect(unsafe_code, reason = "closing what one does not own has no safe interface")]
    let closed = unsafe { libc::syscall(libc::SYS_close_range, FIRST_INHERITED, u32::MAX, 0_u32) } == 0;
    if closed { Ok(()) } else { close_listed_files() }
}

/// The same for kernels before 5.9, and for sandboxes that do not know the call.
fn close_listed_files() -> io::Result<()> {
    let name = |entry: io::Result<fs::DirEntry>| entry.map(|entry| entry.file_name());
    // Listed to the end first: the directory that is being read is one of them, and is closed with the list complete.
    let names: Vec<OsString> = fs::read_dir("/proc/self/fd")?.map(name).collect::<io::Result<_>>()?;
    let numbers = names.iter().filter_map(|name| name.to_str()?.parse::<libc::c_int>().ok());
    for number in numbers.filter(|number| *number >= FIRST_INHERITED) {
        // SAFETY: as in `close_inherited_files`; one that is closed already is refused.
        #[expect(unsafe_code, reason = "closing what one does not own has no safe interface")]
        unsafe {
            libc::close(number);
        }
    }
    Ok(())
}

/// Has a crash leave no copy of the memory behind, until the limit is raised again (`prlimit --core`).
pub fn no_core_dumps() -> io::Result<()> {
    let mut limit = getrlimit(Resource::Core);
    limit.current = Some(0);
    Ok(setrlimit(Resource::Core, limit)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn users_and_groups_are_found_by_name_and_unknown_ones_are_not() {
        let root = Account::named("root").unwrap().unwrap();
        assert_eq!((root.uid, root.gid, root.name.to_str()), (0, 0, Some("root")));
        assert!(root.home.is_absolute());
        assert_eq!(Account::named("no-such-user").unwrap(), None);
        assert_eq!(Account::named("a\0b").unwrap(), None);
        assert_eq!(group_named("root").unwrap(), Some(0));
        assert_eq!(group_named("no-such-group").unwrap(), None);
        let own = Account::of_process().unwrap().unwrap();
        assert_eq!(own.uid, geteuid().as_raw());
    }

    /// Runs itself again, because the files of a whole process go.
    #[test]
    fn files_are_closed_by_kernels_that_close_them_one_by_one_as_well() {
        const OWN_PROCESS: &str = "NODEPOOL_TEST_CLOSES_FILES";
        if std::env::var_os(OWN_PROCESS).is_none() {
            let name = "privileges::tests::files_are_closed_by_kernels_that_close_them_one_by_one_as_well";
            let mut again = std::process::Command::new(std::env::current_exe().unwrap());
            again.args(["--exact", name, "--test-threads=1"]).env(OWN_PROCESS, "1");
            let ran = again.output().unwrap();
            let said = String::from_utf8_lossy(&ran.stdout);
            assert!(ran.status.success() && said.contains("1 passed"), "{ran:?}");
            return;
        }
        let listed = || {
            let names = fs::read_dir("/proc/self/fd").unwrap().map(|entry| entry.unwrap().file_name());
            names.filter(|name| name.to_str().unwrap().parse::<i32>().unwrap() >= FIRST_INHERITED).count()
        };
        for close in [close_listed_files, close_inherited_files] {
            let low = fs::File::open("/dev/null").unwrap();
            // One that is listed after the directory, too.
            let high = rustix::io::fcntl_dupfd_cloexec(&low, 500).unwrap();
            assert!(listed() >= 3);
            // They are closed without their owners.
            std::mem::forget((low, high));
            close().unwrap();
            assert_eq!(listed(), 1, "the directory that is being read");
        }
    }

    #[test]
    fn the_environment_cannot_be_changed_beside_other_threads() {
        let (keep, ended) = crossbeam_channel::bounded::<()>(0);
        let other = std::thread::spawn(move || ended.recv());
        let refused = change_environment(|_| true, &[]).unwrap_err();
        assert!(refused.to_string().contains("before there are threads"), "{refused}");
        assert!(std::env::var_os("PATH").is_some());
        drop(keep);
        assert!(other.join().unwrap().is_err());
    }
}
