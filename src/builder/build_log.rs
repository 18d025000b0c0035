//! The logs of builds: one file each, named `<image>-<build id>.log`, the newest few kept.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::config::DiskImage;

/// Where the output of an image's builds goes, and what may stand in it: the values of the image's variables
/// as they were when the build began.
#[derive(Debug, Clone)]
pub struct BuildLog {
    /// What is built.
    pub image: Arc<DiskImage>,
    /// The directory of all logs.
    pub dir: PathBuf,
}

impl BuildLog {
    /// The log of a build.
    pub fn path(&self, id: &str) -> PathBuf {
        path(&self.dir, &self.image.name, id)
    }
}

/// Where a build's log is.
pub fn path(dir: &Path, image: &str, id: &str) -> PathBuf {
    dir.join(format!("{image}-{id}.log"))
}

/// Removes the oldest logs of an image beyond the newest `retention`, but keeps at least one. A negative
/// number keeps all. Returns what was removed.
pub fn prune(dir: &Path, image: &str, retention: i64) -> io::Result<Vec<PathBuf>> {
    let Ok(keep) = usize::try_from(retention) else { return Ok(Vec::new()) };
    let entries = match fs::read_dir(dir) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other?,
    };
    let mut logs = Vec::new();
    for entry in entries {
        let entry = entry?;
        if entry.file_name().to_str().is_some_and(|name| is_log_of(name, image)) {
            logs.push((entry.metadata()?.modified()?, entry.path()));
        }
    }
    logs.sort();
    logs.truncate(logs.len().saturating_sub(keep.max(1)));
    let removed: Vec<PathBuf> = logs.into_iter().map(|(_, path)| path).collect();
    for path in &removed {
        fs::remove_file(path)?;
    }
    Ok(removed)
}

fn is_log_of(name: &str, image: &str) -> bool {
    let id = name.strip_suffix(".log").and_then(|stem| stem.strip_prefix(image)?.strip_prefix('-'));
    // What follows the image's name must be an id, or the logs of `debian-arm` would be taken for `debian`'s.
    id.is_some_and(|id| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_hexdigit()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, SystemTime};

    #[test]
    fn only_the_newest_logs_of_the_image_stay() {
        let dir = std::env::temp_dir().join(format!("build-log-{}", std::process::id()));
        fs::create_dir_all(&dir).unwrap();
        let make = |name: &str, age: u64| {
            let file = fs::File::create(dir.join(name)).unwrap();
            file.set_modified(SystemTime::now() - Duration::from_secs(age)).unwrap();
        };
        for (id, age) in [("a1", 30), ("b2", 20), ("c3", 10)] {
            make(&format!("debian-{id}.log"), age);
        }
        make("debian-arm-d4.log", 99);
        let names = |paths: Vec<PathBuf>| -> Vec<String> {
            paths.iter().map(|path| path.file_name().unwrap().to_str().unwrap().to_owned()).collect()
        };
        assert!(prune(&dir, "debian", -1).unwrap().is_empty());
        assert!(prune(&dir, "debian", 3).unwrap().is_empty());
        assert_eq!(names(prune(&dir, "debian", 2).unwrap()), ["debian-a1.log"]);
        assert_eq!(names(prune(&dir, "debian", 0).unwrap()), ["debian-b2.log"]);
        assert!(prune(&dir.join("none"), "debian", 2).unwrap().is_empty());
        fs::remove_dir_all(dir).unwrap();
    }
}
