//! Reads the file of `-l`, which may have one of three forms, known by what is in it: an ini file begins with a
//! section; YAML with `version` is the original's; other YAML is ours.

use std::path::Path;

use nodepool_drivers::api::{Problems, Severity, Table, Value, yaml};
use slog::FilterLevel;

use super::settings::LogSettings;
use super::{dict_config, ini, own};
use crate::config::{ConfigError, FileProblem, Source, in_file_order, read_text};

impl LogSettings {
    /// What a logging configuration says. Relative paths in it are taken from the current directory. The error has
    /// every mistake with its place; what does not keep the file from being used is kept in the settings.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let file = std::path::absolute(path).unwrap_or_else(|_| path.to_owned());
        Self::parse(&file, &read_text(&file)?)
    }

    /// The same of a text that `file` might hold; its name is for the messages.
    pub fn parse(file: &Path, text: &str) -> Result<Self, ConfigError> {
        let (problems, source) = (Problems::new(), Source::unchanged(text));
        let (settings, found) = match is_ini(text) {
            true => (Some(ini::read(text, &problems)), ini::in_line_order(file, problems.into_vec())),
            false => match yaml::parse(text) {
                Ok(root) => (read_yaml(&root, &problems), in_file_order(file, &source, problems.into_vec())),
                Err(error) => return Err(FileProblem::of_syntax(file, &source, error).into()),
            },
        };
        let refused = found.iter().any(|found| found.problem.severity == Severity::Error);
        match settings {
            Some(settings) if !refused => Ok(Self { warnings: found, ..settings }),
            _ => Err(ConfigError::new(found)),
        }
    }

    /// What of the file is odd or has no effect.
    pub fn warnings(&self) -> &[FileProblem] {
        &self.warnings
    }

    /// Every problem of a logging configuration, errors and warnings alike, in its order.
    pub fn validate(path: &Path) -> Vec<FileProblem> {
        match Self::read(path) {
            Ok(settings) => settings.warnings,
            Err(error) => error.into_problems(),
        }
    }
}

/// Whether the first line that says anything is the head of a section.
fn is_ini(text: &str) -> bool {
    let text = yaml::without_mark(text);
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
        Some(_) => Some(dict_config::read(table)),
        None => Some(own::read(table)),
    }
}

/// The `level` of a mapping, as both of the YAML forms have it. `Some(None)` is Python's `NOTSET`.
pub(super) fn level(table: &Table<'_>) -> Option<Option<FilterLevel>> {
    level_of(table.value("level")?, &table.path_of("level"), table.problems())
}

/// The level that a value stands for. Notes a problem unless it is one.
pub(super) fn level_of(value: &Value, at: &str, problems: &Problems) -> Option<Option<FilterLevel>> {
    let level = match value {
        Value::Str(word) => level_named(word),
        Value::Int(number) => Some(level_numbered(*number)),
        _ => None,
    };
    if level.is_none() {
        problems.error(at, format!("expected {LEVELS}, found {}", value.describe()));
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
