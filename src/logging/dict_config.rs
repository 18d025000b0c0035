//! The YAML form of the original's logging configuration, Python's `logging.config.dictConfig`, as far as it says
//! where lines go and which.

use nodepool_drivers::api::{Table, Value};
use slog::FilterLevel;

use super::own::entries;
use super::python::{Class, Handler, Ignored, PythonLogger, absolute, settle};
use super::read::level;
use super::settings::{Format, LogSettings, Output, Stream, Target};
use super::syslog;

/// Reads the whole file.
pub(super) fn read(table: Table<'_>) -> Option<LogSettings> {
    let problems = table.problems();
    match table.value("version") {
        Some(Value::Int(1)) => {}
        Some(_) => table.error("version", "expected 1, the only version that there is"),
        None => problems.error("", "the required key 'version' is missing: expected 1"),
    }
    if table.boolean("incremental") == Some(true) {
        table.error("incremental", "is not supported: give the whole configuration");
    }
    let mut ignored = Ignored { formats: !entries(&table, "formatters").is_empty(), ..Ignored::default() };
    table.accept(&["disable_existing_loggers", "filters"]);
    let mut handlers = Vec::new();
    for (name, value) in entries(&table, "handlers") {
        let output = Table::new(value, format!("handlers.{name}"), problems)
            .and_then(|table| handler(table, &mut ignored));
        handlers.push(Handler { name: name.clone(), output });
    }
    let mut loggers = Vec::new();
    for (name, value) in entries(&table, "loggers") {
        let section = Table::new(value, format!("loggers.{name}"), problems);
        loggers.extend(section.map(|section| logger(name, section)));
    }
    loggers.extend(table.table("root").map(|section| logger("", section)));
    table.finish();
    Some(settle(handlers, loggers, &ignored, problems))
}

fn logger(name: &str, table: Table<'_>) -> PythonLogger {
    refuse_filters(&table);
    let propagate = match table.value("propagate") {
        Some(Value::Int(number)) => *number != 0,
        _ => table.boolean("propagate").unwrap_or(true),
    };
    let logger = PythonLogger {
        name: name.to_owned(),
        at: table.path_of("handlers"),
        level: level(&table),
        handlers: table.strings("handlers").unwrap_or_default(),
        propagate,
    };
    table.finish();
    logger
}

fn handler(table: Table<'_>, ignored: &mut Ignored) -> Option<Output> {
    refuse_filters(&table);
    if table.value("()").is_some() {
        table.error("()", "is not supported: name one of Python's own handlers with 'class'");
        return None;
    }
    let class = match Class::named(&table.required_string("class")?) {
        Ok(class) => class,
        Err(why) => {
            table.error("class", why);
            return None;
        }
    };
    ignored.formats |= table.value("formatter").is_some();
    let level = level(&table).flatten().unwrap_or(FilterLevel::Trace);
    let target = target(&table, class, ignored);
    table.finish();
    Some(Output { target: target?, level, format: Format::Text })
}

fn target(table: &Table<'_>, class: Class, ignored: &mut Ignored) -> Option<Target> {
    match class {
        Class::Null => None,
        Class::Stream => match table.string("stream").as_deref() {
            Some("ext://sys.stdout") => Some(Target::Console(Stream::Stdout)),
            Some("ext://sys.stderr") => Some(Target::Console(Stream::Stderr)),
            None if table.value("stream").is_none() => Some(Target::Console(Stream::Stderr)),
            _ => {
                table.error("stream", "expected 'ext://sys.stdout' or 'ext://sys.stderr'");
                None
            }
        },
        Class::File | Class::RotatingFile => {
            table.accept(&["encoding", "errors", "delay"]);
            if class == Class::RotatingFile {
                table.accept(&["maxBytes", "backupCount", "when", "interval", "utc", "atTime"]);
                ignored.rotation = true;
            }
            ignored.truncation |= table.string("mode").is_some_and(|mode| !mode.starts_with('a'));
            table.required_string("filename").map(|path| Target::File(absolute(&path)))
        }
        Class::Syslog => syslog_target(table),
    }
}

fn syslog_target(table: &Table<'_>) -> Option<Target> {
    table.accept(&["socktype"]);
    let facility = match table.value("facility") {
        None => syslog::facility("user"),
        Some(Value::Int(number @ 0..=23)) => u8::try_from(*number).ok(),
        Some(_) => table.string("facility").and_then(|name| syslog::facility(&name)),
    };
    if facility.is_none() {
        table.error("facility", "expected a facility of syslog, such as 'daemon' or 'local0'");
    }
    match table.value("address") {
        Some(Value::Str(path)) if path.starts_with('/') => {
            Some(Target::Syslog { socket: absolute(path), facility: facility? })
        }
        _ => {
            table.problems().error(table.path_of("address"), SYSLOG_ADDRESS);
            None
        }
    }
}

/// What a handler for syslog needs.
pub(super) const SYSLOG_ADDRESS: &str =
    "expected the path of syslog's socket, such as /dev/log: syslog over the network is not supported";

fn refuse_filters(table: &Table<'_>) {
    if table.list("filters").is_some_and(|filters| !filters.is_empty()) {
        table.error("filters", "are not supported; remove them");
    }
}

#[cfg(test)]
mod tests {
    use nodepool_drivers::api::Problems;

    use super::*;
    use crate::config::yaml;

    fn errors(text: &str) -> Vec<String> {
        let problems = Problems::new();
        let root = yaml::parse(text).unwrap();
        read(Table::new(&root, "", &problems).unwrap());
        problems.into_vec().iter().map(ToString::to_string).collect()
    }

    fn settings(text: &str) -> LogSettings {
        let problems = Problems::new();
        let root = yaml::parse(text).unwrap();
        let settings = read(Table::new(&root, "", &problems).unwrap()).unwrap();
        assert_eq!(problems.into_vec(), []);
        settings
    }

    #[test]
    fn handlers_become_outputs_and_a_null_handler_none() {
        let settings = settings(
            "{version: 1, formatters: {f: {format: '%(message)s'}}, handlers: {
                'null': {class: logging.NullHandler}, out: {class: logging.StreamHandler, level: WARN, formatter: f},
                file: {class: logging.handlers.TimedRotatingFileHandler, filename: /x/y.log, when: D, mode: w},
                sys: {class: logging.handlers.SysLogHandler, address: /dev/log, facility: local3}},
              loggers: {nodepool: {handlers: [file, sys], level: DEBUG, propagate: 0}, requests: {level: WARN}},
              root: {handlers: ['null', out]}, disable_existing_loggers: false}",
        );
        let output = |target, level| Output { target, level, format: Format::Text };
        let expected = [
            output(Target::Console(Stream::Stderr), FilterLevel::Warning),
            output(Target::File("/x/y.log".into()), FilterLevel::Trace),
            output(Target::Syslog { socket: "/dev/log".into(), facility: 19 }, FilterLevel::Trace),
        ];
        assert_eq!(settings.outputs, expected);
        let goes_to = |logger, level| settings.levels.outputs(logger, level).collect::<Vec<_>>();
        assert_eq!(goes_to("nodepool.zk", slog::Level::Debug), [1, 2]);
        assert_eq!(goes_to("other", slog::Level::Info), [0; 0], "the root's default is WARNING");
        assert_eq!(goes_to("other", slog::Level::Warning), [0]);
        assert_eq!(settings.warnings.len(), 4, "{:?}", settings.warnings);
    }

    #[test]
    fn every_mistake_is_named_with_its_place() {
        let found = errors(
            "{version: 2, incremental: true, handers: {}, handlers: {
                a: {class: logging.handlers.SMTPHandler}, b: {class: logging.FileHandler},
                c: {class: logging.StreamHandler, stream: cfg://x}, d: {(): my.Factory}, e: {level: INFO},
                f: {class: logging.StreamHandler, filters: [x], level: LOUD, colour: red},
                g: {class: logging.handlers.SysLogHandler, facility: nosuch}, h: 5},
              loggers: {x: {handlers: [nosuch]}}}",
        );
        let all = found.join("\n");
        for expected in [
            "version: expected 1",
            "incremental: is not supported",
            "handers: unknown key, did you mean 'handlers'?",
            "handlers.a.class: the handler class 'logging.handlers.SMTPHandler' is not supported",
            "handlers.b: the required key 'filename' is missing",
            "handlers.c.stream: expected 'ext://sys.stdout'",
            "handlers.d.(): is not supported",
            "handlers.e: the required key 'class' is missing",
            "handlers.f.filters: are not supported",
            "handlers.f.level: expected a level",
            "handlers.f.colour: unknown key",
            "handlers.g.facility: expected a facility",
            "handlers.g.address: expected the path",
            "handlers.h: expected a mapping, found a whole number",
            "loggers.x.handlers: there is no handler 'nosuch'",
        ] {
            assert!(all.contains(expected), "{expected}\n--\n{all}");
        }
        assert_eq!(found.len(), 15, "{all}");
    }
}
