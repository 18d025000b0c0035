//! The end of a build's log, without what must not be seen: the values of the image's variables, which may be
//! passwords, and which builds like to print.
//!
//! What is shown of a log is what was read of it with each value replaced by its variable's name (`redact`). A
//! value that is only half there, because the log is read from somewhere in its middle or is just being written,
//! is left out.

use std::fs::File;
use std::io::{self, Read as _, Seek as _, SeekFrom};
use std::path::Path;

use super::redact::Secrets;
use crate::config::DiskImage;

/// How much of the log is looked at.
const WINDOW: u64 = 32 * 1024;
/// How many characters of a line are shown.
const LONGEST_LINE: usize = 400;

/// The last `lines` of the log of a build of `image`.
pub(super) fn tail(log: &Path, image: &DiskImage, lines: usize) -> io::Result<String> {
    let mut file = File::open(log)?;
    let begin = file.metadata()?.len().saturating_sub(WINDOW);
    file.seek(SeekFrom::Start(begin))?;
    let mut bytes = Vec::new();
    // It may be growing faster than it is read.
    file.take(2 * WINDOW).read_to_end(&mut bytes)?;
    Ok(last_lines(&bytes, begin > 0, lines, &Secrets::of(image)))
}

fn last_lines(bytes: &[u8], from_middle: bool, count: usize, secrets: &Secrets) -> String {
    // Colours first: they may stand within a value.
    let plain = without_escapes(bytes);
    let whole = match from_middle {
        true => plain.iter().position(|byte| *byte == b'\n').map_or(&[][..], |end| &plain[end + 1..]),
        false => &plain[..],
    };
    let hidden = secrets.hide(whole);
    let text = String::from_utf8_lossy(&hidden);
    // Progress bars draw over their own line.
    let lines = text.lines().map(|line| line.trim_end_matches('\r').rsplit('\r').next().unwrap_or_default());
    let lines: Vec<&str> = lines.collect();
    let shown = lines[lines.len().saturating_sub(count)..].iter().map(|line| shorten(line));
    shown.collect::<Vec<_>>().join("\n")
}

fn shorten(line: &str) -> String {
    match line.char_indices().nth(LONGEST_LINE) {
        Some((end, _)) => format!("{}…", &line[..end]),
        None => line.to_owned(),
    }
}

/// Removes the sequences by which a terminal is told colours and the like.
fn without_escapes(bytes: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(bytes.len());
    let mut rest = bytes;
    while let Some((&first, behind)) = rest.split_first() {
        rest = match behind.split_first() {
            Some((b'[', parameters)) if first == 0x1b => {
                let end = parameters.iter().position(|byte| (0x40..=0x7e).contains(byte));
                end.map_or(&[], |end| &parameters[end + 1..])
            }
            _ => {
                plain.push(first);
                behind
            }
        };
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secrets(variables: &[(&str, &str)]) -> Secrets {
        let mut image = DiskImage::new("debian");
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        image.env_vars = variables.iter().map(owned).collect();
        Secrets::of(&image)
    }

    fn shown(text: &str, from_middle: bool, variables: &[(&str, &str)]) -> String {
        last_lines(text.as_bytes(), from_middle, 15, &secrets(variables))
    }

    #[test]
    fn a_value_that_is_only_half_there_is_left_out() {
        let variables = [("PASSWORD", "hunter2"), ("DEBUG", "1")];
        assert_eq!(shown("nter2 and more\nnext", true, &variables), "next");
        assert_eq!(shown("one line from the middle hunt", true, &variables), "");
        assert_eq!(shown("login hunte", false, &variables), "login ");
        assert_eq!(shown("login hunted", false, &variables), "login hunted");
        // Colours may stand within a value.
        assert_eq!(shown("hun\u{1b}[1;31mter2\u{1b}[0m!", false, &variables), "[PASSWORD]!");
    }

    #[test]
    fn the_last_lines_are_shown_as_a_terminal_would() {
        let many: String = (0..50).map(|line| format!("line {line}\n")).collect();
        let expected: Vec<_> = (35..50).map(|line| format!("line {line}")).collect();
        assert_eq!(shown(&many, false, &[]), expected.join("\n"));
        assert_eq!(shown("10 %\r50 %\r99 %\r\nend\r\n", false, &[]), "99 %\nend");
        assert_eq!(shown(&"é".repeat(500), false, &[]).chars().count(), LONGEST_LINE + 1);
        assert_eq!(shown("cut \u{1b}[1", false, &[]), "cut ");
        assert_eq!(last_lines(b"\xff\n\x1b", false, 15, &secrets(&[])), "\u{fffd}\n\u{1b}");
    }
}
