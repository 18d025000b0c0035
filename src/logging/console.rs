//! A standard stream as an output. It may be a terminal that is stopped, or a pipe that nobody reads: a write is
//! only begun when it will not block, so that the writer can be told to end.

use std::io;
use std::os::fd::{AsFd as _, BorrowedFd};
use std::time::{Duration, Instant};

use nodepool_threads::poll_until;
use rustix::event::{PollFd, PollFlags};
use rustix::io::Errno;

use super::line::Line;
use super::settings::Stream;
use super::writer::Sink;

/// How long a stream may take nothing before that counts as a failure, to be tried again.
const PATIENCE: Duration = Duration::from_millis(200);

/// A pipe that can be written to takes as much at once.
const PIECE: usize = 4096;

/// A standard stream.
pub(super) struct Console {
    stream: Stream,
    /// As much of the current line is written.
    written: usize,
}

impl Console {
    pub(super) fn new(stream: Stream) -> Self {
        Self { stream, written: 0 }
    }
}

impl Sink for Console {
    fn write(&mut self, line: &Line) -> io::Result<()> {
        let (stdout, stderr) = (io::stdout(), io::stderr());
        let out = match self.stream {
            Stream::Stdout => stdout.as_fd(),
            Stream::Stderr => stderr.as_fd(),
        };
        write(out, line.text.as_bytes(), &mut self.written)?;
        self.written = 0;
        Ok(())
    }

    fn reopen(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Writes to standard error without the log: for what must be seen although that is stuck.
pub fn write_to_stderr(text: &str) -> io::Result<()> {
    write(io::stderr().as_fd(), text.as_bytes(), &mut 0)
}

/// Writes what is not `written` yet.
fn write(out: BorrowedFd<'_>, bytes: &[u8], written: &mut usize) -> io::Result<()> {
    while *written < bytes.len() {
        wait(out)?;
        let end = bytes.len().min(*written + PIECE);
        match rustix::io::write(out, &bytes[*written..end]) {
            Ok(count) => *written += count,
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Waits until something can be written. A failure is left to the write.
pub(super) fn wait(out: BorrowedFd<'_>) -> io::Result<()> {
    // Ready, or broken: then the write says how.
    if poll_until(&mut [PollFd::new(&out, PollFlags::OUT)], Some(Instant::now() + PATIENCE))? {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::WouldBlock, "nobody reads it"))
}
