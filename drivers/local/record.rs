//! The record of an image: a small JSON file, for this driver and for whoever boots from the store.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::names;

/// No record is larger; a larger file is not one.
const LARGEST: u64 = 4 << 20;

/// What is known of an image. Unknown keys are allowed: a later version may have written them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Record {
    /// A UUID.
    pub(super) id: String,
    /// The name that the upload was given.
    pub(super) name: String,
    /// The image beside this record.
    pub(super) file: String,
    pub(super) format: String,
    /// In bytes; holes count.
    pub(super) size: u64,
    /// Computed from what was stored.
    pub(super) sha256: String,
    /// As the build left it; not computed here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) md5: Option<String>,
    pub(super) properties: BTreeMap<String, String>,
    /// When the upload ended, in seconds since 1970.
    pub(super) created: u64,
}

impl Record {
    /// The record in `file`, or `None` when it holds no whole one. A record names one file only, the one that
    /// its other fields make up: whatever is written in it, it cannot point out of the store.
    pub(super) fn read(file: &File) -> io::Result<Option<Self>> {
        let mut text = String::new();
        match file.take(LARGEST).read_to_string(&mut text) {
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::InvalidData => return Ok(None),
            Err(error) => return Err(error),
        }
        let record: Option<Self> = serde_json::from_str(&text).ok();
        Ok(record.filter(|record| record.file_name().as_ref() == Some(&record.file)))
    }

    fn file_name(&self) -> Option<String> {
        let id = Uuid::parse_str(&self.id).ok()?;
        names::image_file_name(&self.name, id, &self.format).ok()
    }

    /// The record as the text of its file.
    pub(super) fn to_text(&self) -> io::Result<String> {
        let mut text = serde_json::to_string_pretty(self)?;
        text.push('\n');
        if text.len() as u64 >= LARGEST {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the image's properties are too large"));
        }
        Ok(text)
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;
    use crate::testing::Scratch;

    fn record() -> Record {
        let id = Uuid::from_u128(1);
        Record {
            id: id.to_string(),
            name: "a".into(),
            file: names::image_file_name("a", id, "raw").unwrap(),
            format: "raw".into(),
            size: 1,
            sha256: "00".into(),
            md5: None,
            properties: BTreeMap::from([("k".into(), "v".into())]),
            created: 1,
        }
    }

    fn read(text: &str) -> Option<Record> {
        let scratch = Scratch::new();
        let path = scratch.path().join("record");
        File::create(&path).unwrap().write_all(text.as_bytes()).unwrap();
        Record::read(&File::open(&path).unwrap()).unwrap()
    }

    #[test]
    fn a_record_is_read_back() {
        assert_eq!(read(&record().to_text().unwrap()), Some(record()));
    }

    #[test]
    fn no_part_of_a_record_is_a_record() {
        let text = record().to_text().unwrap();
        for length in 0..text.trim_end().len() {
            assert_eq!(read(&text[..length]), None, "{length}");
        }
    }

    #[test]
    fn a_record_cannot_point_elsewhere() {
        let elsewhere = Record { file: "../../etc/passwd".into(), ..record() };
        assert_eq!(read(&elsewhere.to_text().unwrap()), None);
        let climbing = Record { name: "../x".into(), file: "../x".into(), ..record() };
        assert_eq!(read(&climbing.to_text().unwrap()), None);
    }
}
