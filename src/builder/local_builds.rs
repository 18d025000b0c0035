//! What the images directory holds: the files of builds, named `<image>-<build id>.<suffix>`.
//!
//! A build leaves `.<format>` for each format, `.<format>.md5` and `.<format>.sha256` beside it, and the
//! manifest directory `.d` (spec/config.md, The build command).

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::{self, ErrorKind};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long it may take to remove the files of a build or to read its checksums, unless the disk hangs.
pub const FILES_LIMIT: Duration = Duration::from_secs(60);

/// The formats on this disk, by image and build.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct LocalBuilds(BTreeMap<String, BTreeMap<String, BTreeSet<String>>>);

impl LocalBuilds {
    /// Looks at the images directory.
    pub fn scan(images_dir: &Path) -> io::Result<Self> {
        let mut found = Self::default();
        for entry in fs::read_dir(images_dir)? {
            let entry = entry?;
            let name = entry.file_name();
            let Some((image, id, suffix)) = name.to_str().and_then(parse) else { continue };
            let formats = found.0.entry(image.to_owned()).or_default().entry(id.to_owned()).or_default();
            // A checksum or a manifest alone still belongs to a build that must be cleaned up one day.
            if !suffix.contains('.') && suffix != "d" {
                formats.insert(suffix.to_owned());
            }
        }
        Ok(found)
    }

    /// The images that have other files there.
    pub fn differing<'a>(&'a self, there: &'a Self) -> impl Iterator<Item = &'a String> {
        let changed = self.0.iter().filter(|(image, builds)| there.0.get(*image) != Some(builds));
        let new = there.0.keys().filter(|image| !self.0.contains_key(*image));
        changed.map(|(image, _)| image).chain(new)
    }

    /// Notes the files that a build has left.
    pub fn add(&mut self, image: &str, id: &str, formats: impl IntoIterator<Item = String>) {
        let build = self.0.entry(image.to_owned()).or_default().entry(id.to_owned()).or_default();
        build.extend(formats);
    }

    /// Notes that all files of a build are removed.
    pub fn forget(&mut self, image: &str, id: &str) {
        let Some(builds) = self.0.get_mut(image) else { return };
        builds.remove(id);
        if builds.is_empty() {
            self.0.remove(image);
        }
    }

    /// Notes that the file of one format is removed.
    pub fn forget_format(&mut self, image: &str, id: &str, format: &str) {
        if let Some(formats) = self.0.get_mut(image).and_then(|builds| builds.get_mut(id)) {
            formats.remove(format);
        }
    }

    /// A set of builds for a table test: image, build and formats.
    #[cfg(test)]
    pub fn of(builds: &[(&str, &str, &[&str])]) -> Self {
        let mut found = Self::default();
        for (image, id, formats) in builds {
            let formats = formats.iter().map(|format| (*format).to_owned()).collect();
            found.0.entry((*image).to_owned()).or_default().insert((*id).to_owned(), formats);
        }
        found
    }

    /// The images that have files.
    pub fn images(&self) -> impl Iterator<Item = &String> {
        self.0.keys()
    }

    /// The builds of an image that have files, with the formats of each.
    pub fn builds(&self, image: &str) -> impl Iterator<Item = (&String, &BTreeSet<String>)> {
        self.0.get(image).into_iter().flatten()
    }

    /// Whether the build has files of any kind.
    pub fn has(&self, image: &str, id: &str) -> bool {
        self.0.get(image).is_some_and(|builds| builds.contains_key(id))
    }

    /// Whether the build has a file of the format.
    pub fn has_format(&self, image: &str, id: &str, format: &str) -> bool {
        self.0.get(image).and_then(|builds| builds.get(id)).is_some_and(|formats| formats.contains(format))
    }
}

/// A build id is a uuid4 in 32 lower-case hex digits; older data have 10-digit sequence numbers.
fn is_build_id(text: &str) -> bool {
    let hex = |byte: u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte);
    match text.len() {
        32 => text.bytes().all(hex),
        10 => text.bytes().all(|byte| byte.is_ascii_digit()),
        _ => false,
    }
}

fn parse(name: &str) -> Option<(&str, &str, &str)> {
    // The image's name may have dots and dashes; an id has neither.
    let (image, rest) = name.rmatch_indices('-').find_map(|(dash, _)| {
        let rest = &name[dash + 1..];
        rest.split('.').next().is_some_and(is_build_id).then(|| (&name[..dash], rest))
    })?;
    let (id, suffix) = rest.split_once('.')?;
    (!image.is_empty() && !suffix.is_empty()).then_some((image, id, suffix))
}

/// The path of a build without any suffix, as the build command's `-o` has it.
pub fn base_path(images_dir: &Path, image: &str, id: &str) -> PathBuf {
    images_dir.join(format!("{image}-{id}"))
}

/// The file of a build in a format.
pub fn image_file(images_dir: &Path, image: &str, id: &str, format: &str) -> PathBuf {
    with_suffix(&base_path(images_dir, image, id), format)
}

/// The path with `.suffix` behind it, whatever dots it has.
pub fn with_suffix(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(".");
    path.push(suffix);
    path.into()
}

/// The bytes that a file takes on the disk. Not its length: a raw image has holes.
pub fn bytes_on_disk(file: &fs::Metadata) -> u64 {
    file.blocks() * 512
}

/// Removes every file of a build. Files that are not there count as removed.
pub fn remove_build(images_dir: &Path, image: &str, id: &str) -> io::Result<()> {
    remove_where(images_dir, |name| matches!(parse(name), Some((i, b, _)) if i == image && b == id))
}

/// Removes a build's file of one format, with its checksums.
pub fn remove_format(images_dir: &Path, image: &str, id: &str, format: &str) -> io::Result<()> {
    let of_format = |suffix: &str| {
        suffix.strip_prefix(format).is_some_and(|rest| matches!(rest, "" | ".md5" | ".sha256"))
    };
    remove_where(
        images_dir,
        |name| matches!(parse(name), Some((i, b, suffix)) if i == image && b == id && of_format(suffix)),
    )
}

fn remove_where(images_dir: &Path, wanted: impl Fn(&str) -> bool) -> io::Result<()> {
    for entry in fs::read_dir(images_dir)? {
        let entry = entry?;
        if !entry.file_name().to_str().is_some_and(&wanted) {
            continue;
        }
        let path = entry.path();
        let removed = match (entry.file_type()?.is_dir(), path.extension().is_some_and(|end| end == "d")) {
            (false, _) => fs::remove_file(&path),
            (true, true) => fs::remove_dir_all(&path),
            // A build leaves no other directory, so this one is somebody else's.
            (true, false) => continue,
        };
        match removed {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(io::Error::new(
                    error.kind(),
                    format!("cannot remove {}: {error}", path.display()),
                ));
            }
            _ => {}
        }
    }
    Ok(())
}

/// The digest in a checksum file beside an image file: the first word. `None` if there is no such file.
pub fn checksum(image_file: &Path, kind: &str) -> io::Result<Option<String>> {
    match fs::read_to_string(with_suffix(image_file, kind)) {
        Ok(text) => Ok(text.split_whitespace().next().map(str::to_ascii_lowercase)),
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef";

    #[test]
    fn names_are_taken_apart_whatever_the_image_is_called() {
        for (image, suffix) in
            [("debian", "qcow2"), ("debian-12.5", "raw.sha256"), ("a-b-c", "d"), ("x", "vhd-intermediate")]
        {
            assert_eq!(parse(&format!("{image}-{ID}.{suffix}")), Some((image, ID, suffix)));
        }
        assert_eq!(parse("debian-0000000007.raw"), Some(("debian", "0000000007", "raw")));
        for stranger in
            ["builder_id.txt", "debian.raw", "debian-12.raw", &format!("-{ID}.raw"), &format!("debian-{ID}")]
        {
            assert_eq!(parse(stranger), None, "{stranger}");
        }
    }

    #[test]
    fn a_build_is_found_and_removed_with_all_that_belongs_to_it() {
        let dir = std::env::temp_dir().join(format!("local-builds-{}", std::process::id()));
        fs::create_dir_all(dir.join(format!("debian-{ID}.d"))).unwrap();
        for suffix in ["qcow2", "qcow2.md5", "qcow2.sha256", "raw"] {
            fs::write(dir.join(format!("debian-{ID}.{suffix}")), "0A12  file\n").unwrap();
        }
        let other = format!("debian-arm-{ID}.raw");
        fs::write(dir.join(&other), "").unwrap();
        fs::write(dir.join("builder_id.txt"), "").unwrap();

        let found = LocalBuilds::scan(&dir).unwrap();
        assert_eq!(
            found,
            LocalBuilds::of(&[("debian", ID, &["qcow2", "raw"]), ("debian-arm", ID, &["raw"])])
        );
        let file = image_file(&dir, "debian", ID, "qcow2");
        assert_eq!(checksum(&file, "md5").unwrap().unwrap(), "0a12");
        assert_eq!(checksum(&file, "sha1").unwrap(), None);

        let mut noted = found;
        remove_format(&dir, "debian", ID, "qcow2").unwrap();
        noted.forget_format("debian", ID, "qcow2");
        assert_eq!(noted, LocalBuilds::scan(&dir).unwrap());
        assert!(!noted.has_format("debian", ID, "qcow2") && noted.has_format("debian", ID, "raw"));
        remove_build(&dir, "debian", ID).unwrap();
        remove_build(&dir, "debian", ID).unwrap();
        noted.forget("debian", ID);
        noted.forget("debian", ID);
        assert_eq!(noted, LocalBuilds::scan(&dir).unwrap());
        let mut left: Vec<_> = fs::read_dir(&dir)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        left.sort();
        assert_eq!(left, ["builder_id.txt".to_owned(), other]);
        fs::remove_dir_all(dir).unwrap();
    }

    #[test]
    fn only_images_whose_files_are_other_ones_differ() {
        let old =
            LocalBuilds::of(&[("a", "1", &["raw"]), ("b", "1", &["raw"]), ("c", "1", &[]), ("d", "1", &[])]);
        let mut new = LocalBuilds::of(&[
            ("a", "1", &["raw"]),
            ("b", "1", &["raw", "vhd"]),
            ("c", "2", &[]),
            ("e", "1", &[]),
        ]);
        assert_eq!(old.differing(&new).collect::<Vec<_>>(), ["b", "c", "d", "e"]);
        new.add("f", "1", ["raw".to_owned()]);
        assert!(new.has_format("f", "1", "raw"));
        assert_eq!(new.differing(&new).count(), 0);
    }
}
