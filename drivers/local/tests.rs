//! Tests of the local driver beyond the contract.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nodepool_threads::StopSource;
use serde_json::json;

use super::*;
use crate::api::ErrorKind;
use crate::api::contract::{self, Subject};
use crate::testing::{self, Scratch, call, logger, unstopped};

/// A file whose copy takes minutes, as holes are digested too.
const ENDLESS: u64 = 1 << 38;

struct Fixture {
    scratch: Scratch,
    provider: Arc<dyn Provider>,
}

impl Fixture {
    fn new() -> Self {
        let scratch = Scratch::new();
        let provider = open(&scratch.path().join("store"));
        Self { scratch, provider }
    }

    fn images(&self) -> &dyn Images {
        self.provider.images().unwrap()
    }

    fn store(&self) -> PathBuf {
        self.scratch.path().join("store")
    }

    fn source(&self, content: &[u8]) -> PathBuf {
        let file = self.scratch.path().join("source");
        fs::write(&file, content).unwrap();
        file
    }

    fn reopen(&self) {
        open(&self.store());
    }

    /// The names of the store's files, hidden ones too.
    fn files(&self) -> Vec<String> {
        let entries = fs::read_dir(self.store()).unwrap();
        let mut names: Vec<_> =
            entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    }

    fn names(&self) -> Vec<String> {
        let (_source, call) = unstopped();
        self.images().list(&call).unwrap().into_iter().map(|image| image.name).collect()
    }

    fn upload(&self, image: &ImageUpload) -> Result<String, Error> {
        let (_source, call) = unstopped();
        self.images().upload(&call, image)
    }

    fn delete(&self, id: &str) {
        let (_source, call) = unstopped();
        self.images().delete(&call, id).unwrap();
    }
}

fn open(store: &Path) -> Arc<dyn Provider> {
    testing::open(&LocalDriver, json!({"name": "here", "driver": "local", "path": store.to_str().unwrap()}))
}

fn image(file: &Path) -> ImageUpload {
    ImageUpload {
        name: "debian-1".into(),
        file: file.to_owned(),
        format: "raw".into(),
        md5: Some("900150983cd24fb0d6963f7d28e17f72".into()),
        sha256: Some("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad".into()),
        properties: BTreeMap::from([("nodepool_upload_id".into(), "1".into())]),
        progress: Default::default(),
    }
}

/// Waits until `happened`, or fails.
fn eventually(mut happened: impl FnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(30);
    while !happened() {
        assert!(Instant::now() < limit, "it did not happen");
        std::thread::yield_now();
    }
}

#[test]
fn keeps_the_contract() {
    let fixture = Fixture::new();
    let scratch = fixture.scratch.path().join("scratch");
    fs::create_dir(&scratch).unwrap();
    contract::check(&Subject {
        provider: &*fixture.provider,
        slow: &*fixture.provider,
        slow_size: ENDLESS,
        format: "raw",
        label: "",
        scratch: &scratch,
        log: &logger(),
    });
    assert_eq!(fixture.files(), [""; 0]);
}

#[test]
fn the_section_is_read() {
    let section = json!({
        "name": "here", "driver": "local", "path": "/srv/images", "image-format": "raw",
        "image-name-format": "{image_name}_{upload_id}", "diskimages": [{"name": "debian"}],
    });
    let (config, problems) = testing::configure(&LocalDriver, section);
    assert_eq!(problems, [""; 0]);
    let config = config.unwrap();
    let images = config.images().unwrap();
    assert_eq!((images.format.as_str(), config.settings().driver.as_str()), ("raw", "local"));
    assert_eq!(images.external_name("debian", "7", 0), "debian_7");
}

#[test]
fn mistakes_in_a_section_are_all_reported() {
    let section = json!({
        "name": "here", "path": "srv/images", "image-format": "json", "image-name-format": "x/{timestamp}",
        "paht": "/srv",
    });
    let (config, problems) = testing::configure(&LocalDriver, section);
    assert!(config.is_none());
    let expected = [
        "providers[0].image-format: 'json' is taken: each image has a JSON file beside it",
        "providers[0].image-name-format: must not contain '/' nor start with '-' or '.': it names files",
        "providers[0].path: expected an absolute path, found 'srv/images'",
        "providers[0].paht: unknown key, did you mean 'path'?",
    ];
    assert_eq!(problems, expected);
    let (_, problems) = testing::configure(&LocalDriver, json!({"name": "here"}));
    assert_eq!(problems, ["providers[0]: the required key 'path' is missing"]);
}

#[test]
fn an_image_stands_beside_its_record() {
    let fixture = Fixture::new();
    let upload = image(&fixture.source(b"abc"));
    let id = fixture.upload(&upload).unwrap();
    let (file, record) = (format!("debian-1-{id}.raw"), format!("debian-1-{id}.raw.json"));
    assert_eq!(fixture.files(), [file.clone(), record.clone()]);
    let stored = fixture.store().join(&file);
    assert_eq!(fs::read(&stored).unwrap(), b"abc");
    assert_eq!(fs::metadata(&stored).unwrap().permissions().mode() & 0o222, 0, "an image is read-only");
    let text = fs::read(fixture.store().join(&record)).unwrap();
    let record: serde_json::Value = serde_json::from_slice(&text).unwrap();
    assert_eq!(record["id"], id.as_str());
    assert_eq!((&record["name"], &record["file"]), (&json!("debian-1"), &json!(file)));
    assert_eq!((&record["format"], &record["size"]), (&json!("raw"), &json!(3)));
    assert_eq!(record["sha256"], upload.sha256.unwrap());
    assert_eq!(record["md5"], upload.md5.unwrap());
    assert_eq!(record["properties"], json!({"nodepool_upload_id": "1"}));
    assert!(record["created"].as_u64().unwrap() > 1_700_000_000);
}

#[test]
fn a_wrong_checksum_is_permanent_and_leaves_nothing() {
    let fixture = Fixture::new();
    let upload = image(&fixture.source(b"abd"));
    let error = fixture.upload(&upload).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Permanent);
    assert!(error.to_string().contains(upload.sha256.as_deref().unwrap()), "{error}");
    assert_eq!(fixture.files(), [""; 0]);
}

#[test]
fn a_checksum_in_capitals_is_the_same() {
    let fixture = Fixture::new();
    let mut upload = image(&fixture.source(b"abc"));
    upload.sha256 = upload.sha256.map(|digest| digest.to_uppercase());
    fixture.upload(&upload).unwrap();
}

#[test]
fn a_name_that_is_no_file_name_is_permanent_and_leaves_nothing() {
    let fixture = Fixture::new();
    for name in ["../debian", "a/b", ".hidden", "-rf", ""] {
        let upload = ImageUpload { name: name.into(), ..image(&fixture.source(b"abc")) };
        assert_eq!(fixture.upload(&upload).unwrap_err().kind(), ErrorKind::Permanent, "{name}");
    }
    assert_eq!(fixture.files(), [""; 0]);
}

fn endless(fixture: &Fixture) -> ImageUpload {
    let file = fixture.source(b"");
    File::options().write(true).open(&file).unwrap().set_len(ENDLESS).unwrap();
    ImageUpload { sha256: None, ..image(&file) }
}

#[test]
fn a_stop_in_the_middle_of_the_copy_leaves_nothing() {
    let fixture = Fixture::new();
    let upload = endless(&fixture);
    let source = StopSource::new();
    let call = call(&source.token());
    std::thread::scope(|scope| {
        let running = scope.spawn(|| fixture.images().upload(&call, &upload));
        eventually(|| fixture.files().iter().any(|name| name.ends_with(".part")));
        assert_eq!(fixture.names(), [""; 0], "an image on its way in is not listed");
        source.stop();
        assert_eq!(running.join().unwrap().unwrap_err().kind(), ErrorKind::Cancelled);
    });
    assert_eq!(fixture.files(), [""; 0]);
}

#[test]
fn a_deadline_in_the_middle_of_the_copy_leaves_nothing() {
    let fixture = Fixture::new();
    let upload = endless(&fixture);
    let source = StopSource::new();
    let call = call(&source.token().deadline_in(Duration::from_millis(50)));
    assert_eq!(fixture.images().upload(&call, &upload).unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(fixture.files(), [""; 0]);
}

#[test]
fn a_living_upload_survives_the_opening_of_its_store() {
    let fixture = Fixture::new();
    let upload = endless(&fixture);
    let source = StopSource::new();
    let call = call(&source.token());
    std::thread::scope(|scope| {
        let running = scope.spawn(|| fixture.images().upload(&call, &upload));
        eventually(|| fixture.files().len() == 2);
        let before = fixture.files();
        fixture.reopen();
        assert_eq!(fixture.files(), before);
        let id = before[0].trim_start_matches(".nodepool-").trim_end_matches(".json");
        let busy = fixture.images().delete(&call, id).map_err(|error| error.kind());
        assert_eq!(busy, Err(ErrorKind::Transient));
        source.stop();
        running.join().unwrap().unwrap_err();
    });
}

#[test]
fn a_sparse_image_stays_sparse() {
    let fixture = Fixture::new();
    let file = fixture.source(b"boot sector");
    File::options().write(true).open(&file).unwrap().set_len(64 << 20).unwrap();
    let id = fixture.upload(&ImageUpload { sha256: None, ..image(&file) }).unwrap();
    let stored = fs::metadata(fixture.store().join(format!("debian-1-{id}.raw"))).unwrap();
    assert_eq!(stored.len(), 64 << 20);
    assert!(stored.blocks() * 512 < 1 << 20, "{} blocks", stored.blocks());
}

/// Turns a complete image into what a crash at some step leaves, and checks that it is not listed, that the
/// next opening removes it, and that another image and foreign files stay.
fn crash(step: impl FnOnce(&Fixture, &str, &str)) {
    let fixture = Fixture::new();
    let upload = image(&fixture.source(b"abc"));
    let other = fixture.upload(&ImageUpload { name: "other".into(), ..upload.clone() }).unwrap();
    fs::write(fixture.store().join("notes.json"), "{}").unwrap();
    fs::write(fixture.store().join(".nodepool-notes"), "").unwrap();
    let kept = fixture.files();
    let id = fixture.upload(&upload).unwrap();
    step(&fixture, &id, &format!("debian-1-{id}.raw"));
    assert_ne!(fixture.files(), kept);
    assert_eq!(fixture.names(), ["other"]);
    fixture.reopen();
    assert_eq!(fixture.files(), kept);
    assert_eq!(fixture.names(), ["other"]);
    fixture.delete(&other);
}

fn rename(fixture: &Fixture, from: &str, to: &str) {
    fs::rename(fixture.store().join(from), fixture.store().join(to)).unwrap();
}

#[test]
fn a_crash_after_the_journal_was_made_leaves_nothing() {
    crash(|fixture, id, _image| {
        fixture.delete(id);
        fs::write(fixture.store().join(format!(".nodepool-{id}.json")), "").unwrap();
    });
}

#[test]
fn a_crash_in_the_copy_leaves_nothing() {
    crash(|fixture, id, image| {
        rename(fixture, image, &format!(".nodepool-{id}.part"));
        fs::remove_file(fixture.store().join(format!("{image}.json"))).unwrap();
        fs::write(fixture.store().join(format!(".nodepool-{id}.json")), "").unwrap();
    });
}

#[test]
fn a_crash_in_the_writing_of_the_journal_leaves_nothing() {
    crash(|fixture, id, image| {
        rename(fixture, image, &format!(".nodepool-{id}.part"));
        let journal = format!(".nodepool-{id}.json");
        rename(fixture, &format!("{image}.json"), &journal);
        File::options().write(true).open(fixture.store().join(journal)).unwrap().set_len(60).unwrap();
    });
}

#[test]
fn a_crash_before_the_image_has_its_name_leaves_nothing() {
    crash(|fixture, id, image| {
        rename(fixture, image, &format!(".nodepool-{id}.part"));
        rename(fixture, &format!("{image}.json"), &format!(".nodepool-{id}.json"));
    });
}

#[test]
fn a_crash_before_the_record_or_within_a_deletion_leaves_nothing() {
    crash(|fixture, id, image| rename(fixture, &format!("{image}.json"), &format!(".nodepool-{id}.json")));
}

#[test]
fn a_crash_at_the_end_of_a_deletion_leaves_nothing() {
    crash(|fixture, id, image| {
        rename(fixture, &format!("{image}.json"), &format!(".nodepool-{id}.json"));
        fs::remove_file(fixture.store().join(image)).unwrap();
    });
}

#[test]
fn a_part_without_a_journal_is_removed() {
    crash(|fixture, id, _image| {
        fixture.delete(id);
        fs::write(fixture.store().join(format!(".nodepool-{id}.part")), "x").unwrap();
    });
}

#[test]
fn a_deletion_that_failed_half_way_can_be_repeated() {
    let fixture = Fixture::new();
    let id = fixture.upload(&image(&fixture.source(b"abc"))).unwrap();
    let record = format!("debian-1-{id}.raw.json");
    rename(&fixture, &record, &format!(".nodepool-{id}.json"));
    fixture.delete(&id);
    assert_eq!(fixture.files(), [""; 0]);
}

#[test]
fn an_image_that_somebody_removed_by_hand_is_not_listed_and_can_be_deleted() {
    let fixture = Fixture::new();
    let id = fixture.upload(&image(&fixture.source(b"abc"))).unwrap();
    fs::remove_file(fixture.store().join(format!("debian-1-{id}.raw"))).unwrap();
    assert_eq!(fixture.names(), [""; 0]);
    fixture.delete(&id);
    assert_eq!(fixture.files(), [""; 0]);
}

#[test]
fn the_store_is_made_or_says_why_not() {
    let scratch = Scratch::new();
    let deep = scratch.path().join("a/b/c");
    open(&deep);
    assert!(deep.is_dir());
    let file = scratch.path().join("file");
    fs::write(&file, "").unwrap();
    let section = json!({"name": "here", "path": file.to_str().unwrap()});
    let (config, _) = testing::configure(&LocalDriver, section);
    let error = config.unwrap().open(&logger()).err().unwrap();
    assert_eq!(error.kind(), ErrorKind::Permanent);
    assert!(error.to_string().contains(file.to_str().unwrap()), "{error}");
}

#[test]
fn two_openings_of_one_store_see_the_same_images() {
    let fixture = Fixture::new();
    let other = open(&fixture.store());
    let id = fixture.upload(&image(&fixture.source(b"abc"))).unwrap();
    let (_source, call) = unstopped();
    assert_eq!(other.images().unwrap().list(&call).unwrap().len(), 1);
    other.images().unwrap().delete(&call, &id).unwrap();
    assert_eq!(fixture.names(), [""; 0]);
}

#[test]
fn a_store_that_is_only_asked_is_left_as_it_is() {
    let fixture = Fixture::new();
    let section = json!({"name": "here", "path": fixture.store().to_str().unwrap()});
    let asked = testing::configure(&LocalDriver, section).0.unwrap().open_to_ask(&logger()).unwrap();
    let (_source, call) = unstopped();
    let list = || asked.images().unwrap().list(&call).map(|images| images.len());
    fs::write(fixture.store().join(format!(".nodepool-{}.json", uuid::Uuid::nil())), "").unwrap();
    assert_eq!((list().unwrap(), fixture.files().len()), (0, 1));
    fs::remove_dir_all(fixture.store()).unwrap();
    assert_eq!(list().unwrap_err().kind(), ErrorKind::Permanent);
    assert!(!fixture.store().exists());
}
