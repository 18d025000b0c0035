//! A record as a line of text, with the original's local time:
//! `2026-11-22 16:41:31,123 INFO nodepool.builder.janitor: removed, image: debian`.
//!
//! Whatever a message or a value holds, a line of the log begins with a time: line breaks are followed by
//! spaces, and other control characters are spelled out, so that nobody's output can pass for a line of ours.

use std::borrow::Cow;
use std::io;
use std::sync::Arc;

use chrono::Local;
use slog::{Drain as _, Level, OwnedKVList, Record, RecordLocation, RecordStatic, b, o};
use slog_term::{FullFormat, PlainDecorator, RecordDecorator, ThreadSafeTimestampFn};

use super::json;
use super::names::logger_of;
use super::settings::Format;

/// A formatted line with its line break.
#[derive(Debug, Clone)]
pub(super) struct Line {
    pub(super) level: Level,
    pub(super) text: Arc<str>,
}

impl Line {
    /// Formats a record. `values` are those of its logger.
    pub(super) fn new(format: Format, record: &Record<'_>, values: &OwnedKVList) -> Self {
        let text = match format {
            Format::Text => text(record, values, true),
            Format::Untimed => text(record, values, false),
            Format::Json => json::object(record, values),
        };
        Self { level: record.level(), text: text.into() }
    }

    /// A line that does not come from a macro of slog.
    pub(super) fn plain(format: Format, level: Level, logger: &str, message: &str) -> Self {
        static HERE: RecordLocation =
            RecordLocation { file: file!(), line: line!(), column: 0, function: "", module: module_path!() };
        let known = RecordStatic { location: &HERE, level, tag: logger };
        Self::new(format, &Record::new(&known, &format_args!("{message}"), b!()), &o!().into())
    }
}

/// As Python's `%(asctime)s`.
const TIME: &str = "%Y-%m-%d %H:%M:%S,%3f";

fn text(record: &Record<'_>, values: &OwnedKVList, timed: bool) -> String {
    let mut bytes = Vec::new();
    let format = FullFormat::new(PlainDecorator::new(&mut bytes));
    let format = match timed {
        true => format.use_custom_timestamp(|out| write!(out, "{}", Local::now().format(TIME))),
        false => format.use_custom_timestamp(|_| Ok(())),
    };
    // Nothing but the values themselves can fail here, and what there is of the line is better than none.
    let _ = format.use_custom_header_print(header).build().log(record, values);
    let text = String::from_utf8_lossy(&bytes);
    let mut text = one_line(text.trim()).into_owned();
    text.push('\n');
    text
}

fn header(
    timestamp: &dyn ThreadSafeTimestampFn<Output = io::Result<()>>,
    mut out: &mut dyn RecordDecorator,
    record: &Record<'_>,
    _location: bool,
) -> io::Result<bool> {
    timestamp(&mut out)?;
    write!(out, " {} {}: {}", record.level().as_short_str(), logger_of(record), record.msg())?;
    Ok(true)
}

/// The text with what could pass for the begin of another line, or move a terminal's cursor, made harmless.
fn one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(|letter: char| letter.is_control()) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        match letter {
            '\n' => clean.push_str("\n    "),
            '\t' => clean.push('\t'),
            control if control.is_control() => clean.extend(control.escape_default()),
            other => clean.push(other),
        }
    }
    Cow::Owned(clean)
}

#[cfg(test)]
pub(super) mod tests {
    use crossbeam_channel::{Sender, unbounded};
    use slog::{Logger, Never, info, warn};

    use super::*;

    /// Keeps the lines of a logger.
    pub(in crate::logging) fn lines(format: Format, say: impl FnOnce(&Logger)) -> Vec<String> {
        struct Keep(Format, Sender<String>);
        impl slog::Drain for Keep {
            type Ok = ();
            type Err = Never;

            fn log(&self, record: &Record<'_>, values: &OwnedKVList) -> Result<(), Never> {
                self.1.send(Line::new(self.0, record, values).text.to_string()).unwrap();
                Ok(())
            }
        }
        let (keep, kept) = unbounded();
        let log = Logger::root(Keep(format, keep), o!());
        say(&log.new(o!("image" => "debian")));
        kept.try_iter().collect()
    }

    /// Without the time, which is checked to be one.
    fn untimed(line: &str) -> &str {
        let (time, rest) = line.split_at(24);
        let shape = time.replace(|letter: char| letter.is_ascii_digit(), "0");
        assert_eq!(shape, "0000-00-00 00:00:00,000 ", "{line}");
        rest
    }

    #[test]
    fn a_line_has_time_level_logger_message_and_values() {
        let lines = lines(Format::Text, |log| {
            info!(log, "the build is ready"; "build" => 5);
            warn!(log, # "nodepool.stack_dump", "tagged");
        });
        let own = "nodepool.logging.line.tests";
        assert_eq!(untimed(&lines[0]), format!("INFO {own}: the build is ready, build: 5, image: debian\n"));
        assert_eq!(untimed(&lines[1]), "WARN nodepool.stack_dump: tagged, image: debian\n");
        let plain = Line::plain(Format::Untimed, Level::Debug, "a.b", "x").text;
        assert_eq!(&*plain, "DEBG a.b: x\n");
    }

    #[test]
    fn no_output_of_others_can_pass_for_a_line_or_move_the_cursor() {
        let lines = lines(Format::Text, |log| {
            info!(log, "said"; "output" => "one\n2026-11-22 00:00:00,000 ERRO forged\r\x1b[2J\ttab");
        });
        let expected =
            ": said, output: one\n    2026-11-22 00:00:00,000 ERRO forged\\r\\u{1b}[2J\ttab, image: debian\n";
        assert!(lines[0].ends_with(expected), "{lines:?}");
    }
}
