//! Watches for threads that are stuck: in one activity for far longer than its limit, or in a deadlock.
//!
//! Limits are kept by what has them, so one that is passed by far means that something does not do its part:
//! a driver that ignores its deadline, a disk that hangs, a lock that nobody releases. One thread looks every
//! few seconds and reports each such activity once, and once more if it ends after all. Threads that wait for each
//! other's locks are stuck whether they are in such an activity or not, and nothing ever ends that.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::io;
use std::time::{Duration, Instant};

use crate::locks::{Cycle, deadlocks, locks};
use crate::registry::{Doing, Limited, Thread, limited_activities, spawn};
use crate::stop::StopSource;

/// How often it looks.
const INTERVAL: Duration = Duration::from_secs(2);

/// How far past its limit an activity is reported: twice as long as it should take, but at least the least of
/// these, because a loaded machine or a slow disk may take that; and at most the most, because what passes
/// an hour's limit by a minute has not been ended by it.
#[derive(Debug, Clone, Copy)]
struct Tolerance {
    least: Duration,
    most: Duration,
}

const TOLERANCE: Tolerance = Tolerance { least: Duration::from_secs(10), most: Duration::from_secs(60) };

impl Tolerance {
    fn deadline(self, limit: Duration) -> Duration {
        limit.saturating_add(limit.clamp(self.least, self.most))
    }
}

/// A thread that is stuck, or was.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Overdue {
    /// The kernel's thread id.
    pub thread: u32,
    /// The thread's name.
    pub name: String,
    /// What it is doing.
    pub activity: String,
    /// How long that should take at most.
    pub limit: Duration,
    /// For how long it has been doing it.
    pub since: Duration,
}

/// What the watchdog has to say.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Report {
    /// A thread is stuck. Said once for each activity.
    Stuck(Overdue),
    /// The activity has ended after all, up to a few seconds ago, or its thread has.
    WentOn(Overdue),
    /// Threads wait for each other's locks. Said once for each of such cycles.
    Deadlock(Cycle),
}

impl Report {
    /// The threads that are stuck by now, by their ids.
    pub fn stuck(&self) -> Vec<u32> {
        match self {
            Self::Stuck(overdue) => vec![overdue.thread],
            Self::WentOn(_) => Vec::new(),
            Self::Deadlock(cycle) => cycle.links.iter().map(|link| link.holder.thread).collect(),
        }
    }

    /// Whether it is about a thread of this name, perhaps besides others.
    pub fn is_about(&self, name: &str) -> bool {
        match self {
            Self::Stuck(overdue) | Self::WentOn(overdue) => overdue.name == name,
            Self::Deadlock(cycle) => cycle.links.iter().any(|link| link.holder.name == name),
        }
    }
}

/// The running watchdog. Dropping it ends its thread, and waits for a report that is being made.
#[derive(Debug)]
pub struct Watchdog {
    // Dropped in this order: the thread is told to end, and then waited for.
    _stop: StopSource,
    _thread: Thread<()>,
}

impl Watchdog {
    /// Begins to watch. `report` is called on the watchdog's thread, which does not look meanwhile.
    pub fn start(report: impl FnMut(Report) + Send + 'static) -> io::Result<Self> {
        Self::start_with(INTERVAL, TOLERANCE, report)
    }

    fn start_with(
        interval: Duration,
        tolerance: Tolerance,
        mut report: impl FnMut(Report) + Send + 'static,
    ) -> io::Result<Self> {
        let stop = StopSource::new();
        let token = stop.token();
        let thread = spawn("watchdog", "watchdog", move || {
            let mut watch = Watch::new(interval, tolerance, Instant::now());
            let mut told = Told::default();
            while token.wait(interval).is_ok() {
                // What cannot be read now can be the next time.
                if let Some(limited) = limited_activities() {
                    watch.look(Instant::now(), limited).into_iter().for_each(&mut report);
                }
                told.those_that_are_new(deadlocks(&locks()))
                    .into_iter()
                    .map(Report::Deadlock)
                    .for_each(&mut report);
            }
        })?;
        Ok(Self { _stop: stop, _thread: thread })
    }
}

/// The deadlocks that were told of: in each thread the lock that it holds. They stay, as a deadlock does, even if
/// one reading of the locks has missed it.
#[derive(Default)]
struct Told(BTreeSet<Vec<(u32, u64)>>);

impl Told {
    fn those_that_are_new(&mut self, mut cycles: Vec<Cycle>) -> Vec<Cycle> {
        cycles.retain(|cycle| {
            self.0.insert(cycle.links.iter().map(|link| (link.holder.thread, link.lock.number)).collect())
        });
        cycles
    }
}

/// What the watchdog knows from one look to the next.
struct Watch {
    interval: Duration,
    tolerance: Tolerance,
    last_look: Instant,
    /// The activities with a limit, by their numbers.
    known: BTreeMap<u64, Known>,
}

struct Known {
    thread: u32,
    /// How long the watchdog has seen it. A process that is stopped for an hour is not stuck, and then the
    /// watchdog has not looked either.
    seen: Duration,
    since: Instant,
    reported: Option<Overdue>,
}

impl Watch {
    fn new(interval: Duration, tolerance: Tolerance, now: Instant) -> Self {
        Self { interval, tolerance, last_look: now, known: BTreeMap::new() }
    }

    fn look(&mut self, now: Instant, limited: Limited) -> Vec<Report> {
        let longest = 2 * self.interval;
        let passed = now.saturating_duration_since(self.last_look).min(longest);
        self.last_look = now;
        let mut before = std::mem::take(&mut self.known);
        let mut reports = Vec::new();
        for (thread, name, Doing { number, what, since, limit }) in limited.activities {
            let Some(limit) = limit else { continue };
            let age = now.saturating_duration_since(since);
            let mut known = before.remove(&number).unwrap_or(Known {
                thread,
                seen: Duration::ZERO,
                since,
                reported: None,
            });
            known.seen += age.min(passed);
            if known.reported.is_none() && known.seen > self.tolerance.deadline(limit) {
                let overdue = Overdue { thread, name, activity: what.into_owned(), limit, since: age };
                reports.push(Report::Stuck(overdue.clone()));
                known.reported = Some(overdue);
            }
            self.known.insert(number, known);
        }
        // Of a thread that does not let it be read nothing is known to have ended.
        let (unread, ended): (BTreeMap<_, _>, BTreeMap<_, _>) =
            before.into_iter().partition(|(_, known)| limited.unread.contains(&known.thread));
        self.known.extend(unread);
        reports.extend(ended.into_values().filter_map(|ended| {
            let since = now.saturating_duration_since(ended.since);
            ended.reported.map(|overdue| Report::WentOn(Overdue { since, ..overdue }))
        }));
        reports
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let overdue = match self {
            Self::Stuck(overdue) | Self::WentOn(overdue) => overdue,
            Self::Deadlock(cycle) => return cycle.fmt(f),
        };
        let Overdue { thread, name, activity, limit, since } = overdue;
        let (limit, since) = (limit.as_secs_f64(), since.as_secs_f64());
        if matches!(self, Self::Stuck(_)) {
            write!(
                f,
                "the thread {name} ({thread}) is stuck: {activity} for {since:.1} s, expected to take {limit:.1} s at most"
            )
        } else {
            write!(f, "the thread {name} ({thread}) went on after {since:.1} s: {activity}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::locks::{Link, LockId, LockUser, Mutex};
    use crate::registry::{activity, activity_within};
    use crossbeam_channel::{RecvTimeoutError, bounded};
    use std::borrow::Cow;

    const SOON: Duration = Duration::from_secs(20);
    const SECOND: Duration = Duration::from_secs(1);

    fn doing(number: u64, what: &'static str, since: Instant, limit: u32) -> (u32, String, Doing) {
        let limit = Some(limit * SECOND);
        (7, "worker".to_owned(), Doing { number, what: Cow::Borrowed(what), since, limit })
    }

    fn read(activities: Vec<(u32, String, Doing)>) -> Limited {
        Limited { activities, unread: Vec::new() }
    }

    fn overdue(activity: &str, limit: u32, since: u32) -> Overdue {
        let (thread, name) = (7, "worker".to_owned());
        Overdue { thread, name, activity: activity.to_owned(), limit: limit * SECOND, since: since * SECOND }
    }

    /// Looks every two seconds from the start of the activities on, and returns what is said when.
    fn watched(seconds: u32, limits: &[(u64, &'static str, u32)]) -> Vec<(u32, Report)> {
        let begin = Instant::now();
        let mut watch = Watch::new(INTERVAL, TOLERANCE, begin);
        let mut said = Vec::new();
        for at in (2..=seconds).step_by(2) {
            let all =
                limits.iter().map(|(number, what, limit)| doing(*number, what, begin, *limit)).collect();
            said.extend(watch.look(begin + at * SECOND, read(all)).into_iter().map(|report| (at, report)));
        }
        let end = seconds + 2;
        said.extend(
            watch.look(begin + end * SECOND, read(Vec::new())).into_iter().map(|report| (end, report)),
        );
        said
    }

    #[test]
    fn an_activity_is_reported_once_when_it_is_far_past_its_limit_and_once_when_it_ends() {
        for (limit, reported) in [(1, 12), (10, 22), (30, 62), (600, 662)] {
            let said = watched(reported + 100, &[(1, "building", limit)]);
            let expected = [
                (reported, Report::Stuck(overdue("building", limit, reported))),
                (reported + 102, Report::WentOn(overdue("building", limit, reported + 102))),
            ];
            assert_eq!(said, expected);
            assert_eq!(watched(reported - 2, &[(1, "building", limit)]), []);
        }
    }

    #[test]
    fn each_activity_of_a_thread_is_watched_by_itself() {
        let said = watched(40, &[(1, "building", 20), (2, "asking", 10), (3, "writing", 100)]);
        let stuck = |activity, limit, at| (at, Report::Stuck(overdue(activity, limit, at)));
        let went_on = |activity, limit| (42, Report::WentOn(overdue(activity, limit, 42)));
        let expected = [stuck("asking", 10, 22), went_on("asking", 10)];
        assert_eq!(said, expected);
        let said = watched(42, &[(1, "building", 20), (2, "asking", 10)]);
        assert_eq!(said[..2], [stuck("asking", 10, 22), stuck("building", 20, 42)]);
    }

    #[test]
    fn a_process_that_was_stopped_has_no_stuck_threads() {
        let begin = Instant::now();
        let mut watch = Watch::new(INTERVAL, TOLERANCE, begin);
        let at = |watch: &mut Watch, second: u32| {
            watch.look(begin + second * SECOND, read(vec![doing(1, "asking", begin, 1)]))
        };
        assert_eq!(at(&mut watch, 2), []);
        assert_eq!(at(&mut watch, 3600), [], "an hour passed, and the thread had four seconds of it");
        assert_eq!(at(&mut watch, 3602), []);
        assert_eq!(at(&mut watch, 3604), []);
        assert_eq!(at(&mut watch, 3606), [Report::Stuck(overdue("asking", 1, 3606))]);
    }

    #[test]
    fn an_activity_has_not_ended_because_it_could_not_be_read() {
        let begin = Instant::now();
        let mut watch = Watch::new(INTERVAL, TOLERANCE, begin);
        let mut at = |second: u32, limited| watch.look(begin + second * SECOND, limited);
        let readable = || read(vec![doing(1, "asking", begin, 1)]);
        let unreadable = || Limited { activities: Vec::new(), unread: vec![7] };
        for second in (2..=10).step_by(2) {
            assert_eq!(at(second, readable()), []);
        }
        assert_eq!(at(12, unreadable()), [], "it is not reported as long as it cannot be read");
        assert_eq!(at(14, readable()), [Report::Stuck(overdue("asking", 1, 14))]);
        assert_eq!(at(16, unreadable()), []);
        assert_eq!(at(18, readable()), [], "it was reported already");
        let end = Report::WentOn(overdue("asking", 1, 20));
        assert_eq!(at(20, Limited { activities: Vec::new(), unread: vec![8] }), [end]);
    }

    #[test]
    fn a_thread_that_is_stuck_is_told_of_until_it_goes_on() {
        let (say, said) = bounded(16);
        let tolerance = Tolerance { least: Duration::from_millis(20), most: Duration::from_millis(40) };
        let interval = Duration::from_millis(2);
        let of_ours = |report: &Report| report.is_about("watched");
        let watchdog = Watchdog::start_with(interval, tolerance, move |report| {
            if of_ours(&report) {
                say.send(report).unwrap();
            }
        });
        let (go_on, wait) = bounded::<()>(0);
        let (tell, id) = bounded(1);
        let thread = spawn("watched", "tester", move || {
            tell.send(crate::locks::thread_id()).unwrap();
            let _not_watched = activity("working");
            let _in_time = activity_within(SOON, "building");
            let _stuck = activity_within(Duration::from_millis(1), "asking");
            let _ = wait.recv();
        });
        let id = id.recv_timeout(SOON).unwrap();
        let first = said.recv_timeout(SOON);
        let again = said.recv_timeout(50 * interval);
        drop(go_on);
        let last = said.recv_timeout(SOON);
        thread.unwrap().join().unwrap();
        let Ok(Report::Stuck(stuck)) = first else { panic!("{first:?}") };
        assert_eq!((stuck.thread, stuck.activity.as_str()), (id, "asking"));
        assert!(stuck.since >= Duration::from_millis(21), "{stuck:?}");
        assert_eq!(again, Err(RecvTimeoutError::Timeout), "once in fifty looks");
        let Ok(Report::WentOn(went_on)) = &last else { panic!("{last:?}") };
        assert!(went_on.since > stuck.since);
        assert_eq!((went_on.thread, went_on.activity.as_str()), (id, "asking"));
        let text = last.as_ref().unwrap().to_string();
        assert!(text.starts_with(&format!("the thread watched ({id}) went on after 0.")), "{text}");
        drop(watchdog);
        assert_eq!(said.recv_timeout(SOON), Err(RecvTimeoutError::Disconnected), "it has ended");
    }

    #[test]
    fn a_deadlock_of_threads_without_any_limit_is_reported_once() {
        static ONE: Mutex<()> = Mutex::new("one of a deadlock", ());
        static TWO: Mutex<()> = Mutex::new("two of a deadlock", ());
        static BOTH: std::sync::Barrier = std::sync::Barrier::new(2);
        fn take(first: &Mutex<()>, second: &Mutex<()>) {
            let _first = first.lock();
            BOTH.wait();
            let _second = second.lock();
        }
        let (say, said) = bounded(16);
        let interval = Duration::from_millis(2);
        let watchdog = Watchdog::start_with(interval, TOLERANCE, move |report| {
            if report.is_about("deadlock-1") {
                say.send(report).unwrap();
            }
        });
        // Nothing ever ends them.
        std::mem::forget([
            spawn("deadlock-1", "tester", || take(&ONE, &TWO)).unwrap(),
            spawn("deadlock-2", "tester", || take(&TWO, &ONE)).unwrap(),
        ]);
        let first = said.recv_timeout(SOON).unwrap();
        assert_eq!(said.recv_timeout(50 * interval), Err(RecvTimeoutError::Timeout), "once in fifty looks");
        assert_eq!(first.stuck().len(), 2);
        let text = first.to_string();
        for part in
            ["DEADLOCK: ", "deadlock-1", "deadlock-2", "\"one of a deadlock\"", "\"two of a deadlock\""]
        {
            assert!(text.contains(part), "{text}");
        }
        drop(watchdog);
    }

    #[test]
    fn each_deadlock_is_told_of_once_even_if_a_look_has_missed_it() {
        let user = |thread| LockUser {
            thread,
            name: "worker".to_owned(),
            since: SECOND,
            place: std::panic::Location::caller(),
            gives_up: false,
        };
        let cycle = |numbers: &[u32]| {
            let link = |number: &u32| {
                let lock = LockId { name: "lock", number: (*number).into() };
                Link { lock, holder: user(*number), waiter: user(*number) }
            };
            Cycle { links: numbers.iter().map(link).collect() }
        };
        let mut told = Told::default();
        assert_eq!(told.those_that_are_new(vec![cycle(&[1, 2])]), [cycle(&[1, 2])]);
        assert_eq!(told.those_that_are_new(Vec::new()), []);
        assert_eq!(told.those_that_are_new(vec![cycle(&[1, 2]), cycle(&[3, 4, 5])]), [cycle(&[3, 4, 5])]);
        assert_eq!(told.those_that_are_new(vec![cycle(&[1, 2]), cycle(&[3, 4, 5])]), []);
    }
}
