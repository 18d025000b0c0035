//! What must hold for every single write to the images' records, whoever makes it.
//!
//! The judge goes through ZooKeeper's transaction log and keeps its own copy of the tree: so it knows for
//! each write who held which lock, and what the record was before. A breach is a sentence in
//! [`Judge::breaches`].

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::{Counts, Who};
use crate::support::history::{Change, Entry};

/// A znode of the copy.
struct Node {
    data: Vec<u8>,
    session: i64,
    ephemeral: bool,
}

/// Where in the tree of an image a record is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Place<'a> {
    Build { image: &'a str, build: &'a str },
    Upload { image: &'a str, build: &'a str, provider: &'a str },
}

pub struct Judge<'a> {
    chroot: &'a str,
    tree: BTreeMap<String, Node>,
    /// The sessions of builders; all others are clients.
    builders: BTreeMap<i64, Who>,
    /// Of each image, and of each image and provider, when which records became ready.
    ready: BTreeMap<(String, String), BTreeMap<String, f64>>,
    /// Which builder has made a build.
    made_by: BTreeMap<String, Who>,
    pub breaches: Vec<String>,
    pub counts: Counts,
}

impl<'a> Judge<'a> {
    pub fn new(chroot: &'a str) -> Judge<'a> {
        Judge {
            chroot,
            tree: BTreeMap::new(),
            builders: BTreeMap::new(),
            ready: BTreeMap::new(),
            made_by: BTreeMap::new(),
            breaches: Vec::new(),
            counts: Counts::default(),
        }
    }

    pub fn judge(&mut self, entry: &Entry) {
        let session = entry.session;
        let inside = |path: &str| path.strip_prefix(self.chroot).map(str::to_owned);
        match &entry.change {
            Change::Close => self.tree.retain(|_, node| !(node.ephemeral && node.session == session)),
            Change::Create { path, data, ephemeral } => {
                let Some(path) = inside(path) else { return };
                if path.starts_with("/nodepool/components/builder/") {
                    self.meet(session, data);
                }
                self.look(session, &path, Some(data), true);
                let node = Node { data: data.clone(), session, ephemeral: *ephemeral };
                self.tree.insert(path, node);
            }
            Change::Set { path, data } => {
                let Some(path) = inside(path) else { return };
                self.look(session, &path, Some(data), false);
                if let Some(node) = self.tree.get_mut(&path) {
                    node.data.clone_from(data);
                }
            }
            Change::Delete { path } => {
                let Some(path) = inside(path) else { return };
                self.look(session, &path, None, false);
                self.tree.remove(&path);
            }
        }
    }

    /// The builds that a builder has made.
    pub fn builds_of(&self, who: Who) -> BTreeSet<String> {
        self.made_by.iter().filter(|(_, maker)| **maker == who).map(|(id, _)| id.clone()).collect()
    }

    /// The names of all lock contenders that are left below the images.
    pub fn contenders(&self) -> Vec<&str> {
        let of_images = self.tree.keys().filter(|path| path.starts_with("/nodepool/images/"));
        of_images.filter(|path| path.contains("__lock__")).map(String::as_str).collect()
    }

    /// Records that a lock has brought back without data after their deletion.
    pub fn ghosts(&self) -> Vec<&str> {
        let empty = self.tree.iter().filter(|(path, node)| place(path).is_some() && node.data.is_empty());
        empty.map(|(path, _)| path.as_str()).collect()
    }

    fn meet(&mut self, session: i64, component: &[u8]) {
        let version = text(&serde_json::from_slice(component).unwrap_or_default(), "version");
        let who = if version.contains("11.0.0") { Who::Original } else { Who::Ours };
        self.builders.insert(session, who);
    }

    /// Judges a write before it is made in the copy; `data` is none for a deletion.
    fn look(&mut self, session: i64, path: &str, data: Option<&[u8]>, created: bool) {
        let Some(place) = place(path) else { return };
        let who = self.builders.get(&session).copied();
        let new: Option<Value> = data.map(|data| serde_json::from_slice(data).unwrap_or_default());
        let old = self.tree.get(path).and_then(|node| serde_json::from_slice::<Value>(&node.data).ok());
        let state = |record: &Option<Value>| record.as_ref().map(|record| text(record, "state"));
        let (before, after) = (state(&old), state(&new));
        let lock = self.holder(&place);
        let maker = self.tree.get(path).map(|node| node.session);
        let holds = lock == Some(session);
        let abandoned = lock.is_none() || lock != maker;
        let ordered = who.is_none() || self.is_due(path, &place, old.as_ref());

        let fine = match (before.as_deref(), after.as_deref()) {
            // A lock's leftover, without data.
            (None, Some("")) | (Some(""), _) | (None, None) => true,
            (None, Some("building" | "uploading")) => created && holds && self.may_begin(&place, who),
            // Whoever holds the lock knows that the maker does not build any more.
            (Some("building"), Some("failed")) => holds,
            (Some("building" | "uploading"), Some("ready" | "failed")) => maker == Some(session) && holds,
            (Some("building" | "uploading"), Some("deleting") | None) => abandoned,
            (Some("ready"), Some("deleting")) => ordered,
            (Some("failed"), Some("deleting") | None) => true,
            (Some("deleting"), Some("deleting") | None) => true,
            _ => false,
        };
        if !fine {
            let by = who.map_or_else(|| "a client".to_owned(), |who| format!("{who:?}"));
            self.breaches.push(format!(
                "{by} (session {session:#x}) turns {path} from {before:?} into {after:?}; it was made in session \
                 {maker:#x?}, the lock is held by {lock:#x?}"
            ));
        }
        self.note(&place, path, who, before.as_deref(), new.as_ref());
    }

    /// Whether a builder may delete what is ready: two newer ones are there, or an upload's build is on its
    /// way out.
    fn is_due(&self, path: &str, place: &Place<'_>, record: Option<&Value>) -> bool {
        let made = record.and_then(|record| record["state_time"].as_f64()).unwrap_or_default();
        let others = self.ready.get(&kind(place));
        let newer = others.map_or(0, |ready| ready.values().filter(|time| **time > made).count());
        let build = match place {
            Place::Build { .. } => None,
            Place::Upload { .. } => {
                path.split_once("/providers/").and_then(|(build, _)| self.tree.get(build))
            }
        };
        let build = build.and_then(|node| serde_json::from_slice::<Value>(&node.data).ok());
        newer >= 2 || build.is_some_and(|build| text(&build, "state") == "deleting")
    }

    /// Whether a record may be made: an upload only by the builder that has the files, and only one at a time.
    fn may_begin(&self, place: &Place<'_>, who: Option<Who>) -> bool {
        let Place::Upload { image, build, provider } = place else { return who.is_some() };
        let uploads = format!("/nodepool/images/{image}/builds/{build}/providers/{provider}/images/");
        let below = self.tree.iter().filter(|(path, _)| path.starts_with(&uploads));
        let ready = below
            .filter_map(|(_, node)| serde_json::from_slice::<Value>(&node.data).ok())
            .any(|record| text(&record, "state") == "ready");
        !ready && who.is_some() && self.made_by.get(*build).copied() == who
    }

    /// Who holds the lock that protects a record while it is being made.
    fn holder(&self, place: &Place<'_>) -> Option<i64> {
        let lock = match place {
            Place::Build { image, .. } => format!("/nodepool/images/{image}/builds/lock/"),
            Place::Upload { image, build, provider } => {
                format!("/nodepool/images/{image}/builds/{build}/providers/{provider}/images/lock/")
            }
        };
        let contenders = self.tree.iter().filter_map(|(path, node)| {
            let (_, sequence) = path.strip_prefix(&lock)?.rsplit_once("__lock__")?;
            Some((sequence.parse::<i64>().ok()?, node.session))
        });
        contenders.min().map(|(_, session)| session)
    }

    fn note(
        &mut self,
        place: &Place<'_>,
        path: &str,
        who: Option<Who>,
        before: Option<&str>,
        new: Option<&Value>,
    ) {
        let after = new.map(|record| text(record, "state"));
        match (place, after.as_deref(), who) {
            (Place::Build { build, .. }, Some("building"), Some(who)) => {
                self.made_by.insert((*build).to_owned(), who);
            }
            (_, Some("ready"), Some(who)) => {
                let time = new.and_then(|record| record["state_time"].as_f64()).unwrap_or_default();
                self.ready.entry(kind(place)).or_default().insert(path.to_owned(), time);
                match place {
                    Place::Build { .. } => self.counts.add("builds", who),
                    Place::Upload { .. } => self.counts.add("uploads", who),
                }
            }
            (_, Some("failed"), Some(who)) => self.counts.add("failures", who),
            (Place::Build { build, .. }, None, Some(who))
                if before.is_some_and(|state| !state.is_empty()) =>
            {
                let own = self.made_by.get(*build) == Some(&who);
                self.counts.add(if own { "own builds removed" } else { "other's builds removed" }, who);
            }
            _ => {}
        }
    }
}

/// What is counted together when the two newest are to be kept.
fn kind(place: &Place<'_>) -> (String, String) {
    match place {
        Place::Build { image, .. } => ((*image).to_owned(), String::new()),
        Place::Upload { image, provider, .. } => ((*image).to_owned(), (*provider).to_owned()),
    }
}

fn place(path: &str) -> Option<Place<'_>> {
    let parts: Vec<&str> = path.strip_prefix("/nodepool/images/")?.split('/').collect();
    match parts.as_slice() {
        [image, "builds", build] if *build != "lock" => Some(Place::Build { image, build }),
        [image, "builds", build, "providers", provider, "images", upload] if *upload != "lock" => {
            Some(Place::Upload { image, build, provider })
        }
        _ => None,
    }
}

fn text(record: &Value, key: &str) -> String {
    record[key].as_str().unwrap_or_default().to_owned()
}
