//! Our own form of a logging configuration: `outputs`, and `levels` by logger.

use nodepool_drivers::api::{Table, Value};
use slog::FilterLevel;

use super::levels::{Levels, Rule};
use super::names::is_known;
use super::python::{absolute, unknown_names};
use super::read::{level, level_of};
use super::settings::{Format, LogSettings, Output, Stream, Target};
use super::syslog;

/// Reads the whole file.
pub(super) fn read(table: Table<'_>) -> Option<LogSettings> {
    if table.value("outputs").is_none() {
        table.problems().error("", "the required key 'outputs' is missing: expected a list of outputs");
    }
    let read: Vec<(Output, Option<FilterLevel>)> =
        table.tables("outputs").into_iter().filter_map(output).collect();
    if read.is_empty() {
        table.error("outputs", "expected at least one output");
    }
    // What an output asks for is meant to reach it.
    let most = read.iter().filter_map(|(_, asked)| *asked).max_by_key(|level| level.as_usize());
    let outputs: Vec<Output> = read.into_iter().map(|(output, _)| output).collect();
    let mut levels = Levels::default();
    let root = Rule {
        level: Some(most.unwrap_or(FilterLevel::Info)),
        outputs: (0..outputs.len()).collect(),
        propagate: true,
    };
    levels.set("", root.clone());
    let mut unknown = Vec::new();
    for (name, value) in entries(&table, "levels") {
        let level = level_of(value, || format!("levels.{name}"), table.problems()).flatten();
        let name = if name == "root" { "" } else { name };
        if !is_known(name) {
            unknown.push(name.to_owned());
        }
        let outputs = if name.is_empty() { root.outputs.clone() } else { Vec::new() };
        levels.set(name, Rule { level, outputs, propagate: true });
    }
    table.finish();
    Some(LogSettings { outputs, levels, warnings: unknown_names(unknown).into_iter().collect() })
}

/// The entries of a mapping whose keys are names.
pub(super) fn entries<'a>(table: &Table<'a>, key: &'static str) -> &'a [(String, Value)] {
    match table.value(key) {
        None => &[],
        Some(Value::Map(entries)) => entries,
        Some(other) => {
            table.error(key, format!("expected a mapping, found {}", other.kind()));
            &[]
        }
    }
}

/// An output, and the level that it asks for.
fn output(table: Table<'_>) -> Option<(Output, Option<FilterLevel>)> {
    let file = table.string("file").map(|path| Target::File(absolute(&path)));
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
        Some(name) => syslog::facility(&name).or_else(|| {
            table.error(
                "facility",
                format!("'{name}' is not a facility of syslog, such as 'daemon' or 'local0'"),
            );
            None
        }),
        None => syslog::facility("daemon"),
    };
    let syslog = table
        .string("syslog")
        .and_then(|path| Some(Target::Syslog { socket: absolute(&path), facility: facility? }));
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
    table.finish();
    let target = file.or(console).or(syslog)?;
    Some((Output { target, level: asked.unwrap_or(FilterLevel::Trace), format }, asked))
}
