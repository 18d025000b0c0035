//! The names of the files of a store, and what can be read from them.
//!
//! | file | name |
//! | --- | --- |
//! | an image | `<name>-<id>.<format>` |
//! | its record, which makes it complete | `<name>-<id>.<format>.json` |
//! | an image on its way in | `.nodepool-<id>.part` |
//! | the journal of an image on its way in or out | `.nodepool-<id>.json` |
//!
//! The name comes first for the operator who looks for an image (`ls debian-*.qcow2`); the id, a UUID, keeps
//! two images of one name apart. Everything that does not look like this belongs to somebody else.

use std::path::{Path, PathBuf};

use uuid::Uuid;

use crate::api::name_mistake;

const STAGED: &str = ".nodepool-";
const PART: &str = ".part";
const JSON: &str = ".json";
/// What file systems allow for one name.
const LONGEST_NAME: usize = 255;

/// The file name of an image; the error says what is wrong with the wish.
pub(super) fn image_file_name(name: &str, id: Uuid, format: &str) -> Result<String, String> {
    if let Some(mistake) = name_mistake(name) {
        return Err(format!("an image's name {mistake}"));
    }
    if name.starts_with('.') {
        return Err("an image's name must not start with '.': it would be a hidden file".to_owned());
    }
    // `json` would make the image look like a record.
    if format.is_empty() || format == "json" || !format.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(format!("'{}' is not an image format", format.escape_debug()));
    }
    let file = format!("{name}-{id}.{format}");
    if file.len() + JSON.len() > LONGEST_NAME {
        return Err(format!("the name is {} bytes too long", file.len() + JSON.len() - LONGEST_NAME));
    }
    Ok(file)
}

/// The record beside an image.
pub(super) fn record_file_name(image_file: &str) -> String {
    format!("{image_file}{JSON}")
}

/// The image that a file name says to be the record of, and its id.
pub(super) fn recorded_image(file_name: &str) -> Option<(&str, Uuid)> {
    let image_file = file_name.strip_suffix(JSON).filter(|name| !name.starts_with('.'))?;
    let (stem, _format) = image_file.rsplit_once('.')?;
    let at = stem.len().checked_sub(uuid::fmt::Hyphenated::LENGTH)?;
    stem.get(..at)?.strip_suffix('-')?;
    let id = Uuid::parse_str(stem.get(at..)?).ok()?;
    Some((image_file, id))
}

/// A temporary file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Staged {
    Part(Uuid),
    Journal(Uuid),
}

/// What temporary file a name belongs to.
pub(super) fn staged(file_name: &str) -> Option<Staged> {
    let rest = file_name.strip_prefix(STAGED)?;
    let id = |text: &str| Uuid::parse_str(text).ok();
    match rest.strip_suffix(PART) {
        Some(text) => id(text).map(Staged::Part),
        None => rest.strip_suffix(JSON).and_then(id).map(Staged::Journal),
    }
}

/// Where an image stands until it is whole.
pub(super) fn part_path(dir: &Path, id: Uuid) -> PathBuf {
    dir.join(format!("{STAGED}{id}{PART}"))
}

/// The journal of an image that comes or goes.
pub(super) fn journal_path(dir: &Path, id: Uuid) -> PathBuf {
    dir.join(format!("{STAGED}{id}{JSON}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Uuid = Uuid::from_u128(0x1234_5678_9abc_4def_8123_4567_89ab_cdef);

    #[test]
    fn names_are_read_back() {
        let image = image_file_name("debian-12.x", ID, "qcow2").unwrap();
        assert_eq!(image, "debian-12.x-12345678-9abc-4def-8123-456789abcdef.qcow2");
        assert_eq!(recorded_image(&record_file_name(&image)), Some((image.as_str(), ID)));
        let dir = Path::new("/store");
        let name = |path: PathBuf| path.file_name().unwrap().to_str().unwrap().to_owned();
        assert_eq!(staged(&name(part_path(dir, ID))), Some(Staged::Part(ID)));
        assert_eq!(staged(&name(journal_path(dir, ID))), Some(Staged::Journal(ID)));
    }

    #[test]
    fn foreign_names_are_nobody_of_ours() {
        for foreign in
            ["x.json", "a.qcow2.json", "é.json", ".json", "ünïcödé-ünïcödé-ünïcödé-ünïcödé.raw.json"]
        {
            assert_eq!(recorded_image(foreign), None, "{foreign}");
        }
        let bare = format!("{ID}.raw.json");
        assert_eq!(recorded_image(&bare), None);
        for foreign in ["x.part", ".nodepool-x.part", ".nodepool-.json", "nodepool", ".nodepool-x"] {
            assert_eq!(staged(foreign), None, "{foreign}");
        }
    }

    #[test]
    fn names_that_are_no_plain_file_names_are_refused() {
        for name in ["", "a/b", "..", "-a", ".a", "a\nb", "a\0b", &"x".repeat(220)] {
            assert!(image_file_name(name, ID, "raw").is_err(), "{name}");
        }
        for format in ["", "json", "a/b", "..", "ra w"] {
            assert!(image_file_name("a", ID, format).is_err(), "{format}");
        }
    }
}
