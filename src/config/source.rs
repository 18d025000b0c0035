//! A file's text as it is parsed, with the values of variables in it; and from a place there to the place in the file.
//!
//! The parser counts in the text that it gets, and calls more things a line's end than editors do. An operator gets the
//! line and the column that an editor goes to.

use std::collections::BTreeSet;
use std::ops::Range;

use nodepool_drivers::api::yaml::{self, Position};

/// The text of a file after the substitution.
#[derive(Debug, PartialEq, Eq)]
pub struct Source<'t> {
    file: &'t str,
    /// The text with the values of the variables.
    pub text: String,
    /// The variables that the text asks for and the environment does not have.
    pub unset: BTreeSet<String>,
    /// Where in the file and in the text each of these values is, in their order.
    values: Vec<(Range<usize>, Range<usize>)>,
}

impl<'t> Source<'t> {
    /// A file of whose text nothing has been taken over yet.
    pub(super) fn begin(file: &'t str) -> Self {
        Self { file, text: String::with_capacity(file.len()), unset: BTreeSet::new(), values: Vec::new() }
    }

    /// A file without variables.
    pub(crate) fn unchanged(file: &'t str) -> Self {
        Self { text: file.to_owned(), ..Self::begin(file) }
    }

    /// Adds a value in the place of the file's text at `reference`.
    pub(super) fn push_value(&mut self, reference: Range<usize>, value: &str) {
        let start = self.text.len();
        self.text.push_str(value);
        self.values.push((reference, start..self.text.len()));
    }

    /// The place in the file of what the parser has at `at`, as [`Placer::place`] tells it of many.
    pub(crate) fn place(&self, at: Position) -> Position {
        self.placer().place(at)
    }

    /// For the places of many things: the lines are looked for once.
    pub(crate) fn placer(&self) -> Placer<'_> {
        let ends_for_parser = |letter| letter == '\n' || FOREIGN_BREAKS.contains(&letter);
        Placer {
            source: self,
            in_text: line_starts(&self.text, ends_for_parser),
            in_file: line_starts(self.file, |letter| letter == '\n'),
        }
    }

    fn in_file(&self, offset: usize) -> usize {
        let before = self.values.partition_point(|(_, value)| value.start <= offset);
        match before.checked_sub(1).map(|last| &self.values[last]) {
            None => offset,
            Some((reference, value)) if value.contains(&offset) => reference.start,
            Some((reference, value)) => reference.end + (offset - value.end),
        }
    }
}

/// What ends a line for YAML 1.1, apart from a line feed.
const FOREIGN_BREAKS: [char; 4] = ['\r', '\u{85}', '\u{2028}', '\u{2029}'];

/// Knows where the lines of a [`Source`] begin.
pub(crate) struct Placer<'s> {
    source: &'s Source<'s>,
    /// As the parser counts them.
    in_text: Vec<usize>,
    /// As editors count them.
    in_file: Vec<usize>,
}

impl Placer<'_> {
    /// The place in the file of what the parser has at `at`: always one that is there. What a variable has brought in
    /// is where the variable is.
    pub(crate) fn place(&self, at: Position) -> Position {
        let text = &self.source.text;
        let offset = match self.in_text.get(at.line.saturating_sub(1)) {
            None => text.len(),
            Some(start) => {
                let column = text[*start..].char_indices().nth(at.column.saturating_sub(1));
                column.map_or(text.len(), |(offset, _)| start + offset)
            }
        };
        let offset = self.source.in_file(offset);
        let line = self.in_file.partition_point(|start| *start <= offset).max(1);
        let start = self.in_file.get(line - 1).copied().unwrap_or_default();
        let column = self.source.file.get(start..offset).map_or(0, |before| before.chars().count());
        Position { line, column: column + 1 }
    }
}

/// Where the lines of a text begin. The mark that some editors put before a text is no part of the first one; `\r\n`
/// is one end.
fn line_starts(text: &str, ends: impl Fn(char) -> bool) -> Vec<usize> {
    let first = text.len() - yaml::without_mark(text).len();
    let mut letters = text.char_indices().peekable();
    let mut starts = vec![first];
    while let Some((at, letter)) = letters.next() {
        if ends(letter) && !(letter == '\r' && letters.peek().is_some_and(|(_, next)| *next == '\n')) {
            starts.push(at + letter.len_utf8());
        }
    }
    starts
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Env;

    fn place(source: &Source<'_>, line: usize, column: usize) -> String {
        source.place(Position { line, column }).to_string()
    }

    #[test]
    fn a_value_of_several_lines_moves_no_place_in_the_file() {
        let env: Env =
            [("NODEPOOL_LINES", "a\nb\nc"), ("NODEPOOL_NONE", ""), ("NODEPOOL_LONG", "twelve bytes")]
                .into_iter()
                .collect();
        let source = env
            .substitute("x: '%(NODEPOOL_LINES)'\ny: %(NODEPOOL_NONE)z\n%(NODEPOOL_LONG) é: %(NODEPOOL_NO)w");
        assert_eq!(source.text, "x: 'a\nb\nc'\ny: z\ntwelve bytes é: %(NODEPOOL_NO)w");
        for (line, column, expected) in [
            (1, 1, "1:1"),
            (1, 4, "1:4"),
            // Within a value, and behind it.
            (1, 5, "1:5"),
            (2, 1, "1:5"),
            (3, 2, "1:22"),
            (4, 1, "2:1"),
            (4, 4, "2:20"),
            (5, 1, "3:1"),
            (5, 12, "3:1"),
            (5, 14, "3:18"),
            (5, 17, "3:21"),
            (6, 1, "3:36"),
        ] {
            assert_eq!(place(&source, line, column), expected, "{line}:{column}");
        }
    }

    #[test]
    fn only_a_line_feed_ends_a_line_of_the_file() {
        let source = Source::unchanged("\u{feff}a: 1\r\nb: 2\rc: 3\u{2028}d: 4\n\ne: [");
        for (line, column, expected) in
            [(1, 1, "1:1"), (2, 1, "2:1"), (3, 2, "2:7"), (4, 1, "2:11"), (6, 4, "4:4"), (7, 1, "4:5")]
        {
            assert_eq!(place(&source, line, column), expected, "{line}:{column}");
        }
    }

    #[test]
    fn the_end_of_the_file_is_in_the_file() {
        assert_eq!(place(&Source::unchanged("a: ["), 2, 1), "1:5");
        assert_eq!(place(&Source::unchanged("a: [\n"), 2, 1), "2:1");
    }
}
