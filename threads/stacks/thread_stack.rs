//! A thread's stack for people to read.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::registry::Ongoing;

/// A function on a stack.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// The function, or a module and an offset where its name is not known. Of a function that the compiler
    /// has put into its caller only the last part of the name is known.
    pub function: Arc<str>,
    /// The source file. Where the line is not known, the program or library.
    pub file: Arc<str>,
    /// The line that is being executed.
    pub line: Option<u32>,
}

impl fmt::Display for Frame {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            Some(line) => write!(f, "{} at {}:{line}", self.function, self.file),
            None => write!(f, "{} in {}", self.function, self.file),
        }
    }
}

/// What one thread was doing at one moment.
#[derive(Debug, Clone)]
pub struct ThreadStack {
    /// The kernel's thread id.
    pub id: u32,
    /// The registered name; for other threads the kernel's, which has at most fifteen letters.
    pub name: String,
    /// The role, if the thread is registered.
    pub role: Option<&'static str>,
    /// What it says that it is doing; innermost last.
    pub activities: Vec<Ongoing>,
    /// The kernel's letter for its state: `R` runs or could, `S` waits, `D` waits without being
    /// interruptible.
    pub state: char,
    /// The processor time that it has used.
    pub cpu: Duration,
    /// The functions, innermost first.
    pub frames: Vec<Frame>,
    /// What is missing, or uncertain, and why.
    pub note: Option<String>,
}

impl ThreadStack {
    fn state_in_words(&self) -> &'static str {
        match self.state {
            'R' => "running",
            'S' | 'I' => "waiting",
            'D' => "waiting uninterruptibly",
            'T' | 't' => "stopped",
            'Z' | 'X' => "ended",
            _ => "in an unknown state",
        }
    }
}

impl fmt::Display for ThreadStack {
    /// Several lines, without a line end behind the last.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "thread {} {:?}", self.id, self.name)?;
        if let Some(role) = self.role {
            write!(f, " ({role})")?;
        }
        write!(f, ": {}, {:.2} s of CPU time", self.state_in_words(), self.cpu.as_secs_f64())?;
        for (index, activity) in self.activities.iter().enumerate() {
            let before = if index == 0 { "; doing:" } else { " >" };
            write!(f, "{before} {activity}")?;
        }
        if let Some(note) = &self.note {
            write!(f, "\n    note: {note}")?;
        }
        for (index, frame) in self.frames.iter().enumerate() {
            write!(f, "\n  {index:>3}: {frame}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stack_reads_as_a_head_line_and_a_line_for_each_frame() {
        let frame =
            |function: &str, file: &str, line| Frame { function: function.into(), file: file.into(), line };
        let doing = |what: &str, since, limit: Option<u64>| Ongoing {
            what: what.to_owned(),
            since: Duration::from_millis(since),
            limit: limit.map(Duration::from_millis),
        };
        let stack = ThreadStack {
            id: 12,
            name: "build-worker-0".to_owned(),
            role: Some("build worker"),
            activities: vec![
                doing("build debian", 12_340, None),
                doing("wait for the command", 12_300, Some(20_000)),
                doing("ask", 11_000, Some(10_000)),
            ],
            state: 'S',
            cpu: Duration::from_millis(1230),
            frames: vec![frame("poll", "libc.so.6", None), frame("nodepool::wait", "src/wait.rs", Some(7))],
            note: Some("from frame 1 on the stack is a guess".to_owned()),
        };
        assert_eq!(
            stack.to_string(),
            "thread 12 \"build-worker-0\" (build worker): waiting, 1.23 s of CPU time; \
             doing: build debian for 12.3 s > wait for the command for 12.3 s (limit 20.0 s) > \
             ask for 11.0 s (limit 10.0 s, OVERDUE)\n    \
             note: from frame 1 on the stack is a guess\n    \
             0: poll in libc.so.6\n    \
             1: nodepool::wait at src/wait.rs:7"
        );
    }
}
