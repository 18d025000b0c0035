//! Reads the file of `-l`, which may have one of three forms, known by what is in it: an ini file begins with a
//! section; YAML with `version` is the original's; other YAML is ours.

use std::path::Path;

use nodepool_drivers::api::{Problem, Problems, Table, Value};
use slog::FilterLevel;

use super::settings::LogSettings;
use super::{dict_config, ini, own};
use crate::config::{ConfigError, FileProblem, in_file_order, read_text, yaml};

impl LogSettings {
    /// What a logging configuration says. Relative paths in it are taken from the current directory. The error has
    /// every mistake with its place.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let file = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        let text = read_text(&file)?;
        let problems = Problems::new();
        let (settings, root) = match is_ini(&text) {
            true => (ini::read(&text, &problems), Value::Null),
            false => match yaml::parse(&text) {
                Ok(root) => (read_yaml(&root, &problems), root),
                Err(problem) => return Err(FileProblem { file, problem }.into()),
            },
        };
        let found: Vec<Problem> = problems.into_vec();
        match settings {
            Some(settings) if found.is_empty() => Ok(settings),
            _ if found.is_empty() => {
                Err(FileProblem::error(&file, "", "is not a logging configuration").into())
            }
            _ => Err(ConfigError::new(in_file_order(&file, &root, found))),
        }
    }
}

/// Whether the first line that says anything is the head of a section.
fn is_ini(text: &str) -> bool {
    let mut lines =
        text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';']));
    lines.next().is_some_and(|line| line.starts_with('['))
}

fn read_yaml(root: &Value, problems: &Problems) -> Option<LogSettings> {
    if matches!(root, Value::Null) {
        problems.error(
            "",
            "is empty; expected 'outputs', or 'version' and the rest of a Python logging configuration",
        );
        return None;
    }
    let table = Table::new(root, "", problems)?;
    match root.get("version").or(root.get("handlers")).or(root.get("loggers")) {
        Some(_) => dict_config::read(table),
        None => own::read(table),
    }
}

/// The `level` of a mapping, as both of the YAML forms have it. `Some(None)` is Python's `NOTSET`.
pub(super) fn level(table: &Table<'_>) -> Option<Option<FilterLevel>> {
    level_of(table.value("level")?, || table.path_of("level"), table.problems())
}

/// The level that a value stands for. Notes a problem unless it is one.
pub(super) fn level_of(
    value: &Value,
    path: impl Fn() -> String,
    problems: &Problems,
) -> Option<Option<FilterLevel>> {
    let level = match value {
        Value::Str(word) => level_named(word),
        Value::Int(number) => Some(level_numbered(*number)),
        _ => None,
    };
    if level.is_none() {
        problems.error(path(), format!("expected {LEVELS}"));
    }
    level
}

/// What can be written for a level.
pub(super) const LEVELS: &str = "a level: trace, debug, info, warning, error, critical or off";

/// `Some(None)` is Python's `NOTSET`.
pub(super) fn level_named(word: &str) -> Option<Option<FilterLevel>> {
    Some(Some(match word.trim().to_ascii_lowercase().as_str() {
        "trace" => FilterLevel::Trace,
        "debug" => FilterLevel::Debug,
        "info" => FilterLevel::Info,
        "warning" | "warn" => FilterLevel::Warning,
        "error" => FilterLevel::Error,
        "critical" | "fatal" => FilterLevel::Critical,
        "off" => FilterLevel::Off,
        "notset" => return Some(None),
        number => return number.parse().ok().map(level_numbered),
    }))
}

/// The numbers are Python's: a record has 10 for debug up to 50 for critical, and is logged from the number on.
fn level_numbered(number: i64) -> Option<FilterLevel> {
    Some(match number {
        ..=0 => return None,
        1..=5 => FilterLevel::Trace,
        6..=10 => FilterLevel::Debug,
        11..=20 => FilterLevel::Info,
        21..=30 => FilterLevel::Warning,
        31..=40 => FilterLevel::Error,
        41..=50 => FilterLevel::Critical,
        _ => FilterLevel::Off,
    })
}
