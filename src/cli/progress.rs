//! What is said of the progress of a build: a line for each change, and the line that is redrawn.

use std::collections::BTreeMap;

use super::follow::{AtProvider, BuildFacts, Progress};
use crate::model::Age;

/// The name of a build as `dib-image-list` shows it.
pub(super) fn name(image: &str, build: &BuildFacts) -> String {
    format!("{image}-{}", build.id)
}

/// What has changed between `before`, if this is not the first look, and `now`.
pub(super) fn news(image: &str, before: Option<&Progress>, now: &Progress) -> Vec<String> {
    if before == Some(now) {
        return Vec::new();
    }
    match now {
        Progress::Waiting { paused: true, .. } => vec![format!(
            "{image}: paused; builders wait until it is let go on with `nodepool image-unpause {image}`"
        )],
        Progress::Waiting { behind: Some(build), .. } => {
            vec![format!("{image}: waiting until {image}-{build}, which began earlier, is built")]
        }
        Progress::Waiting { .. } => vec![format!("{image}: waiting for a builder")],
        Progress::Building(_) if matches!(before, Some(Progress::Building(_))) => Vec::new(),
        Progress::Building(build) => vec![format!("{}: building{}", name(image, build), place(build))],
        Progress::Uploading(build, providers) => {
            let name = name(image, build);
            let nothing = BTreeMap::new();
            let (mut lines, old) = match before {
                Some(Progress::Uploading(_, old)) => (Vec::new(), old),
                _ => {
                    (vec![format!("{name}: built in {}", Age::between(build.created, build.since))], &nothing)
                }
            };
            let changed = providers.iter().filter(|(provider, state)| old.get(*provider) != Some(*state));
            lines.extend(changed.filter_map(|(provider, state)| {
                Some(format!("{name}: {provider}: {}", upload_news(*state)?))
            }));
            lines
        }
        // The command ends with a sentence about it.
        Progress::BuildFailed(_) | Progress::Deleted(_) => Vec::new(),
    }
}

fn upload_news(state: AtProvider) -> Option<&'static str> {
    match state {
        AtProvider::Waiting => None,
        AtProvider::Uploading => Some("uploading"),
        AtProvider::Ready => Some("ready"),
        AtProvider::Failed => Some("the upload failed; builders try again later"),
    }
}

/// ` on HOST`, or nothing if the host is not known.
fn place(build: &BuildFacts) -> String {
    build.builder.as_ref().map(|host| format!(" on {host}")).unwrap_or_default()
}

/// The last sentence of a build that came to nothing.
pub(super) fn failure(image: &str, progress: &Progress) -> String {
    match progress {
        Progress::BuildFailed(build) => format!("the build {}{} failed", name(image, build), place(build)),
        Progress::Deleted(build) => format!("the build {} was deleted", name(image, build)),
        Progress::Uploading(build, providers) => {
            let failed = providers.iter().filter(|(_, state)| **state == AtProvider::Failed);
            let failed: Vec<_> = failed.map(|(provider, _)| provider.as_str()).collect();
            format!("the upload of {} failed at {}", name(image, build), failed.join(", "))
        }
        Progress::Waiting { .. } | Progress::Building(_) => format!("no build of {image}"),
    }
}

/// The line that is redrawn: the state, how long it has lasted, and how far it has come. `asked` is the time
/// of the request, `size` that of the build's files as far as they are on this machine.
pub(super) fn status_line(
    image: &str,
    progress: &Progress,
    asked: f64,
    size: Option<u64>,
    now: f64,
) -> String {
    match progress {
        Progress::Waiting { .. } => format!("{image}: waiting {}", Age::between(asked, now)),
        Progress::Building(build) => {
            let size = size.map(|bytes| format!(", {}", human_size(bytes))).unwrap_or_default();
            format!("{}: building {}{size}", name(image, build), Age::between(build.created, now))
        }
        Progress::Uploading(build, providers) => {
            let done = providers.values().filter(|state| **state == AtProvider::Ready).count();
            let size = size.map(|bytes| format!(", {}", human_size(bytes))).unwrap_or_default();
            let (name, age) = (name(image, build), Age::between(build.since, now));
            format!("{name}: uploaded {done} of {} {age}{size}", providers.len())
        }
        Progress::BuildFailed(_) | Progress::Deleted(_) => String::new(),
    }
}

fn human_size(bytes: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut size = bytes as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < units.len() {
        size /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{bytes} B") } else { format!("{size:.1} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn build() -> BuildFacts {
        BuildFacts {
            id: "aa".to_owned(),
            builder: Some("b.example".to_owned()),
            created: 100.0,
            since: 163.0,
        }
    }

    fn uploading(states: &[AtProvider]) -> Progress {
        let names = ["p", "q"].map(str::to_owned);
        Progress::Uploading(build(), names.into_iter().zip(states.iter().copied()).collect())
    }

    #[test]
    fn each_change_is_one_line() {
        use AtProvider::{Failed, Ready, Uploading, Waiting};
        let waiting =
            |paused, behind: Option<&str>| Progress::Waiting { paused, behind: behind.map(str::to_owned) };
        let later = Progress::Building(BuildFacts { since: 170.0, ..build() });
        let steps: [(Progress, &[&str]); 11] = [
            (waiting(false, None), &["debian: waiting for a builder"]),
            (waiting(false, None), &[]),
            (waiting(false, Some("00")), &["debian: waiting until debian-00, which began earlier, is built"]),
            (
                waiting(true, None),
                &["debian: paused; builders wait until it is let go on with `nodepool image-unpause debian`"],
            ),
            (Progress::Building(build()), &["debian-aa: building on b.example"]),
            (later, &[]),
            (
                uploading(&[Waiting, Uploading]),
                &["debian-aa: built in 00:00:01:03", "debian-aa: q: uploading"],
            ),
            (
                uploading(&[Failed, Ready]),
                &["debian-aa: p: the upload failed; builders try again later", "debian-aa: q: ready"],
            ),
            (uploading(&[Uploading, Ready]), &["debian-aa: p: uploading"]),
            (uploading(&[Ready, Ready]), &["debian-aa: p: ready"]),
            (Progress::BuildFailed(build()), &[]),
        ];
        let mut before = None;
        for (now, expected) in steps {
            assert_eq!(news("debian", before.as_ref(), &now), expected, "{now:?}");
            before = Some(now);
        }
    }

    #[test]
    fn the_status_line_has_state_time_and_size() {
        let line = |progress: &Progress, size| status_line("debian", progress, 50.0, size, 200.5);
        assert_eq!(
            line(&Progress::Waiting { paused: true, behind: None }, None),
            "debian: waiting 00:00:02:30"
        );
        let building = Progress::Building(build());
        assert_eq!(line(&building, None), "debian-aa: building 00:00:01:40");
        assert_eq!(line(&building, Some(5 << 29)), "debian-aa: building 00:00:01:40, 2.5 GiB");
        let states = [AtProvider::Ready, AtProvider::Failed];
        assert_eq!(line(&uploading(&states), Some(1000)), "debian-aa: uploaded 1 of 2 00:00:00:37, 1000 B");
        assert_eq!(human_size(1536 << 40), "1536.0 TiB");
    }

    #[test]
    fn the_last_sentence_names_what_failed() {
        let failed = uploading(&[AtProvider::Failed, AtProvider::Ready]);
        assert_eq!(failure("debian", &failed), "the upload of debian-aa failed at p");
        let failed = Progress::BuildFailed(build());
        assert_eq!(failure("debian", &failed), "the build debian-aa on b.example failed");
        assert_eq!(failure("debian", &Progress::Deleted(build())), "the build debian-aa was deleted");
    }
}
