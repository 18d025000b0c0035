//! Where `clouds.yaml`, `secure.yaml` and `clouds-public.yaml` are looked for, and what is in them.
//!
//! The first file of each kind counts, as for openstacksdk (`openstack/config/loader.py`), which looks into
//! the same directories in the same order. A file that may not be read is passed over as there; one that is
//! no YAML is an error here, where the other goes on with the next one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;

use crate::api::{Value, yaml};

/// A file of clouds has a few kilobytes.
const MOST_BYTES: u64 = 1 << 20;
const ENDINGS: [&str; 3] = ["yaml", "yml", "json"];

/// Where the files may be.
#[derive(Debug, Clone)]
pub(in crate::openstack) struct Search {
    /// Files of each kind that come before all others: clouds, and their secrets.
    pub(super) named: [Option<PathBuf>; 2],
    /// The directories, in order.
    pub(super) directories: Vec<PathBuf>,
    /// What `~` stands for.
    pub(super) home: Option<PathBuf>,
    /// What a relative path begins at.
    pub(super) start: PathBuf,
}

/// The kinds of files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Clouds,
    Secure,
    Public,
}

/// A file that was read.
#[derive(Debug)]
pub(super) struct Found {
    pub(super) path: PathBuf,
    pub(super) tree: Value,
}

impl Search {
    /// As the environment has it. Relative paths begin at the directory that the program was in when this was
    /// called first: a daemon leaves it.
    pub(in crate::openstack) fn of_environment() -> Self {
        static START: OnceLock<PathBuf> = OnceLock::new();
        let start = START.get_or_init(|| std::env::current_dir().unwrap_or_else(|_| PathBuf::from("/")));
        let variable = |name: &str| std::env::var_os(name).filter(|text| !text.is_empty()).map(PathBuf::from);
        let home = variable("HOME");
        let dot_config = home.as_ref().map(|home| home.join(".config"));
        let own = [variable("XDG_CONFIG_HOME"), dot_config];
        let mut directories = vec![start.clone()];
        directories.extend(own.into_iter().flatten().map(|directory| directory.join("openstack")));
        directories.extend(["/etc/xdg/openstack", "/etc/openstack"].map(PathBuf::from));
        let named = ["OS_CLIENT_CONFIG_FILE", "OS_CLIENT_SECURE_FILE"];
        let named = named.map(|name| variable(name).map(|path| start.join(path)));
        Self { named, directories, home, start: start.clone() }
    }

    /// All files of a kind that may be there, in the order in which they count.
    pub(super) fn candidates(&self, kind: Kind) -> Vec<PathBuf> {
        let (named, stem) = match kind {
            Kind::Clouds => (&self.named[0], "clouds"),
            Kind::Secure => (&self.named[1], "secure"),
            Kind::Public => (&None, "clouds-public"),
        };
        let in_directories = self.directories.iter().flat_map(|directory| {
            ENDINGS.iter().map(move |ending| directory.join(format!("{stem}.{ending}")))
        });
        let mut candidates: Vec<PathBuf> = named.iter().cloned().chain(in_directories).collect();
        let mut seen = std::collections::BTreeSet::new();
        candidates.retain(|path| seen.insert(path.clone()));
        candidates
    }

    /// The first file of a kind. The error names it and what is wrong with it.
    pub(super) fn first(&self, kind: Kind) -> Result<Option<Found>, String> {
        for path in self.candidates(kind) {
            match fs::metadata(&path) {
                Ok(_) => {}
                Err(_) => continue,
            }
            return match read(&path) {
                Ok(tree) => Ok(Some(Found { path, tree })),
                Err(Unreadable::NotForUs) => continue,
                Err(Unreadable::Broken(why)) => Err(format!("{}{why}", path.display())),
            };
        }
        Ok(None)
    }

    /// The path that a value names.
    pub(super) fn path(&self, text: &str) -> PathBuf {
        let under_home = |rest: &str| self.home.as_ref().map(|home| home.join(rest));
        match text.strip_prefix("~/").and_then(under_home) {
            Some(path) => path,
            None => self.start.join(text),
        }
    }

    /// Where clouds are looked for, in the words of an error.
    pub(super) fn describe(&self) -> String {
        let named = self.named[0].as_ref().map(|path| path.display().to_string());
        let directories = self.directories.iter().map(|path| path.join("clouds.yaml").display().to_string());
        named.into_iter().chain(directories).collect::<Vec<_>>().join(", ")
    }
}

enum Unreadable {
    NotForUs,
    Broken(String),
}

fn read(path: &Path) -> Result<Value, Unreadable> {
    use io::Read as _;
    let broken = |error: io::Error| match error.kind() {
        io::ErrorKind::PermissionDenied => Unreadable::NotForUs,
        _ => Unreadable::Broken(format!(": cannot be read: {error}")),
    };
    let file = fs::File::open(path).map_err(broken)?;
    let mut bytes = Vec::new();
    file.take(MOST_BYTES + 1).read_to_end(&mut bytes).map_err(broken)?;
    if bytes.len() as u64 > MOST_BYTES {
        let message = format!(": is larger than {} MiB: no file of clouds", MOST_BYTES >> 20);
        return Err(Unreadable::Broken(message));
    }
    let text = String::from_utf8(bytes).map_err(|_| Unreadable::Broken(": is not UTF-8 text".to_owned()))?;
    let tree = if path.extension().is_some_and(|ending| ending == "json") {
        serde_json::from_str(&text)
            .map_err(|error| Unreadable::Broken(format!(": not valid JSON: {}", without_text(&error))))?
    } else {
        yaml::parse(&text).map_err(|error| {
            let at = error.at.map_or(String::new(), |at| format!(":{at}"));
            Unreadable::Broken(format!("{at}: {}", error.message))
        })?
    };
    match tree {
        Value::Map(_) => Ok(tree),
        other => Err(Unreadable::Broken(format!(": expected a mapping, found {}", other.kind()))),
    }
}

/// The parser's own messages may quote what it read, a password for instance.
fn without_text(error: &serde_json::Error) -> String {
    format!("see line {} column {}", error.line(), error.column())
}

#[cfg(test)]
impl Search {
    /// That looks into one directory only.
    pub(in crate::openstack) fn of_directory(directory: &Path) -> Self {
        let directories = vec![directory.to_owned()];
        Self { named: [None, None], directories, home: None, start: directory.to_owned() }
    }
}
