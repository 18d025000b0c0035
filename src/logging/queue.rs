//! The lines that wait to be written to one output: bounded, so that an output that takes nothing costs a fixed
//! amount of memory and nobody's time. What finds no room is counted, in its place among the others.
//!
//! A line stays here until it has been written, so a writer that fails has nothing to put back.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use crossbeam_channel::Sender;
use nodepool_threads::{Condvar, Mutex};

use super::line::Line;

/// How much text may wait, roughly: six dumps of two hundred threads' stacks.
const ROOM: usize = 4 << 20;

/// What an entry takes besides its text.
const ENTRY: usize = 64;

/// The queue between those who log and one writer.
pub(super) struct Queue {
    state: Mutex<State>,
    /// For the writer: there is something to do.
    news: Condvar,
    /// For whoever waits to be let in.
    room: Condvar,
}

#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    bytes: usize,
    reopen: bool,
    /// Somebody waits: a writer that pauses after a failure should try now.
    hurry: bool,
    ended: bool,
}

enum Item {
    Line(Line),
    /// So many lines found no room.
    Lost(u64),
    /// Told once all before it is written; dropped if the output fails.
    Mark(Sender<()>),
}

/// What the writer has to do.
pub(super) enum Next {
    /// Open the output anew.
    Reopen,
    /// Write the line, then say [`Queue::written`].
    Line(Line),
    /// Say that so many lines are lost, then say [`Queue::told`].
    Lost(u64),
    /// Everything is written, and nothing will follow.
    End,
}

impl Default for Queue {
    fn default() -> Self {
        let state = Mutex::new("log queue", State::default());
        Self { state, news: Condvar::new(), room: Condvar::new() }
    }
}

impl Queue {
    /// Adds a line if there is room.
    pub(super) fn push(&self, line: Line) {
        let mut state = self.state.lock();
        if state.bytes >= ROOM {
            match state.items.back_mut() {
                Some(Item::Lost(count)) => *count += 1,
                _ => state.items.push_back(Item::Lost(1)),
            }
            return;
        }
        state.add(line);
        self.news.notify_all();
    }

    /// Adds all lines together as soon as there is any room, and `done`, which is told when all are written.
    /// False if there is no room until the deadline.
    pub(super) fn push_all(&self, lines: Vec<Line>, done: Sender<()>, deadline: Instant) -> bool {
        let mut state = self.state.lock();
        while state.bytes >= ROOM {
            state.hurry = true;
            self.news.notify_all();
            if self.room.wait_until(&mut state, deadline) && state.bytes >= ROOM {
                return false;
            }
        }
        lines.into_iter().for_each(|line| state.add(line));
        self.mark_locked(&mut state, done);
        true
    }

    /// Has `done` told when all that waits now is written. Dropped untold if the output does not take it.
    pub(super) fn mark(&self, done: Sender<()>) {
        self.mark_locked(&mut self.state.lock(), done);
    }

    fn mark_locked(&self, state: &mut State, done: Sender<()>) {
        state.items.push_back(Item::Mark(done));
        state.hurry = true;
        self.news.notify_all();
    }

    /// Has the output opened anew, before the next line.
    pub(super) fn reopen(&self) {
        self.state.lock().reopen = true;
        self.news.notify_all();
    }

    /// Lets the writer end once all is written, or at its next failure.
    pub(super) fn end(&self) {
        self.state.lock().ended = true;
        self.news.notify_all();
    }

    /// What to do next; waits for it.
    pub(super) fn next(&self) -> Next {
        let mut state = self.state.lock();
        loop {
            state.hurry = false;
            if std::mem::take(&mut state.reopen) {
                return Next::Reopen;
            }
            match state.items.front() {
                Some(Item::Line(line)) => return Next::Line(line.clone()),
                Some(Item::Lost(count)) => return Next::Lost(*count),
                Some(Item::Mark(done)) => {
                    // Nobody may wait any more.
                    let _ = done.try_send(());
                    state.items.pop_front();
                }
                None if state.ended => return Next::End,
                None => self.news.wait(&mut state),
            }
        }
    }

    /// The line that [`Queue::next`] returned is written.
    pub(super) fn written(&self) {
        let mut state = self.state.lock();
        if let Some(Item::Line(line)) = state.items.pop_front() {
            state.bytes = state.bytes.saturating_sub(line.text.len() + ENTRY);
            self.room.notify_all();
        }
    }

    /// It is said that so many lines are lost.
    pub(super) fn told(&self, count: u64) {
        let mut state = self.state.lock();
        match state.items.front_mut() {
            // More have been lost meanwhile.
            Some(Item::Lost(all)) if *all > count => *all -= count,
            _ => drop(state.items.pop_front()),
        }
    }

    /// The output takes nothing: whoever waits is told so, and the writer pauses for at most `pause`. False if
    /// it was to end before already: then this was the last attempt.
    pub(super) fn failed(&self, pause: Duration) -> bool {
        let mut state = self.state.lock();
        state.items.retain(|item| !matches!(item, Item::Mark(_)));
        let last = state.ended;
        let until = Instant::now() + pause;
        while !state.ended && !state.hurry && !state.reopen {
            if self.news.wait_until(&mut state, until) {
                break;
            }
        }
        !last
    }
}

impl State {
    fn add(&mut self, line: Line) {
        self.bytes += line.text.len() + ENTRY;
        self.items.push_back(Item::Line(line));
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::{RecvTimeoutError, bounded};
    use slog::Level;

    use super::*;

    fn line(text: &str) -> Line {
        Line { level: Level::Info, text: text.into() }
    }

    fn big() -> Line {
        line(&"x".repeat(1 << 20))
    }

    fn lines_left(queue: &Queue) -> Vec<String> {
        queue.end();
        let mut left = Vec::new();
        loop {
            match queue.next() {
                Next::Line(line) => {
                    left.push(line.text.chars().take(3).collect());
                    queue.written();
                }
                Next::Lost(count) => {
                    left.push(format!("lost {count}"));
                    queue.told(count);
                }
                Next::Reopen => left.push("reopen".to_owned()),
                Next::End => return left,
            }
        }
    }

    #[test]
    fn what_finds_no_room_is_counted_in_its_place_and_the_rest_keeps_its_order() {
        let queue = Queue::default();
        queue.push(line("1"));
        (0..4).for_each(|_| queue.push(big()));
        (0..3).for_each(|_| queue.push(line("no room")));
        let Next::Line(_) = queue.next() else { panic!("expected a line") };
        queue.written();
        let Next::Line(_) = queue.next() else { panic!("expected a line") };
        queue.written();
        queue.push(line("2"));
        queue.reopen();
        assert_eq!(lines_left(&queue), ["reopen", "xxx", "xxx", "xxx", "lost 3", "2"]);
    }

    #[test]
    fn lines_that_are_lost_while_it_is_said_are_said_too() {
        let queue = Queue::default();
        (0..4).for_each(|_| queue.push(big()));
        queue.push(line("no room"));
        (0..3).for_each(|_| {
            let _ = queue.next();
            queue.written();
        });
        (0..3).for_each(|_| queue.push(big()));
        queue.push(line("no room"));
        let _ = queue.next();
        queue.written();
        let Next::Lost(1) = queue.next() else { panic!("expected the first loss") };
        queue.told(1);
        assert_eq!(lines_left(&queue), ["xxx", "xxx", "xxx", "lost 1"]);
    }

    #[test]
    fn a_block_waits_for_room_and_is_refused_at_its_deadline() {
        let queue = Queue::default();
        (0..4).for_each(|_| queue.push(big()));
        let (done, told) = bounded(1);
        assert!(!queue.push_all(vec![line("a")], done.clone(), Instant::now() + Duration::from_millis(20)));
        std::thread::scope(|scope| {
            let block = vec![line("a"), line("b")];
            let pushing =
                scope.spawn(|| queue.push_all(block, done, Instant::now() + Duration::from_secs(60)));
            let _ = queue.next();
            queue.written();
            assert!(pushing.join().unwrap());
        });
        assert!(told.is_empty());
        assert_eq!(lines_left(&queue), ["xxx", "xxx", "xxx", "a", "b"]);
        told.recv().unwrap();
    }

    #[test]
    fn whoever_waits_for_an_output_that_fails_is_told_at_once() {
        let queue = Queue::default();
        queue.push(line("1"));
        let (done, told) = bounded(1);
        queue.mark(done);
        let Next::Line(_) = queue.next() else { panic!("expected a line") };
        assert!(queue.failed(Duration::from_millis(1)));
        assert_eq!(told.recv_timeout(Duration::from_secs(60)), Err(RecvTimeoutError::Disconnected));
        // A new question makes it try again without a pause, and the end lets it go.
        let (done, _told) = bounded(1);
        queue.mark(done);
        assert!(queue.failed(Duration::ZERO));
        std::thread::scope(|scope| {
            let pausing = scope.spawn(|| queue.failed(Duration::from_secs(600)));
            queue.end();
            // One more attempt, unless the end came before the last one.
            pausing.join().unwrap();
        });
        assert!(!queue.failed(Duration::from_secs(600)));
    }
}
