//! Waiting for descriptors until a moment, whatever interrupts it: the signals of a dump of the stacks, for one.

use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// How long a stop may go unnoticed: a token cannot be polled together with a descriptor.
const SLICE: Duration = Duration::from_millis(100);

/// Waits until one of the descriptors has something to say; without a moment `until`, for however long that takes. False
/// when the moment comes first, and never earlier.
pub fn poll_until(descriptors: &mut [PollFd<'_>], until: Option<Instant>) -> io::Result<bool> {
    loop {
        let left = until.map(|until| until.saturating_duration_since(Instant::now()));
        // What is too long for the kernel is as good as no limit.
        let limit = left.and_then(|left| Timespec::try_from(left).ok());
        match poll(descriptors, limit.as_ref()) {
            Ok(0) if until.is_none_or(|until| Instant::now() < until) => {}
            Ok(ready) => return Ok(ready > 0),
            Err(Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Waits for one descriptor, but for a moment only and no longer than `until`: for a loop that looks at a stop token
/// in between.
pub fn poll_for_a_moment(
    descriptor: &impl AsFd,
    interest: PollFlags,
    until: Option<Instant>,
) -> io::Result<bool> {
    let slice = Instant::now() + SLICE;
    let until = until.map_or(slice, |until| until.min(slice));
    poll_until(&mut [PollFd::new(descriptor, interest)], Some(until))
}

#[cfg(test)]
mod tests {
    use rustix::pipe::pipe;

    use super::*;

    #[test]
    fn a_wait_ends_at_its_moment_and_not_before() {
        let (reader, _writer) = pipe().unwrap();
        let mut polled = [PollFd::new(&reader, PollFlags::IN)];
        for limit in [0, 1_000, 20_000_100] {
            let until = Instant::now() + Duration::from_nanos(limit);
            assert!(!poll_until(&mut polled, Some(until)).unwrap());
            assert!(Instant::now() >= until);
        }
    }

    #[test]
    fn what_is_ready_is_told_also_when_the_moment_is_over() {
        let (reader, writer) = pipe().unwrap();
        rustix::io::write(&writer, b"x").unwrap();
        let mut polled = [PollFd::new(&reader, PollFlags::IN)];
        assert!(poll_until(&mut polled, Some(Instant::now())).unwrap());
        assert!(poll_until(&mut polled, None).unwrap());
        assert_eq!(polled[0].revents(), PollFlags::IN);
        assert!(poll_for_a_moment(&reader, PollFlags::IN, None).unwrap());
    }
}
