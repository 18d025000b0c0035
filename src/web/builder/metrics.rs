//! `/metrics`: the builder's numbers.
//!
//! For each image and provider of the configuration there is always a number, also a zero, so that an alert
//! can tell "none is ready" from "nobody knows". States that nothing is in are left out otherwise, and so is the
//! space of a disk that hangs.

use std::collections::BTreeMap;

use super::disks::Disks;
use super::snapshot::Snapshot;
use crate::builder::{Setback, Window};
use crate::model::{BuildState, UploadState};
use crate::web::core::exposition::Exposition;

/// The whole page.
pub(super) fn text(snapshot: &Snapshot, window: &Window, disks: &mut Disks) -> String {
    let mut out = Exposition::default();
    of_builder(&mut out, snapshot);
    of_images(&mut out, snapshot);
    of_failures(&mut out, snapshot);
    of_disk(&mut out, window, disks);
    out.process(window.started);
    out.into_text()
}

fn of_builder(out: &mut Exposition, snapshot: &Snapshot) {
    let view = &snapshot.view;
    out.build_info();
    let ready = u8::from(snapshot.unready.is_none());
    out.gauge("nodepool_ready", "Whether the builder is connected to ZooKeeper and knows all records.")
        .sample(&[], ready);
    let mut workers = out.gauge("nodepool_workers", "How many jobs may run at once.");
    let sizes = view.workers;
    for (kind, size) in [("build", sizes.builds), ("upload", sizes.uploads), ("cleanup", sizes.cleanups)] {
        workers.sample(&[("kind", kind)], size);
    }
    out.gauge("nodepool_running_builds", "Builds that run on this builder.").sample(&[], view.builds.len());
    let mut running: BTreeMap<&str, usize> = BTreeMap::new();
    let storing = view.config.providers.iter().filter(|(_, provider)| provider.images().is_some());
    running.extend(storing.map(|(name, _)| (name.as_str(), 0)));
    for upload in &view.uploads {
        *running.entry(&upload.provider).or_default() += 1;
    }
    let mut uploads = out.gauge("nodepool_running_uploads", "Uploads that run on this builder.");
    for (provider, count) in running {
        uploads.sample(&[("provider", provider)], count);
    }
    out.gauge("nodepool_running_cleanups", "Clean-ups that run on this builder.").sample(&[], view.cleanups);
    out.gauge("nodepool_damaged_records", "Records that cannot be read.").sample(&[], snapshot.damaged.len());
}

fn of_images(out: &mut Exposition, snapshot: &Snapshot) {
    let names = snapshot.image_names();
    let mut builds: BTreeMap<(&str, BuildState), usize> = BTreeMap::new();
    let mut uploads: BTreeMap<(&str, &str, UploadState), usize> = BTreeMap::new();
    for name in &names {
        builds.insert((name, BuildState::Ready), 0);
        for provider in snapshot.providers_of(name) {
            uploads.insert((name, provider, UploadState::Ready), 0);
        }
    }
    for image in &snapshot.images {
        for build in image.builds.values() {
            *builds.entry((&image.name, build.record.state)).or_default() += 1;
            for (provider, upload) in build.uploads() {
                *uploads.entry((&image.name, provider, upload.record.state)).or_default() += 1;
            }
        }
    }
    let mut metric = out.gauge("nodepool_builds", "Builds of the whole fleet, by image and state.");
    for ((image, state), count) in builds {
        metric.sample(&[("image", image), ("state", &state.to_string())], count);
    }
    let mut metric =
        out.gauge("nodepool_uploads", "Uploads of the whole fleet, by image, provider and state.");
    for ((image, provider, state), count) in uploads {
        metric.sample(&[("image", image), ("provider", provider), ("state", &state.to_string())], count);
    }
    let mut metric = out.gauge(
        "nodepool_newest_ready_build_age_seconds",
        "How old the newest ready build of an image is; missing where there is none.",
    );
    for image in &snapshot.images {
        if let Some(newest) = image.ready_builds().first() {
            metric.sample(&[("image", &image.name)], (snapshot.now - newest.record.state_time).max(0.0));
        }
    }
    let mut metric = out.gauge("nodepool_pending_requests", "Builds that were asked for and have not begun.");
    for name in &names {
        let pending = snapshot.image(name).is_some_and(|image| image.request_pending());
        metric.sample(&[("image", name)], u8::from(pending));
    }
    let mut metric = out.gauge("nodepool_paused", "Images that are not built, by order or by configuration.");
    for name in &names {
        let by_file = snapshot.view.config.diskimages.get(*name).is_some_and(|image| image.pause);
        let by_order = snapshot.image(name).is_some_and(|image| image.paused);
        metric.sample(&[("image", name)], u8::from(by_file || by_order));
    }
}

fn of_failures(out: &mut Exposition, snapshot: &Snapshot) {
    let failed = &snapshot.view.failed;
    let images = &snapshot.view.config.diskimages;
    let mut builds: BTreeMap<&str, u64> = images.keys().map(|name| (name.as_str(), 0)).collect();
    builds.extend(failed.builds.iter().map(|(image, count)| (image.as_str(), *count)));
    let mut uploads: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for name in images.keys() {
        uploads.extend(snapshot.providers_of(name).map(|provider| ((name.as_str(), provider), 0)));
    }
    let counted = failed.uploads.iter();
    uploads.extend(counted.map(|((image, provider), count)| ((image.as_str(), provider.as_str()), *count)));
    let mut metric = out.counter("nodepool_build_failures_total", "Builds that failed on this builder.");
    for (image, count) in builds {
        metric.sample(&[("image", image)], count);
    }
    let mut metric = out.counter("nodepool_upload_failures_total", "Uploads that failed on this builder.");
    for ((image, provider), count) in uploads {
        metric.sample(&[("image", image), ("provider", provider)], count);
    }
    let mut metric =
        out.gauge("nodepool_failing", "What has failed on this builder and not succeeded since, by kind.");
    for kind in Setback::KINDS {
        let count = snapshot.view.setbacks.iter().filter(|setback| setback.kind() == kind).count();
        metric.sample(&[("kind", kind)], count);
    }
}

fn of_disk(out: &mut Exposition, window: &Window, disks: &mut Disks) {
    if let Ok(Some(space)) = disks.space(window.own.images_dir.clone()) {
        let help = "Bytes that may still be written to the file system of images-dir.";
        out.gauge("nodepool_images_dir_free_bytes", help).sample(&[], space.free);
        let help = "Size of the file system of images-dir in bytes.";
        out.gauge("nodepool_images_dir_size_bytes", help).sample(&[], space.total);
    }
}
