//! What the tests of this folder share.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use nodepool_drivers::api::{Problems, Table, yaml};
use uuid::Uuid;

use super::{Config, ConfigFiles, FileProblem, Loaded};

/// Reads a YAML mapping, and returns what was read and the problems that were noted.
pub(super) fn read<T>(source: &str, reader: impl FnOnce(&Table<'_>) -> T) -> (T, Vec<String>) {
    let value = yaml::parse(source).unwrap();
    let problems = Problems::new();
    let read = reader(&Table::new(&value, "", &problems).unwrap());
    (read, problems.into_vec().iter().map(ToString::to_string).collect())
}

/// Loads the files, and returns the result and its problems without the directory in front.
pub(super) fn load(main: &str, secure: Option<&str>) -> (Option<Loaded>, Vec<String>) {
    let dir = TempDir::new();
    let main = dir.write("n.yaml", main);
    let secure = secure.map(|text| dir.write("s.yaml", text));
    let env = [("NODEPOOL_HOST", "zk01"), ("NODEPOOL_PORT", "2181")].into_iter().collect();
    let result = ConfigFiles::new(main, secure.as_deref(), env).load();
    let short = |found: &[FileProblem]| {
        let prefix = format!("{}/", dir.path().display());
        found.iter().map(|problem| problem.to_string().replace(&prefix, "")).collect()
    };
    match result {
        Ok(loaded) => {
            let warnings = short(&loaded.warnings);
            (Some(loaded), warnings)
        }
        Err(error) => (None, short(error.problems())),
    }
}

/// Loads files that must be right, however odd.
pub(super) fn config(main: &str, secure: Option<&str>) -> Config {
    let (loaded, problems) = load(main, secure);
    assert!(problems.iter().all(|problem| problem.contains(": warning: ")), "{problems:#?}");
    loaded.unwrap().config
}

/// A directory that is removed at the end of the test.
pub(super) struct TempDir(PathBuf);

impl TempDir {
    pub(super) fn new() -> Self {
        let path = std::env::temp_dir().join(format!("nodepool-config-{}", Uuid::new_v4()));
        fs::create_dir(&path).unwrap();
        Self(path)
    }

    pub(super) fn path(&self) -> &Path {
        &self.0
    }

    /// Writes a file in place, and returns its path.
    pub(super) fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.join(name);
        fs::write(&path, text).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        path
    }
}

impl Drop for TempDir {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}
