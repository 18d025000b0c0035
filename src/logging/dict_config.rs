//! The YAML form of the original's logging configuration, Python's `logging.config.dictConfig`, as far as it says
//! where lines go and which.

use nodepool_drivers::api::{Table, Value};
use slog::FilterLevel;

use super::checks::{Placed, path_at};
use super::own::entries;
use super::python::{Class, Handler, Ignored, IgnoredAt, PythonLogger, settle};
use super::read::level;
use super::settings::{Format, LogSettings, Output, Stream, Target};
use super::syslog::{FACILITY, facility};

/// Reads the whole file.
pub(super) fn read(table: Table<'_>) -> LogSettings {
    let problems = table.problems();
    match table.value("version") {
        Some(Value::Int(1)) => {}
        Some(other) => {
            let found = other.describe();
            table.error("version", format!("expected 1, the only version that there is, found {found}"));
        }
        None => problems.error("", "the required key 'version' is missing: expected 1"),
    }
    if table.boolean("incremental") == Some(true) {
        table.error("incremental", "is not supported: give the whole configuration");
    }
    let mut ignored = IgnoredAt::default();
    for (key, what) in [("formatters", Ignored::Formats), ("filters", Ignored::Filters)] {
        if !entries(&table, key).is_empty() {
            ignored.note(what, key);
        }
    }
    table.accept(&["disable_existing_loggers"]);
    if table.value("handlers").is_none() {
        problems.error("", "the required key 'handlers' is missing: expected a mapping of handlers");
    }
    let readable = matches!(table.value("handlers"), Some(Value::Map(_)));
    let mut handlers = Vec::new();
    for (name, value) in entries(&table, "handlers") {
        let output = Table::new(value, format!("handlers.{name}"), problems)
            .and_then(|table| handler(table, &mut ignored));
        handlers.push(Handler { name: name.clone(), output });
    }
    let handlers = readable.then_some(handlers);
    let mut loggers = Vec::new();
    for (name, value) in entries(&table, "loggers") {
        let section = Table::new(value, format!("loggers.{name}"), problems);
        // Python's `getLogger("root")` is the root, too.
        let name = if name == "root" { "" } else { name };
        loggers.extend(section.map(|section| logger(name, section)));
    }
    loggers.extend(table.table("root").map(|section| logger("", section)));
    table.finish();
    settle(handlers, loggers, ignored, problems)
}

fn logger(name: &str, table: Table<'_>) -> PythonLogger {
    refuse_filters(&table);
    let propagate = match table.value("propagate") {
        Some(Value::Int(number)) => *number != 0,
        _ => table.boolean("propagate").unwrap_or(true),
    };
    let logger = PythonLogger {
        name: name.to_owned(),
        at: table.path().to_owned(),
        handlers_at: table.path_of("handlers"),
        level: level(&table),
        handlers: table.strings("handlers").unwrap_or_default(),
        propagate,
    };
    // Belongs to the other form; Python does not look at it here.
    table.accept(&["qualname"]);
    table.finish();
    logger
}

fn handler(table: Table<'_>, ignored: &mut IgnoredAt) -> Option<Placed> {
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
    if table.value("formatter").is_some() {
        ignored.note(Ignored::Formats, table.path_of("formatter"));
    }
    let level = level(&table).flatten().unwrap_or(FilterLevel::Trace);
    let target = target(&table, class, ignored);
    let at = table.path().to_owned();
    table.finish();
    Some((at, Output { target: target?, level, format: Format::Text }))
}

fn target(table: &Table<'_>, class: Class, ignored: &mut IgnoredAt) -> Option<Target> {
    match class {
        Class::Null => None,
        Class::Stream => match table.value("stream") {
            None => Some(Target::Console(Stream::Stderr)),
            Some(Value::Str(name)) if name == "ext://sys.stdout" => Some(Target::Console(Stream::Stdout)),
            Some(Value::Str(name)) if name == "ext://sys.stderr" => Some(Target::Console(Stream::Stderr)),
            Some(other) => {
                let found = other.describe();
                let expected = "expected 'ext://sys.stdout' or 'ext://sys.stderr'";
                table.error("stream", format!("{expected}, found {found}"));
                None
            }
        },
        Class::File | Class::RotatingFile => {
            table.accept(&["encoding", "errors", "delay"]);
            if class == Class::RotatingFile {
                table.accept(&["maxBytes", "backupCount", "when", "interval", "utc", "atTime"]);
                ignored.note(Ignored::Rotation, table.path_of("class"));
            }
            if table.string("mode").is_some_and(|mode| !mode.starts_with('a')) {
                ignored.note(Ignored::Truncation, table.path_of("mode"));
            }
            let path = table.required_string("filename")?;
            path_at(&path, &table.path_of("filename"), table.problems()).map(Target::File)
        }
        Class::Syslog => syslog_target(table),
    }
}

fn syslog_target(table: &Table<'_>) -> Option<Target> {
    table.accept(&["socktype"]);
    let given = table.value("facility");
    let facility = match given {
        None => facility("user"),
        Some(Value::Int(number @ 0..=23)) => u8::try_from(*number).ok(),
        Some(Value::Str(name)) => facility(name),
        Some(_) => None,
    };
    if let (None, Some(given)) = (facility, given) {
        table.error("facility", format!("expected {FACILITY}, found {}", given.describe()));
    }
    let wrong = match table.value("address") {
        Some(Value::Str(path)) if path.starts_with('/') => {
            return Some(Target::Syslog { socket: path.into(), facility: facility? });
        }
        Some(other) => format!("expected {SYSLOG_ADDRESS}, found {}", other.describe()),
        // Python would use port 514 of this machine.
        None => format!("the required key 'address' is missing: expected {SYSLOG_ADDRESS}"),
    };
    table.problems().error(table.path_of("address"), wrong);
    None
}

/// What a handler for syslog needs.
pub(super) const SYSLOG_ADDRESS: &str =
    "the path of syslog's socket, such as /dev/log (syslog over the network is not supported)";

fn refuse_filters(table: &Table<'_>) {
    if table.list("filters").is_some_and(|filters| !filters.is_empty()) {
        table.error("filters", "are not supported; remove them");
    }
}

#[cfg(test)]
mod tests {
    use nodepool_drivers::api::{Problems, Severity, yaml};

    use super::*;

    fn errors(text: &str) -> Vec<String> {
        let problems = Problems::new();
        let root = yaml::parse(text).unwrap();
        read(Table::new(&root, "", &problems).unwrap());
        problems.into_vec().iter().map(ToString::to_string).collect()
    }

    fn settings(text: &str) -> (LogSettings, Vec<String>) {
        let problems = Problems::new();
        let root = yaml::parse(text).unwrap();
        let settings = read(Table::new(&root, "", &problems).unwrap());
        let found = problems.into_vec();
        assert!(found.iter().all(|found| found.severity == Severity::Warning), "{found:?}");
        (settings, found.iter().map(ToString::to_string).collect())
    }

    #[test]
    fn handlers_become_outputs_and_a_null_handler_none() {
        let (settings, warnings) = settings(
            "{version: 1, formatters: {f: {format: '%(message)s'}}, handlers: {
                'null': {class: logging.NullHandler}, out: {class: logging.StreamHandler, level: WARN, formatter: f},
                file: {class: logging.handlers.TimedRotatingFileHandler, filename: /x/y.log, when: D, mode: w},
                sys: {class: logging.handlers.SysLogHandler, address: /dev/log, facility: local3},
                again: {class: logging.FileHandler, filename: /x/./y.log}}, filters: {f: {name: x}},
              loggers: {nodepool: {handlers: [file, sys], level: DEBUG, propagate: 0}, requests: {level: WARN}},
              root: {handlers: ['null', out]}, disable_existing_loggers: false}",
        );
        let output = |target, level| Output { target, level, format: Format::Text };
        let expected = [
            output(Target::Console(Stream::Stderr), FilterLevel::Warning),
            output(Target::File("/x/y.log".into()), FilterLevel::Trace),
            output(Target::Syslog { socket: "/dev/log".into(), facility: 19 }, FilterLevel::Trace),
            output(Target::File("/x/y.log".into()), FilterLevel::Trace),
        ];
        assert_eq!(settings.outputs, expected);
        let goes_to = |logger, level| settings.levels.outputs(logger, level).collect::<Vec<_>>();
        assert_eq!(goes_to("nodepool.zk", slog::Level::Debug), [1, 2]);
        assert_eq!(goes_to("other", slog::Level::Info), [0; 0], "the root's default is WARNING");
        assert_eq!(goes_to("other", slog::Level::Warning), [0]);
        let expected = [
            "formatters: warning: the formats of the logging configuration are ignored",
            "handlers.file.class: warning: log files are not rotated by this program; let logrotate do it",
            "handlers.file.mode: warning: log files are always appended to; the mode of a file handler is ignored",
            "filters: warning: the filters of the logging configuration are ignored",
            "handlers.again: warning: no logger has the handler 'again', so nothing is written there",
            "handlers.again: warning: handlers.file writes to /x/y.log already; a line that goes to both is there twice",
        ];
        let mut found = warnings;
        found.sort_by_key(|line| expected.iter().position(|expected| expected == line));
        assert_eq!(found, expected);
    }

    #[test]
    fn a_logger_named_root_is_the_root() {
        let (settings, warnings) = settings(
            "{version: 1, handlers: {h: {class: logging.FileHandler, filename: /x}},
              loggers: {root: {handlers: [h], level: DEBUG, qualname: x}}}",
        );
        assert_eq!(warnings, [""; 0]);
        let outputs: Vec<_> = settings.levels.outputs("nodepool.zk", slog::Level::Debug).collect();
        assert_eq!(outputs, [0]);
    }

    #[test]
    fn handlers_without_loggers_are_told() {
        let (_, warnings) = settings(
            "{version: 1, handlers: {a: {class: logging.FileHandler, filename: /a}, n: {class: logging.NullHandler}}}",
        );
        let expected = [
            "handlers.a: warning: no logger has the handler 'a', so nothing is written there",
            "warning: no logger has a handler, so nothing is logged at all",
        ];
        assert_eq!(warnings, expected);
    }

    #[test]
    fn every_mistake_is_named_with_its_place() {
        let found = errors(
            "{version: 2, incremental: true, handers: {}, handlers: {
                a: {class: logging.handlers.SMTPHandler}, b: {class: logging.FileHandler},
                c: {class: logging.StreamHandler, stream: cfg://x}, d: {(): my.Factory}, e: {level: INFO},
                f: {class: logging.StreamHandler, filters: [x], level: LOUD, colour: red},
                g: {class: logging.handlers.SysLogHandler, facility: nosuch}, h: 5},
              loggers: {nodepool: {handlers: [nosuch]}}}",
        );
        let all = found.join("\n");
        for expected in [
            "version: expected 1, the only version that there is, found 2",
            "incremental: is not supported",
            "handers: unknown key, did you mean 'handlers'?",
            "handlers.a.class: the handler class 'logging.handlers.SMTPHandler' is not supported",
            "handlers.b: the required key 'filename' is missing",
            "handlers.c.stream: expected 'ext://sys.stdout' or 'ext://sys.stderr', found 'cfg://x'",
            "handlers.d.(): is not supported",
            "handlers.e: the required key 'class' is missing",
            "handlers.f.filters: are not supported",
            "handlers.f.level: expected a level",
            "handlers.f.colour: unknown key",
            "handlers.g.facility: expected a facility",
            "handlers.g.address: the required key 'address' is missing: expected the path",
            "handlers.h: expected a mapping, found a whole number",
            "loggers.nodepool.handlers: there is no handler 'nosuch'",
            "no logger has the handler 'f', so nothing is written there",
        ] {
            assert!(all.contains(expected), "{expected}\n--\n{all}");
        }
        assert_eq!(found.len(), 16, "{all}");
    }
}
