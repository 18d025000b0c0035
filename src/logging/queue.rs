//! The lines that wait to be written to one output: bounded, so that an output that takes nothing costs a fixed
//! amount of memory and nobody's time. What finds no room is counted, in its place among the others. Lines that
//! somebody waits for may wait beyond that room for as long as he does.
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
}

/// Lines that were added together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Block {
    number: u64,
    /// Whether there was room for them.
    fits: bool,
}

#[derive(Default)]
struct State {
    items: VecDeque<Item>,
    bytes: usize,
    /// So many blocks have been added.
    blocks: u64,
    reopen: bool,
    /// Somebody waits: a writer that pauses after a failure should try now.
    hurry: bool,
    ended: bool,
    /// Whether it had ended already when the writer was told what to do now.
    last: bool,
}

enum Item {
    Line(Line, Option<Block>),
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
        Self { state, news: Condvar::new() }
    }
}

impl Queue {
    /// Adds a line if there is room.
    pub(super) fn push(&self, line: Line) {
        let mut state = self.state.lock();
        if state.bytes >= ROOM {
            count_lost(&mut state.items, 1);
            return;
        }
        state.add(line, None);
        self.news.notify_all();
    }

    /// Adds all lines together, and `done`, which is told when all are written. Where there is no room they are
    /// added all the same, until whoever waits for them says [`Queue::settle`] or [`Queue::withdraw`].
    pub(super) fn push_all(&self, lines: Vec<Line>, done: Sender<()>) -> Block {
        let mut state = self.state.lock();
        state.blocks += 1;
        let block = Block { number: state.blocks, fits: state.bytes < ROOM };
        lines.into_iter().for_each(|line| state.add(line, Some(block)));
        self.mark_locked(&mut state, done);
        block
    }

    /// Nobody waits any more for a block, which stays if there was room for it, or is by now. Otherwise what of it
    /// is not written is counted as lost, but for a line that may be being written now.
    pub(super) fn settle(&self, block: Block) {
        let mut state = self.state.lock();
        if !block.fits && state.bytes - state.bytes_of(block) >= ROOM {
            state.remove(block, true);
        }
    }

    /// Takes back what of a block is not written, but for a line that may be being written now.
    pub(super) fn withdraw(&self, block: Block) {
        self.state.lock().remove(block, false);
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
            state.last = state.ended;
            if std::mem::take(&mut state.reopen) {
                return Next::Reopen;
            }
            match state.items.front() {
                Some(Item::Line(line, _)) => return Next::Line(line.clone()),
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
        if let Some(Item::Line(line, _)) = state.items.pop_front() {
            state.bytes -= room_of(&line);
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
    /// it was to end before this attempt already: then it was the last one.
    pub(super) fn failed(&self, pause: Duration) -> bool {
        let mut state = self.state.lock();
        let last = state.last;
        // Whoever has come during the attempt is owed one of his own: what was wrong may be mended by now.
        if last || !state.hurry {
            state.items.retain(|item| !matches!(item, Item::Mark(_)));
        }
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
    fn add(&mut self, line: Line, block: Option<Block>) {
        self.bytes += room_of(&line);
        self.items.push_back(Item::Line(line, block));
    }

    fn bytes_of(&self, block: Block) -> usize {
        let lines = self.items.iter().filter_map(|item| match item {
            Item::Line(line, Some(of)) if *of == block => Some(room_of(line)),
            _ => None,
        });
        lines.sum()
    }

    /// Removes a block but for the first item of all, which may be being written now.
    fn remove(&mut self, block: Block, counted: bool) {
        let mut kept = VecDeque::new();
        for (index, item) in std::mem::take(&mut self.items).into_iter().enumerate() {
            match item {
                Item::Line(line, Some(of)) if of == block && index > 0 => {
                    self.bytes -= room_of(&line);
                    if counted {
                        count_lost(&mut kept, 1);
                    }
                }
                Item::Lost(count) => count_lost(&mut kept, count),
                item => kept.push_back(item),
            }
        }
        self.items = kept;
    }
}

fn room_of(line: &Line) -> usize {
    line.text.len() + ENTRY
}

/// More lines are lost behind the last item.
fn count_lost(items: &mut VecDeque<Item>, more: u64) {
    match items.back_mut() {
        Some(Item::Lost(count)) => *count += more,
        _ => items.push_back(Item::Lost(more)),
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
    fn a_block_without_room_stays_if_there_is_some_in_the_end_and_else_is_counted_in_its_place() {
        let queue = Queue::default();
        (0..4).for_each(|_| queue.push(big()));
        let (done, told) = bounded(9);
        let push =
            |texts: &[&str]| queue.push_all(texts.iter().map(|text| line(text)).collect(), done.clone());
        queue.push(line("no room"));
        let lost = push(&["a", "b"]);
        queue.push(line("no room"));
        let stays = push(&["c", "d"]);
        queue.push(line("no room"));
        queue.settle(lost);
        let _ = queue.next();
        queue.written();
        // Now there is room for it, and for others behind it.
        queue.settle(stays);
        queue.push(line("e"));
        assert!(told.is_empty());
        // The marks of both blocks are still where they were.
        assert_eq!(lines_left(&queue), ["xxx", "xxx", "xxx", "lost 3", "lost 1", "c", "d", "lost 1", "e"]);
        assert_eq!(told.try_iter().count(), 2);
    }

    #[test]
    fn a_block_that_had_room_is_not_lost_to_one_that_has_none() {
        let queue = Queue::default();
        let (done, _told) = bounded(9);
        (0..3).for_each(|_| queue.push(big()));
        let fits = queue.push_all(vec![big(), line("a")], done.clone());
        let trial = queue.push_all(vec![big(), big(), big(), big(), line("b")], done);
        queue.settle(fits);
        queue.settle(trial);
        assert_eq!(lines_left(&queue), ["xxx", "xxx", "xxx", "xxx", "a", "lost 5"]);
    }

    #[test]
    fn a_block_that_is_withdrawn_leaves_its_room_and_the_line_that_is_being_written() {
        let queue = Queue::default();
        let (done, _told) = bounded(9);
        let push = |lines: Vec<Line>| queue.push_all(lines, done.clone());
        let first = push(vec![line("1"), line("2"), line("3")]);
        queue.push(line("own"));
        let second = push(vec![big(), big(), big(), big(), line("4")]);
        queue.push(line("no room"));
        // The first line is written, the second is being written.
        let _ = queue.next();
        queue.written();
        let Next::Line(_) = queue.next() else { panic!("expected a line") };
        queue.withdraw(first);
        queue.withdraw(second);
        queue.withdraw(second);
        (0..4).for_each(|_| queue.push(big()));
        queue.push(line("no room"));
        assert_eq!(lines_left(&queue), ["2", "own", "lost 1", "xxx", "xxx", "xxx", "xxx", "lost 1"]);
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
            assert!(pausing.join().unwrap(), "the attempt began before the end");
        });
        let Next::Line(_) = queue.next() else { panic!("expected a line") };
        assert!(!queue.failed(Duration::from_secs(600)));
    }

    #[test]
    fn who_asks_during_an_attempt_that_fails_is_owed_another_one() {
        let queue = Queue::default();
        queue.push(line("1"));
        let Next::Line(_) = queue.next() else { panic!("expected a line") };
        let (done, told) = bounded(1);
        queue.mark(done);
        // Without a pause, and without the bad news.
        assert!(queue.failed(Duration::from_secs(600)));
        let Next::Line(_) = queue.next() else { panic!("expected a line") };
        queue.written();
        queue.end();
        let Next::End = queue.next() else { panic!("expected the end") };
        told.try_recv().unwrap();
    }
}
