//! The readers of what provider sections have in common.
//!
//! Each driver calls [`ProviderSettings::read`], and one that stores images [`ImageSettings::read`], before
//! it reads its own keys from the same table. They finish the tables below the section, not the section.

use std::collections::BTreeMap;
use std::collections::btree_map::Entry;
use std::path::PathBuf;
use std::time::Duration;

use super::name_format::{Piece, parse};
use super::{Connection, ImageSettings, ProviderDiskimage, ProviderSettings, Table};

const DEFAULT_NAME_FORMAT: &str = "{image_name}-{timestamp}";
const DEFAULT_UPLOAD_TIMEOUT: Duration = Duration::from_secs(3600);

/// What is wrong with the name of a provider or of an image: such names become znodes, parts of file names
/// and arguments of commands.
pub fn name_mistake(name: &str) -> Option<&'static str> {
    if name.is_empty() {
        Some("must not be empty")
    } else if name.contains('/') {
        Some("must not contain '/'")
    } else if name == "." || name == ".." {
        Some("must not be '.' or '..'")
    } else if name.starts_with('-') {
        Some("must not start with '-'")
    } else if name.contains(char::is_control) {
        Some("must not contain control characters")
    } else {
        None
    }
}

/// A required name that is fit to be one.
pub(super) fn required_name(table: &Table<'_>) -> Option<String> {
    let name = table.required_string("name")?;
    match name_mistake(&name) {
        None => Some(name),
        Some(mistake) => {
            table.error("name", format!("the name '{}' {mistake}", name.escape_debug()));
            None
        }
    }
}

/// A time span in seconds, with or without a fraction.
pub(crate) fn seconds(table: &Table<'_>, key: &'static str) -> Option<Duration> {
    let seconds = table.number(key)?;
    let span = Duration::try_from_secs_f64(seconds).ok();
    if span.is_none() {
        table.error(key, format!("{seconds} seconds is too long a time"));
    }
    span
}

impl ProviderSettings {
    /// Reads the keys of every provider from its section; `driver` is the name of the driver that reads it.
    /// `None` when the section has no usable name.
    pub fn read(table: &Table<'_>, driver: &str) -> Option<Self> {
        let name = required_name(table);
        // The caller chose the driver already, by this key or by the provider's name.
        let _ = table.string("driver");
        let max_concurrency = table.integer("max-concurrency").and_then(|limit| match limit {
            -1 => None,
            limit => {
                let count = u64::try_from(limit).ok();
                if count.is_none() {
                    table.error(
                        "max-concurrency",
                        format!("expected a count, or -1 for the default, found {limit}"),
                    );
                }
                count
            }
        });
        let priority = table.integer("priority");
        Some(Self {
            name: name?,
            driver: driver.to_owned(),
            max_concurrency,
            priority,
            section: table.to_value(),
            outside: None,
        })
    }
}

impl ImageSettings {
    /// Reads the keys of every provider that stores images. The format is the section's `image-format`, or
    /// `default_format`. A mistake is noted, and the default or nothing stands in its place.
    pub fn read(table: &Table<'_>, default_format: &str) -> Self {
        Self {
            format: image_format(table).unwrap_or_else(|| default_format.to_owned()),
            diskimages: diskimages(table),
            name_format: name_format(table).unwrap_or_else(|| DEFAULT_NAME_FORMAT.to_owned()),
            post_upload_hook: post_upload_hook(table),
            upload_timeout: upload_timeout(table).unwrap_or(DEFAULT_UPLOAD_TIMEOUT),
        }
    }

    /// The name that an upload gets at the provider; `unix_time` in seconds is the upload's timestamp.
    pub fn external_name(&self, image: &str, upload_id: &str, unix_time: u64) -> String {
        // `read` lets no format through that does not parse; one made by other means counts as plain text.
        let pieces = parse(&self.name_format).unwrap_or_else(|_| vec![Piece::Text(&self.name_format)]);
        let timestamp = unix_time.to_string();
        let texts = pieces.into_iter().map(|piece| match piece {
            Piece::Text(text) => text,
            Piece::ImageName => image,
            Piece::Timestamp => &timestamp,
            Piece::UploadId => upload_id,
        });
        texts.collect()
    }
}

fn image_format(table: &Table<'_>) -> Option<String> {
    let format = table.string("image-format")?;
    // The format is the ending of the file that the build leaves.
    if format.is_empty() || !format.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        let message = format!("expected an image format such as 'qcow2' or 'raw', found '{format}'");
        table.error("image-format", message);
        return None;
    }
    Some(format)
}

fn name_format(table: &Table<'_>) -> Option<String> {
    let format = table.string("image-name-format")?;
    if let Err(mistake) = parse(&format) {
        table.error("image-name-format", mistake);
        return None;
    }
    Some(format)
}

fn post_upload_hook(table: &Table<'_>) -> Option<PathBuf> {
    let hook = table.string("post-upload-hook")?;
    if hook.is_empty() {
        table.error("post-upload-hook", "expected the path of a program, found ''");
        return None;
    }
    Some(PathBuf::from(hook))
}

fn upload_timeout(table: &Table<'_>) -> Option<Duration> {
    let timeout = seconds(table, "image-upload-timeout")?;
    if timeout.is_zero() {
        table.error("image-upload-timeout", "must be more than 0: no upload could succeed");
        return None;
    }
    Some(timeout)
}

fn diskimages(table: &Table<'_>) -> BTreeMap<String, ProviderDiskimage> {
    let mut images = BTreeMap::new();
    for entry in table.tables("diskimages") {
        let name = required_name(&entry);
        let image = ProviderDiskimage {
            pause: entry.boolean("pause").unwrap_or(false),
            meta: entry.text_map("meta").unwrap_or_default(),
            connection: Connection::read(&entry),
            config_drive: entry.boolean("config-drive").unwrap_or(false),
        };
        match name.map(|name| images.entry(name)) {
            Some(Entry::Vacant(place)) => {
                place.insert(image);
            }
            Some(Entry::Occupied(earlier)) => {
                let name = earlier.key();
                entry.error(
                    "name",
                    format!("the diskimage '{name}' is listed twice; remove one of the entries"),
                );
            }
            None => {}
        }
        entry.finish();
    }
    images
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::testing::read;

    fn image_settings(section: serde_json::Value) -> (ImageSettings, Vec<String>) {
        read(section, |table| ImageSettings::read(table, "qcow2"))
    }

    #[test]
    fn provider_defaults() {
        let (settings, problems) = read(json!({"name": "p"}), |table| ProviderSettings::read(table, "fake"));
        let settings = settings.unwrap();
        assert_eq!(problems, [""; 0]);
        assert_eq!((settings.name.as_str(), settings.driver.as_str()), ("p", "fake"));
        assert_eq!((settings.max_concurrency, settings.priority), (None, None));
        assert_eq!(settings.section.get("name"), Some(&crate::api::Value::Str("p".into())));
    }

    #[test]
    fn provider_values() {
        let section = json!({"name": "p", "driver": "local", "max-concurrency": 3, "priority": -2});
        let (settings, problems) = read(section, |table| ProviderSettings::read(table, "local"));
        let settings = settings.unwrap();
        assert_eq!(problems, [""; 0]);
        assert_eq!((settings.max_concurrency, settings.priority), (Some(3), Some(-2)));
        let unlimited = json!({"name": "p", "max-concurrency": -1});
        let (settings, problems) = read(unlimited, |table| ProviderSettings::read(table, "local"));
        assert_eq!((settings.unwrap().max_concurrency, problems.len()), (None, 0));
    }

    #[test]
    fn provider_mistakes() {
        for name in ["a/b", "..", ".", "-x", "", "a\nb"] {
            let (settings, problems) =
                read(json!({"name": name}), |table| ProviderSettings::read(table, "fake"));
            assert!(settings.is_none(), "{name}");
            assert_eq!(problems.len(), 1, "{name}: {problems:?}");
        }
        let (settings, problems) = read(json!({}), |table| ProviderSettings::read(table, "fake"));
        assert!(settings.is_none());
        assert_eq!(problems, ["providers[0]: the required key 'name' is missing"]);
        let section = json!({"name": "p", "driver": 1, "max-concurrency": -2, "priority": "high"});
        let (_, problems) = read(section, |table| ProviderSettings::read(table, "fake"));
        let expected = [
            "providers[0].driver: expected a string, found 1",
            "providers[0].max-concurrency: expected a count, or -1 for the default, found -2",
            "providers[0].priority: expected a whole number, found 'high'",
        ];
        assert_eq!(problems, expected);
    }

    #[test]
    fn image_defaults() {
        let (images, problems) = image_settings(json!({}));
        assert_eq!(problems, [""; 0]);
        assert_eq!(images.format, "qcow2");
        assert_eq!(images.upload_timeout, Duration::from_secs(3600));
        assert_eq!(images.external_name("debian", "0000000007", 1700000000), "debian-1700000000");
        assert!(images.diskimages.is_empty() && images.post_upload_hook.is_none());
    }

    #[test]
    fn image_values() {
        let (images, problems) = image_settings(json!({
            "image-format": "raw",
            "image-name-format": "{{ci}}{image_name}.{upload_id}@{timestamp}",
            "post-upload-hook": "/usr/bin/hook",
            "image-upload-timeout": 1.5,
            "diskimages": [
                {"name": "a", "pause": "yes", "meta": {"k": 1, "l": "x"}, "config-drive": true,
                 "connection-type": "ssh", "connection-port": 22},
                {"name": "b"},
            ],
        }));
        assert_eq!(problems, [""; 0]);
        assert_eq!(images.format, "raw");
        assert_eq!(images.external_name("a", "07", 5), "{ci}a.07@5");
        assert_eq!(images.post_upload_hook, Some(PathBuf::from("/usr/bin/hook")));
        assert_eq!(images.upload_timeout, Duration::from_millis(1500));
        let meta = BTreeMap::from([("k".to_owned(), "1".to_owned()), ("l".to_owned(), "x".to_owned())]);
        assert_eq!(
            images.diskimages["a"],
            ProviderDiskimage { pause: true, meta, config_drive: true, ..ProviderDiskimage::default() }
        );
        assert_eq!(images.diskimages["b"], ProviderDiskimage::default());
    }

    #[test]
    fn image_mistakes_are_all_reported_and_leave_defaults() {
        let (images, problems) = image_settings(json!({
            "image-format": "../raw",
            "image-name-format": "{image}",
            "post-upload-hook": "",
            "image-upload-timeout": 0,
            "diskimages": [{"name": "a"}, {"name": "a"}, {"pause": true}, {"name": "b", "puase": true}],
        }));
        assert_eq!((images.format.as_str(), images.diskimages.len()), ("qcow2", 2));
        assert_eq!(images.name_format, DEFAULT_NAME_FORMAT);
        let starts = [
            "providers[0].image-format: expected an image format",
            "providers[0].diskimages[1].name: the diskimage 'a' is listed twice",
            "providers[0].diskimages[2]: the required key 'name' is missing",
            "providers[0].diskimages[3].puase: unknown key, did you mean 'pause'?",
            "providers[0].image-name-format: unknown placeholder '{image}'",
            "providers[0].post-upload-hook: expected the path",
            "providers[0].image-upload-timeout: must be more than 0",
        ];
        assert_eq!(problems.len(), starts.len(), "{problems:#?}");
        for (problem, start) in problems.iter().zip(starts) {
            assert!(problem.starts_with(start), "{problem}");
        }
    }

    #[test]
    fn a_timeout_beyond_the_clock_is_an_error() {
        let (_, problems) = image_settings(json!({"image-upload-timeout": 1e300}));
        assert!(problems[0].ends_with("seconds is too long a time"), "{problems:?}");
        assert_eq!(problems.len(), 1);
    }
}
