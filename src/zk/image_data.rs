//! The records of all images as a backup has them: each with its path and its data, byte for byte
//! (spec/cli.md, `export-image-data`).
//!
//! An import takes no locks: it is meant for a fleet whose builders are stopped. What is there and not in the
//! backup stays.

use std::collections::BTreeMap;
use std::mem::discriminant;

use nodepool_drivers::api::name_mistake;

use super::at_once::at_once;
use super::error::{ZkError, ZkErrorKind, ZkResult, optional};
use super::images::{IMAGES, Images, build_path, pause_path, upload_path, uploads_path};

/// More uploads of one build to one provider than there will ever be. To advance a counter costs two round
/// trips for each number.
const LAST_UPLOAD: u32 = 999_999;

/// A record that a backup has, in the order in which they are put back: nothing is built of a paused image,
/// and no upload comes before its build.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum RecordPath {
    /// The mark of an image that is paused.
    Pause {
        /// The image's name.
        image: String,
    },
    /// The record of a build.
    Build {
        /// The image's name.
        image: String,
        /// The build's id.
        build: String,
    },
    /// The record of an upload.
    Upload {
        /// The image's name.
        image: String,
        /// The build's id.
        build: String,
        /// The provider's name.
        provider: String,
        /// The upload's id: ten digits.
        upload: String,
    },
}

impl RecordPath {
    /// The record that is at `path`, or why a backup cannot have one there.
    pub fn parse(path: &str) -> Result<Self, String> {
        let own = |name: &str| name.to_owned();
        let below = path.strip_prefix(IMAGES).and_then(|rest| rest.strip_prefix('/'));
        let names: Vec<&str> = below.map(|rest| rest.split('/').collect()).unwrap_or_default();
        let (found, given) = match names[..] {
            [image, "pause"] => (Self::Pause { image: own(image) }, vec![image]),
            [image, "builds", build] if build != "lock" => {
                (Self::Build { image: own(image), build: own(build) }, vec![image, build])
            }
            [image, "builds", build, "providers", provider, "images", upload] if build != "lock" => {
                let [image, build, provider] = [image, build, provider].map(own);
                let given = vec![names[0], names[2], names[4]];
                (Self::Upload { image, build, provider, upload: upload_id(upload)? }, given)
            }
            _ => return Err("it is no build, upload or pause mark of an image".to_owned()),
        };
        for name in given {
            if let Some(mistake) = name_mistake(name) {
                return Err(format!("the name '{}' {mistake}", name.escape_debug()));
            }
        }
        Ok(found)
    }

    /// Where it is.
    pub fn path(&self) -> String {
        match self {
            Self::Pause { image } => pause_path(image),
            Self::Build { image, build } => build_path(image, build),
            Self::Upload { image, build, provider, upload } => upload_path(image, build, provider, upload),
        }
    }
}

/// The records of a backup: a JSON object of their paths with their data. The error says what keeps it from being
/// one; a backup is taken whole or not at all.
pub fn parse_backup(text: &[u8]) -> Result<BTreeMap<RecordPath, String>, String> {
    let by_path: BTreeMap<String, String> = serde_json::from_slice(text)
        .map_err(|error| format!("it is no JSON object of paths with their data: {error}"))?;
    let record = |(path, data): (String, String)| match RecordPath::parse(&path) {
        Ok(record) => Ok((record, data)),
        Err(why) => Err(format!("{}: {why}", path.escape_debug())),
    };
    by_path.into_iter().map(record).collect()
}

fn upload_id(name: &str) -> Result<String, String> {
    let number = name.parse::<u32>().ok().filter(|_| name.len() == 10 && !name.starts_with('+'));
    match number {
        None => Err(format!("the upload id '{}' is no number of ten digits", name.escape_debug())),
        Some(number) if number > LAST_UPLOAD => Err(format!(
            "the upload id {name} is beyond any real one; the last that can be imported is {LAST_UPLOAD:010}"
        )),
        Some(_) => Ok(name.to_owned()),
    }
}

impl Images {
    /// The records of all builds, uploads and pause marks. Those that are no text cannot stand in a backup;
    /// they are told to `left_out`.
    pub fn export(&self, left_out: &mut dyn FnMut(&str)) -> ZkResult<BTreeMap<RecordPath, String>> {
        let images = self.clone();
        let of_images = at_once(self.names()?, move |image| images.image_records(image))?;
        let images = self.clone();
        let of_uploads = at_once(self.upload_places()?, move |place| {
            let [image, build, provider] = [&place.image, &place.build, &place.provider].map(String::clone);
            let record = move |upload| {
                let (image, build, provider) = (image.clone(), build.clone(), provider.clone());
                RecordPath::Upload { image, build, provider, upload }
            };
            Ok(images.upload_ids(place)?.into_iter().map(record).collect::<Vec<_>>())
        })?;
        let all: Vec<_> = of_images.into_iter().chain(of_uploads).flatten().collect();
        let session = self.session().clone();
        let data = at_once(all.clone(), move |record| optional(session.get(&record.path())))?;
        let mut found = BTreeMap::new();
        for (record, data) in all.into_iter().zip(data) {
            let Some((data, _)) = data else { continue };
            match String::from_utf8(data) {
                Ok(text) => drop(found.insert(record, text)),
                Err(_) => left_out(&record.path()),
            }
        }
        Ok(found)
    }

    fn image_records(&self, image: &str) -> ZkResult<Vec<RecordPath>> {
        let pause = self.is_paused(image)?.then(|| RecordPath::Pause { image: image.to_owned() });
        let build = |build| RecordPath::Build { image: image.to_owned(), build };
        Ok(pause.into_iter().chain(self.build_ids(image)?.into_iter().map(build)).collect())
    }

    /// Puts the records of a backup in their places, over those that are there.
    pub fn import(&self, records: &BTreeMap<RecordPath, String>) -> ZkResult<()> {
        self.keep_counters_ahead(records)?;
        let all: Vec<_> = records.iter().map(|(record, data)| (record.clone(), data.clone())).collect();
        // Records of one kind do not wait for each other.
        for kind in all.chunk_by(|(a, _), (b, _)| discriminant(a) == discriminant(b)) {
            let images = self.clone();
            at_once(kind.to_vec(), move |(record, data)| images.put(&record.path(), data.as_bytes()))?;
        }
        Ok(())
    }

    /// The server counts how many children a znode has ever had, and names the next upload after that: it
    /// must not be the name of one that is imported.
    fn keep_counters_ahead(&self, records: &BTreeMap<RecordPath, String>) -> ZkResult<()> {
        let mut last: BTreeMap<String, u32> = BTreeMap::new();
        for record in records.keys() {
            if let RecordPath::Upload { image, build, provider, upload } = record {
                let number = upload.parse().unwrap_or(0);
                let known = last.entry(uploads_path(image, build, provider)).or_default();
                *known = number.max(*known);
            }
        }
        let session = self.session().clone();
        let advance = move |(parent, last): &(String, u32)| {
            let mut stat = session.stat(parent)?;
            if stat.is_none() {
                session.ensure_path(parent)?;
                stat = session.stat(parent)?;
            }
            let mut next = stat.map_or(0, |stat| stat.next_sequence);
            let there = session.children(parent)?;
            // Nor shall it be the name of one that is there and not in the backup.
            let last = there.iter().filter_map(|id| upload_id(id).ok()?.parse().ok()).fold(*last, u32::max);
            // The last one counts when it is made.
            let to_be_made = !there.contains(&format!("{last:010}"));
            while i64::from(next) + i64::from(to_be_made) <= i64::from(last) {
                // Goes with this session at the latest.
                let counted = session.create_ephemeral(&format!("{parent}/import-"), b"")?;
                optional(session.delete(&counted, None))?;
                next = next.saturating_add(1);
            }
            Ok(())
        };
        at_once(last.into_iter().collect(), advance).map(drop)
    }

    fn put(&self, path: &str, data: &[u8]) -> ZkResult<()> {
        let session = self.session();
        loop {
            let written = match session.stat(path)? {
                Some(stat) => session.set(path, data, stat.version).map(drop),
                None => match session.create(path, data) {
                    Err(error) if error.is(ZkErrorKind::NoNode) => {
                        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
                        session.ensure_path(parent)?;
                        continue;
                    }
                    other => other,
                },
            };
            match written {
                // Somebody else made, wrote or removed it in between.
                Err(error) if is_race(&error) => {}
                other => return other,
            }
        }
    }
}

fn is_race(error: &ZkError) -> bool {
    [ZkErrorKind::NodeExists, ZkErrorKind::BadVersion, ZkErrorKind::NoNode].contains(&error.kind())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_records_of_images_are_imported() {
        let good = r#"{"/nodepool/images/a-b/pause": "", "/nodepool/images/i/builds/0000000001": "{\"state\": 1}",
            "/nodepool/images/i/builds/aa/providers/p/images/0000000007": "é"}"#;
        let records = parse_backup(good.as_bytes()).unwrap();
        let paths: Vec<_> = records.keys().map(RecordPath::path).collect();
        let expected = [
            "/nodepool/images/a-b/pause",
            "/nodepool/images/i/builds/0000000001",
            "/nodepool/images/i/builds/aa/providers/p/images/0000000007",
        ];
        assert_eq!(paths, expected);
        assert_eq!(records.values().collect::<Vec<_>>(), ["", "{\"state\": 1}", "é"]);
        for (path, why) in [
            ("/nodepool/images/i", "it is no build, upload or pause mark of an image"),
            ("/nodepool/nodes/0000000001", "it is no build, upload or pause mark of an image"),
            ("/nodepool/images/i/builds/lock", "it is no build, upload or pause mark of an image"),
            ("/nodepool/images/i/builds/a/lock", "it is no build, upload or pause mark of an image"),
            ("nodepool/images/i/pause", "it is no build, upload or pause mark of an image"),
            ("/nodepool/images//pause", "the name '' must not be empty"),
            ("/nodepool/images/i/builds/..", "the name '..' must not be '.' or '..'"),
            (
                "/nodepool/images/i/builds/a/providers/p/images/1",
                "the upload id '1' is no number of ten digits",
            ),
            (
                "/nodepool/images/i/builds/a/providers/p/images/lock",
                "the upload id 'lock' is no number of ten digits",
            ),
            (
                "/nodepool/images/i/builds/a/providers/p/images/0001000000",
                "the upload id 0001000000 is beyond any real one; the last that can be imported is 0000999999",
            ),
        ] {
            let text = format!("{{\"{path}\": \"\"}}");
            assert_eq!(parse_backup(text.as_bytes()).unwrap_err(), format!("{path}: {why}"));
        }
        for text in ["", "[]", "{\"/nodepool/images/i/pause\": null}", "{\"/nodepool/images/i/pause\": \"\""]
        {
            let why = parse_backup(text.as_bytes()).unwrap_err();
            assert!(why.starts_with("it is no JSON object of paths with their data: "), "{why}");
        }
    }
}
