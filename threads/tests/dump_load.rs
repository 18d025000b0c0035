//! A process under load that is sent SIGUSR2 again and again, and dumps all its stacks each time.
//!
//! As a test it is small. `scripts/measure-dump` runs the release build of it with more of everything and
//! reads what it prints: `--dumps N --threads N`, and `--idle` for threads that only wait.

#![allow(
    clippy::expect_used,
    clippy::print_stdout,
    clippy::type_complexity,
    reason = "this is a test, although it has its own main"
)]

use std::collections::BTreeMap;
use std::hint::black_box;
use std::io::{Read as _, Write as _};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::panic::{catch_unwind, resume_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use nodepool_threads::{SignalThread, StackDumper, ThreadStack, block_signals, spawn};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{getpid, kill_process};
use rustix::time::{ClockId, clock_gettime};

/// How often a system call of a thread that sits in it has ended, which none may.
static DISTURBED: AtomicU64 = AtomicU64::new(0);
/// How often a short wait of a thread was interrupted that waits again and again. It is never asked for its
/// stack, unless it seems to have computed for two milliseconds since it last waited: the host of a virtual
/// machine may have taken the processor away for so long. If it begins to wait just then, that is interrupted.
static INTERRUPTED: AtomicU64 = AtomicU64::new(0);
/// What the busy threads have done.
static WORK: AtomicU64 = AtomicU64::new(0);
/// The longest time in nanoseconds that a spinning thread has missed, on the clock and of its own CPU time.
static GAP: AtomicU64 = AtomicU64::new(0);
static CPU_GAP: AtomicU64 = AtomicU64::new(0);

const HOUR: Duration = Duration::from_secs(3600);

fn in_background(name: String, run: impl FnOnce() + Send + 'static) {
    std::mem::forget(spawn(name, "load", run).expect("there is room for a thread"));
}

fn wait_for_input(socket: &UnixStream, limit: Duration) -> rustix::io::Result<usize> {
    let limit = Timespec { tv_sec: limit.as_secs() as i64, tv_nsec: limit.subsec_nanos().into() };
    poll(&mut [PollFd::from_borrowed_fd(socket.as_fd(), PollFlags::IN)], Some(&limit))
}

/// Threads in system calls that a signal would end, in spite of SA_RESTART.
fn sit() {
    let sits: [(&str, fn(&mut UnixStream)); 5] = [
        ("sits-in-read", |socket| _ = socket.read(&mut [0])),
        ("sits-in-timed-read", |socket| {
            socket.set_read_timeout(Some(HOUR)).expect("a socket has time limits");
            let _ = socket.read(&mut [0]);
        }),
        ("sits-in-poll", |socket| _ = wait_for_input(socket, HOUR)),
        ("sits-in-epoll", |socket| {
            use rustix::event::epoll;
            let queue = epoll::create(epoll::CreateFlags::CLOEXEC).expect("a queue");
            let data = epoll::EventData::new_u64(0);
            epoll::add(&queue, socket, data, epoll::EventFlags::IN).expect("a socket can be added");
            let mut events = Vec::with_capacity(1);
            let _ = epoll::wait(&queue, rustix::buffer::spare_capacity(&mut events), None);
        }),
        ("sits-in-nanosleep", |_| {
            let _ = rustix::thread::nanosleep(&Timespec { tv_sec: 3600, tv_nsec: 0 });
        }),
    ];
    for (name, sit) in sits {
        let (mut socket, keep) = UnixStream::pair().expect("a socket pair");
        in_background(name.to_owned(), move || {
            sit(&mut socket);
            drop(keep);
            DISTURBED.fetch_add(1, Ordering::Relaxed);
        });
    }
}

fn recurse(depth: u32) -> u64 {
    let here = black_box([u64::from(depth); 16]);
    let below = if depth == 0 { 0 } else { recurse(depth - 1) };
    here.iter().sum::<u64>().wrapping_add(below)
}

/// Busy threads, in as many ways. The first two never rest; the others do so often enough that all of them
/// together need one processor more, however many there are.
fn work(threads: usize) {
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
    for (index, (name, way)) in ways.into_iter().cycle().take(threads).enumerate() {
        in_background(format!("{name}-{index}"), move || {
            let mut begin = Instant::now();
            for round in 0.. {
                way(round);
                WORK.fetch_add(1, Ordering::Relaxed);
                if index >= 2 && begin.elapsed() > Duration::from_millis(1) {
                    std::thread::park_timeout(rest);
                    begin = Instant::now();
                }
            }
        });
    }
}

/// A thread that does nothing but look at the clock.
fn watch_the_clock() {
    in_background("clock".to_owned(), || {
        let cpu = || {
            let now = clock_gettime(ClockId::ThreadCPUTime);
            Duration::new(now.tv_sec as u64, now.tv_nsec as u32)
        };
        let (mut last, mut last_cpu) = (Instant::now(), cpu());
        loop {
            let (now, now_cpu) = (Instant::now(), cpu());
            GAP.fetch_max((now - last).as_nanos() as u64, Ordering::Relaxed);
            CPU_GAP.fetch_max((now_cpu - last_cpu).as_nanos() as u64, Ordering::Relaxed);
            (last, last_cpu) = (now, now_cpu);
        }
    });
}

fn idle(threads: usize) {
    for index in 0..threads {
        in_background(format!("idle-{index}"), || {
            loop {
                std::thread::park();
            }
        });
    }
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

/// What is typical of the gaps, and what was the worst.
fn summary(gaps: &[[f64; 2]]) -> String {
    let [clock, cpu] = [0, 1].map(|kind| {
        let mut all: Vec<f64> = gaps.iter().map(|gap| gap[kind]).collect();
        all.sort_by(f64::total_cmp);
        format!("median {:.0} µs, longest {:.0} µs", all[all.len() / 2], all[all.len() - 1])
    });
    format!("{clock} on the clock; {cpu} of its own CPU time")
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
    /// How many stacks had which note.
    notes: BTreeMap<String, usize>,
    /// The bytes of the last dump.
    output: usize,
}

impl Figures {
    fn add(&mut self, time: Duration, stacks: &[ThreadStack]) {
        self.times.push(time);
        self.stacks += stacks.len();
        self.output = stacks.iter().map(|stack| stack.to_string().len() + 1).sum();
        for stack in stacks {
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
        println!("  output    {} KB for one dump", self.output / 1024);
    }
}

/// Starts a thread that dumps whenever SIGUSR2 comes, and gives the memory back after as many dumps as that.
/// It writes to `done` after each.
fn dump_on_signals(
    mut dumper: StackDumper,
    dumps: usize,
    mut done: UnixStream,
) -> Receiver<(Duration, Vec<ThreadStack>)> {
    let (tell, dumped) = channel();
    let (ask, asked) = channel();
    block_signals().expect("signals can be blocked");
    let started = SignalThread::start(move || ask.send(()).expect("the dumper waits for it"), || ());
    let (signal_thread, _) = started.expect("signals can be taken");
    in_background("dumper".to_owned(), move || {
        let _signal_thread = signal_thread;
        for (index, ()) in asked.iter().enumerate() {
            let begin = Instant::now();
            let stacks = dumper.dump();
            let time = begin.elapsed();
            if index + 1 == dumps {
                dumper.give_memory_back();
            }
            tell.send((time, stacks)).expect("main waits for it");
            done.write_all(&[0]).expect("main reads it");
        }
    });
    dumped
}

/// Sends the signal from another thread as soon as the main thread waits: the kernel would give it to that
/// one.
fn signal_soon() {
    in_background("signaller".to_owned(), || {
        let waits = || std::fs::read_to_string("/proc/self/stat").is_ok_and(|stat| stat.contains(") S "));
        while !waits() {
            std::thread::yield_now();
        }
        kill_process(getpid(), rustix::process::Signal::USR2).expect("a process can be signalled");
    });
}

fn main() {
    nodepool_threads::give_memory_back();
    let (dumps, threads) = (option("--dumps").unwrap_or(20), option("--threads").unwrap_or(12));
    let before = memory().0;
    let dumper = StackDumper::new().expect("stacks can be dumped");
    let prepared = memory().0;
    // Before all other threads, as in a daemon.
    let (mut done, tell_done) = UnixStream::pair().expect("a socket pair");
    let dumped = dump_on_signals(dumper, dumps, tell_done);
    sit();
    let quiet = std::env::args().any(|argument| argument == "--idle");
    if quiet {
        idle(threads);
        watch_the_clock();
    } else {
        work(threads);
    }

    let (mut gaps_without, mut gaps_with) = (Vec::new(), Vec::new());
    gaps();
    for _ in 0..dumps {
        // As long as a dump of some threads takes.
        std::thread::park_timeout(Duration::from_millis(20));
        gaps_without.push(gaps());
    }
    let mut figures = Figures::default();
    let work_before = WORK.load(Ordering::Relaxed);
    for _ in 0..dumps {
        gaps();
        signal_soon();
        if wait_for_input(&done, HOUR) == Err(rustix::io::Errno::INTR) {
            DISTURBED.fetch_add(1, Ordering::Relaxed);
        }
        done.read_exact(&mut [0]).expect("the dumper is alive");
        let (time, stacks) = dumped.recv_timeout(HOUR).expect("every signal leads to a dump");
        gaps_with.push(gaps());
        // Beside them: main, signals, dumper, five that sit.
        assert!(stacks.len() >= threads + 8, "a thread is missing: {}", stacks.len());
        figures.add(time, &stacks);
    }

    figures.print();
    let (after, most) = memory();
    println!(
        "  memory    {before:.1} MB, {prepared:.1} with the dumper, {after:.1} after the dumps; {most:.1} at most"
    );
    let [disturbed, interrupted] = [&DISTURBED, &INTERRUPTED].map(|count| count.load(Ordering::Relaxed));
    println!("  calls     {disturbed} disturbed of those that threads sit in,");
    println!("            {interrupted} interrupted of those that wait for 200 µs again and again");
    if quiet {
        println!("  longest pause of a spinning thread in 20 ms without a dump, or during one:");
        println!("    without {}\n    with    {}", summary(&gaps_without), summary(&gaps_with));
    }
    assert_eq!(disturbed, 0, "a system call was disturbed");
    assert!(interrupted * 20 <= dumps as u64, "threads that wait were asked: {interrupted} interrupted");
    assert!(quiet || WORK.load(Ordering::Relaxed) > work_before, "nobody works any more");
    let known = figures.whole + figures.notes.get("a part is a guess").copied().unwrap_or_default();
    assert!(known * 100 >= figures.stacks * 98, "too many stacks are not whole: {:?}", figures.notes);
}
