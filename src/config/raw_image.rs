//! An entry of `diskimages` as the file has it: what is not given is `None`, a parent is only a name.
//!
//! Every check that needs nothing but the entry is here. As in the original, an empty text, an empty list of
//! formats and a time of 0 count as not given: a child cannot take away what its parent gives.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use nodepool_drivers::api::{Table, Value, name_mistake};

/// One entry of `diskimages`.
#[derive(Default)]
pub(super) struct RawImage {
    /// Where it stands, such as `diskimages[2]`.
    pub(super) path: String,
    pub(super) name: String,
    pub(super) is_abstract: bool,
    pub(super) parent: Option<String>,
    pub(super) elements: Vec<String>,
    pub(super) release: Option<String>,
    pub(super) env_vars: BTreeMap<String, String>,
    pub(super) formats: Option<BTreeSet<String>>,
    pub(super) rebuild_age: Option<Duration>,
    pub(super) build_timeout: Option<Duration>,
    pub(super) dib_cmd: Option<Vec<String>>,
    pub(super) pause: Option<bool>,
    pub(super) username: Option<String>,
    pub(super) python_path: Option<String>,
    pub(super) shell_type: Option<String>,
    pub(super) delete_after_upload: Option<bool>,
    pub(super) keep_formats: Option<BTreeSet<String>>,
    pub(super) metadata: BTreeMap<String, String>,
    pub(super) keep_builds: Option<usize>,
    pub(super) validate_hook: Option<Vec<String>>,
}

/// Reads `diskimages`. An entry without a name is left out; one with a bad name stays, so that what refers
/// to it is not reported as well.
pub(super) fn read_all(top: &Table<'_>) -> Vec<RawImage> {
    let images = top.tables("diskimages").into_iter().filter_map(|table| {
        let image = read(&table);
        table.finish();
        image
    });
    images.collect()
}

fn read(table: &Table<'_>) -> Option<RawImage> {
    let name = table.required_string("name");
    if let Some(mistake) = name.as_deref().and_then(image_name_mistake) {
        table.error(
            "name",
            format!("the name '{}' {mistake}", name.as_deref().unwrap_or_default().escape_debug()),
        );
    }
    let image = RawImage {
        path: table.path().to_owned(),
        name: String::new(),
        is_abstract: table.boolean("abstract").unwrap_or(false),
        parent: word(table, "parent"),
        elements: read_elements(table),
        release: read_release(table),
        env_vars: read_env_vars(table),
        formats: read_formats(table, "formats"),
        rebuild_age: read_seconds(table, "rebuild-age"),
        build_timeout: read_seconds(table, "build-timeout"),
        dib_cmd: read_command(table, "dib-cmd"),
        pause: table.boolean("pause"),
        username: word(table, "username"),
        python_path: word(table, "python-path"),
        shell_type: word(table, "shell-type"),
        delete_after_upload: table.boolean("delete-after-upload"),
        keep_formats: read_formats(table, "keep-formats"),
        metadata: table.text_map("metadata").unwrap_or_default(),
        keep_builds: read_keep_builds(table),
        validate_hook: read_command(table, "validate-hook"),
    };
    name.map(|name| RawImage { name, ..image })
}

fn image_name_mistake(name: &str) -> Option<&'static str> {
    name_mistake(name).or_else(|| name.contains("..").then_some("must not contain '..'"))
}

/// A string; an empty one is none.
fn word(table: &Table<'_>, key: &'static str) -> Option<String> {
    table.string(key).filter(|text| !text.is_empty())
}

/// The elements. One item may hold several, as the original splits the whole build command like a shell.
fn read_elements(table: &Table<'_>) -> Vec<String> {
    let items = table.strings("elements").unwrap_or_default();
    let split = items.iter().filter_map(|item| {
        let words = split(item);
        if words.is_none() {
            table.error(
                "elements",
                format!("'{}' cannot be split into words: {UNBALANCED}", item.escape_debug()),
            );
        }
        words
    });
    split.flatten().collect()
}

const UNBALANCED: &str = "a quote is not closed, or it ends with a backslash, or it has a NUL";

/// The words of `text` as a shell would split it.
fn split(text: &str) -> Option<Vec<String>> {
    // No program can be given an argument with a NUL.
    if text.contains('\0') { None } else { shlex::split(text) }
}

fn read_keep_builds(table: &Table<'_>) -> Option<usize> {
    let number = table.integer("keep-builds")?;
    let count = usize::try_from(number).ok().filter(|count| *count > 0);
    if count.is_none() {
        table.error("keep-builds", format!("expected a number of at least 1, found {number}"));
    }
    count
}

fn read_command(table: &Table<'_>, key: &'static str) -> Option<Vec<String>> {
    let text = table.string(key)?;
    match split(&text) {
        Some(words) if words.first().is_some_and(|program| !program.is_empty()) => Some(words),
        Some(_) => {
            table.error(key, "must not be empty; expected a program and its arguments");
            None
        }
        None => {
            table.error(key, format!("cannot be split into words: {UNBALANCED}"));
            None
        }
    }
}

fn read_release(table: &Table<'_>) -> Option<String> {
    let release = match table.value("release") {
        // Without its fraction, `release: 9.0` would become another release, `9`.
        Some(Value::Float(number)) => Some(format!("{number:?}")),
        _ => table.text("release"),
    };
    if release.as_deref().is_some_and(|text| text.contains('\0')) {
        table.error("release", "must not contain a NUL");
    }
    release.filter(|text| !text.is_empty())
}

/// Reads `env-vars`. No message shows a value: it may be a secret.
pub(super) fn read_env_vars(table: &Table<'_>) -> BTreeMap<String, String> {
    let variables = match table.value("env-vars") {
        Some(other) if !matches!(other, Value::Map(_)) => {
            table.error("env-vars", format!("expected a mapping of names to values, found {}", other.kind()));
            return BTreeMap::new();
        }
        _ => table.text_map("env-vars").unwrap_or_default(),
    };
    for (name, value) in &variables {
        // What follows a '=' is probably the value that was meant.
        let shown = name.split_once('=').map_or(name.as_str(), |(name, _)| name).escape_debug();
        let mistake = if name.is_empty() {
            "a variable's name must not be empty".to_owned()
        } else if name.contains('=') {
            format!("the name that begins with '{shown}' must not contain '='; write 'NAME: value'")
        } else if name.contains('\0') {
            format!("the name '{shown}' must not contain a NUL")
        } else if value.contains('\0') {
            format!("the value of '{shown}' must not contain a NUL")
        } else {
            continue;
        };
        table.error("env-vars", mistake);
    }
    variables
}

/// Reads a list of image formats; an empty one is none.
fn read_formats(table: &Table<'_>, key: &'static str) -> Option<BTreeSet<String>> {
    let formats = table.strings(key)?;
    for (index, format) in formats.iter().enumerate() {
        // The formats are one argument, joined with commas, and each is the ending of a file.
        if format.is_empty() || !format.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            table.problems().error(
                format!("{}[{index}]", table.path_of(key)),
                format!(
                    "expected an image format such as 'qcow2' or 'raw', found '{}'",
                    format.escape_debug()
                ),
            );
        }
    }
    Some(formats.into_iter().collect()).filter(|formats: &BTreeSet<_>| !formats.is_empty())
}

/// A time span in seconds; 0 is none.
fn read_seconds(table: &Table<'_>, key: &'static str) -> Option<Duration> {
    let seconds = table.number(key)?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(span) => Some(span).filter(|span| !span.is_zero()),
        Err(_) => {
            table.error(key, format!("{seconds} seconds is too long a time"));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing;

    fn one(entry: &str) -> (RawImage, Vec<String>) {
        let (mut images, problems) = testing::read(&format!("diskimages: [{{name: i, {entry}}}]"), read_all);
        (images.remove(0), problems)
    }

    #[test]
    fn mistakes_in_an_entry_are_named() {
        let cases = [
            ("elements: vm", "elements: expected a list, found 'vm'"),
            ("elements: [1]", "elements[0]: expected a string, found 1"),
            (
                "elements: [\"a 'b\"]",
                "elements: 'a \\'b' cannot be split into words: a quote is not closed, or it ends with a backslash, or it has a NUL",
            ),
            (
                "dib-cmd: \"dib 'x\"",
                "dib-cmd: cannot be split into words: a quote is not closed, or it ends with a backslash, or it has a NUL",
            ),
            ("dib-cmd: ' '", "dib-cmd: must not be empty; expected a program and its arguments"),
            ("dib-cmd: ''", "dib-cmd: must not be empty; expected a program and its arguments"),
            ("dib-cmd: \"''\"", "dib-cmd: must not be empty; expected a program and its arguments"),
            (
                "dib-cmd: \"a\\0b\"",
                "dib-cmd: cannot be split into words: a quote is not closed, or it ends with a backslash, or it has a NUL",
            ),
            ("release: [1]", "release: expected a string or a number, found a list"),
            ("release: \"a\\0\"", "release: must not contain a NUL"),
            ("env-vars: [A]", "env-vars: expected a mapping of names to values, found a list"),
            ("env-vars: A=secret", "env-vars: expected a mapping of names to values, found a string"),
            ("env-vars: {A: [secret]}", "env-vars.A: expected a string, found a list"),
            ("env-vars: {'': secret}", "env-vars: a variable's name must not be empty"),
            (
                "env-vars: {'A=secret': secret}",
                "env-vars: the name that begins with 'A' must not contain '='; write 'NAME: value'",
            ),
            ("env-vars: {\"A\\0\": secret}", "env-vars: the name 'A\\0' must not contain a NUL"),
            ("env-vars: {A: \"secret\\0\"}", "env-vars: the value of 'A' must not contain a NUL"),
            ("formats: raw", "formats: expected a list, found 'raw'"),
            (
                "formats: [raw, 'a/b']",
                "formats[1]: expected an image format such as 'qcow2' or 'raw', found 'a/b'",
            ),
            (
                "formats: ['raw,qcow2']",
                "formats[0]: expected an image format such as 'qcow2' or 'raw', found 'raw,qcow2'",
            ),
            (
                "keep-formats: ['a b']",
                "keep-formats[0]: expected an image format such as 'qcow2' or 'raw', found 'a b'",
            ),
            ("formats: ['']", "formats[0]: expected an image format such as 'qcow2' or 'raw', found ''"),
            ("rebuild-age: -1", "rebuild-age: expected a number of at least 0, found -1"),
            (
                "build-timeout: 1.0e+30",
                "build-timeout: 1000000000000000000000000000000 seconds is too long a time",
            ),
            ("pause: 5", "pause: expected true or false, found 5"),
            ("abstract: maybe", "abstract: expected true or false, found 'maybe'"),
            ("delete-after-upload: 1", "delete-after-upload: expected true or false, found 1"),
            ("parent: [a]", "parent: expected a string, found a list"),
            ("username: 5", "username: expected a string, found 5"),
            ("keep-builds: 0", "keep-builds: expected a number of at least 1, found 0"),
            ("keep-builds: all", "keep-builds: expected a whole number, found 'all'"),
            ("validate-hook: ''", "validate-hook: must not be empty; expected a program and its arguments"),
            ("python-path: 5", "python-path: expected a string, found 5"),
            ("shell-type: 5", "shell-type: expected a string, found 5"),
            ("metadata: {a: {b: c}}", "metadata.a: expected a string, found a mapping"),
            ("format: [raw]", "format: unknown key, did you mean 'formats'?"),
        ];
        for (entry, expected) in cases {
            let (_, problems) = one(entry);
            assert_eq!(problems, [format!("diskimages[0].{expected}")], "{entry}");
            assert!(!problems[0].contains("secret"), "{entry}");
        }
    }

    #[test]
    fn names_that_are_not_fit_for_files_and_znodes_are_refused() {
        let cases = [
            ("a/b", ".name: the name 'a/b' must not contain '/'"),
            ("..", ".name: the name '..' must not be '.' or '..'"),
            ("a..b", ".name: the name 'a..b' must not contain '..'"),
            ("-a", ".name: the name '-a' must not start with '-'"),
            ("\\x01", ".name: the name '\\u{1}' must not contain control characters"),
            ("", ".name: must not be empty"),
        ];
        for (name, expected) in cases {
            let (_, problems) = testing::read(&format!("diskimages: [{{name: \"{name}\"}}]"), read_all);
            assert_eq!(problems, [format!("diskimages[0]{expected}")], "{name}");
        }
        let (images, problems) = testing::read("diskimages: [{elements: [a]}, x]", read_all);
        assert!(images.is_empty());
        let missing = "diskimages[0]: the required key 'name' is missing";
        assert_eq!(problems, ["diskimages[1]: expected a mapping, found a string", missing]);
    }
}
