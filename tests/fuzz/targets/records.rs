//! The data of znodes: what is written back keeps what another version wrote.
#![no_main]

use std::fmt::Debug;

use libfuzzer_sys::fuzz_target;
use nodepool::model::{BuildRecord, NodeRecord, UploadRecord, decode, encode};
use serde_json::{Map, Value};

fuzz_target!(|data: &[u8]| {
    if let Ok(record) = decode::<BuildRecord>(data) {
        check(data, &record, encode(&record), decode(&encode(&record)));
    }
    if let Ok(record) = decode::<UploadRecord>(data) {
        check(data, &record, encode(&record), decode(&encode(&record)));
    }
    if let Ok(record) = decode::<NodeRecord>(data) {
        check(data, &record, encode(&record), decode(&encode(&record)));
    }
});

fn check<R: Debug + PartialEq, E: Debug>(data: &[u8], record: &R, written: Vec<u8>, again: Result<R, E>) {
    assert_eq!(again.as_ref().expect("what we write can be read"), record);
    let (before, after) = (object(data), object(&written));
    for (key, value) in &before {
        match (key.as_str(), after.get(key)) {
            // Another spelling of the same formats, or none.
            ("formats", _) => {}
            // The original writes none rather than null, and reads both the same.
            ("builder" | "builder_id", None) => assert!(value.is_null(), "{key:?}"),
            // Every number is one of floating point here.
            ("state_time" | "created_time", Some(kept)) => assert_eq!(kept.as_f64(), value.as_f64()),
            // Old records have a word there, or nothing.
            ("type", Some(Value::Array(kept))) if !value.is_array() => {
                assert_eq!(kept.first(), Some(value).filter(|value| !value.is_null()));
            }
            (_, kept) => assert_eq!(kept, Some(value), "{key:?}"),
        }
    }
}

fn object(data: &[u8]) -> Map<String, Value> {
    serde_json::from_slice(data).expect("a record is an object")
}
