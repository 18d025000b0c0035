//! The decision: what has to be done for one image now. A pure function of what is known, without threads,
//! clocks or I/O. All of spec/builder.md about when to build, upload and clean up is here.
//!
//! An order says what seems to be necessary. Whoever carries it out takes the lock and looks again, because
//! another builder may have been faster. What is being carried out already is [`Busy`] and is not ordered
//! twice.

use std::collections::{BTreeMap, BTreeSet};

use super::failures::{Attempt, Failures};
use super::local_builds::LocalBuilds;
use crate::config::{Config, DiskImage, KEEP_BUILDS};
use crate::model::{Build, BuildState, Image, Upload, UploadState};

/// Everything that the decision depends on.
#[derive(Debug, Clone, Copy)]
pub struct Facts<'a> {
    /// What ZooKeeper has about the image.
    pub image: &'a Image,
    /// The configuration.
    pub config: &'a Config,
    /// What the images directory has.
    pub local: &'a LocalBuilds,
    /// The id of this builder.
    pub builder_id: &'a str,
    /// What is being done for the image.
    pub busy: &'a Busy,
    /// What has failed lately.
    pub failures: &'a Failures,
    /// Whether this builder cleans up.
    pub janitor: bool,
    /// UNIX seconds.
    pub now: f64,
}

/// What this builder is doing for an image.
#[derive(Debug, Clone, Default)]
pub struct Busy {
    /// A build is running.
    pub build: bool,
    /// Uploads that are running: build and provider.
    pub uploads: BTreeSet<(String, String)>,
    /// Clean-ups that are running.
    pub cleanups: BTreeSet<Cleanup>,
}

/// What has to be done.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Plan {
    /// Build it, for this reason.
    pub build: Option<Reason>,
    /// Upload these builds to these providers.
    pub uploads: Vec<(String, String)>,
    /// Clean up.
    pub cleanups: Vec<Cleanup>,
    /// When time alone will change the plan, UNIX seconds.
    pub look_again: Option<f64>,
}

impl Plan {
    /// Whether there is anything to do now.
    pub fn is_work(&self) -> bool {
        self.build.is_some() || !self.uploads.is_empty() || !self.cleanups.is_empty()
    }
}

/// Why an image is built.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Somebody has asked for it.
    Requested,
    /// There is no ready build.
    Missing,
    /// The newest ready build is older than `rebuild-age`.
    Aged,
    /// The newest ready build lacks a configured format.
    Formats,
}

impl Reason {
    /// The reason in a log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Missing => "no ready build",
            Self::Aged => "older than rebuild-age",
            Self::Formats => "lacks a format",
        }
    }
}

/// Something of an image that has to go.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Cleanup {
    /// The image.
    pub image: String,
    /// The build.
    pub build: String,
    /// What of it.
    pub what: Garbage,
}

/// What of a build has to go.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Garbage {
    /// Files without a record, or of a build that is being deleted.
    Files,
    /// The file of a format that every provider has (`delete-after-upload`).
    Format(String),
    /// A build that nobody works on any more, though its record says `building`: it has failed.
    Abandoned,
    /// The whole build: it is marked `deleting`, its files go, and its record with the last upload. With the
    /// state that makes it garbage: in another one it may be the best that there is.
    Build(BuildState),
    /// An upload: it is marked `deleting`.
    MarkUpload {
        /// Its provider.
        provider: String,
        /// Its id.
        upload: String,
        /// The state that makes it garbage.
        was: UploadState,
    },
    /// An upload that is marked: it is deleted at the provider, and then its record.
    Upload {
        /// Its provider.
        provider: String,
        /// Its id.
        upload: String,
    },
}

impl Garbage {
    /// The provider that it is at, or was meant for.
    pub fn provider(&self) -> Option<&str> {
        match self {
            Self::MarkUpload { provider, .. } | Self::Upload { provider, .. } => Some(provider),
            Self::Files | Self::Format(_) | Self::Abandoned | Self::Build(_) => None,
        }
    }
}

/// Why the image must be built now, whoever may be building it. `None` if it need not or must not be.
pub fn build_reason(image: &Image, disk_image: &DiskImage, now: f64) -> Option<Reason> {
    if disk_image.pause || image.paused || disk_image.formats.is_empty() {
        return None;
    }
    if image.request.is_some() {
        return Some(Reason::Requested);
    }
    let ready = image.ready_builds();
    let Some(newest) = ready.first() else { return Some(Reason::Missing) };
    if now - newest.record.state_time >= disk_image.rebuild_age.as_secs_f64() {
        return Some(Reason::Aged);
    }
    (!newest.record.formats.is_superset(&disk_image.formats)).then_some(Reason::Formats)
}

/// The plan for one image.
pub fn plan(facts: &Facts<'_>) -> Plan {
    let mut plan = Plan::default();
    plan_build(facts, &mut plan);
    plan_uploads(facts, &mut plan);
    if facts.janitor {
        plan_cleanups(facts, &mut plan);
    }
    plan
}

impl Facts<'_> {
    fn disk_image(&self) -> Option<&DiskImage> {
        self.config.diskimages.get(&self.image.name).map(AsRef::as_ref)
    }

    /// Notes a time at which the plan will change. One that has passed changes nothing any more: waiting
    /// for it would be waiting without a pause.
    fn look_again_at(&self, time: f64, plan: &mut Plan) {
        if time > self.now {
            plan.look_again = Some(plan.look_again.map_or(time, |known| known.min(time)));
        }
    }

    /// Whether a failed attempt may be repeated; if not, the plan is to look again when it may.
    fn may_try(&self, attempt: &Attempt, plan: &mut Plan) -> bool {
        match self.failures.not_before(attempt) {
            Some(time) if time > self.now => {
                self.look_again_at(time, plan);
                false
            }
            _ => true,
        }
    }

    /// Whether a build is in progress, here or elsewhere.
    fn is_building(&self) -> bool {
        self.image.build_locked || self.busy.build
    }
}

fn plan_build(facts: &Facts<'_>, plan: &mut Plan) {
    let Some(disk_image) = facts.disk_image() else { return };
    let Some(reason) = build_reason(facts.image, disk_image, facts.now) else {
        if let Some(newest) = facts.image.ready_builds().first() {
            facts.look_again_at(newest.record.state_time + disk_image.rebuild_age.as_secs_f64(), plan);
        }
        return;
    };
    if facts.is_building() {
        return; // The end of that build will be seen as a change.
    }
    let Image { name, request, request_renewed, .. } = facts.image;
    let attempt = Attempt::build(name, *request, *request_renewed);
    if facts.may_try(&attempt, plan) {
        plan.build = Some(reason);
    }
}

fn plan_uploads(facts: &Facts<'_>, plan: &mut Plan) {
    let name = &facts.image.name;
    let ready = facts.image.ready_builds();
    let Some(build) = ready.first() else { return };
    for (provider, config) in &facts.config.providers {
        let Some(settings) = config.images() else { continue };
        let wanted = settings.diskimages.get(name).is_some_and(|image| !image.pause);
        let possible = build.record.formats.contains(&settings.format)
            && facts.local.has_format(name, &build.id, &settings.format);
        let taken = build.providers.get(provider).is_some_and(|at| at.locked)
            || facts.busy.uploads.contains(&(build.id.clone(), provider.clone()));
        if !wanted || !possible || taken || build.is_ready_at(provider) {
            continue;
        }
        if facts.may_try(&Attempt::Upload(name.clone(), provider.clone()), plan) {
            plan.uploads.push((build.id.clone(), provider.clone()));
        }
    }
}

fn plan_cleanups(facts: &Facts<'_>, plan: &mut Plan) {
    let image = facts.image;
    let keep = facts.disk_image().map(|disk_image| disk_image.keep_builds);
    let kept: BTreeSet<&str> =
        image.ready_builds().iter().take(keep.unwrap_or(0)).map(|build| build.id.as_str()).collect();
    let recent = recent_uploads(image, keep.unwrap_or(KEEP_BUILDS));
    let mut garbage: Vec<(&str, Garbage)> = Vec::new();
    for build in image.builds.values() {
        let in_progress = build.record.state == BuildState::Building && facts.is_building();
        let leaves = !kept.contains(build.id.as_str()) && !in_progress;
        for (provider, upload) in build.uploads() {
            garbage.extend(
                clean_upload(facts, build, leaves, &recent, provider, upload)
                    .map(|what| (build.id.as_str(), what)),
            );
        }
        if leaves {
            garbage.extend(clean_build(facts, build).map(|what| (build.id.as_str(), what)));
        } else if build.record.state == BuildState::Ready {
            garbage.extend(spent_formats(facts, build).into_iter().map(|what| (build.id.as_str(), what)));
        }
    }
    for (id, _) in facts.local.builds(&image.name) {
        let unknown = !image.builds.contains_key(id) && !image.damaged.contains(id);
        // Ten digits, as old ids have, may be anything in a name: only of a known image they are an id.
        let ours = id.len() != 10 || facts.disk_image().is_some() || !image.builds.is_empty();
        // The record of a build that has just begun may not have been seen yet.
        if unknown && ours && !facts.busy.build {
            garbage.push((id, Garbage::Files));
        }
    }
    for (build, what) in garbage {
        let cleanup = Cleanup { image: image.name.clone(), build: build.to_owned(), what };
        if !facts.busy.cleanups.contains(&cleanup) && facts.may_try(&Attempt::Clean(cleanup.clone()), plan) {
            plan.cleanups.push(cleanup);
        }
    }
}

/// The newest `ready` uploads at each provider, whatever `ready` build they belong to: a provider whose
/// newer uploads fail keeps a working image.
fn recent_uploads(image: &Image, keep: usize) -> BTreeSet<(&str, &str, &str)> {
    let mut by_provider: BTreeMap<&str, Vec<(&str, &Upload)>> = BTreeMap::new();
    for build in image.builds.values().filter(|build| build.record.state == BuildState::Ready) {
        for (provider, upload) in build.uploads() {
            if upload.record.state == UploadState::Ready {
                by_provider.entry(provider).or_default().push((&build.id, upload));
            }
        }
    }
    let mut recent = BTreeSet::new();
    for (provider, mut uploads) in by_provider {
        uploads.sort_by(|a, b| b.1.record.state_time.total_cmp(&a.1.record.state_time));
        recent
            .extend(uploads.iter().take(keep).map(|(build, upload)| (provider, *build, upload.id.as_str())));
    }
    recent
}

fn clean_upload(
    facts: &Facts<'_>,
    build: &Build,
    build_leaves: bool,
    recent: &BTreeSet<(&str, &str, &str)>,
    provider: &str,
    upload: &Upload,
) -> Option<Garbage> {
    // Without its configuration a provider cannot be asked to delete anything: the record must stay.
    let settings = facts.config.providers.get(provider)?.images()?;
    let name = (provider.to_owned(), upload.id.clone());
    let (mark, delete) = (
        Garbage::MarkUpload { provider: name.0.clone(), upload: name.1.clone(), was: upload.record.state },
        Garbage::Upload { provider: name.0, upload: name.1 },
    );
    let in_progress = build.providers.get(provider).is_some_and(|at| at.locked)
        || facts.busy.uploads.contains(&(build.id.clone(), provider.to_owned()));
    let obsolete = !settings.diskimages.contains_key(&facts.image.name);
    let is_recent = recent.contains(&(provider, build.id.as_str(), upload.id.as_str()));
    match upload.record.state {
        UploadState::Deleting => Some(delete),
        UploadState::Uploading if in_progress => None,
        UploadState::Uploading | UploadState::Failed => Some(mark),
        UploadState::Ready if obsolete || (build_leaves && !is_recent) => Some(mark),
        UploadState::Ready => None,
    }
}

/// A build that is not kept goes once nothing of it is needed any more.
fn clean_build(facts: &Facts<'_>, build: &Build) -> Option<Garbage> {
    if build.record.state == BuildState::Building {
        return Some(Garbage::Abandoned);
    }
    let (mut none_left, mut all_leaving) = (true, true);
    for at in build.providers.values() {
        // A record that cannot be read is never deleted, and neither is what it hangs on.
        all_leaving &= !at.damaged && !at.locked;
        none_left &= !at.damaged && !at.locked && at.uploads.is_empty();
    }
    all_leaving &= build.uploads().all(|(_, upload)| upload.record.state == UploadState::Deleting);
    if !all_leaving || facts.busy.uploads.iter().any(|(id, _)| *id == build.id) {
        return None;
    }
    let foreign = build.record.builder_id.as_deref() != Some(facts.builder_id);
    let never_uploaded = build.record.state == BuildState::Ready && none_left;
    // Its own builder is about to upload it, or decides itself that it need not be. Not even an image that
    // this builder's file does not have: the other's file may be the newer one.
    if foreign && never_uploaded {
        return None;
    }
    let marked = build.record.state == BuildState::Deleting;
    if !marked || none_left {
        return Some(Garbage::Build(build.record.state));
    }
    // Marked, but its uploads are still there: slow clouds need not hold up the disk.
    facts.local.has(&facts.image.name, &build.id).then_some(Garbage::Files)
}

/// The formats that no provider needs from this disk any more.
fn spent_formats(facts: &Facts<'_>, build: &Build) -> Vec<Garbage> {
    let Some(disk_image) = facts.disk_image().filter(|image| image.delete_after_upload) else {
        return Vec::new();
    };
    let mut needed = disk_image.keep_formats.clone();
    for (provider, config) in &facts.config.providers {
        let Some(settings) = config.images() else { continue };
        if settings.diskimages.contains_key(&facts.image.name) && !build.is_ready_at(provider) {
            needed.insert(settings.format.clone());
        }
    }
    let here = facts.local.builds(&facts.image.name).find(|(id, _)| **id == build.id);
    let here = here.into_iter().flat_map(|(_, formats)| formats);
    here.filter(|format| !needed.contains(*format)).map(|format| Garbage::Format(format.clone())).collect()
}

#[cfg(test)]
mod tests;
