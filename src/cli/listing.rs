//! The listings: `dib-image-list`, `image-list` and `image-status`, as tables and as JSON.
//!
//! Columns, values and keys are the original's. Its order is that of a hash table; ours is the image's name,
//! then the builds as they were made, then providers and uploads.

use serde::Serialize;

use super::args::Format;
use super::failure::Failure;
use super::output;
use super::table::Table;
use crate::model::{Age, Image, now};
use crate::zk::{Images, ListedUpload};

/// An object of a listing. Its JSON form is the list's, with the keys in the order of the columns.
trait Row: Serialize {
    const HEADER: &'static [&'static str];

    fn cells(&self, now: f64) -> Vec<String>;
}

#[derive(Debug, Serialize)]
struct BuildRow {
    id: String,
    image: String,
    builder: Option<String>,
    formats: Vec<String>,
    state: String,
    age: i64,
}

impl Row for BuildRow {
    const HEADER: &'static [&'static str] = &["ID", "Image", "Builder", "Formats", "State", "Age"];

    fn cells(&self, now: f64) -> Vec<String> {
        let Self { id, image, builder, formats, state, age: since } = self;
        let builder = builder.clone().unwrap_or_default();
        vec![id.clone(), image.clone(), builder, formats.join(","), state.clone(), age(*since, now)]
    }
}

#[derive(Debug, Serialize)]
struct UploadRow {
    id: String,
    upload_id: String,
    provider: String,
    image: String,
    external_name: Option<String>,
    external_id: Option<String>,
    state: String,
    age: i64,
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
        let Self { id, upload_id, provider, image, external_name, external_id, state, age: since } = self;
        let (name, external_id) = (external_name.clone().unwrap_or_default(), external_id.clone());
        let ids = [id, upload_id, provider, image].map(String::clone);
        let rest = [name, external_id.unwrap_or_default(), state.clone(), age(*since, now)];
        ids.into_iter().chain(rest).collect()
    }
}

#[derive(Debug, Serialize)]
struct StatusRow {
    image: String,
    paused: bool,
    build_request: Option<&'static str>,
    build_request_age: Option<i64>,
}

impl Row for StatusRow {
    const HEADER: &'static [&'static str] = &["Image", "Paused", "Build Request", "Build Request Age"];

    fn cells(&self, now: f64) -> Vec<String> {
        // The original prints Python's words.
        let paused = if self.paused { "True" } else { "False" };
        let request = self.build_request.unwrap_or_default();
        let request_age = self.build_request_age.map(|since| age(since, now)).unwrap_or_default();
        vec![self.image.clone(), paused.to_owned(), request.to_owned(), request_age]
    }
}

fn age(since: i64, now: f64) -> String {
    Age::between(since as f64, now).to_string()
}

/// Shows the builds of all images.
pub(super) fn dib_image_list(images: &Images, format: Format) -> Result<(), Failure> {
    let found = images.read_all_builds()?;
    for image in &found {
        for build in &image.damaged {
            damaged(&format!("of the build {}-{build}", image.name), "it is no valid record");
        }
    }
    show(&build_rows(&found), format)
}

fn build_rows(images: &[Image]) -> Vec<BuildRow> {
    let builds = images.iter().flat_map(|image| {
        let mut builds: Vec<_> = image.builds.values().collect();
        builds.sort_by(|a, b| a.created.total_cmp(&b.created).then_with(|| a.id.cmp(&b.id)));
        builds.into_iter().map(move |build| (image, build))
    });
    let row = |(image, build): (&Image, &crate::model::Build)| BuildRow {
        id: format!("{}-{}", image.name, build.id),
        image: image.name.clone(),
        builder: build.record.builder.clone(),
        formats: build.record.formats.iter().cloned().collect(),
        state: if image.paused { "paused".to_owned() } else { build.record.state.to_string() },
        age: build.record.state_time as i64,
    };
    builds.map(row).collect()
}

/// Shows the uploads of all builds.
pub(super) fn image_list(images: &Images, format: Format) -> Result<(), Failure> {
    let uploads =
        images.read_all_uploads(&mut |path, error| damaged(&format!("at {path}"), &error.to_string()))?;
    show(&upload_rows(uploads), format)
}

fn upload_rows(mut uploads: Vec<ListedUpload>) -> Vec<UploadRow> {
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
        age: listed.upload.record.state_time as i64,
    };
    uploads.into_iter().map(row).collect()
}

/// Shows what was ordered by hand for each image.
pub(super) fn image_status(images: &Images, format: Format) -> Result<(), Failure> {
    show(&status_rows(&images.read_all_requests()?), format)
}

fn status_rows(images: &[Image]) -> Vec<StatusRow> {
    let row = |image: &Image| StatusRow {
        image: image.name.clone(),
        paused: image.paused,
        build_request: image.request.map(|_| if image.request_pending() { "pending" } else { "building" }),
        build_request_age: image.request.map(|since| since as i64),
    };
    images.iter().map(row).collect()
}

fn damaged(which: &str, why: &str) {
    output::warn(&format!("the record {which} is left out: {why}"));
}

fn show<R: Row>(rows: &[R], format: Format) -> Result<(), Failure> {
    output::print(&render(rows, format, now())?)
}

fn render<R: Row>(rows: &[R], format: Format, now: f64) -> Result<String, Failure> {
    match format {
        Format::Table => {
            let mut table = Table::new(R::HEADER);
            for row in rows {
                table.add(row.cells(now));
            }
            Ok(table.to_string())
        }
        Format::Json => serde_json::to_string(rows)
            .map(|json| json + "\n")
            .map_err(|error| Failure::because(format!("cannot write the list as JSON: {error}"))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Build, BuildRecord, BuildState, Upload, UploadRecord, UploadState};

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
        let rows = build_rows(&[debian, fedora]);
        let expected = [
            "debian-bb|debian|||failed|00:00:01:00",
            "debian-aa|debian|b.example|qcow2,raw|building|00:00:01:00",
            "fedora-cc|fedora|||paused|00:00:01:00",
        ];
        assert_eq!(cells(&rows), expected);
        let json = render(&rows[..2], Format::Json, NOW).unwrap();
        let expected = concat!(
            r#"[{"id":"debian-bb","image":"debian","builder":null,"formats":[],"state":"failed","#,
            r#""age":1699999940},{"id":"debian-aa","image":"debian","builder":"b.example","#,
            r#""formats":["qcow2","raw"],"state":"building","age":1699999940}]"#,
            "\n"
        );
        assert_eq!(json, expected);
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
        let rows = upload_rows(vec![
            listed("z", "a", 1.0, "p", "0000000001"),
            listed("a", "a", 2.0, "q", "0000000001"),
            listed("a", "a", 2.0, "p", "0000000002"),
            listed("a", "a", 2.0, "p", "0000000001"),
            listed("a", "b", 1.0, "p", "0000000001"),
        ]);
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
    fn a_request_is_pending_building_or_absent() {
        let mut asked = image("asked", vec![]);
        asked.request = Some(NOW - 3600.0);
        let mut answered = image("answered", vec![build("aa", 20.0, BuildState::Building)]);
        (answered.request, answered.build_locked, answered.build_lock_made) = (Some(NOW), true, Some(10.0));
        let mut quiet = image("quiet", vec![]);
        quiet.paused = true;
        let rows = status_rows(&[answered, asked, quiet]);
        let expected =
            ["answered|False|building|00:00:00:00", "asked|False|pending|00:01:00:00", "quiet|True||"];
        assert_eq!(cells(&rows), expected);
        let json = render(&rows[2..], Format::Json, NOW).unwrap();
        let expected = r#"[{"image":"quiet","paused":true,"build_request":null,"build_request_age":null}]"#;
        assert_eq!(json.trim_end(), expected);
    }
}
