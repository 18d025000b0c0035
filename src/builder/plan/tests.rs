//! The decision, by tables: every sentence of spec/builder.md about when to build, upload and clean up.

mod building;
mod cleaning;
mod converging;
mod disk;
mod edits;
mod uploading;

use std::collections::{BTreeMap, BTreeSet};

use nodepool_drivers::api::Severity;

use super::{Busy, Cleanup, Facts, Garbage, Plan, plan};
use crate::builder::{Failures, LocalBuilds};
use crate::config::{Config, ConfigFiles, Env, FileProblem};
use crate::model::{
    Build, BuildRecord, BuildState, Image, ProviderUploads, Upload, UploadRecord, UploadState,
};

const NOW: f64 = 1_000_000.0;
const REBUILD_AGE: f64 = 1000.0;

/// An image in two formats, with two providers that take `qcow2`.
const BODY: &str = "
    diskimages:
      - {name: debian, formats: [raw], rebuild-age: 1000}
    providers:
      - {name: fake-a, diskimages: [{name: debian}]}
      - {name: fake-b, diskimages: [{name: debian}]}
";

/// The same, after the image was removed from the configuration.
const WITHOUT_IMAGE: &str = "
    diskimages: []
    providers:
      - {name: fake-a, diskimages: []}
      - {name: fake-b, diskimages: []}
";

fn config(body: &str) -> Config {
    let files = ConfigFiles::new("/etc/nodepool/nodepool.yaml", None, Env::default());
    let (config, warnings) = files.parse(body, None).unwrap();
    let odd = |problem: &FileProblem| problem.problem.severity == Severity::Warning;
    assert!(warnings.iter().all(odd), "{warnings:?}");
    config
}

/// What the plan is made from.
struct World {
    image: Image,
    config: Config,
    /// The builds whose files are here, with their formats.
    disk: BTreeMap<String, BTreeSet<String>>,
    busy: Busy,
    failures: Failures,
    janitor: bool,
    now: f64,
}

impl World {
    fn new(body: &str) -> Self {
        Self {
            image: Image { name: "debian".to_owned(), ..Image::default() },
            config: config(body),
            disk: BTreeMap::new(),
            busy: Busy::default(),
            failures: Failures::default(),
            janitor: true,
            now: NOW,
        }
    }

    /// Adds a build of this builder with its files, last changed `age` seconds ago.
    fn build(mut self, id: &str, state: BuildState, age: f64) -> Self {
        let mut record = BuildRecord::new(state);
        record.state_time = NOW - age;
        record.builder_id = Some("me".to_owned());
        record.formats = formats("qcow2,raw");
        let (id, providers) = (id.to_owned(), BTreeMap::new());
        self.disk.insert(id.clone(), formats("qcow2,raw"));
        let build = Build { id: id.clone(), record, version: 0, created: NOW - age, providers };
        self.image.builds.insert(id, build);
        self
    }

    /// Adds a build of another builder, whose files are not here.
    fn foreign(self, id: &str, state: BuildState, age: f64) -> Self {
        let mut world = self.build(id, state, age);
        world.get(id).record.builder_id = Some("other".to_owned());
        world.disk.remove(id);
        world
    }

    /// Adds an upload, last changed `age` seconds ago.
    fn upload(mut self, build: &str, provider: &str, id: &str, state: UploadState, age: f64) -> Self {
        let mut record = UploadRecord::new(state);
        record.state_time = NOW - age;
        let upload = Upload { id: id.to_owned(), record, version: 0 };
        self.at(build, provider).uploads.insert(id.to_owned(), upload);
        self
    }

    fn with(mut self, change: impl FnOnce(&mut Self)) -> Self {
        change(&mut self);
        self
    }

    fn get(&mut self, build: &str) -> &mut Build {
        self.image.builds.get_mut(build).unwrap()
    }

    fn at(&mut self, build: &str, provider: &str) -> &mut ProviderUploads {
        self.get(build).providers.entry(provider.to_owned()).or_default()
    }

    fn plan(&self) -> Plan {
        let disk: Vec<(&str, Vec<&str>)> = self
            .disk
            .iter()
            .map(|(id, formats)| (id.as_str(), formats.iter().map(String::as_str).collect()))
            .collect();
        let disk: Vec<(&str, &str, &[&str])> =
            disk.iter().map(|(id, formats)| ("debian", *id, formats.as_slice())).collect();
        plan(&Facts {
            image: &self.image,
            config: &self.config,
            local: &LocalBuilds::of(&disk),
            builder_id: "me",
            busy: &self.busy,
            failures: &self.failures,
            janitor: self.janitor,
            now: self.now,
        })
    }

    /// The clean-ups, as short words.
    fn cleanups(&self) -> Vec<String> {
        self.plan().cleanups.iter().map(short).collect()
    }

    /// The uploads, as `build>provider`.
    fn uploads(&self) -> Vec<String> {
        self.plan().uploads.iter().map(|(build, provider)| format!("{build}>{provider}")).collect()
    }
}

fn formats(joined: &str) -> BTreeSet<String> {
    joined.split(',').filter(|word| !word.is_empty()).map(str::to_owned).collect()
}

fn cleanup(build: &str, what: Garbage) -> Cleanup {
    Cleanup { image: "debian".to_owned(), build: build.to_owned(), what }
}

fn short(cleanup: &Cleanup) -> String {
    let build = &cleanup.build;
    match &cleanup.what {
        Garbage::Files => format!("files {build}"),
        Garbage::Format(format) => format!("format {build}.{format}"),
        Garbage::Abandoned => format!("abandoned {build}"),
        Garbage::Build(_) => format!("build {build}"),
        Garbage::MarkUpload { provider, upload, .. } => format!("mark {build}>{provider}/{upload}"),
        Garbage::Upload { provider, upload } => format!("delete {build}>{provider}/{upload}"),
    }
}
