//! Lines that stay, and on a terminal a last line that is redrawn in place.

use std::io::{IsTerminal, Write};

use super::failure::Failure;

/// A narrower terminal breaks the redrawn line; then it still says the truth.
const WIDTH: usize = 79;
/// To the start of the line, and nothing behind it.
const CLEAR: &str = "\r\x1b[K";

/// Where the progress of a command is shown.
pub(super) struct Screen<W> {
    out: W,
    redraws: bool,
    /// The redrawn line, as it is on the terminal now.
    drawn: String,
}

impl Screen<std::io::Stdout> {
    /// Standard output, with a redrawn line if it is a terminal that can do that.
    pub(super) fn of_stdout() -> Self {
        let dumb = std::env::var_os("TERM").is_none_or(|term| term == "dumb" || term.is_empty());
        let out = std::io::stdout();
        let redraws = out.is_terminal() && !dumb;
        Self::new(out, redraws)
    }
}

impl<W: Write> Screen<W> {
    fn new(out: W, redraws: bool) -> Self {
        Self { out, redraws, drawn: String::new() }
    }

    /// Whether there is a redrawn line.
    pub(super) fn redraws(&self) -> bool {
        self.redraws
    }

    /// Writes a line that stays.
    pub(super) fn line(&mut self, line: &str) -> Result<(), Failure> {
        self.clear()?;
        self.write(&format!("{line}\n"))
    }

    /// Replaces the redrawn line.
    pub(super) fn redraw(&mut self, line: &str) -> Result<(), Failure> {
        let line: String = line.chars().take(WIDTH).collect();
        if !self.redraws || line == self.drawn {
            return Ok(());
        }
        self.write(&format!("{CLEAR}{line}"))?;
        self.drawn = line;
        Ok(())
    }

    /// Removes the redrawn line, so that other things can be written.
    pub(super) fn clear(&mut self) -> Result<(), Failure> {
        if self.drawn.is_empty() {
            return Ok(());
        }
        self.drawn.clear();
        self.write(CLEAR)
    }

    fn write(&mut self, text: &str) -> Result<(), Failure> {
        let written = self.out.write_all(text.as_bytes()).and_then(|()| self.out.flush());
        written.map_err(|error| Failure::of_output(&error))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(redraws: bool) -> String {
        let mut screen = Screen::new(Vec::new(), redraws);
        screen.line("one").unwrap();
        screen.redraw("0 s").unwrap();
        screen.redraw("0 s").unwrap();
        screen.redraw(&"x".repeat(100)).unwrap();
        screen.line("two").unwrap();
        screen.clear().unwrap();
        String::from_utf8(screen.out).unwrap()
    }

    #[test]
    fn a_terminal_has_a_line_that_is_redrawn_below_those_that_stay() {
        let long = "x".repeat(WIDTH);
        assert_eq!(shown(true), format!("one\n{CLEAR}0 s{CLEAR}{long}{CLEAR}two\n"));
    }

    #[test]
    fn anything_else_gets_lines_only() {
        assert_eq!(shown(false), "one\ntwo\n");
    }
}
