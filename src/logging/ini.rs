//! The ini form of the original's logging configuration, Python's `logging.config.fileConfig`, as far as it says
//! where lines go and which.

use nodepool_drivers::api::Problems;
use slog::FilterLevel;

use super::dict_config::SYSLOG_ADDRESS;
use super::literal::{Literal, tuple};
use super::python::{Class, Handler, Ignored, PythonLogger, absolute, settle};
use super::read::{LEVELS, level_named};
use super::settings::{Format, LogSettings, Output, Stream, Target};
use super::syslog;

/// Reads the whole file.
pub(super) fn read(text: &str, problems: &Problems) -> Option<LogSettings> {
    let file = File { sections: sections(text, problems), problems };
    let mut ignored = Ignored { formats: !file.keys("formatters", false).is_empty(), ..Ignored::default() };
    let mut handlers = Vec::new();
    for name in file.keys("handlers", true) {
        let section = file.section(&format!("handler_{name}"));
        let output = section.and_then(|section| handler(section, problems, &mut ignored));
        handlers.push(Handler { name, output });
    }
    let mut loggers = Vec::new();
    for name in file.keys("loggers", true) {
        let section = file.section(&format!("logger_{name}"));
        loggers.extend(section.and_then(|section| logger(&name, section, problems)));
    }
    Some(settle(handlers, loggers, &ignored, problems))
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
    for (index, raw) in text.lines().enumerate() {
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

impl File<'_> {
    fn section(&self, name: &str) -> Option<&Section<'_>> {
        let found = self.sections.iter().find(|section| section.name == name);
        if found.is_none() {
            self.problems.error("", format!("the section [{name}] is missing"));
        }
        found
    }

    /// The names that a section lists in its `keys`.
    fn keys(&self, section: &str, required: bool) -> Vec<String> {
        let found = match required {
            true => self.section(section),
            false => self.sections.iter().find(|found| found.name == section),
        };
        let keys = found.and_then(|section| section.get("keys")).map(|entry| names(&entry.value));
        if let Some(section) = found.filter(|_| required && keys.is_none()) {
            self.problems.error(at(section.line), "expected 'keys = NAME,…' in this section");
        }
        keys.unwrap_or_default()
    }
}

fn names(list: &str) -> Vec<String> {
    list.split(',').map(|name| name.trim().to_owned()).filter(|name| !name.is_empty()).collect()
}

impl Section<'_> {
    fn get(&self, key: &str) -> Option<&Entry> {
        self.entries.iter().rev().find(|entry| entry.key == key)
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
    let root = key == "root";
    let qualname = section.get("qualname").map(|entry| entry.value.as_str());
    let name = match qualname {
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
        at: at(handlers.map_or(section.line, |entry| entry.line)),
        level: section.level(problems),
        handlers: handlers.map(|entry| names(&entry.value)).unwrap_or_default(),
        propagate,
    })
}

fn handler(section: &Section<'_>, problems: &Problems, ignored: &mut Ignored) -> Option<Output> {
    let Some(class) = section.get("class") else {
        problems.error(at(section.line), "expected 'class = StreamHandler' or another one in this section");
        return None;
    };
    let known = Class::named(&class.value);
    let class = known.map_err(|why| problems.error(at(class.line), why)).ok()?;
    ignored.formats |= section.get("formatter").is_some_and(|entry| !entry.value.is_empty());
    if let Some(entry) = section.get("kwargs").filter(|entry| entry.value != "{}") {
        problems.error(at(entry.line), "is not supported: give the values in 'args'");
    }
    let level = section.level(problems);
    let args = section.get("args");
    let line = args.map_or(section.line, |entry| entry.line);
    let target = arguments(args.map_or("()", |entry| entry.value.as_str()))
        .map_err(|why| format!("args: {why}"))
        .and_then(|arguments| target(class, &arguments, ignored));
    let target = target.map_err(|why| problems.error(at(line), why)).ok()??;
    Some(Output { target, level: level.flatten().unwrap_or(FilterLevel::Trace), format: Format::Text })
}

/// The ini file's own substitution is done first: `%%` is a percent sign, and `%(name)s` another value.
fn arguments(text: &str) -> Result<Vec<Literal>, String> {
    match text.replace("%%", "").contains('%') {
        true => Err("values of other keys, %(…)s, are not supported: write them out".to_owned()),
        false => tuple(&text.replace("%%", "%")),
    }
}

fn target(class: Class, args: &[Literal], ignored: &mut Ignored) -> Result<Option<Target>, String> {
    Ok(Some(match (class, args) {
        (Class::Null, _) => return Ok(None),
        (Class::Stream, []) => Target::Console(Stream::Stderr),
        (Class::Stream, [Literal::Name(name)]) if name == "sys.stderr" => Target::Console(Stream::Stderr),
        (Class::Stream, [Literal::Name(name)]) if name == "sys.stdout" => Target::Console(Stream::Stdout),
        (Class::Stream, _) => {
            return Err("expected 'args = (sys.stdout,)' or 'args = (sys.stderr,)'".to_owned());
        }
        (Class::File | Class::RotatingFile, [Literal::Str(path), more @ ..]) if !path.is_empty() => {
            ignored.rotation |= class == Class::RotatingFile;
            let mode = more.first().filter(|_| class == Class::File);
            ignored.truncation |= matches!(mode, Some(Literal::Str(mode)) if !mode.starts_with('a'));
            Target::File(absolute(path))
        }
        (Class::File | Class::RotatingFile, _) => return Err("expected args = ('FILE',)".to_owned()),
        (Class::Syslog, [Literal::Str(path), more @ ..]) if path.starts_with('/') => {
            let facility = more.first().map_or(syslog::facility("user"), facility);
            let why = "expected a facility of syslog, such as 'daemon' or handlers.SysLogHandler.LOG_DAEMON";
            Target::Syslog { socket: absolute(path), facility: facility.ok_or(why)? }
        }
        (Class::Syslog, _) => return Err(format!("args: {SYSLOG_ADDRESS}")),
    }))
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
