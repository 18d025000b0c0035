//! kazoo's Lock recipe without waiting (spec/zookeeper.md, Locks): a contender is an ephemeral sequential
//! znode `<32 hex digits>__lock__<10 digits>`, and the lowest sequence number holds the lock.
//!
//! A [`Lock`] is pinned to the session that it was taken in. All that is done under it goes through
//! [`Lock::session`], which refuses to work in any other session.

use uuid::Uuid;

use super::error::{ZkErrorKind, ZkResult, optional};
use super::session::Session;

const MARK: &str = "__lock__";

/// A lock that is held. Released when dropped.
pub struct Lock {
    session: Session,
    contender: String,
}

impl Lock {
    /// Takes the lock at `<base>/<below>` if nobody holds it, and waits for nobody. `holder` tells people
    /// who it is. What is missing below `base` is made, but never `base` itself: that is a record, and if it
    /// is gone there is nothing to be locked.
    pub fn try_acquire(session: &Session, base: &str, below: &str, holder: &str) -> ZkResult<Option<Self>> {
        let session = session.pin();
        let taking = session.as_one_call();
        let path = format!("{base}/{below}");
        let wanted = format!("{path}/{}{MARK}", Uuid::new_v4().simple());
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
        let lock = Self { session, contender };
        let own = sequence(&lock.contender);
        // Together with the record, the lock may have been deleted meanwhile, by who does not ask for it.
        let Some(others) = optional(taking.children(&path))? else { return Ok(None) };
        let first = others.iter().filter_map(|name| sequence(name)).min();
        Ok((first == own).then_some(lock))
    }

    /// A session that works only as long as the lock is held.
    pub fn session(&self) -> &Session {
        &self.session
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        self.session.delete_ephemeral(&self.contender);
    }
}

impl std::fmt::Debug for Lock {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Lock").field(&self.contender).finish()
    }
}

/// Whether `name` is a contender of kazoo's recipe.
pub(super) fn is_contender(name: &str) -> bool {
    sequence(name).is_some()
}

/// The number that decides who is first. ZooKeeper's counter becomes negative after 2³¹ contenders.
fn sequence(name: &str) -> Option<i64> {
    let (_, digits) = name.rsplit_once(MARK)?;
    let unsigned = digits.strip_prefix('-').unwrap_or(digits);
    if unsigned.len() != 10 || !unsigned.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    digits.parse().ok()
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
            assert_eq!(sequence(name), expected, "{name}");
        }
    }
}
