//! The listings that the client and the web pages show: builds, uploads, the status of images, nodes and node
//! requests, as tables for people and as JSON for programs.
//!
//! Columns, values and keys are the original's. Its order is that of a hash table; ours is the image's name,
//! then the builds as they were made, then providers and uploads; of nodes that of their ids, and of requests
//! the one in which they are served. Under the key `age` of an image the original has the time itself, in whole
//! seconds; what the words say stands in further keys.

mod nodes;
mod table;

use serde::Serialize;

use crate::model::{Age, Build, Image};
use crate::zk::ListedUpload;
pub use nodes::{LabelRow, NodeRow, RequestRow, label_rows, node_rows, request_rows};
use table::Table;

/// An object of a listing. Its JSON form is the list's, with the keys in the order of the columns.
pub trait Row: Serialize {
    /// The titles of the columns.
    const HEADER: &'static [&'static str];

    /// A text for each column; `now` in UNIX seconds.
    fn cells(&self, now: f64) -> Vec<String>;
}

/// A row whose columns can be chosen.
pub trait Keyed: Row {
    /// The keys of the columns: those of the original's JSON form.
    const KEYS: &'static [&'static str];
}

/// Since when something has been in its state.
#[derive(Debug, Serialize)]
struct Since {
    age: i64,
    state_time: f64,
    age_seconds: Age,
}

impl Since {
    fn new(state_time: f64, now: f64) -> Self {
        Self { age: state_time as i64, state_time, age_seconds: Age::between(state_time, now) }
    }
}

/// A build.
#[derive(Debug, Serialize)]
pub struct BuildRow {
    id: String,
    image: String,
    builder: Option<String>,
    formats: Vec<String>,
    state: String,
    #[serde(flatten)]
    since: Since,
}

impl Row for BuildRow {
    const HEADER: &'static [&'static str] = &["ID", "Image", "Builder", "Formats", "State", "Age"];

    fn cells(&self, now: f64) -> Vec<String> {
        let Self { id, image, builder, formats, state, since } = self;
        let builder = builder.clone().unwrap_or_default();
        vec![id.clone(), image.clone(), builder, formats.join(","), state.clone(), age(since.state_time, now)]
    }
}

impl Keyed for BuildRow {
    const KEYS: &'static [&'static str] = &["id", "image", "builder", "formats", "state", "age"];
}

/// An upload.
#[derive(Debug, Serialize)]
pub struct UploadRow {
    id: String,
    upload_id: String,
    provider: String,
    image: String,
    external_name: Option<String>,
    external_id: Option<String>,
    state: String,
    #[serde(flatten)]
    since: Since,
}

impl Row for UploadRow {
    const HEADER: &'static [&'static str] = &[
        "Build ID",
        "Upload ID",
        "Provider",
        "Image",
        "Provider Image Name",
        "Provider Image ID",
        "State",
        "Age",
    ];

    fn cells(&self, now: f64) -> Vec<String> {
        let Self { id, upload_id, provider, image, external_name, external_id, state, since } = self;
        let (name, external_id) = (external_name.clone().unwrap_or_default(), external_id.clone());
        let ids = [id, upload_id, provider, image].map(String::clone);
        let rest = [name, external_id.unwrap_or_default(), state.clone(), age(since.state_time, now)];
        ids.into_iter().chain(rest).collect()
    }
}

impl Keyed for UploadRow {
    const KEYS: &'static [&'static str] =
        &["id", "upload_id", "provider", "image", "external_name", "external_id", "state", "age"];
}

/// The status of an image.
#[derive(Debug, Serialize)]
pub struct StatusRow {
    image: String,
    paused: bool,
    build_request: Option<&'static str>,
    build_request_age: Option<i64>,
    build_request_time: Option<f64>,
    build_request_age_seconds: Option<Age>,
}

impl Row for StatusRow {
    const HEADER: &'static [&'static str] = &["Image", "Paused", "Build Request", "Build Request Age"];

    fn cells(&self, now: f64) -> Vec<String> {
        // The original prints Python's words.
        let paused = if self.paused { "True" } else { "False" };
        let request = self.build_request.unwrap_or_default();
        let request_age = self.build_request_time.map(|since| age(since, now)).unwrap_or_default();
        vec![self.image.clone(), paused.to_owned(), request.to_owned(), request_age]
    }
}

impl Keyed for StatusRow {
    const KEYS: &'static [&'static str] = &["image", "paused", "build_request", "build_request_age"];
}

fn age(since: f64, now: f64) -> String {
    Age::between(since, now).to_string()
}

/// The builds of these images; `now` in UNIX seconds, here and below.
pub fn build_rows(images: &[Image], now: f64) -> Vec<BuildRow> {
    let builds = images.iter().flat_map(|image| {
        let mut builds: Vec<_> = image.builds.values().collect();
        builds.sort_by(|a, b| a.created.total_cmp(&b.created).then_with(|| a.id.cmp(&b.id)));
        builds.into_iter().map(move |build| (image, build))
    });
    let row = |(image, build): (&Image, &Build)| BuildRow {
        id: format!("{}-{}", image.name, build.id),
        image: image.name.clone(),
        builder: build.record.builder.clone(),
        formats: build.record.formats.iter().cloned().collect(),
        state: if image.paused { "paused".to_owned() } else { build.record.state.to_string() },
        since: Since::new(build.record.state_time, now),
    };
    builds.map(row).collect()
}

/// These uploads.
pub fn upload_rows(mut uploads: Vec<ListedUpload>, now: f64) -> Vec<UploadRow> {
    uploads.sort_by(|a, b| {
        let rest =
            |listed: &ListedUpload| (listed.build.clone(), listed.provider.clone(), listed.upload.id.clone());
        let by_image = a.image.cmp(&b.image);
        by_image.then(a.build_created.total_cmp(&b.build_created)).then_with(|| rest(a).cmp(&rest(b)))
    });
    let row = |listed: ListedUpload| UploadRow {
        id: listed.build,
        upload_id: listed.upload.id,
        provider: listed.provider,
        image: listed.image,
        external_name: listed.upload.record.external_name,
        external_id: listed.upload.record.external_id,
        state: listed.upload.record.state.to_string(),
        since: Since::new(listed.upload.record.state_time, now),
    };
    uploads.into_iter().map(row).collect()
}

/// What was ordered by hand for these images.
pub fn status_rows(images: &[Image], now: f64) -> Vec<StatusRow> {
    let row = |image: &Image| StatusRow {
        image: image.name.clone(),
        paused: image.paused,
        build_request: image.request.map(|_| if image.request_pending() { "pending" } else { "building" }),
        build_request_age: image.request.map(|since| since as i64),
        build_request_time: image.request,
        build_request_age_seconds: image.request.map(|since| Age::between(since, now)),
    };
    images.iter().map(row).collect()
}

/// The rows as a table.
pub fn table<R: Row>(rows: &[R], now: f64) -> String {
    draw(rows, now, &vec![true; R::HEADER.len()])
}

/// The rows as a table of the columns whose keys are `wanted`.
pub fn table_of<R: Keyed>(rows: &[R], now: f64, wanted: impl Fn(&str) -> bool) -> String {
    let wanted: Vec<bool> = R::KEYS.iter().map(|key| wanted(key)).collect();
    draw(rows, now, &wanted)
}

fn draw<R: Row>(rows: &[R], now: f64, wanted: &[bool]) -> String {
    fn pick<T>(wanted: &[bool], cells: impl IntoIterator<Item = T>) -> Vec<T> {
        cells.into_iter().zip(wanted).filter_map(|(cell, wanted)| wanted.then_some(cell)).collect()
    }
    let mut table = Table::new(&pick(wanted, R::HEADER.iter().copied()));
    for row in rows {
        table.add(pick(wanted, row.cells(now)));
    }
    table.to_string()
}

/// Rows, or what has rows in it, as JSON on one line.
pub fn json<T: Serialize + ?Sized>(rows: &T) -> String {
    // Texts, numbers and lists of these can always be written.
    serde_json::to_string(rows).unwrap_or_default() + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BuildRecord, BuildState, Upload, UploadRecord, UploadState};

    const NOW: f64 = 1_700_000_000.75;

    fn build(id: &str, created: f64, state: BuildState) -> Build {
        let mut record = BuildRecord::new(state);
        record.state_time = NOW - 60.5;
        let providers = Default::default();
        Build { id: id.to_owned(), record, version: 0, created, providers }
    }

    fn image(name: &str, builds: Vec<Build>) -> Image {
        let builds = builds.into_iter().map(|build| (build.id.clone(), build)).collect();
        Image { name: name.to_owned(), builds, ..Image::default() }
    }

    fn cells<R: Row>(rows: &[R]) -> Vec<String> {
        rows.iter().map(|row| row.cells(NOW).join("|")).collect()
    }

    #[test]
    fn builds_are_listed_in_the_order_in_which_they_were_made() {
        let mut debian = image(
            "debian",
            vec![build("aa", 20.0, BuildState::Building), build("bb", 10.0, BuildState::Failed)],
        );
        let newest = debian.builds.get_mut("aa").unwrap();
        newest.record.builder = Some("b.example".to_owned());
        newest.record.formats = ["raw", "qcow2"].map(str::to_owned).into();
        let mut fedora = image("fedora", vec![build("cc", 5.0, BuildState::Ready)]);
        fedora.paused = true;
        let rows = build_rows(&[debian, fedora], NOW);
        let expected = [
            "debian-bb|debian|||failed|00:00:01:00",
            "debian-aa|debian|b.example|qcow2,raw|building|00:00:01:00",
            "fedora-cc|fedora|||paused|00:00:01:00",
        ];
        assert_eq!(cells(&rows), expected);
        let found = json(&rows[..2]);
        let expected = concat!(
            r#"[{"id":"debian-bb","image":"debian","builder":null,"formats":[],"state":"failed","#,
            r#""age":1699999940,"state_time":1699999940.25,"age_seconds":60},{"id":"debian-aa","#,
            r#""image":"debian","builder":"b.example","formats":["qcow2","raw"],"state":"building","#,
            r#""age":1699999940,"state_time":1699999940.25,"age_seconds":60}]"#,
            "\n"
        );
        assert_eq!(found, expected);
    }

    #[test]
    fn uploads_are_listed_by_image_build_provider_and_number() {
        let listed = |image: &str, build: &str, build_created: f64, provider: &str, id: &str| {
            let mut record = UploadRecord::new(UploadState::Uploading);
            record.state_time = NOW;
            let upload = Upload { id: id.to_owned(), record, version: 0 };
            let [image, build, provider] = [image, build, provider].map(str::to_owned);
            ListedUpload { image, build, build_created, provider, upload }
        };
        let uploads = vec![
            listed("z", "a", 1.0, "p", "0000000001"),
            listed("a", "a", 2.0, "q", "0000000001"),
            listed("a", "a", 2.0, "p", "0000000002"),
            listed("a", "a", 2.0, "p", "0000000001"),
            listed("a", "b", 1.0, "p", "0000000001"),
        ];
        let rows = upload_rows(uploads, NOW);
        let expected = [
            "b|0000000001|p|a|||uploading|00:00:00:00",
            "a|0000000001|p|a|||uploading|00:00:00:00",
            "a|0000000002|p|a|||uploading|00:00:00:00",
            "a|0000000001|q|a|||uploading|00:00:00:00",
            "a|0000000001|p|z|||uploading|00:00:00:00",
        ];
        assert_eq!(cells(&rows), expected);
    }

    #[test]
    fn each_column_has_its_key() {
        fn keys<R: Keyed>(row: R) {
            let json = serde_json::to_string(&row).unwrap();
            let places: Vec<_> =
                R::KEYS.iter().map(|key| json.find(&format!("\"{key}\":")).unwrap()).collect();
            assert!(places.is_sorted() && places.len() == R::HEADER.len(), "{json}");
            assert_eq!(row.cells(NOW).len(), R::HEADER.len());
        }
        let mut debian = image("debian", vec![build("aa", 20.0, BuildState::Ready)]);
        debian.request = Some(NOW);
        keys(build_rows(&[debian.clone()], NOW).remove(0));
        keys(status_rows(&[debian], NOW).remove(0));
        let upload = Upload { id: "1".to_owned(), record: UploadRecord::new(UploadState::Ready), version: 0 };
        let [image, build, provider] = ["debian", "aa", "p"].map(str::to_owned);
        keys(
            upload_rows(vec![ListedUpload { image, build, build_created: 1.0, provider, upload }], NOW)
                .remove(0),
        );
    }

    #[test]
    fn a_request_is_pending_building_or_absent() {
        let mut asked = image("asked", vec![]);
        asked.request = Some(NOW - 3600.0);
        let mut answered = image("answered", vec![build("aa", 20.0, BuildState::Building)]);
        (answered.request, answered.build_locked, answered.build_lock_made) = (Some(NOW), true, Some(10.0));
        let mut quiet = image("quiet", vec![]);
        quiet.paused = true;
        let rows = status_rows(&[answered, asked, quiet], NOW);
        let table = table_of(&rows[2..], NOW, |key| ["image", "paused"].contains(&key));
        assert!(table.contains("| Image | Paused |\n") && table.contains("| quiet | True   |\n"), "{table}");
        let expected =
            ["answered|False|building|00:00:00:00", "asked|False|pending|00:01:00:00", "quiet|True||"];
        assert_eq!(cells(&rows), expected);
        let found = json(&rows[2..]);
        let expected = concat!(
            r#"[{"image":"quiet","paused":true,"build_request":null,"build_request_age":null,"#,
            r#""build_request_time":null,"build_request_age_seconds":null}]"#
        );
        assert_eq!(found.trim_end(), expected);
    }
}
