//! kazoo's Lock recipe (spec/zookeeper.md, Locks): a contender is an ephemeral sequential
//! znode `<32 hex digits>__lock__<10 digits>`, and the lowest sequence number holds the lock.
//!
//! A [`Lock`] is pinned to the session that it was taken in. All that is done under it goes through
//! [`Lock::session`], which refuses to work in any other session.

use std::time::{Duration, Instant};

use crossbeam_channel::{RecvTimeoutError, bounded};
use nodepool_threads::crash_point;
use uuid::Uuid;

use super::error::{ZkErrorKind, ZkResult, optional};
use super::session::Session;

const MARK: &str = "__lock__";
/// Events of a lock that may wait while others are looked at.
const EVENTS: usize = 64;

/// A lock that is held. Released when dropped.
pub struct Lock {
    session: Session,
    /// The path of its znode; empty once that is deleted.
    contender: String,
}

impl Lock {
    /// Takes the lock at `<base>/<below>` if nobody holds it, and waits for nobody. `holder` tells people
    /// who it is. What is missing below `base` is made, but never `base` itself: that is a record, and if it
    /// is gone there is nothing to be locked.
    pub fn try_acquire(session: &Session, base: &str, below: &str, holder: &str) -> ZkResult<Option<Self>> {
        let session = session.pin();
        let taking = session.as_one_call();
        let Some(lock) = Self::contend(&session, &taking, base, below, holder)? else { return Ok(None) };
        Ok(lock.is_first(&taking)?.then_some(lock))
    }

    /// Like [`Lock::try_acquire`], for a lock that most likely nobody has taken yet: makes its parent `below` first,
    /// which is one name.
    pub fn try_acquire_new(
        session: &Session,
        base: &str,
        below: &str,
        holder: &str,
    ) -> ZkResult<Option<Self>> {
        let session = session.pin();
        let taking = session.as_one_call();
        match taking.create(&format!("{base}/{below}"), b"") {
            // Without its parent the other way finds out why.
            Err(error) if error.is(ZkErrorKind::NodeExists) || error.is(ZkErrorKind::NoNode) => {}
            other => other?,
        }
        let Some(lock) = Self::contend(&session, &taking, base, below, holder)? else { return Ok(None) };
        Ok(lock.is_first(&taking)?.then_some(lock))
    }

    /// Deletes the lock with its parent, and then the znode at `base`, which is what it locks.
    pub(super) fn delete_with(mut self, base: &str) -> ZkResult<()> {
        let session = self.session.as_one_call();
        let contender = std::mem::take(&mut self.contender);
        let parent = contender.rsplit_once('/').map_or("", |(parent, _)| parent);
        for path in [contender.as_str(), parent, base] {
            if path == base {
                crash_point("lock-deleted");
            }
            match session.delete(path, None) {
                Err(error) if error.is(ZkErrorKind::NoNode) => {}
                // Somebody else stands in line.
                Err(error) if error.is(ZkErrorKind::NotEmpty) => return session.delete_tree(base),
                other => other?,
            }
        }
        Ok(())
    }

    /// Like [`Lock::try_acquire`], but stands in line for up to `limit`.
    pub fn acquire_within(
        session: &Session,
        base: &str,
        below: &str,
        holder: &str,
        limit: Duration,
    ) -> ZkResult<Option<Self>> {
        let deadline = Instant::now() + limit;
        let session = session.pin();
        let Some(lock) = Self::contend(&session, &session.as_one_call(), base, below, holder)? else {
            return Ok(None);
        };
        // A connection, and with it the watch, may be lost while the session lives on.
        loop {
            let (sender, events) = bounded(EVENTS);
            session.watch_tree(lock.path(), &sender)?;
            drop(sender);
            loop {
                if lock.is_first(&session)? {
                    return Ok(Some(lock));
                }
                match events.recv_deadline(deadline) {
                    Ok(_) => events.try_iter().take(EVENTS).for_each(drop),
                    Err(RecvTimeoutError::Timeout) => return Ok(None),
                    Err(RecvTimeoutError::Disconnected) => break,
                }
            }
        }
    }

    /// Joins those who want the lock. The value may not be held yet; nothing is left of it when it is dropped.
    fn contend(
        session: &Session,
        taking: &Session,
        base: &str,
        below: &str,
        holder: &str,
    ) -> ZkResult<Option<Self>> {
        let wanted = format!("{base}/{below}/{}{MARK}", Uuid::new_v4().simple());
        let contend = || taking.create_ephemeral(&wanted, holder.as_bytes());
        let contender = match contend() {
            Err(error) if error.is(ZkErrorKind::NoNode) => {
                if !taking.ensure_below(base, below)? {
                    return Ok(None);
                }
                match contend() {
                    Err(error) if error.is(ZkErrorKind::NoNode) => return Ok(None),
                    other => other?,
                }
            }
            other => other?,
        };
        // From here on the znode is ours to remove, whatever happens.
        Ok(Some(Self { session: session.clone(), contender }))
    }

    /// Whether nobody is before it in the line.
    fn is_first(&self, session: &Session) -> ZkResult<bool> {
        let own = Self::number(&self.contender);
        // Together with the record, the lock may have been deleted meanwhile, by who does not ask for it.
        let Some(others) = optional(session.children(self.path()))? else { return Ok(false) };
        Ok(others.iter().filter_map(|name| Self::number(name)).min() == own)
    }

    /// The parent of all contenders.
    fn path(&self) -> &str {
        self.contender.rsplit_once('/').map_or("", |(parent, _)| parent)
    }

    /// The number of the contender whose znode is called `name`, which may stand behind a path; `None` if it is
    /// no contender. The lowest one holds the lock. ZooKeeper's counter becomes negative after 2³¹ contenders.
    pub fn number(name: &str) -> Option<i64> {
        let (_, digits) = name.rsplit_once(MARK)?;
        let unsigned = digits.strip_prefix('-').unwrap_or(digits);
        if unsigned.len() != 10 || !unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        digits.parse().ok()
    }

    /// A session that works only as long as the lock is held.
    pub fn session(&self) -> &Session {
        &self.session
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        if !self.contender.is_empty() {
            self.session.delete_ephemeral(&self.contender);
        }
    }
}

impl std::fmt::Debug for Lock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Lock").field(&self.contender).finish()
    }
}

/// Whether `name` is a contender of kazoo's recipe.
pub(super) fn is_contender(name: &str) -> bool {
    Lock::number(name).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kazoos_names_are_contenders() {
        for (name, expected) in [
            ("0123456789abcdef0123456789abcdef__lock__0000000012", Some(12)),
            ("/a/b/0123456789abcdef0123456789abcdef__lock__0000000000", Some(0)),
            ("x__lock__-2147483648", Some(-2147483648)),
            ("x__lock__12", None),
            ("x__lock__00000000x2", None),
            ("x__rlock__0000000012", None),
            ("0000000012", None),
        ] {
            assert_eq!(Lock::number(name), expected, "{name}");
        }
    }
}
