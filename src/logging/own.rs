//! Our own form of a logging configuration: `outputs`, and `levels` by logger.

use nodepool_drivers::api::{Table, Value};
use slog::FilterLevel;

use super::checks::{Placed, path_at, repeated, warn_of_unknown};
use super::levels::{Levels, Rule};
use super::read::{level, level_of};
use super::settings::{Format, LogSettings, Output, Stream, Target};
use super::syslog::{FACILITY, facility};

/// Reads the whole file.
pub(super) fn read(table: Table<'_>) -> LogSettings {
    let problems = table.problems();
    match table.value("outputs") {
        None => problems.error("", "the required key 'outputs' is missing: expected a list of outputs"),
        Some(Value::List(items)) if items.is_empty() => {
            table.error("outputs", "expected at least one output")
        }
        Some(_) => {}
    }
    let read: Vec<(Placed, Option<FilterLevel>)> =
        table.tables("outputs").into_iter().filter_map(output).collect();
    // What an output asks for is meant to reach it.
    let most = read.iter().filter_map(|(_, asked)| *asked).max_by_key(|level| level.as_usize());
    let outputs: Vec<Placed> = read.into_iter().map(|(output, _)| output).collect();
    for (at, target, first) in repeated(&outputs) {
        problems.error(
            at,
            format!(
                "{first} writes to {target} already, and each line would be there twice; remove one, or name another"
            ),
        );
    }
    let mut levels = Levels::default();
    let root = Rule {
        level: Some(most.unwrap_or(FilterLevel::Info)),
        outputs: (0..outputs.len()).collect(),
        propagate: true,
    };
    levels.set("", root.clone());
    for (name, value) in entries(&table, "levels") {
        let at = format!("levels.{name}");
        let level = level_of(value, &at, problems).flatten();
        let name = if name == "root" { "" } else { name };
        warn_of_unknown(name, &at, problems);
        let outputs = if name.is_empty() { root.outputs.clone() } else { Vec::new() };
        levels.set(name, Rule { level, outputs, propagate: true });
    }
    table.finish();
    LogSettings::new(outputs.into_iter().map(|(_, output)| output).collect(), levels)
}

/// The entries of a mapping whose keys are names.
pub(super) fn entries<'a>(table: &Table<'a>, key: &'static str) -> &'a [(String, Value)] {
    match table.value(key) {
        None => &[],
        Some(Value::Map(entries)) => entries,
        Some(other) => {
            table.error(key, format!("expected a mapping, found {}", other.describe()));
            &[]
        }
    }
}

/// An output, and the level that it asks for.
fn output(table: Table<'_>) -> Option<(Placed, Option<FilterLevel>)> {
    let path = |key| {
        let path = table.string(key)?;
        path_at(&path, &table.path_of(key), table.problems())
    };
    let file = path("file").map(Target::File);
    let console = table.string("console").and_then(|word| match word.as_str() {
        "stdout" => Some(Target::Console(Stream::Stdout)),
        "stderr" => Some(Target::Console(Stream::Stderr)),
        _ => {
            table.error("console", format!("expected 'stdout' or 'stderr', found '{word}'"));
            None
        }
    });
    let facility = match table.string("facility") {
        Some(_) if table.value("syslog").is_none() => {
            table.error("facility", "belongs to an output with 'syslog'");
            None
        }
        Some(name) => facility(&name).or_else(|| {
            table.error("facility", format!("expected {FACILITY}, found '{name}'"));
            None
        }),
        None => facility("daemon"),
    };
    let syslog = path("syslog").and_then(|socket| Some(Target::Syslog { socket, facility: facility? }));
    let asked = level(&table).flatten();
    let format = match table.string("format").as_deref() {
        None | Some("text") => Format::Text,
        Some("json") => Format::Json,
        Some(other) => {
            table.error("format", format!("expected 'text' or 'json', found '{other}'"));
            Format::Text
        }
    };
    if ["file", "console", "syslog"].iter().filter(|key| table.value(key).is_some()).count() != 1 {
        table.problems().error(table.path(), "expected exactly one of 'file', 'console' and 'syslog'");
    }
    let at = table.path().to_owned();
    table.finish();
    let target = file.or(console).or(syslog)?;
    Some(((at, Output { target, level: asked.unwrap_or(FilterLevel::Trace), format }), asked))
}
