//! The ini form of the original's logging configuration, Python's `logging.config.fileConfig`, as far as it says
//! where lines go and which.

use std::path::Path;

use nodepool_drivers::api::{Problem, Problems, yaml};
use slog::FilterLevel;

use super::checks::{Placed, path_at};
use super::dict_config::SYSLOG_ADDRESS;
use super::literal::{Literal, tuple};
use super::python::{Class, Handler, Ignored, IgnoredAt, PythonLogger, settle};
use super::read::{LEVELS, level_named};
use super::settings::{Format, LogSettings, Output, Stream, Target};
use super::syslog::{self, FACILITY};
use crate::config::{FileProblem, Position, did_you_mean};

/// Reads the whole file.
pub(super) fn read(text: &str, problems: &Problems) -> LogSettings {
    let file = File { sections: sections(text, problems), problems };
    let mut ignored = IgnoredAt::default();
    if let Some(keys) = file.sections.iter().find(|section| section.name == "formatters") {
        if keys.get("keys").is_some_and(|keys| !keys.value.is_empty()) {
            ignored.note(Ignored::Formats, at(keys.line));
        }
    }
    let handlers = file.listed("handlers", "handler").map(|listed| {
        let read = |(name, section): (String, Option<&Section<'_>>)| {
            let output = section.and_then(|section| handler(section, problems, &mut ignored));
            Handler { name, output }
        };
        listed.into_iter().map(read).collect()
    });
    let loggers = file.listed("loggers", "logger").unwrap_or_default().into_iter();
    let loggers = loggers.filter_map(|(name, section)| logger(&name, section?, problems)).collect();
    settle(handlers, loggers, ignored, problems)
}

/// Brings the problems of the file into the order of its lines.
pub(super) fn in_line_order(file: &Path, problems: Vec<Problem>) -> Vec<FileProblem> {
    let with_place = |mut problem: Problem| {
        let line = problem.path.strip_prefix("line ").and_then(|line| line.parse().ok());
        let at = line.map(|line| Position { line, column: 1 });
        if at.is_some() {
            problem.path.clear();
        }
        FileProblem { file: file.to_owned(), at, problem }
    };
    let mut found: Vec<_> = problems.into_iter().map(with_place).collect();
    found.sort_by_key(|problem| problem.at);
    found
}

struct File<'t> {
    sections: Vec<Section<'t>>,
    problems: &'t Problems,
}

struct Section<'t> {
    name: &'t str,
    line: usize,
    entries: Vec<Entry>,
}

struct Entry {
    key: String,
    value: String,
    line: usize,
}

fn at(line: usize) -> String {
    format!("line {line}")
}

/// The sections of the file; what is no line of one is a problem.
fn sections<'t>(text: &'t str, problems: &Problems) -> Vec<Section<'t>> {
    let mut sections: Vec<Section<'t>> = Vec::new();
    for (index, raw) in yaml::without_mark(text).lines().enumerate() {
        let (line, trimmed) = (index + 1, raw.trim());
        if trimmed.is_empty() || trimmed.starts_with(['#', ';']) {
            continue;
        }
        if let Some(name) = trimmed.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            if sections.iter().any(|section| section.name == name) {
                problems.error(at(line), format!("the section [{name}] is there twice"));
            }
            sections.push(Section { name, line, entries: Vec::new() });
            continue;
        }
        let Some(section) = sections.last_mut() else {
            problems.error(at(line), "expected a section: [loggers]");
            continue;
        };
        let continued = raw.starts_with([' ', '\t']).then(|| section.entries.last_mut()).flatten();
        if let Some(entry) = continued {
            entry.value.push(' ');
            entry.value.push_str(trimmed);
        } else if let Some((key, value)) = trimmed.split_once(['=', ':']) {
            let (key, value) = (key.trim().to_ascii_lowercase(), value.trim().to_owned());
            section.entries.push(Entry { key, value, line });
        } else {
            problems.error(at(line), format!("expected 'key = value', found '{trimmed}'"));
        }
    }
    sections
}

impl<'t> File<'t> {
    /// The sections that the `keys` of another one list: the name and, where there is one, the section. `None`
    /// if it cannot be said which these are, which is a problem, as is a section that is missing.
    fn listed(&self, list: &str, kind: &str) -> Option<Vec<(String, Option<&Section<'t>>)>> {
        let find = |name: &str| self.sections.iter().find(|section| section.name == name);
        let Some(section) = find(list) else {
            let names = self.sections.iter().map(|section| section.name).collect::<Vec<_>>();
            let hint = did_you_mean(list, names);
            self.problems.error("", format!("the section [{list}] is missing{hint}"));
            return None;
        };
        let Some(keys) = section.get("keys") else {
            self.problems.error(at(section.line), "expected 'keys = NAME,…' in this section");
            return None;
        };
        let named = |name: String| {
            let found = find(&format!("{kind}_{name}"));
            if found.is_none() {
                self.problems.error(at(keys.line), format!("the section [{kind}_{name}] is missing"));
            }
            (name, found)
        };
        Some(names(&keys.value).into_iter().map(named).collect())
    }
}

fn names(list: &str) -> Vec<String> {
    list.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

impl Section<'_> {
    fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().rev().find(|entry| entry.key == key)
    }

    /// Warns of keys that nothing reads, neither here nor in Python.
    fn warn_of_others(&self, known: &[&str], problems: &Problems) {
        for Entry { key, line, .. } in self.entries.iter().filter(|entry| !known.contains(&&*entry.key)) {
            let hint = did_you_mean(key, known);
            problems.warning(at(*line), format!("'{key}' is not known here, so it has no effect{hint}"));
        }
    }

    /// Its level. `Some(None)` is `NOTSET`.
    fn level(&self, problems: &Problems) -> Option<Option<FilterLevel>> {
        let entry = self.get("level").filter(|entry| !entry.value.is_empty())?;
        let level = level_named(&entry.value);
        if level.is_none() {
            problems.error(at(entry.line), format!("expected {LEVELS}, found '{}'", entry.value));
        }
        level
    }
}

fn logger(key: &str, section: &Section<'_>, problems: &Problems) -> Option<PythonLogger> {
    section.warn_of_others(&["level", "handlers", "qualname", "propagate"], problems);
    let root = key == "root";
    let qualname = section.get("qualname");
    let name = match qualname.map(|entry| entry.value.as_str()) {
        _ if root => "",
        Some("root") => "",
        Some(name) => name,
        None => {
            problems.error(
                at(section.line),
                "expected 'qualname = NAME' in this section: the name of the logger",
            );
            return None;
        }
    };
    let handlers = section.get("handlers");
    let propagate = section.get("propagate").is_none_or(|entry| match entry.value.as_str() {
        "0" => false,
        "1" => true,
        other => {
            problems.error(
                at(entry.line),
                format!("expected 'propagate = 0' or 'propagate = 1', found '{other}'"),
            );
            true
        }
    });
    Some(PythonLogger {
        name: name.to_owned(),
        at: at(qualname.map_or(section.line, |entry| entry.line)),
        handlers_at: at(handlers.map_or(section.line, |entry| entry.line)),
        level: section.level(problems),
        handlers: handlers.map(|entry| names(&entry.value)).unwrap_or_default(),
        propagate,
    })
}

fn handler(section: &Section<'_>, problems: &Problems, ignored: &mut IgnoredAt) -> Option<Placed> {
    section.warn_of_others(&["class", "level", "formatter", "args", "kwargs"], problems);
    let Some(class) = section.get("class") else {
        problems.error(at(section.line), "expected 'class = StreamHandler' or another one in this section");
        return None;
    };
    let known = Class::named(&class.value);
    let class = known.map_err(|why| problems.error(at(class.line), why)).ok()?;
    if let Some(entry) = section.get("formatter").filter(|entry| !entry.value.is_empty()) {
        ignored.note(Ignored::Formats, at(entry.line));
    }
    if let Some(entry) = section.get("kwargs").filter(|entry| entry.value != "{}") {
        problems.error(at(entry.line), "is not supported: give the values in 'args'");
    }
    let level = section.level(problems);
    let args = section.get("args");
    let line = at(args.map_or(section.line, |entry| entry.line));
    let text = args.map_or("()", |entry| entry.value.as_str());
    let arguments = arguments(text).map_err(|why| problems.error(&line, format!("args: {why}"))).ok()?;
    let Some(target) = target(class, &arguments, &line, problems, ignored) else {
        problems.error(&line, format!("args: expected {}, found {text}", expected(class)));
        return None;
    };
    let level = level.flatten().unwrap_or(FilterLevel::Trace);
    Some((line, Output { target: target?, level, format: Format::Text }))
}

/// The ini file's own substitution is done first: `%%` is a percent sign, and `%(name)s` another value.
fn arguments(text: &str) -> Result<Vec<Literal>, String> {
    match text.replace("%%", "").contains('%') {
        true => Err("values of other keys, %(…)s, are not supported: write them out".to_owned()),
        false => tuple(&text.replace("%%", "%")),
    }
}

/// What the arguments of the class stand for: no target is a `NullHandler`, or wrong, which has been said.
/// `None` if they are not as they should be.
fn target(
    class: Class,
    args: &[Literal],
    at: &str,
    problems: &Problems,
    ignored: &mut IgnoredAt,
) -> Option<Option<Target>> {
    Some(match (class, args) {
        (Class::Null, _) => None,
        (Class::Stream, []) => Some(Target::Console(Stream::Stderr)),
        (Class::Stream, [Literal::Name(name)]) if name == "sys.stderr" => {
            Some(Target::Console(Stream::Stderr))
        }
        (Class::Stream, [Literal::Name(name)]) if name == "sys.stdout" => {
            Some(Target::Console(Stream::Stdout))
        }
        (Class::File | Class::RotatingFile, [Literal::Str(path), more @ ..]) => {
            if class == Class::RotatingFile {
                ignored.note(Ignored::Rotation, at);
            } else if matches!(more.first(), Some(Literal::Str(mode)) if !mode.starts_with('a')) {
                ignored.note(Ignored::Truncation, at);
            }
            path_at(path, at, problems).map(Target::File)
        }
        (Class::Syslog, [Literal::Str(path), more @ ..]) if path.starts_with('/') => {
            let facility = more.first().map_or(syslog::facility("user"), facility)?;
            Some(Target::Syslog { socket: path.into(), facility })
        }
        _ => return None,
    })
}

/// What the arguments of the class should be.
fn expected(class: Class) -> String {
    match class {
        Class::Null => "nothing".to_owned(),
        Class::Stream => "(sys.stdout,) or (sys.stderr,)".to_owned(),
        Class::File | Class::RotatingFile => "('FILE',)".to_owned(),
        Class::Syslog => format!("{SYSLOG_ADDRESS}, and perhaps {FACILITY}"),
    }
}

fn facility(literal: &Literal) -> Option<u8> {
    match literal {
        Literal::Str(name) => syslog::facility(name),
        Literal::Int(number) => u8::try_from(*number).ok().filter(|number| *number < 24),
        Literal::Name(name) => {
            let (_, constant) = name.rsplit_once(".LOG_")?;
            syslog::facility(&constant.to_ascii_lowercase())
        }
        Literal::Tuple(_) => None,
    }
}
