//! `--user`: what root prepares for the user that the daemon then is, and becoming that user.
//!
//! Root touches as little as it can of what the user can write: in a directory of the user's own a name may lead
//! anywhere by the time it is used.

use std::fs::{DirBuilder, File};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _};
use std::path::Path;
use std::str::FromStr;

use nodepool_threads::{Account, group_named};
use rustix::fs::{Gid, Mode, OFlags, Uid, fchown};
use rustix::process::{getegid, geteuid};

/// A user and a group, as they are written on the command line: `USER[:GROUP]`.
#[derive(Debug, Clone)]
pub(super) struct UserName {
    user: String,
    group: Option<String>,
}

impl FromStr for UserName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (user, group) = text.split_once(':').map_or((text, None), |(user, group)| (user, Some(group)));
        if user.is_empty() || group == Some("") {
            return Err("expected USER or USER:GROUP".to_owned());
        }
        Ok(Self { user: user.to_owned(), group: group.map(str::to_owned) })
    }
}

impl UserName {
    /// The user in the system's database. Fails if there is none, or if this process may not become it.
    pub(super) fn find(&self) -> Result<Account, String> {
        let Self { user, group } = self;
        let unread = |error: io::Error| format!("--user: cannot look up {user}: {error}");
        let mut account = Account::named(user)
            .map_err(unread)?
            .ok_or_else(|| format!("--user: there is no user {user}; create it, or name another one"))?;
        if let Some(group) = group {
            account.gid = group_named(group).map_err(unread)?.ok_or_else(|| {
                format!("--user: there is no group {group}; create it, or name another one")
            })?;
        }
        let own = (geteuid().as_raw(), getegid().as_raw());
        if own.0 != 0 && own != (account.uid, account.gid) {
            return Err(format!(
                "--user: only root can become {user}{}; start it as root, or without --user",
                group.as_ref().map(|group| format!(" with the group {group}")).unwrap_or_default(),
            ));
        }
        Ok(account)
    }
}

/// Becomes the user for good, which only root can.
pub(super) fn become_user(account: &Account) -> Result<(), String> {
    if !geteuid().is_root() {
        return Ok(());
    }
    account
        .assume()
        .map_err(|error| format!("--user: cannot become {}: {error}", account.name.to_string_lossy()))
}

/// Makes the directory, with those above it, and gives it to the user; one that exists is left as it is.
pub(super) fn give_directory(path: &Path, account: &Account) -> Result<(), String> {
    if path.is_dir() || !geteuid().is_root() {
        return Ok(());
    }
    let made = || {
        if let Some(above) = path.parent() {
            DirBuilder::new().recursive(true).mode(0o755).create(above)?;
        }
        DirBuilder::new().mode(0o755).create(path)?;
        give(&open_in_place(path, OFlags::RDONLY | OFlags::DIRECTORY, 0)?, account)
    };
    made().map_err(|error| format!("cannot make the directory {}: {error}", path.display()))
}

/// Sees to it that the user can write the file, which errors call `what`: in a directory of its own, or, where only root
/// can make files (as in `/run`), a file that is there already. A new one gets that mode, less the umask.
pub(super) fn give_file(what: &str, path: &Path, mode: u32, account: &Account) -> Result<(), String> {
    if !geteuid().is_root() {
        return Ok(());
    }
    if let Some(dir) = path.parent() {
        give_directory(dir, account)?;
        let of_the_user = dir.metadata().is_ok_and(|found| found.uid() == account.uid);
        if of_the_user && !path.exists() {
            return Ok(());
        }
    }
    let given = || {
        let file = open_or_make(path, mode)?;
        let found = file.metadata()?;
        // The user may have put anything there that some program of root's is to be given away with.
        let owner_fits = [0, account.uid].contains(&found.uid());
        if !found.is_file() || found.nlink() != 1 || !owner_fits {
            return Err(io::Error::other("it is not a file of root's or of that user's; remove it"));
        }
        give(&file, account)
    };
    given().map_err(|error| {
        let user = account.name.to_string_lossy();
        format!("cannot give the {what} {} to {user}: {error}", path.display())
    })
}

/// Opens what is there itself, and not what a link in its place leads to.
fn open_in_place(path: &Path, flags: OFlags, mode: u32) -> io::Result<File> {
    let flags = flags | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(File::from(rustix::fs::open(path, flags, Mode::from_raw_mode(mode))?))
}

/// In two steps: in a directory like `/tmp` the kernel lets not even root open another's file if it would make one.
fn open_or_make(path: &Path, mode: u32) -> io::Result<File> {
    let flags = OFlags::WRONLY | OFlags::NONBLOCK | OFlags::NOCTTY;
    match open_in_place(path, flags, 0) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            open_in_place(path, flags | OFlags::CREATE | OFlags::EXCL, mode)
        }
        opened => opened,
    }
}

fn give(file: &File, account: &Account) -> io::Result<()> {
    let owner = (Uid::from_raw(account.uid), Gid::from_raw(account.gid));
    Ok(fchown(file.as_fd(), Some(owner.0), Some(owner.1))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own_account() -> Account {
        Account::of_process().unwrap().unwrap()
    }

    #[test]
    fn a_user_is_written_with_or_without_a_group() {
        for (text, fits) in [("a", true), ("a:b", true), ("", false), (":b", false), ("a:", false)] {
            assert_eq!(text.parse::<UserName>().is_ok(), fits, "{text}");
        }
    }

    #[test]
    fn a_link_in_the_place_of_the_pid_file_is_not_followed() {
        let dir = std::env::temp_dir().join(format!("user-pid-{}", std::process::id()));
        std::fs::create_dir(&dir).unwrap();
        let (victim, link) = (dir.join("victim"), dir.join("x.pid"));
        std::fs::write(&victim, "").unwrap();
        let account = own_account();
        if account.uid == 0 {
            std::os::unix::fs::symlink(&victim, &link).unwrap();
            give_file("pid file", &link, 0o644, &account).unwrap_err();
            std::fs::remove_file(&link).unwrap();
            std::fs::hard_link(&victim, &link).unwrap();
            let refused = give_file("pid file", &link, 0o644, &account).unwrap_err();
            assert!(refused.contains("remove it"), "{refused}");
        } else {
            give_file("pid file", &link, 0o644, &account).unwrap();
            assert!(!link.exists(), "only root prepares anything");
        }
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
