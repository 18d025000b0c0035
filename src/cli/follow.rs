//! What the state of an image means to somebody who waits for a build of it. No I/O, no clock.
//!
//! The build that answers a request is the first that begins after it. One that was running before does not:
//! builders leave the request in place then, and build again. Only when the request had been there already,
//! with a build running for it, asking again changes nothing, and that build is the answer.

use std::collections::{BTreeMap, BTreeSet};

use crate::model::{Build, BuildState, Image, UploadState};

/// What was asked for.
#[derive(Debug, Clone)]
pub(super) struct Asked {
    /// Builds that are no answer: they were there before.
    known: BTreeSet<String>,
    /// When the request was made, UNIX seconds of the servers; `None` if it was gone before it could be read.
    made: Option<f64>,
    /// The providers that shall have the build.
    providers: BTreeSet<String>,
}

impl Asked {
    /// A request that was made at `made`, when the image had been as in `before`.
    pub(super) fn new(before: &Image, made: Option<f64>, providers: BTreeSet<String>) -> Self {
        let after_request = |build: &Build| made.is_some_and(|made| build.created >= made);
        let running = |build: &Build| before.build_locked && build.record.state == BuildState::Building;
        let no_answer = before.builds.values().filter(|build| !(running(build) && after_request(build)));
        let known = no_answer.map(|build| build.id.clone()).chain(before.damaged.iter().cloned()).collect();
        Self { known, made, providers }
    }

    fn is_answer(&self, build: &Build) -> bool {
        !self.known.contains(&build.id) && self.made.is_none_or(|made| build.created >= made)
    }
}

/// How far the request has come.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Progress {
    /// No build has begun for it.
    Waiting {
        /// Whether builds of the image are paused by a znode.
        paused: bool,
        /// A build that began before the request and still runs.
        behind: Option<String>,
    },
    /// The build runs.
    Building(BuildFacts),
    /// The build failed.
    BuildFailed(BuildFacts),
    /// The build was ready once, and is deleted.
    Deleted(BuildFacts),
    /// The build is ready, and on its way to the providers.
    Uploading(BuildFacts, BTreeMap<String, AtProvider>),
}

/// What is to be said of a build.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct BuildFacts {
    /// Its id.
    pub(super) id: String,
    /// The host that builds it.
    pub(super) builder: Option<String>,
    /// When it began, UNIX seconds.
    pub(super) created: f64,
    /// Since when it has been in its state, UNIX seconds.
    pub(super) since: f64,
}

/// How far the upload to a provider has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AtProvider {
    /// Not begun.
    Waiting,
    /// It runs.
    Uploading,
    /// The provider has the build, or a newer one.
    Ready,
    /// The last attempt failed, and no other runs.
    Failed,
}

/// Whether there is anything left to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    GoOn,
    Done,
    Failed,
}

impl Progress {
    /// Whether there is anything left to wait for.
    pub(super) fn verdict(&self) -> Verdict {
        match self {
            Self::Waiting { .. } | Self::Building(_) => Verdict::GoOn,
            Self::BuildFailed(_) | Self::Deleted(_) => Verdict::Failed,
            Self::Uploading(_, providers) => {
                let count = |wanted| providers.values().filter(|state| **state == wanted).count();
                match (count(AtProvider::Ready), count(AtProvider::Failed)) {
                    (ready, _) if ready == providers.len() => Verdict::Done,
                    (ready, failed) if ready + failed == providers.len() => Verdict::Failed,
                    _ => Verdict::GoOn,
                }
            }
        }
    }
}

/// Finds the build that answers a request, and stays with it.
#[derive(Debug)]
pub(super) struct Follower {
    asked: Asked,
    followed: Option<Followed>,
}

#[derive(Debug)]
struct Followed {
    facts: BuildFacts,
    state: BuildState,
    /// Providers of which an upload has failed: builders remove the record soon.
    failed: BTreeSet<String>,
}

impl Follower {
    /// Follows what was asked for.
    pub(super) fn new(asked: Asked) -> Self {
        Self { asked, followed: None }
    }

    /// How far the request has come when the image is as given.
    pub(super) fn look(&mut self, image: &Image) -> Progress {
        if self.followed.is_none() {
            let answers = image.builds.values().filter(|build| self.asked.is_answer(build));
            let first = answers.min_by(|a, b| a.created.total_cmp(&b.created).then_with(|| a.id.cmp(&b.id)));
            self.followed = first.map(Followed::new);
        }
        let Some(followed) = &mut self.followed else {
            let running = |build: &&Build| build.record.state == BuildState::Building;
            let behind = image.builds.values().find(running).filter(|_| image.build_locked);
            let behind = behind.map(|build| build.id.clone());
            return Progress::Waiting { paused: image.paused, behind };
        };
        match image.builds.get(&followed.facts.id) {
            Some(build) => followed.update(build),
            // A record that cannot be read is no news.
            None if image.damaged.contains(&followed.facts.id) => {}
            // Builders remove the record of a failed build soon.
            None if followed.state == BuildState::Building => followed.state = BuildState::Failed,
            None if followed.state == BuildState::Ready => followed.state = BuildState::Deleting,
            None => {}
        }
        let facts = followed.facts.clone();
        match followed.state {
            BuildState::Building => Progress::Building(facts),
            BuildState::Failed => Progress::BuildFailed(facts),
            BuildState::Deleting => Progress::Deleted(facts),
            BuildState::Ready => {
                let at = |provider: &String| (provider.clone(), followed.at_provider(image, provider));
                Progress::Uploading(facts, self.asked.providers.iter().map(at).collect())
            }
        }
    }
}

impl Followed {
    fn new(build: &Build) -> Self {
        let facts = BuildFacts { id: build.id.clone(), builder: None, created: build.created, since: 0.0 };
        let mut followed = Self { facts, state: build.record.state, failed: BTreeSet::new() };
        followed.update(build);
        followed
    }

    fn update(&mut self, build: &Build) {
        self.facts.builder.clone_from(&build.record.builder);
        self.facts.since = build.record.state_time;
        self.state = build.record.state;
    }

    fn at_provider(&mut self, image: &Image, provider: &str) -> AtProvider {
        // Builders upload the newest build only: a newer one that is there already takes this one's place.
        let not_older = |build: &&Build| build.id == self.facts.id || build.created > self.facts.created;
        if image.builds.values().filter(not_older).any(|build| build.is_ready_at(provider)) {
            return AtProvider::Ready;
        }
        let build = image.builds.get(&self.facts.id);
        let uploads = build.and_then(|build| build.providers.get(provider)).map(|at| &at.uploads);
        let any = |state| uploads.is_some_and(|all| all.values().any(|upload| upload.record.state == state));
        if any(UploadState::Failed) {
            self.failed.insert(provider.to_owned());
        }
        match (any(UploadState::Uploading), self.failed.contains(provider)) {
            (true, _) => AtProvider::Uploading,
            (false, true) => AtProvider::Failed,
            (false, false) => AtProvider::Waiting,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{BuildRecord, Upload, UploadRecord};

    fn image() -> Image {
        Image { name: "debian".to_owned(), ..Image::default() }
    }

    fn put(image: &mut Image, id: &str, created: f64, state: BuildState) {
        image.build_locked = state == BuildState::Building;
        let build = image.builds.entry(id.to_owned()).or_insert_with(|| Build {
            id: id.to_owned(),
            record: BuildRecord::new(state),
            version: 0,
            created,
            providers: BTreeMap::new(),
        });
        build.record.state = state;
    }

    fn put_upload(image: &mut Image, build: &str, provider: &str, id: &str, state: UploadState) {
        let at = image.builds.get_mut(build).unwrap().providers.entry(provider.to_owned()).or_default();
        at.uploads.insert(
            id.to_owned(),
            Upload { id: id.to_owned(), record: UploadRecord::new(state), version: 0 },
        );
    }

    fn follower(before: &Image, made: Option<f64>, providers: &[&str]) -> Follower {
        let providers = providers.iter().map(|&name| name.to_owned()).collect();
        Follower::new(Asked::new(before, made, providers))
    }

    fn short(progress: &Progress) -> String {
        let what = match progress {
            Progress::Waiting { paused, behind } => {
                let paused = if *paused { " paused" } else { "" };
                format!(
                    "waiting{paused}{}",
                    behind.as_ref().map(|id| format!(" behind {id}")).unwrap_or_default()
                )
            }
            Progress::Building(build) => format!("{} building", build.id),
            Progress::BuildFailed(build) => format!("{} failed", build.id),
            Progress::Deleted(build) => format!("{} deleted", build.id),
            Progress::Uploading(build, providers) => format!("{} {providers:?}", build.id),
        };
        format!("{what}, {:?}", progress.verdict())
    }

    #[test]
    fn a_build_is_followed_from_the_request_to_the_last_provider() {
        let mut image = image();
        let mut follower = follower(&image, Some(10.0), &["p", "q"]);
        let mut look = |image: &Image| short(&follower.look(image));
        assert_eq!(look(&image), "waiting, GoOn");
        image.paused = true;
        assert_eq!(look(&image), "waiting paused, GoOn");
        put(&mut image, "a", 11.0, BuildState::Building);
        assert_eq!(look(&image), "a building, GoOn");
        put(&mut image, "a", 11.0, BuildState::Ready);
        assert_eq!(look(&image), r#"a {"p": Waiting, "q": Waiting}, GoOn"#);
        put_upload(&mut image, "a", "q", "1", UploadState::Uploading);
        assert_eq!(look(&image), r#"a {"p": Waiting, "q": Uploading}, GoOn"#);
        put_upload(&mut image, "a", "q", "1", UploadState::Ready);
        put_upload(&mut image, "a", "p", "1", UploadState::Ready);
        assert_eq!(look(&image), r#"a {"p": Ready, "q": Ready}, Done"#);
    }

    #[test]
    fn a_build_without_providers_is_done_when_it_is_ready() {
        let mut image = image();
        let mut follower = follower(&image, Some(10.0), &[]);
        put(&mut image, "a", 11.0, BuildState::Ready);
        assert_eq!(short(&follower.look(&image)), "a {}, Done");
    }

    #[test]
    fn a_build_that_was_running_before_the_request_is_not_followed() {
        let mut image = image();
        put(&mut image, "old", 5.0, BuildState::Building);
        let mut follower = follower(&image, Some(10.0), &[]);
        // This one began between the look at the image and the request.
        put(&mut image, "between", 9.0, BuildState::Failed);
        put(&mut image, "old", 5.0, BuildState::Building);
        assert_eq!(short(&follower.look(&image)), "waiting behind old, GoOn");
        put(&mut image, "old", 5.0, BuildState::Ready);
        assert_eq!(short(&follower.look(&image)), "waiting, GoOn");
        put(&mut image, "new", 12.0, BuildState::Building);
        put(&mut image, "newer", 13.0, BuildState::Building);
        assert_eq!(short(&follower.look(&image)), "new building, GoOn");
    }

    #[test]
    fn a_build_that_runs_for_an_earlier_request_answers_a_repeated_one() {
        let mut image = image();
        put(&mut image, "failed", 11.0, BuildState::Failed);
        put(&mut image, "running", 12.0, BuildState::Building);
        let mut follower = follower(&image, Some(10.0), &[]);
        assert_eq!(short(&follower.look(&image)), "running building, GoOn");
    }

    #[test]
    fn what_a_crashed_builder_left_answers_nothing() {
        let mut image = image();
        put(&mut image, "left", 12.0, BuildState::Building);
        image.build_locked = false;
        let mut follower = follower(&image, Some(10.0), &[]);
        assert_eq!(short(&follower.look(&image)), "waiting, GoOn");
    }

    #[test]
    fn a_request_that_was_answered_at_once_is_found_without_its_time() {
        let mut image = image();
        put(&mut image, "old", 5.0, BuildState::Ready);
        let mut follower = follower(&image, None, &[]);
        put(&mut image, "new", 6.0, BuildState::Ready);
        assert_eq!(short(&follower.look(&image)), "new {}, Done");
    }

    #[test]
    fn a_failed_build_ends_the_wait_even_when_its_record_is_removed() {
        for removed in [false, true] {
            let mut image = image();
            let mut follower = follower(&image, Some(10.0), &["p"]);
            put(&mut image, "a", 11.0, BuildState::Building);
            follower.look(&image);
            put(&mut image, "a", 11.0, BuildState::Failed);
            if removed {
                image.builds.clear();
            }
            assert_eq!(short(&follower.look(&image)), "a failed, Failed", "{removed}");
        }
    }

    #[test]
    fn a_ready_build_that_is_deleted_ends_the_wait() {
        let mut image = image();
        let mut follower = follower(&image, Some(10.0), &["p"]);
        put(&mut image, "a", 11.0, BuildState::Ready);
        follower.look(&image);
        put(&mut image, "a", 11.0, BuildState::Deleting);
        assert_eq!(short(&follower.look(&image)), "a deleted, Failed");
        image.builds.clear();
        assert_eq!(short(&follower.look(&image)), "a deleted, Failed");
    }

    #[test]
    fn a_record_that_cannot_be_read_is_no_news() {
        let mut image = image();
        let mut follower = follower(&image, Some(10.0), &["p"]);
        put(&mut image, "a", 11.0, BuildState::Building);
        follower.look(&image);
        image.builds.clear();
        image.damaged.insert("a".to_owned());
        assert_eq!(short(&follower.look(&image)), "a building, GoOn");
    }

    #[test]
    fn failed_uploads_end_the_wait_once_all_others_are_done() {
        let mut image = image();
        let mut follower = follower(&image, Some(10.0), &["p", "q"]);
        let mut look = |image: &Image| short(&follower.look(image));
        put(&mut image, "a", 11.0, BuildState::Ready);
        put_upload(&mut image, "a", "p", "1", UploadState::Failed);
        put_upload(&mut image, "a", "q", "1", UploadState::Uploading);
        assert_eq!(look(&image), r#"a {"p": Failed, "q": Uploading}, GoOn"#);
        // The record is removed, and later the upload is tried again.
        image.builds.get_mut("a").unwrap().providers.remove("p");
        assert_eq!(look(&image), r#"a {"p": Failed, "q": Uploading}, GoOn"#);
        put_upload(&mut image, "a", "p", "2", UploadState::Uploading);
        assert_eq!(look(&image), r#"a {"p": Uploading, "q": Uploading}, GoOn"#);
        put_upload(&mut image, "a", "p", "2", UploadState::Failed);
        put_upload(&mut image, "a", "q", "1", UploadState::Ready);
        assert_eq!(look(&image), r#"a {"p": Failed, "q": Ready}, Failed"#);
    }

    #[test]
    fn a_newer_build_at_a_provider_takes_the_place_of_the_followed_one() {
        let mut image = image();
        put(&mut image, "old", 5.0, BuildState::Ready);
        put_upload(&mut image, "old", "q", "1", UploadState::Ready);
        let mut follower = follower(&image, Some(10.0), &["p", "q"]);
        put(&mut image, "a", 11.0, BuildState::Ready);
        follower.look(&image);
        put(&mut image, "b", 12.0, BuildState::Ready);
        put_upload(&mut image, "b", "p", "1", UploadState::Ready);
        assert_eq!(short(&follower.look(&image)), r#"a {"p": Ready, "q": Waiting}, GoOn"#);
    }
}
