//! A process with 200 busy threads that is sent SIGUSR2 again and again: first 2000 times as fast as can be,
//! then each time when the dump of the one before is there. No system call may be disturbed, and hardly a stack
//! missing.
//!
//! Without options it does so twice: with threads all of which are runnable all the time, so that each has to
//! be asked for its stack, and with threads that work in many ways but rest in between.
//!
//! `scripts/measure-dump` runs the release build of it for what it prints: `--dumps N` are those that are
//! waited for, `--threads N`, `--runnable` for threads that never rest, `--idle` for threads that only wait, and
//! `--longest-pause N` the microseconds that a dump may hold up a thread, which nobody asks of a test.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::type_complexity,
    reason = "this is a test, although it has its own main"
)]

mod calls;

use std::collections::{BTreeMap, VecDeque};
use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::os::unix::net::UnixStream;
use std::panic::{catch_unwind, resume_unwind};
use std::process::Command;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use nodepool_threads::{SignalThread, StackDumper, StopSignals, ThreadStack, block_signals, spawn};
use rustix::process::{Signal, getpid, kill_process, nice};
use rustix::time::{ClockId, clock_gettime};

use calls::{DISTURBED, SITTING, sit, wait_for_input};

/// How often a short wait of a thread was interrupted that waits again and again. It is never asked for its
/// stack, unless it seems to have computed for two milliseconds since it last waited: the host of a virtual
/// machine may have taken the processor away for so long. If it begins to wait just then, that is interrupted.
static INTERRUPTED: AtomicU64 = AtomicU64::new(0);
/// What threads are named after that never rest.
const RUNNABLE: [&str; 3] = ["always-computes", "always-panics", "always-recurses"];
/// How often a system call was interrupted that the kernel begins anew after a signal, which none may see.
static NOT_RESTARTED: AtomicU64 = AtomicU64::new(0);
/// The longest time in nanoseconds that a spinning thread has missed, on the clock and of its own CPU time.
static GAP: AtomicU64 = AtomicU64::new(0);
static CPU_GAP: AtomicU64 = AtomicU64::new(0);

/// So many of ten dumps have to keep to the longest pause of a thread's own CPU time.
///
/// What the host of a virtual machine takes away counts as the thread's own time, too, so the longest pause of all is
/// a matter of luck. But a dump does the same to a thread each time, and a pause that it causes is there in almost
/// all of them; the host takes its part without a dump as well, for which the same is measured for as long after
/// each dump as that took. Where that is more, twice as much is the limit.
const OF_TEN: usize = 9;

/// After so long a thread that never rests lets the others run.
const TURN: Duration = Duration::from_micros(200);

/// How long a dump may take on a busy machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// As many signals are sent without waiting for anything.
const BURST: usize = 2000;

/// How much a busy thread has done.
type Rounds = &'static AtomicU64;

fn in_background(name: String, run: impl FnOnce() + Send + 'static) {
    std::mem::forget(spawn(name, "load", run).expect("there is room for a thread"));
}

fn recurse(depth: u32) -> u64 {
    let here = black_box([u64::from(depth); 16]);
    let below = if depth == 0 { 0 } else { recurse(depth - 1) };
    here.iter().sum::<u64>().wrapping_add(below)
}

/// Busy threads, in as many ways. The first two never rest; the others do so often enough that all of them
/// together need one processor more, however many there are.
fn work(threads: usize) -> Vec<Rounds> {
    talk();
    let rest = Duration::from_millis(threads as u64);
    let ways: [(&str, fn(u64)); 6] = [
        ("computes", |round| {
            _ = black_box((0..1000 + round % 7).fold(0_u64, |sum, one| sum.rotate_left(3) ^ one));
        }),
        ("allocates", |round| _ = black_box(vec![1_u8; 1000 + (round as usize * 977) % 100_000])),
        ("panics", |round| drop(catch_unwind(|| resume_unwind(Box::new(recurse((round % 50) as u32)))))),
        ("recurses", |round| _ = black_box(recurse((round % 200) as u32))),
        ("reads", |_| _ = black_box(std::fs::read_to_string("/proc/self/limits"))),
        ("waits-a-little", |_| {
            let (socket, _keep) = UnixStream::pair().expect("a socket pair");
            if wait_for_input(&socket, Duration::from_micros(200)).is_err() {
                INTERRUPTED.fetch_add(1, Ordering::Relaxed);
            }
        }),
    ];
    let workers = ways.into_iter().cycle().take(threads).enumerate();
    let start = |(index, (name, way)): (usize, (&str, fn(u64)))| {
        let rounds: Rounds = Box::leak(Box::default());
        in_background(format!("{name}-{index}"), move || {
            let mut begin = Instant::now();
            for round in 0.. {
                way(round);
                rounds.store(round + 1, Ordering::Relaxed);
                if index >= 2 && begin.elapsed() > Duration::from_millis(1) {
                    std::thread::park_timeout(rest);
                    begin = Instant::now();
                }
            }
        });
        rounds
    };
    workers.map(start).collect()
}

/// Two threads that wait for each other's words without a limit.
fn talk() {
    let (here, there) = UnixStream::pair().expect("a socket pair");
    rustix::io::write(&here, &[0]).expect("it takes one byte");
    for (name, socket) in [("asks", here), ("answers", there)] {
        in_background(name.to_owned(), move || {
            loop {
                match rustix::io::read(&socket, &mut [0]) {
                    Err(rustix::io::Errno::INTR) => _ = NOT_RESTARTED.fetch_add(1, Ordering::Relaxed),
                    read => assert_eq!(read, Ok(1), "the other one lives"),
                }
                std::thread::park_timeout(Duration::from_millis(1));
                rustix::io::write(&socket, &[0]).expect("it takes one byte");
            }
        });
    }
}

/// Threads that are runnable all the time. They take short turns, so that few processors carry many of them, and
/// weigh a tenth of the thread that dumps, or else the test would take minutes: a two hundredth of the processors
/// is little for reading the debug information.
fn work_without_rest(threads: usize) -> Vec<Rounds> {
    let ways: [(&str, fn(u64)); 3] = [
        (RUNNABLE[0], |round| {
            _ = black_box((0..1000 + round % 7).fold(0_u64, |sum, one| sum.rotate_left(3) ^ one));
        }),
        (RUNNABLE[1], |round| drop(catch_unwind(|| resume_unwind(Box::new(recurse((round % 50) as u32)))))),
        (RUNNABLE[2], |round| _ = black_box(recurse((round % 200) as u32))),
    ];
    let workers = ways.into_iter().cycle().take(threads).enumerate();
    let start = |(index, (name, way)): (usize, (&str, fn(u64)))| {
        let rounds: Rounds = Box::leak(Box::default());
        in_background(format!("{name}-{index}"), move || {
            // Of this thread alone (sched(7)).
            nice(10).expect("everybody may be nicer");
            let mut begin = Instant::now();
            for round in 0.. {
                way(round);
                rounds.store(round + 1, Ordering::Relaxed);
                if begin.elapsed() > TURN {
                    std::thread::yield_now();
                    begin = Instant::now();
                }
            }
        });
        rounds
    };
    workers.map(start).collect()
}

/// Waits until each of the busy threads has done something once more.
fn wait_for_work_of_all(rounds: &[Rounds]) {
    let deadline = Instant::now() + PATIENCE;
    let before: Vec<_> = rounds.iter().map(|rounds| rounds.load(Ordering::Relaxed)).collect();
    let rests =
        || rounds.iter().zip(&before).filter(|(now, before)| now.load(Ordering::Relaxed) == **before).count();
    while rests() > 0 {
        assert!(Instant::now() < deadline, "{} threads do nothing any more", rests());
        std::thread::park_timeout(Duration::from_millis(5));
    }
}

/// A thread that does nothing but look at the clock and ask for memory.
fn watch_the_clock() {
    in_background("clock".to_owned(), || {
        let cpu = || {
            let now = clock_gettime(ClockId::ThreadCPUTime);
            Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
        };
        let (mut last, mut last_cpu) = (Instant::now(), cpu());
        let mut blocks = VecDeque::new();
        for round in 0_usize.. {
            blocks.push_back(vec![1_u8; 16 + round * 977 % 5000]);
            if blocks.len() > 500 {
                blocks.pop_front();
            }
            let (now, now_cpu) = (Instant::now(), cpu());
            GAP.fetch_max((now - last).as_nanos() as u64, Ordering::Relaxed);
            CPU_GAP.fetch_max((now_cpu - last_cpu).as_nanos() as u64, Ordering::Relaxed);
            (last, last_cpu) = (now, now_cpu);
        }
    });
}

fn idle(threads: usize) -> Vec<Rounds> {
    for index in 0..threads {
        in_background(format!("idle-{index}"), || {
            loop {
                std::thread::park();
            }
        });
    }
    Vec::new()
}

/// The memory in use, and the most that ever was, in megabytes.
fn memory() -> (f64, f64) {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name));
        line.and_then(|line| line.trim_end_matches("kB").trim().parse::<f64>().ok()).unwrap_or_default()
            / 1024.0
    };
    (field("VmRSS:"), field("VmHWM:"))
}

/// The longest gaps since the last call, in microseconds: on the clock, and of CPU time.
fn gaps() -> [f64; 2] {
    [&GAP, &CPU_GAP].map(|gap| gap.swap(0, Ordering::Relaxed) as f64 / 1000.0)
}

/// What [`OF_TEN`] of ten gaps of own CPU time keep to.
fn longest_of_most(gaps: &[[f64; 2]]) -> f64 {
    let mut all: Vec<f64> = gaps.iter().map(|[_, cpu]| *cpu).collect();
    all.sort_by(f64::total_cmp);
    all.get((all.len() * OF_TEN).div_ceil(10).saturating_sub(1)).copied().unwrap_or_default()
}

/// What is typical of the gaps, and what was the worst.
fn summary(gaps: &[[f64; 2]]) -> String {
    let [clock, cpu] = [0, 1].map(|kind| {
        let mut all: Vec<f64> = gaps.iter().map(|gap| gap[kind]).collect();
        all.sort_by(f64::total_cmp);
        format!("median {:.0} µs, longest {:.0} µs", all[all.len() / 2], all[all.len() - 1])
    });
    format!(
        "{clock} on the clock; {cpu} of its own CPU time ({OF_TEN} of ten below {:.0} µs)",
        longest_of_most(gaps)
    )
}

fn option(name: &str) -> Option<usize> {
    std::env::args().skip_while(|argument| argument != name).nth(1).and_then(|value| value.parse().ok())
}

/// What all dumps together have shown.
#[derive(Default)]
struct Figures {
    times: Vec<Duration>,
    stacks: usize,
    whole: usize,
    /// The stacks of threads that never rest that came from their own answers: such a thread runs.
    answers: usize,
    /// How many stacks had which note.
    notes: BTreeMap<String, usize>,
    /// The bytes of the last dump.
    output: usize,
    /// When that began.
    newest: Option<Instant>,
}

impl Figures {
    fn add(&mut self, Dump { begin, time, stacks }: &Dump, threads: usize) {
        // Beside them: main, signals, dumper, and those that sit.
        assert!(stacks.len() >= threads + 3 + SITTING, "a thread is missing: {}", stacks.len());
        self.newest = Some(*begin);
        self.times.push(*time);
        self.stacks += stacks.len();
        self.output = stacks.iter().map(|stack| stack.to_string().len() + 1).sum();
        for stack in stacks {
            let never_rests = RUNNABLE.iter().any(|name| stack.name.starts_with(name));
            self.answers += usize::from(never_rests && stack.state == 'R' && !stack.frames.is_empty());
            match &stack.note {
                None => self.whole += 1,
                Some(note) if note.ends_with("is a guess") => {
                    *self.notes.entry("a part is a guess".to_owned()).or_default() += 1;
                }
                Some(note) => *self.notes.entry(note.clone()).or_default() += 1,
            }
        }
    }

    fn print(&self) {
        let mut times = self.times.clone();
        times.sort_unstable();
        println!("{} dumps of {} threads:", times.len(), self.stacks / times.len());
        let (median, longest) = (times[times.len() / 2], times[times.len() - 1]);
        println!("  time      first {:.1?}, median {median:.1?}, longest {longest:.1?}", self.times[0]);
        println!("  stacks    {}, of which {} whole and certain; {:?}", self.stacks, self.whole, self.notes);
        if self.answers > 0 {
            println!("  answers   {} of threads that never rest", self.answers);
        }
        println!("  output    {} KB for one dump", self.output / 1024);
    }
}

/// What one dump has shown.
struct Dump {
    begin: Instant,
    time: Duration,
    stacks: Vec<ThreadStack>,
}

/// What the thread that dumps is asked for.
#[derive(PartialEq, Eq)]
enum Wanted {
    Dump,
    MemoryBack,
}

/// The thread that dumps whenever SIGUSR2 comes.
struct Dumps {
    ask: Sender<Wanted>,
    /// Readable after each dump, and when the memory has been given back.
    done: UnixStream,
    dumped: Receiver<Dump>,
}

impl Dumps {
    fn start(mut dumper: StackDumper) -> Self {
        let (tell, dumped) = channel();
        let (ask, asked) = channel();
        let (done, mut tell_done) = UnixStream::pair().expect("a socket pair");
        block_signals(StopSignals::Usual).expect("signals can be blocked");
        let on_signal = ask.clone();
        let on_signal = move || on_signal.send(Wanted::Dump).expect("the dumper waits for it");
        let (signal_thread, _) =
            SignalThread::start(StopSignals::Usual, on_signal, || ()).expect("signals can be taken");
        in_background("dumper".to_owned(), move || {
            let _signal_thread = signal_thread;
            for mut wanted in &asked {
                // As a daemon does: one dump for all who have asked until now.
                while let Some(more) = asked.try_recv().ok().filter(|_| wanted == Wanted::Dump) {
                    wanted = more;
                }
                if wanted == Wanted::Dump {
                    let begin = Instant::now();
                    let stacks = dumper.dump();
                    tell.send(Dump { begin, time: begin.elapsed(), stacks }).expect("main waits for it");
                } else {
                    dumper.give_memory_back();
                }
                tell_done.write_all(&[0]).expect("main reads it");
            }
        });
        Self { ask, done, dumped }
    }

    /// The next dump. The wait for it must not be disturbed either.
    fn next(&mut self) -> Dump {
        match wait_for_input(&self.done, PATIENCE) {
            Err(rustix::io::Errno::INTR) => _ = DISTURBED.fetch_add(1, Ordering::Relaxed),
            ready => assert_eq!(ready, Ok(1), "a signal has led to no dump"),
        }
        self.done.read_exact(&mut [0]).expect("the dumper is alive");
        self.dumped.try_recv().expect("it says so after a dump")
    }

    fn give_memory_back(&mut self) {
        self.ask.send(Wanted::MemoryBack).expect("the dumper waits for it");
        self.done.read_exact(&mut [0]).expect("the dumper is alive");
    }
}

/// Sends the signal from another thread as soon as the main thread waits: the kernel would give it to that
/// one.
fn signal_soon() {
    in_background("signaller".to_owned(), || {
        let waits = || std::fs::read_to_string("/proc/self/stat").is_ok_and(|stat| stat.contains(") S "));
        while !waits() {
            std::thread::yield_now();
        }
        signal_now();
    });
}

fn signal_now() {
    kill_process(getpid(), Signal::USR2).expect("a process can be signalled");
}

/// Adds the dumps until one has begun after `sent`: that one answers what was sent before.
fn add_until_answered(figures: &mut Figures, dumps: &mut Dumps, sent: Instant, threads: usize) {
    while figures.newest.is_none_or(|newest| newest < sent) {
        figures.add(&dumps.next(), threads);
    }
}

/// The same in a process of its own, with threads that are runnable all the time.
fn run_with_runnable_threads() {
    let program = std::env::current_exe().expect("the program has a path");
    let ended = Command::new(program).args(["--runnable", "--dumps", "5"]).status();
    assert!(ended.expect("the program can be run").success(), "see above");
}

fn main() {
    if std::env::args().len() == 1 {
        run_with_runnable_threads();
    }
    nodepool_threads::give_memory_back();
    let (count, threads) = (option("--dumps").unwrap_or(10), option("--threads").unwrap_or(200));
    let before = memory().0;
    let dumper = StackDumper::new().expect("stacks can be dumped");
    let prepared = memory().0;
    // Before all other threads, as in a daemon.
    let mut dumps = Dumps::start(dumper);
    sit();
    let is_asked_for = |name: &str| std::env::args().any(|argument| argument == name);
    let (quiet, runnable) = (is_asked_for("--idle"), is_asked_for("--runnable"));
    let rounds = match (quiet, runnable) {
        (true, _) => idle(threads),
        (_, true) => work_without_rest(threads),
        _ => work(threads),
    };
    watch_the_clock();

    let mut figures = Figures::default();
    let begin = Instant::now();
    (1..BURST).for_each(|_| signal_now());
    let (took, last) = (begin.elapsed(), Instant::now());
    signal_now();
    add_until_answered(&mut figures, &mut dumps, last, threads);
    println!(
        "{BURST} signals within {took:.1?}: {} dumps, the last after {:.1?}",
        figures.times.len(),
        last.elapsed()
    );

    let (mut gaps_without, mut gaps_with, mut gaps_after) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..count {
        gaps();
        let sent = Instant::now();
        signal_soon();
        add_until_answered(&mut figures, &mut dumps, sent, threads);
        gaps_with.push(gaps());
        let until = Instant::now() + sent.elapsed();
        while let Some(left) = until.checked_duration_since(Instant::now()).filter(|left| !left.is_zero()) {
            std::thread::park_timeout(left);
        }
        gaps_without.push(gaps());
        if quiet {
            dumps.give_memory_back();
            gaps_after.push(gaps());
        }
    }
    wait_for_work_of_all(&rounds);
    dumps.give_memory_back();

    figures.print();
    let (after, most) = memory();
    println!(
        "  memory    {before:.1} MB, {prepared:.1} with the dumper, {after:.1} after the dumps; {most:.1} at most"
    );
    let [disturbed, interrupted] = [&DISTURBED, &INTERRUPTED].map(|count| count.load(Ordering::Relaxed));
    println!("  calls     {disturbed} disturbed of those that threads sit in,");
    println!("            {interrupted} interrupted of those that wait for 200 µs again and again");
    println!(
        "  longest pause of a thread that allocates, for as long as a dump takes but without one, during one, and"
    );
    println!("  (idle) while its memory is given back:");
    for (when, gaps) in [("without", &gaps_without), ("with   ", &gaps_with), ("after  ", &gaps_after)] {
        if !gaps.is_empty() {
            println!("    {when} {}", summary(gaps));
        }
    }
    assert_eq!(disturbed, 0, "a system call was disturbed");
    assert_eq!(NOT_RESTARTED.load(Ordering::Relaxed), 0, "a system call was not begun anew after a signal");
    let made = figures.times.len() as u64;
    assert!(interrupted * 20 <= made, "threads that wait were asked: {interrupted} interrupted");
    if let Some(limit) = option("--longest-pause") {
        let limit = (limit as f64).max(2.0 * longest_of_most(&gaps_without));
        assert!(longest_of_most(&gaps_with) < limit, "a thread was held up: {}", summary(&gaps_with));
    }
    let all = figures.times.len() * threads;
    assert!(!runnable || figures.answers * 100 >= all * 80, "{} of {all} were asked", figures.answers);
    let known = figures.whole + figures.notes.get("a part is a guess").copied().unwrap_or_default();
    assert!(known * 100 >= figures.stacks * 98, "too many stacks are not whole: {:?}", figures.notes);
}
