//! The JSON objects of image builds and uploads.

use std::collections::BTreeSet;
use std::fmt;

use serde::de::{self, DeserializeOwned};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::{Map, Value};

use super::time::now;

/// The state of an image build.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BuildState {
    /// The build command runs, if somebody holds the image's build lock.
    Building,
    /// The files are complete.
    Ready,
    /// To be deleted, with its uploads.
    Deleting,
    /// The build command failed, timed out, was stopped or lost its lock.
    Failed,
}

/// The state of an upload of a build to a provider.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum UploadState {
    /// The provider receives the image, if somebody holds the upload lock.
    Uploading,
    /// The provider has the image.
    Ready,
    /// To be deleted: at the provider first, then the record.
    Deleting,
    /// The upload failed.
    Failed,
}

/// Prints a state as the word that stands in its records.
macro_rules! display_as_in_json {
    ($type:ident { $($variant:ident => $word:literal),+ }) => {
        impl std::fmt::Display for $type {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.pad(match self { $(Self::$variant => $word),+ })
            }
        }
    };
}
pub(super) use display_as_in_json;

display_as_in_json!(BuildState {
    Building => "building", Ready => "ready", Deleting => "deleting", Failed => "failed"
});
display_as_in_json!(UploadState {
    Uploading => "uploading", Ready => "ready", Deleting => "deleting", Failed => "failed"
});

/// An ImageBuild record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct BuildRecord {
    /// The build's state.
    pub state: BuildState,
    /// Since when it has been in that state, UNIX seconds.
    #[serde(default)]
    pub state_time: f64,
    /// The fully qualified host name of the builder.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builder: Option<String>,
    /// The builder's own id, which outlives a change of its host name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub builder_id: Option<String>,
    /// The formats that were built, or are being built.
    #[serde(default, with = "comma_joined", skip_serializing_if = "BTreeSet::is_empty")]
    pub formats: BTreeSet<String>,
    /// The user that nodes of this image are reached as; `None` means `zuul`.
    #[serde(default)]
    pub username: Option<String>,
    /// Where nodes of this image have Python; `None` means `/usr/bin/python2`.
    #[serde(default)]
    pub python_path: Option<String>,
    /// The shell that nodes of this image have.
    #[serde(default)]
    pub shell_type: Option<String>,
    /// Keys of other versions.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

/// An ImageUpload record.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct UploadRecord {
    /// The upload's state.
    pub state: UploadState,
    /// Since when it has been in that state, UNIX seconds.
    #[serde(default)]
    pub state_time: f64,
    /// The provider's id of the image.
    #[serde(default)]
    pub external_id: Option<String>,
    /// The image's name at the provider.
    #[serde(default)]
    pub external_name: Option<String>,
    /// The format that was uploaded.
    #[serde(default)]
    pub format: Option<String>,
    /// As in the build's record.
    #[serde(default)]
    pub username: Option<String>,
    /// As in the build's record.
    #[serde(default)]
    pub python_path: Option<String>,
    /// As in the build's record.
    #[serde(default)]
    pub shell_type: Option<String>,
    /// Keys of other versions.
    #[serde(flatten)]
    pub other: Map<String, Value>,
}

impl BuildRecord {
    /// A record in `state` since now, with nothing else.
    pub fn new(state: BuildState) -> Self {
        Self {
            state,
            state_time: now(),
            builder: None,
            builder_id: None,
            formats: BTreeSet::new(),
            username: None,
            python_path: None,
            shell_type: None,
            other: Map::new(),
        }
    }

    /// Changes the state, and with it the time of the change.
    pub fn set_state(&mut self, state: BuildState) {
        self.state = state;
        self.state_time = now();
    }
}

impl UploadRecord {
    /// A record in `state` since now, with nothing else.
    pub fn new(state: UploadState) -> Self {
        Self {
            state,
            state_time: now(),
            external_id: None,
            external_name: None,
            format: None,
            username: None,
            python_path: None,
            shell_type: None,
            other: Map::new(),
        }
    }

    /// Changes the state, and with it the time of the change.
    pub fn set_state(&mut self, state: UploadState) {
        self.state = state;
        self.state_time = now();
    }
}

/// Formats stand in a record as one string, joined by commas and sorted.
mod comma_joined {
    use super::*;

    pub(super) fn serialize<S: Serializer>(formats: &BTreeSet<String>, to: S) -> Result<S::Ok, S::Error> {
        let words: Vec<&str> = formats.iter().map(String::as_str).collect();
        to.serialize_str(&words.join(","))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<BTreeSet<String>, D::Error> {
        // The original has written both forms over time, and null where there were none.
        let words: Vec<String> = match Value::deserialize(from)? {
            Value::Null => Vec::new(),
            Value::String(joined) => joined.split(',').map(str::to_owned).collect(),
            Value::Array(items) => items.iter().filter_map(Value::as_str).map(str::to_owned).collect(),
            other => return Err(de::Error::custom(format!("formats are no string but {other}"))),
        };
        Ok(words.into_iter().filter(|word| !word.is_empty()).collect())
    }
}

/// A record that cannot be read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordError(String);

impl fmt::Display for RecordError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for RecordError {}

/// Reads a record from a znode's data.
pub fn decode<R: DeserializeOwned>(data: &[u8]) -> Result<R, RecordError> {
    if data.is_empty() {
        return Err(RecordError("the record is empty".to_owned()));
    }
    serde_json::from_slice(data).map_err(|error| RecordError(format!("the record is damaged: {error}")))
}

/// A record as a znode's data.
pub fn encode<R: Serialize>(record: &R) -> Vec<u8> {
    // invariant: a record has string keys and numbers that JSON can hold, apart from a time that is no
    // number, which serde_json writes as null.
    serde_json::to_vec(record).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn round_trip<R: Serialize + DeserializeOwned>(data: &Value) -> Value {
        let record: R = decode(data.to_string().as_bytes()).unwrap();
        serde_json::from_slice(&encode(&record)).unwrap()
    }

    #[test]
    fn a_build_record_survives_with_the_keys_that_we_do_not_know() {
        let data = json!({
            "state": "ready", "state_time": 1700000000.25, "builder": "b.example", "builder_id": "x",
            "formats": "qcow2,raw", "username": "zuul", "python_path": "auto", "shell_type": null,
            "from_the_future": {"a": [1, 2]},
        });
        assert_eq!(round_trip::<BuildRecord>(&data), data);
    }

    #[test]
    fn an_upload_record_survives_with_the_keys_that_we_do_not_know() {
        let data = json!({
            "state": "uploading", "state_time": 1.5, "external_id": null, "external_name": null,
            "format": null, "username": null, "python_path": null, "shell_type": null, "new": true,
        });
        assert_eq!(round_trip::<UploadRecord>(&data), data);
    }

    #[test]
    fn formats_are_absent_when_there_are_none_and_sorted_otherwise() {
        let mut record = BuildRecord::new(BuildState::Building);
        assert!(!String::from_utf8(encode(&record)).unwrap().contains("formats"));
        record.formats = ["raw", "qcow2"].map(str::to_owned).into();
        assert!(String::from_utf8(encode(&record)).unwrap().contains(r#""formats":"qcow2,raw""#));
        for formats in [json!(null), json!(""), json!([])] {
            let data = json!({"state": "ready", "formats": formats}).to_string();
            assert!(decode::<BuildRecord>(data.as_bytes()).unwrap().formats.is_empty());
        }
    }

    #[test]
    fn damaged_records_are_errors_that_say_why() {
        for (data, why) in [
            ("", "empty"),
            ("{", "damaged"),
            ("[]", "damaged"),
            ("{\"state_time\": 1}", "missing field `state`"),
            ("{\"state\": \"lost\"}", "unknown variant `lost`"),
            ("{\"state\": \"ready\", \"state_time\": \"x\"}", "invalid type"),
        ] {
            let error = decode::<BuildRecord>(data.as_bytes()).unwrap_err().to_string();
            assert!(error.contains(why), "{data}: {error}");
        }
    }

    #[test]
    fn a_changed_state_has_the_time_of_the_change() {
        let mut record = BuildRecord::new(BuildState::Building);
        record.state_time = 5.0;
        record.set_state(BuildState::Failed);
        assert!(record.state_time > 1_000_000_000.0);
        assert_eq!(record.state.to_string(), "failed");
    }
}
