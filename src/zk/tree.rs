//! A part of ZooKeeper's tree as a value.

use super::at_once::at_once;
use super::children::Children;
use super::error::{ZkResult, optional};
use super::lock;
use super::session::Session;

/// A znode with everything below it.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Node {
    /// Its data; empty for a lock's contender, whose data say nothing.
    pub data: Vec<u8>,
    /// How often its data were changed.
    pub version: i32,
    /// When it was made, UNIX seconds; 0 for a lock's contender.
    pub created: f64,
    /// What is below it.
    pub children: Children,
}

impl Node {
    /// Reads a part of the tree. `None` if there is nothing at `path`. What changes while it is read is
    /// read as it was before or as it is after.
    pub fn read(session: &Session, path: &str) -> ZkResult<Option<Self>> {
        let Some((mut node, names)) = Self::read_alone(session, path)? else { return Ok(None) };
        let child = |name: String| Ok(Self::read_child(session, path, &name)?.map(|child| (name, child)));
        node.children =
            names.into_iter().filter_map(|name| child(name).transpose()).collect::<ZkResult<_>>()?;
        Ok(Some(node))
    }

    /// [`Node::read`] for a node with many children: several of them are read at the same time.
    pub(super) fn read_wide(session: &Session, path: &str) -> ZkResult<Option<Self>> {
        let Some((mut node, names)) = Self::read_alone(session, path)? else { return Ok(None) };
        let (session, path) = (session.clone(), path.to_owned());
        let children = at_once(names.clone(), move |name| Self::read_child(&session, &path, name))?;
        let found = names.into_iter().zip(children);
        node.children = found.filter_map(|(name, child)| Some((name, child?))).collect();
        Ok(Some(node))
    }

    /// The node without its children, and their names.
    fn read_alone(session: &Session, path: &str) -> ZkResult<Option<(Self, Vec<String>)>> {
        let Some((data, stat)) = optional(session.get(path))? else { return Ok(None) };
        let node =
            Self { data, version: stat.version, created: stat.created(), children: Children::default() };
        if stat.children == 0 {
            return Ok(Some((node, Vec::new())));
        }
        Ok(optional(session.children(path))?.map(|names| (node, names)))
    }

    fn read_child(session: &Session, path: &str, name: &str) -> ZkResult<Option<Self>> {
        if lock::is_contender(name) {
            return Ok(Some(Self::default()));
        }
        Self::read(session, &format!("{path}/{name}"))
    }

    /// The node at `path`, which is relative to this one: names joined by slashes, or empty for itself.
    pub fn at(&self, path: &str) -> Option<&Self> {
        names(path).try_fold(self, |node, name| node.children.get(name))
    }

    /// Puts `node` at `path` with the children of the one that was there. Nothing happens where its parent is
    /// missing: the parent is gone already, or will be put with an event that comes before the one of `path`.
    pub(super) fn put(&mut self, path: &str, node: Self) {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = names(parent).try_fold(self, |node, name| node.children.get_mut(name));
        if let Some(parent) = parent {
            match parent.children.get_mut(name) {
                Some(old) => *old = Self { children: std::mem::take(&mut old.children), ..node },
                None => drop(parent.children.insert(name, node)),
            }
        }
    }

    /// Removes the node at `path` with everything below it.
    pub(super) fn remove(&mut self, path: &str) {
        let (parent, name) = path.rsplit_once('/').unwrap_or(("", path));
        let parent = names(parent).try_fold(self, |node, name| node.children.get_mut(name));
        if let Some(parent) = parent {
            parent.children.remove(name);
        }
    }

    /// Whether somebody contends for the lock whose parent is the child `name`.
    pub fn is_locked(&self, name: &str) -> bool {
        self.children.get(name).is_some_and(|parent| parent.children.names().any(lock::is_contender))
    }
}

fn names(path: &str) -> impl Iterator<Item = &str> {
    path.split('/').filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(version: i32) -> Node {
        Node { version, ..Node::default() }
    }

    #[test]
    fn nodes_are_put_found_and_removed_by_path() {
        let mut root = Node::default();
        for (path, number) in [("a", 1), ("a/b", 2), ("a/b/c", 3), ("a/b", 4)] {
            root.put(path, version(number));
        }
        assert_eq!(root.at("a/b/c").unwrap().version, 3);
        assert_eq!(root.at("a/b").unwrap().version, 4);
        assert_eq!(root.at("").unwrap(), &root);
        root.remove("a/x/c");
        root.remove("a/b");
        assert!(root.at("a/b").is_none() && root.at("a").is_some());
        root.remove("a");
        assert_eq!(root, Node::default());
    }

    #[test]
    fn a_node_whose_parent_is_gone_is_not_put() {
        let mut root = Node::default();
        root.put("a/b", version(1));
        assert_eq!(root, Node::default());
    }

    #[test]
    fn a_lock_is_held_while_it_has_a_contender() {
        let mut root = Node::default();
        root.put("lock", version(0));
        root.put("lock/README", version(0));
        assert!(!root.is_locked("lock"));
        root.put("lock/0123456789abcdef0123456789abcdef__lock__0000000003", version(0));
        assert!(root.is_locked("lock"));
    }
}
