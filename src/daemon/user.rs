//! `--user`: what root prepares for the user that the daemon then is, and becoming that user.
//!
//! Root touches as little as it can of what the user can write: in a directory of the user's own a name may lead
//! anywhere by the time it is used.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::os::fd::AsFd as _;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, OpenOptionsExt as _};
use std::path::Path;
use std::str::FromStr;

use nodepool_threads::{Account, group_named};
use rustix::fs::{Gid, OFlags, Uid, fchown};
use rustix::process::{getegid, geteuid};

use super::own_file;

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

/// Makes the directory and gives it to the user, if there is one to become; a directory that exists is left as it is.
pub(super) fn give_directory(path: &Path, account: Option<&Account>) -> Result<(), String> {
    if path.is_dir() {
        return Ok(());
    }
    let made = || {
        DirBuilder::new().mode(0o755).create(path)?;
        let Some(account) = account.filter(|_| geteuid().is_root()) else { return Ok(()) };
        let flags = (OFlags::NOFOLLOW | OFlags::DIRECTORY).bits() as i32;
        give(&OpenOptions::new().read(true).custom_flags(flags).open(path)?, account)
    };
    made().map_err(|error| format!("cannot make the directory {}: {error}", path.display()))
}

/// Sees to it that the user can write the file, which errors call `what`: in a directory of its own, or, where only
/// root can make files (as in `/run`), a file that is there already. A new one gets that mode, less the umask.
pub(super) fn give_file(what: &str, path: &Path, mode: u32, account: &Account) -> Result<(), String> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let dir = path.parent().and_then(|dir| dir.metadata().ok());
    let of_the_user = dir.as_ref().is_some_and(|dir| dir.uid() == account.uid);
    // In other directories the user may have put a file of root's there, for it to be given away.
    let of_root_alone = dir.is_some_and(|dir| dir.uid() == 0 && dir.mode() & 0o022 == 0);
    let given = || match own_file::open(path, OpenOptions::new().write(true)) {
        Err(error) if error.kind() == io::ErrorKind::NotFound && of_the_user => Ok(()),
        // In two steps: in a directory like `/tmp` the kernel lets not even root open another's file if it would
        // make one.
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            give(&own_file::open(path, OpenOptions::new().write(true).create_new(true).mode(mode))?, account)
        }
        Err(error) => Err(error),
        Ok(file) => match file.metadata()?.uid() {
            owner if owner == account.uid || (owner == 0 && of_root_alone) => give(&file, account),
            // The user could remove it as well, and makes another.
            0 if of_the_user => fs::remove_file(path),
            _ => Err(io::Error::other("it is not a file of that user's; remove it")),
        },
    };
    given().map_err(|error| {
        let user = account.name.to_string_lossy();
        format!("cannot give the {what} {} to {user}: {error}", path.display())
    })
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
