//! The children of a copied znode.
//!
//! There are thousands of znodes with one or two children or none, and few with many. A `BTreeMap` takes a
//! kilobyte for the first; this takes what the children take, and a change among them moves those behind.

use super::tree::Node;

/// Children by name, in the order of the names.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Children(Vec<(Box<str>, Node)>);

impl Children {
    fn place(&self, name: &str) -> Result<usize, usize> {
        self.0.binary_search_by(|(other, _)| (**other).cmp(name))
    }

    /// The child of this name.
    pub fn get(&self, name: &str) -> Option<&Node> {
        self.place(name).ok().map(|at| &self.0[at].1)
    }

    /// The same, to be changed.
    pub(super) fn get_mut(&mut self, name: &str) -> Option<&mut Node> {
        self.place(name).ok().map(|at| &mut self.0[at].1)
    }

    /// Puts `node` at `name` and returns what was there.
    pub(super) fn insert(&mut self, name: &str, node: Node) -> Option<Node> {
        match self.place(name) {
            Ok(at) => Some(std::mem::replace(&mut self.0[at].1, node)),
            Err(at) => {
                // Not twice as much room, as a vector would take by itself.
                self.0.reserve_exact(1);
                self.0.insert(at, (name.into(), node));
                None
            }
        }
    }

    /// Removes the child of this name and returns it.
    pub(super) fn remove(&mut self, name: &str) -> Option<Node> {
        self.place(name).ok().map(|at| self.0.remove(at).1)
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// All children with their names.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.0.iter().map(|(name, node)| (&**name, node))
    }

    /// All names.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|(name, _)| &**name)
    }
}

impl FromIterator<(String, Node)> for Children {
    /// The names must be different ones, as those of a znode's children are.
    fn from_iter<T: IntoIterator<Item = (String, Node)>>(children: T) -> Self {
        let mut all: Vec<_> =
            children.into_iter().map(|(name, node)| (name.into_boxed_str(), node)).collect();
        all.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        all.shrink_to_fit();
        Self(all)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn version(version: i32) -> Node {
        Node { version, ..Node::default() }
    }

    #[test]
    fn children_are_kept_by_name_and_in_order() {
        let mut children: Children = [("c", 3), ("a", 1)]
            .map(|(name, number)| (name.to_owned(), version(number)))
            .into_iter()
            .collect();
        assert_eq!(children.insert("b", version(2)), None);
        assert_eq!(children.insert("c", version(4)), Some(version(3)));
        assert_eq!(children.names().collect::<Vec<_>>(), ["a", "b", "c"]);
        assert_eq!(children.iter().map(|(_, node)| node.version).collect::<Vec<_>>(), [1, 2, 4]);
        assert_eq!(children.remove("a"), Some(version(1)));
        assert_eq!((children.remove("a"), children.get("a")), (None, None));
        children.get_mut("b").unwrap().version = 5;
        assert_eq!(children.get("b"), Some(&version(5)));
    }
}
