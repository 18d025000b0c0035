//! The metrics of spec/statsd.md, as a statsd server gets them: a test for each row, named for it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::process::Signal;

use super::*;
use crate::support::{Daemon, Statsd, Values};

fn start(server: &Statsd, sandbox: &Sandbox<'_>, options: &[&str]) -> Daemon {
    let mut command = sandbox.builder_command(options);
    server.receive_from(&mut command);
    sandbox.spawn(&command)
}

/// The host's name as the records have it.
fn of_builder(zk: &ZkClient, image: &str) -> String {
    let (_, record) = eventually(SOON, "a build", || builds(zk, image).pop());
    format!("nodepool.builder.{}", record["builder"].as_str().unwrap())
}

/// What a server has got of a build that succeeds, one that fails, and one that is paused.
struct Found {
    /// The last value of each metric, and how often it came.
    values: Values,
    /// What the names of the builder's own metrics begin with.
    host: String,
    /// The formats of the build, and what their files take on the disk.
    sizes: Vec<(&'static str, f64)>,
    /// UNIX time when it began.
    begin: f64,
}

impl Found {
    /// One run serves a test for each row.
    fn get() -> &'static Found {
        static FOUND: OnceLock<Found> = OnceLock::new();
        FOUND.get_or_init(Found::of_a_run)
    }

    fn of_a_run() -> Found {
        let sandbox = Sandbox::new("builder-statsd");
        let shelf = local(&sandbox, "shelf", &["debian-12.5"], "image-format: qcow2");
        let images = [
            image(&sandbox, "debian-12.5", "formats: [raw]"),
            image(&sandbox, "broken", "formats: [raw], env-vars: {FAKE_DIB_FAIL: '7'}"),
            image(&sandbox, "paused", "formats: [raw], pause: true"),
        ];
        sandbox.write_body(&body(&images, &[shelf]));
        let server = Statsd::new();
        let begin = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as f64;
        let _builder = start(&server, &sandbox, &[&NO_JANITOR[..], &["--upload-workers", "3"]].concat());
        let zk = sandbox.zk();
        let id = wait_ready(&zk, "debian-12.5");
        wait_upload(&zk, "debian-12.5", &id, "shelf", "ready");
        let host = of_builder(&zk, "debian-12.5");
        // The last that is told of each.
        server.wait_for("nodepool.image_update.debian-12.5.shelf|c", 1);
        server.wait_for("nodepool.dib_image_build.broken.status.rc|g", 7);
        server.wait_for(&format!("{host}.current_uploads|g"), 0);
        server.wait_for(&format!("{host}.current_builds|g"), 0);
        server.wait_for(&format!("{host}.image.debian-12.5.provider.shelf.upload.state|g"), 0);
        server.receive();
        let size = |format: &'static str| {
            let file = sandbox.images().join(format!("debian-12.5-{id}.{format}"));
            (format, (file.metadata().unwrap().blocks() * 512) as f64)
        };
        let sizes = ["raw", "qcow2"].map(size).into();
        Found { values: server.found.into_inner(), host, sizes, begin }
    }

    #[track_caller]
    fn value(&self, name: &str) -> f64 {
        let (value, _) = self.values.get(name).unwrap_or_else(|| panic!("no {name}: {:#?}", self.values));
        value.parse().unwrap()
    }

    #[track_caller]
    fn of_builder(&self, name: &str) -> f64 {
        self.value(&format!("{}.{name}|g", self.host))
    }
}

#[test]
fn dib_image_build_image_format_size_is_what_the_file_takes_on_the_disk() {
    let found = Found::get();
    for (format, size) in &found.sizes {
        assert_eq!(found.value(&format!("nodepool.dib_image_build.debian-12.5.{format}.size|g")), *size);
    }
    assert!(!found.values.contains_key("nodepool.dib_image_build.broken.raw.size|g"), "it has no file");
}

#[test]
fn dib_image_build_image_status_rc_is_the_exit_code_of_the_last_build() {
    let rc = |image: &str| Found::get().value(&format!("nodepool.dib_image_build.{image}.status.rc|g"));
    assert_eq!((rc("debian-12.5"), rc("broken")), (0.0, 7.0));
}

#[test]
fn dib_image_build_image_status_duration_is_a_timer_in_ms() {
    let ms = Found::get().value("nodepool.dib_image_build.debian-12.5.status.duration|ms");
    assert!((1.0..60_000.0).contains(&ms), "{ms}");
}

#[test]
fn dib_image_build_image_status_last_build_is_a_unix_time() {
    let found = Found::get();
    let time = found.value("nodepool.dib_image_build.broken.status.last_build|g");
    assert!((found.begin..found.begin + 600.0).contains(&time), "{time}");
}

#[test]
fn image_update_image_provider_is_a_timer_in_ms_and_a_counter_of_each_upload() {
    let found = Found::get();
    let ms = found.value("nodepool.image_update.debian-12.5.shelf|ms");
    assert!((0.0..60_000.0).contains(&ms), "{ms}");
    assert_eq!(found.values["nodepool.image_update.debian-12.5.shelf|c"], ("1".to_owned(), 1));
}

#[test]
fn image_build_requests_are_counted_together_and_for_each_image() {
    assert_eq!(Found::get().value("nodepool.image_build_requests|g"), 0.0);
    assert_eq!(Found::get().value("nodepool.image.debian-12.5.image_build_requests|g"), 0.0);
}

#[test]
fn builder_current_builds_and_current_uploads_are_in_progress_now() {
    let found = Found::get();
    assert_eq!((found.of_builder("current_builds"), found.of_builder("current_uploads")), (0.0, 0.0));
}

#[test]
fn builder_build_workers_and_upload_workers_are_as_configured() {
    let found = Found::get();
    assert_eq!((found.of_builder("build_workers"), found.of_builder("upload_workers")), (1.0, 3.0));
}

#[test]
fn builder_image_build_state_is_0_when_idle_and_3_when_paused() {
    let state = |image: &str| Found::get().of_builder(&format!("image.{image}.build.state"));
    assert_eq!((state("debian-12.5"), state("paused")), (0.0, 3.0));
}

#[test]
fn builder_image_provider_upload_state_is_0_when_idle() {
    assert_eq!(Found::get().of_builder("image.debian-12.5.provider.shelf.upload.state"), 0.0);
}

/// What the tests of the rows see in the end only: pending requests, work in progress, and states 1, 2 and 3.
#[test]
fn what_is_going_on_is_told_when_it_changes_and_not_again() {
    let sandbox = Sandbox::new("builder-statsd-now");
    let go = sandbox.path("go");
    let wait = script(
        &sandbox,
        "wait",
        &format!(
            "while [ ! -e {} ]; do sleep 0.05; done; exec {} \"$@\"",
            go.display(),
            sandbox.fake_dib().display()
        ),
    );
    let debian = format!("  - {{name: debian, dib-cmd: {}, formats: [raw]}}\n", wait.display());
    let cloud = |pause: &str| {
        format!(
            "  - {{name: cloud, driver: fake, diskimages: [{{name: debian{pause}}}], fake: {{upload-delay: 2}}}}\n"
        )
    };
    sandbox.write_body(&body(std::slice::from_ref(&debian), &[cloud("")]));
    let server = Statsd::new();
    let zk = sandbox.zk();
    let _builder = start(&server, &sandbox, &["--cleanup-interval", "0.1"]);
    let host = of_builder(&zk, "debian");
    let (build, upload) = (
        format!("{host}.image.debian.build.state|g"),
        format!("{host}.image.debian.provider.cloud.upload.state|g"),
    );
    server.wait_for(&format!("{host}.current_builds|g"), 1);
    server.wait_for(&build, 1);
    // Asked for while it is being built: that is no pending request of a later build.
    server.wait_for("nodepool.image_build_requests|g", 0);
    fs::write(&go, "").unwrap();
    server.wait_for(&format!("{host}.current_uploads|g"), 1);
    server.wait_for(&upload, 2);
    server.wait_for(&build, 0);
    server.wait_for(&upload, 0);
    server.wait_for(&format!("{host}.current_uploads|g"), 0);

    // A request that cannot be carried out is pending.
    zk.create(&format!("{IMAGES}/debian/pause"), "");
    server.wait_for(&build, 3);
    request(&zk, "debian");
    server.wait_for("nodepool.image_build_requests|g", 1);
    server.wait_for("nodepool.image.debian.image_build_requests|g", 1);
    sandbox.write_body(&body(&[debian], &[cloud(", pause: true")]));
    server.wait_for(&upload, 3);
    // Rounds go by every tenth of a second, and nothing is told twice.
    let times = server.times(&build);
    let stray = sandbox.images().join("debian-ffffffffffffffffffffffffffffffff.raw");
    fs::write(&stray, "").unwrap();
    eventually(SOON, "a round", || (!stray.exists()).then_some(()));
    assert_eq!(server.times(&build), times);
}

#[test]
fn a_statsd_that_is_not_there_or_cannot_be_found_stops_nothing() {
    let sandbox = Sandbox::new("builder-statsd-gone");
    sandbox.write_body(&body(&[image(&sandbox, "debian", "formats: [raw]")], &[]));
    for host in ["127.0.0.1", "no-such-host.invalid"] {
        let mut command = sandbox.builder_command(&NO_JANITOR);
        // The discard port: nobody listens there.
        command.env("STATSD_HOST", host).env("STATSD_PORT", "9");
        let builder = sandbox.spawn(&command);
        let zk = sandbox.zk();
        request(&zk, "debian");
        eventually(SOON, "the build", || (!zk.exists(&request_path("debian"))).then_some(()));
        if host.ends_with("invalid") {
            builder.wait_log("metrics cannot be sent to STATSD_HOST", SOON);
        }
        builder.signal(Signal::TERM);
        assert_eq!(builder.wait_exit(SOON).code(), Some(0));
    }
    let mut command = sandbox.builder_command(&NO_JANITOR);
    command.env("STATSD_HOST", "h").env("STATSD_PORT", "many");
    let builder = sandbox.spawn(&command);
    assert_eq!(builder.wait_exit(SOON).code(), Some(1));
    let why = "metrics cannot be sent: STATSD_PORT: expected a port from 1 to 65535, found 'many'";
    assert!(builder.log().contains(why), "{}", builder.log());
}
