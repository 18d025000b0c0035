//! `export-image-data` and `import-image-data`: a backup of the records as one JSON object, path to data. The
//! original reads ours, and we read its.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use uuid::Uuid;

use super::connection::Connection;
use super::failure::Failure;
use super::listing::warn_left_out;
use super::output;
use crate::listing::json;
use crate::zk::{Component, Images, parse_backup};

/// Records may say what nobody else shall know.
const MODE: u32 = 0o600;

/// Writes all records to the file at `path`.
pub(super) fn export(images: &Images, path: &Path) -> Result<(), Failure> {
    let records = images.export(&mut |record| warn_left_out(&format!("at {record}"), "it is no text"))?;
    let by_path: BTreeMap<String, String> =
        records.into_iter().map(|(record, data)| (record.path(), data)).collect();
    let text = json(&by_path);
    replace(path, text.as_bytes())
        .map_err(|error| Failure::because(format!("cannot write {}: {error}", path.display())))
}

/// Puts the file in its place at once and complete, or leaves what was there. Only a pipe or a device is
/// written to.
fn replace(path: &Path, data: &[u8]) -> io::Result<()> {
    let target = match fs::metadata(path) {
        Ok(found) if found.is_dir() => return Err(io::ErrorKind::IsADirectory.into()),
        Ok(found) if !found.is_file() => return File::options().write(true).open(path)?.write_all(data),
        // What a link points to, not the link.
        Ok(_) => fs::canonicalize(path)?,
        Err(_) => path.to_owned(),
    };
    let new = temporary(&target);
    let written = write_new(&new, data).and_then(|()| fs::rename(&new, &target));
    if written.is_err() {
        // It may not even be there.
        let _ = fs::remove_file(&new);
    }
    written
}

fn temporary(target: &Path) -> PathBuf {
    let mut name = target.file_name().unwrap_or_default().to_owned();
    name.push(format!(".{}.new", Uuid::new_v4().simple()));
    target.with_file_name(name)
}

fn write_new(path: &Path, data: &[u8]) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(MODE).open(path)?;
    file.write_all(data)?;
    file.sync_all()
}

/// Puts the records of the file at `path` into ZooKeeper: all of them, or none if one cannot be one.
pub(super) fn import(connect: impl Fn() -> Result<Connection, Failure>, path: &Path) -> Result<(), Failure> {
    let failed = |why: &str| Failure::because(format!("cannot import {}: {why}", path.display()));
    let text = fs::read(path).map_err(|error| failed(&error.to_string()))?;
    let records = parse_backup(&text).map_err(|why| failed(&why))?;
    let connection = connect()?;
    if Component::builders(&connection.session)? > 0 {
        output::warn("builders are running; they may act on records before all of them are imported");
    }
    Ok(connection.images.import(&records)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_replaced_as_a_whole_or_not_at_all() {
        use std::os::unix::fs::{PermissionsExt as _, symlink};
        let dir = std::env::temp_dir().join(format!("nodepool-backup-{}", Uuid::new_v4()));
        fs::create_dir(&dir).unwrap();
        let (file, link) = (dir.join("file"), dir.join("link"));
        fs::write(&file, "a longer one that was there").unwrap();
        fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();
        symlink(&file, &link).unwrap();
        replace(&link, b"new").unwrap();
        assert_eq!(fs::read(&file).unwrap(), b"new");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, MODE);
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        replace(Path::new("/dev/null"), b"x").unwrap();
        assert!(!fs::metadata("/dev/null").unwrap().is_file());
        fs::create_dir(dir.join("folder")).unwrap();
        assert_eq!(replace(&dir.join("folder"), b"x").unwrap_err().kind(), io::ErrorKind::IsADirectory);
        assert!(replace(&dir.join("none/file"), b"x").is_err());
        assert_eq!(fs::read_dir(&dir).unwrap().count(), 3);
        fs::remove_dir_all(dir).unwrap();
    }
}
