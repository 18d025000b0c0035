//! `alien-image-list`: images at the providers that a builder has put there and that no record knows.
//!
//! The provider is asked first and ZooKeeper afterwards, so that what is uploaded meanwhile is not taken for
//! an alien. Records of all providers count, because several of them may share one store.

use std::collections::BTreeSet;
use std::time::Duration;

use nodepool_drivers::api::{CallContext, ProviderConfig, StoredImage};
use nodepool_threads::{StopSource, activity_within};
use serde::Serialize;
use slog::{Logger, o};

use super::args::Format;
use super::failure::Failure;
use super::listing::{left_out, show};
use crate::builder::Origin;
use crate::config::Config;
use crate::listing::Row;
use crate::zk::{Images, ListedUpload};

/// How long a provider may take to list its images.
const LIST_LIMIT: Duration = Duration::from_secs(120);

#[derive(Debug, PartialEq, Eq, Serialize)]
struct AlienRow {
    provider: String,
    external_name: String,
    external_id: String,
}

impl Row for AlienRow {
    const HEADER: &'static [&'static str] = &["Provider", "Name", "Image ID"];

    fn cells(&self, _now: f64) -> Vec<String> {
        [&self.provider, &self.external_name, &self.external_id].map(String::clone).into()
    }
}

/// Shows the aliens at one provider, or at all. Those that cannot be asked are told afterwards.
pub(super) fn list(
    config: &Config,
    images: &Images,
    only: Option<&str>,
    format: Format,
    log: &Logger,
) -> Result<(), Failure> {
    let (mut stored, mut unheard) = (Vec::new(), Vec::new());
    for provider in chosen(config, only)? {
        let name = &provider.settings().name;
        match images_of_ours(provider, log) {
            Ok(found) => stored.push((name, found)),
            Err(why) => unheard.push(format!("the provider '{name}': {why}")),
        }
    }
    let uploads = images.read_all_uploads(&mut left_out)?;
    let known = Known::new(&uploads);
    let rows: Vec<_> = stored.iter().flat_map(|(name, found)| known.aliens(name, found)).collect();
    show(&rows, format)?;
    if unheard.is_empty() { Ok(()) } else { Err(Failure::Because(unheard)) }
}

/// The providers that are to be asked.
fn chosen<'a>(config: &'a Config, only: Option<&str>) -> Result<Vec<&'a dyn ProviderConfig>, Failure> {
    let Some(name) = only else {
        let all = config.providers.values().map(|provider| &**provider);
        return Ok(all.filter(|provider| provider.images().is_some()).collect());
    };
    let why = match config.providers.get(name) {
        Some(provider) if provider.images().is_some() => return Ok(vec![&**provider]),
        Some(_) => format!("the provider '{name}' stores no images"),
        None => format!("the provider '{name}' is not configured in {}", config.file.display()),
    };
    Err(Failure::because(why))
}

/// What builders have put there, ordered by name.
fn images_of_ours(provider: &dyn ProviderConfig, log: &Logger) -> Result<Vec<StoredImage>, String> {
    let name = &provider.settings().name;
    let log = log.new(o!("provider" => name.clone()));
    let opened = provider.open_to_ask(&log).map_err(|error| error.to_string())?;
    let Some(store) = opened.images() else { return Ok(Vec::new()) };
    let source = StopSource::new();
    let call = CallContext { stop: source.token().deadline_in(LIST_LIMIT), log };
    let _doing = activity_within(LIST_LIMIT, format!("asking '{name}' for its images"));
    let mut found = store.list(&call).map_err(|error| error.to_string())?;
    found.retain(|image| Origin::of_any(image, name).is_some());
    found.sort_by(|a, b| (&a.name, &a.id).cmp(&(&b.name, &b.id)));
    Ok(found)
}

/// What the records know.
struct Known<'a> {
    /// The providers' ids of images.
    ids: BTreeSet<&'a str>,
    /// Uploads that run, or that ended before their record could be finished: their image has no id yet.
    unfinished: BTreeSet<(&'a str, &'a str, &'a str)>,
}

impl<'a> Known<'a> {
    fn new(uploads: &'a [ListedUpload]) -> Self {
        let mut known = Self { ids: BTreeSet::new(), unfinished: BTreeSet::new() };
        for listed in uploads {
            match &listed.upload.record.external_id {
                Some(id) => {
                    known.ids.insert(id);
                }
                None => {
                    known.unfinished.insert((&listed.build, &listed.upload.id, &listed.provider));
                }
            }
        }
        known
    }

    fn aliens(&self, provider: &str, stored: &[StoredImage]) -> Vec<AlienRow> {
        let is_alien = |image: &&StoredImage| {
            let origin = Origin::of_any(image, provider);
            let origin = origin.map(|origin| (origin.build, origin.upload, origin.provider));
            !self.ids.contains(image.id.as_str())
                && origin.is_some_and(|from| !self.unfinished.contains(&from))
        };
        let row = |image: &StoredImage| AlienRow {
            provider: provider.to_owned(),
            external_name: image.name.clone(),
            external_id: image.id.clone(),
        };
        stored.iter().filter(is_alien).map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Upload, UploadRecord, UploadState};

    fn stored(id: &str, properties: &[(&str, &str)]) -> StoredImage {
        let properties = properties.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned()));
        StoredImage { id: id.to_owned(), name: format!("name-{id}"), properties: properties.collect() }
    }

    fn recorded(build: &str, provider: &str, upload: &str, external_id: Option<&str>) -> ListedUpload {
        let mut record = UploadRecord::new(UploadState::Uploading);
        record.external_id = external_id.map(str::to_owned);
        let [image, build, provider, id] = ["debian", build, provider, upload].map(str::to_owned);
        ListedUpload { image, build, build_created: 1.0, provider, upload: Upload { id, record, version: 0 } }
    }

    #[test]
    fn an_image_is_alien_if_a_builder_made_it_and_no_record_has_its_id_or_is_being_uploaded() {
        const BUILD: &str = "nodepool_build_id";
        const UPLOAD: &str = "nodepool_upload_id";
        const PROVIDER: &str = "nodepool_provider_name";
        let uploads = [
            recorded("b1", "p", "1", Some("recorded")),
            recorded("b1", "q", "1", Some("of the other provider")),
            recorded("b1", "p", "2", None),
            recorded("b1", "q", "3", None),
        ];
        let images = [
            stored("of a stranger", &[(UPLOAD, "9")]),
            stored("recorded", &[(BUILD, "b1"), (UPLOAD, "1")]),
            stored("of the other provider", &[(BUILD, "b1"), (UPLOAD, "1")]),
            stored("on its way", &[(BUILD, "b1"), (UPLOAD, "2")]),
            stored("on its way to the other", &[(BUILD, "b1"), (UPLOAD, "3"), (PROVIDER, "q")]),
            stored("of a lost record", &[(BUILD, "b1"), (UPLOAD, "3")]),
            stored("doubled", &[(BUILD, "b1"), (UPLOAD, "1")]),
            stored("without an upload", &[(BUILD, "b1")]),
        ];
        let aliens = Known::new(&uploads).aliens("p", &images);
        let ids: Vec<_> = aliens.iter().map(|alien| alien.external_id.as_str()).collect();
        assert_eq!(ids, ["of a lost record", "doubled", "without an upload"]);
        assert_eq!(aliens[0].cells(0.0), ["p", "name-of a lost record", "of a lost record"]);
    }
}
