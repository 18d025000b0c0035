//! Worker threads that take jobs from a bounded channel and send every one back.
//!
//! A job is an owned value: it moves into the pool, runs on one worker, and comes back as [`Finished`] with
//! its outcome, also when it panicked, so that whatever it owns (locks, records, files) is never lost with
//! a worker. The pool knows nothing of what jobs do.

use std::any::Any;
use std::convert::Infallible;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use crossbeam_channel::{Receiver, RecvTimeoutError, Sender, bounded};

use crate::locks::Mutex;
use crate::registry::{activity, spawn};
use crate::stop::{StopSource, StopToken};

/// Work for a pool.
pub trait Job: Send + 'static {
    /// What running it comes to.
    type Outcome: Send + 'static;

    /// What the worker is doing while it runs, for the thread registry.
    fn describe(&self) -> String;

    /// Does the work. Returns early when `stop` says so.
    fn run(&mut self, stop: &StopToken) -> Self::Outcome;
}

/// A job that has come back from its worker.
#[derive(Debug)]
pub struct Finished<J: Job> {
    /// The job itself, with everything that it owns.
    pub job: J,
    /// What it came to, or the message that it panicked with.
    pub outcome: Result<J::Outcome, Panicked>,
}

/// The message of a panic.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Panicked(pub String);

impl Panicked {
    /// The message in what a panic leaves: a text, where `panic!` was used as usual.
    pub fn from_payload(payload: &(dyn Any + Send)) -> Self {
        let text = payload.downcast_ref::<&str>().copied();
        let text = text.or_else(|| payload.downcast_ref::<String>().map(String::as_str));
        Self(text.unwrap_or("a panic without a message").to_owned())
    }
}

/// How long a worker of an elastic pool stays without work: longer than the pauses of a busy time.
const LINGER: Duration = Duration::from_secs(1);

/// A pool of workers.
#[derive(Debug)]
pub struct Pool<J: Job> {
    // Dropped in this order: the jobs' stop, then the channel (idle workers end), then the threads.
    stop: StopSource,
    jobs: Sender<J>,
    desk: Desk<J>,
    /// The ends of the workers, by their numbers.
    workers: Mutex<Vec<Option<End>>>,
}

/// The end of a worker, which is waited for when this is dropped. Its thread is not: one that nobody has joined keeps its
/// stack, and an elastic pool would keep those of its busiest moment.
#[derive(Debug)]
struct End(Receiver<Infallible>);

impl Drop for End {
    fn drop(&mut self) {
        let _ = self.0.recv();
    }
}

/// What a worker is started with.
#[derive(Debug)]
struct Desk<J: Job> {
    name: String,
    role: &'static str,
    /// Workers with lower numbers stay, whether there is work or not.
    staying: usize,
    take: Receiver<J>,
    give_back: Sender<Finished<J>>,
    stop: StopToken,
    count: Arc<Mutex<Count>>,
}

/// Changed in one step with the channel of jobs: a job that is in it has a worker who will look.
#[derive(Debug, Default)]
struct Count {
    /// Jobs that wait or run.
    open: usize,
    /// The numbers of workers that have ended or were never started.
    free: Vec<usize>,
}

impl<J: Job> Pool<J> {
    /// Starts `size` workers named `<name>-<n>`, which stay. Finished jobs arrive at the returned receiver,
    /// which must be drained: it has room for as many as can be on their way.
    pub fn start(name: &str, role: &'static str, size: usize) -> io::Result<(Self, Receiver<Finished<J>>)> {
        Self::with_staying(name, role, size, size)
    }

    /// The same for bursts of work that come seldom: one worker stays, the others are started when there is
    /// more to do and end after a second without any, and their stacks with them.
    pub fn start_elastic(
        name: &str,
        role: &'static str,
        size: usize,
    ) -> io::Result<(Self, Receiver<Finished<J>>)> {
        Self::with_staying(name, role, size, size.min(1))
    }

    fn with_staying(
        name: &str,
        role: &'static str,
        size: usize,
        staying: usize,
    ) -> io::Result<(Self, Receiver<Finished<J>>)> {
        // As many waiting jobs as workers keeps them busy without hiding a queue from whoever decides.
        let (jobs, take) = bounded::<J>(size.max(1));
        let (give_back, finished) = bounded(2 * size.max(1));
        let stop = StopSource::new();
        let count = Count { open: 0, free: (staying..size).rev().collect() };
        let desk = Desk {
            name: name.to_owned(),
            role,
            staying,
            take,
            give_back,
            stop: stop.token(),
            count: Arc::new(Mutex::new("count of a pool", count)),
        };
        let workers = (0..size)
            .map(|number| (number < staying).then(|| desk.seat(number)).transpose())
            .collect::<io::Result<_>>()?;
        Ok((Self { stop, jobs, desk, workers: Mutex::new("workers of a pool", workers) }, finished))
    }

    /// How many workers there are at most.
    pub fn size(&self) -> usize {
        self.workers.lock().len()
    }

    /// Hands a job to the workers. Gives it back when they have no room for it; an owner that counts what
    /// it has handed out, and stays within [`Pool::size`], always finds room.
    pub fn submit(&self, job: J) -> Result<(), J> {
        // One at a time, so that a worker's place holds the last that sat there.
        let mut workers = self.workers.lock();
        let free = {
            let mut count = self.desk.count.lock();
            self.jobs.try_send(job).map_err(crossbeam_channel::TrySendError::into_inner)?;
            count.open += 1;
            let seated = workers.len() - count.free.len();
            if count.open > seated { count.free.pop() } else { None }
        };
        if let Some(number) = free {
            match self.desk.seat(number) {
                Ok(worker) => workers[number] = Some(worker),
                // Whoever stays takes the job: later, but it is done.
                Err(_) => self.desk.count.lock().free.push(number),
            }
        }
        Ok(())
    }

    /// Tells all running jobs to end. They still come back; a job that is submitted later ends at once.
    pub fn stop_jobs(&self) {
        self.stop.stop();
    }
}

impl<J: Job> Drop for Pool<J> {
    fn drop(&mut self) {
        self.stop.stop();
    }
}

impl<J: Job> Desk<J> {
    fn seat(&self, number: usize) -> io::Result<End> {
        let linger = (number >= self.staying).then_some(LINGER);
        let (take, give_back, stop) = (self.take.clone(), self.give_back.clone(), self.stop.clone());
        let count = Arc::clone(&self.count);
        let worker = spawn(format!("{}-{number}", self.name), self.role, move || {
            while let Some(mut job) = next_job(&take, linger, &count, number) {
                let outcome = {
                    let _doing = activity(job.describe());
                    catch_unwind(AssertUnwindSafe(|| job.run(&stop)))
                        .map_err(|payload| Panicked::from_payload(payload.as_ref()))
                };
                count.lock().open -= 1;
                if give_back.send(Finished { job, outcome }).is_err() {
                    return; // The owner is gone, and with it the reason to work.
                }
            }
        })?;
        Ok(End(worker.detach()))
    }
}

/// Waits for work; none is the end of the worker.
fn next_job<J>(
    take: &Receiver<J>,
    linger: Option<Duration>,
    count: &Mutex<Count>,
    number: usize,
) -> Option<J> {
    let Some(linger) = linger else { return take.recv().ok() };
    loop {
        match take.recv_timeout(linger) {
            Ok(job) => return Some(job),
            Err(RecvTimeoutError::Disconnected) => return None,
            Err(RecvTimeoutError::Timeout) => {
                let mut count = count.lock();
                if take.is_empty() {
                    count.free.push(number);
                    return None;
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stop::Interrupted;
    use std::time::Instant;

    enum Task {
        Square(u32),
        Panic,
        Wait,
    }

    impl Job for Task {
        type Outcome = Result<u32, Interrupted>;

        fn describe(&self) -> String {
            "testing".to_owned()
        }

        fn run(&mut self, stop: &StopToken) -> Self::Outcome {
            match self {
                Self::Square(n) => Ok(*n * *n),
                Self::Panic => panic!("job {}", 7),
                Self::Wait => stop.wait(Duration::from_secs(60)).map(|()| 0),
            }
        }
    }

    const SOON: Duration = Duration::from_secs(10);

    #[test]
    fn a_panic_gives_the_job_back_and_the_worker_goes_on() {
        let (pool, finished) = Pool::start("test-pool", "tester", 1).unwrap();
        assert!(pool.submit(Task::Panic).is_ok());
        let back = finished.recv_timeout(SOON).unwrap();
        assert!(matches!(back.job, Task::Panic));
        assert_eq!(back.outcome, Err(Panicked("job 7".to_owned())));
        assert!(pool.submit(Task::Square(6)).is_ok());
        assert_eq!(finished.recv_timeout(SOON).unwrap().outcome, Ok(Ok(36)));
    }

    #[test]
    fn stopping_ends_running_jobs_and_sends_them_back() {
        let (pool, finished) = Pool::start("test-stop", "tester", 2).unwrap();
        assert!(pool.submit(Task::Wait).is_ok());
        assert!(pool.submit(Task::Wait).is_ok());
        pool.stop_jobs();
        for _ in 0..2 {
            assert_eq!(finished.recv_timeout(SOON).unwrap().outcome, Ok(Err(Interrupted::Stopped)));
        }
    }

    #[test]
    fn a_full_pool_gives_the_job_back() {
        let (pool, _finished) = Pool::start("test-full", "tester", 1).unwrap();
        let refused = (0..3).filter(|_| pool.submit(Task::Wait).is_err()).count();
        assert!((1..=2).contains(&refused), "one runs, one waits, {refused} refused");
    }

    fn names(of: &str) -> Vec<String> {
        let names = crate::registry::threads().into_iter().map(|thread| thread.name);
        let mut names: Vec<_> = names.filter(|name| name.starts_with(of)).collect();
        names.sort();
        names
    }

    #[test]
    fn an_elastic_pool_has_workers_while_there_is_work_for_them() {
        let (pool, finished) = Pool::start_elastic("test-elastic", "tester", 3).unwrap();
        let all = ["test-elastic-0", "test-elastic-1", "test-elastic-2"];
        for _ in 0..2 {
            assert!((0..3).all(|_| pool.submit(Task::Panic).is_ok()));
            // Each comes back, by whichever worker.
            (0..3).for_each(|_| drop(finished.recv_timeout(SOON).unwrap()));
            let late = Instant::now() + SOON;
            while names("test-elastic") != all[..1] {
                assert!(Instant::now() < late, "{:?}", names("test-elastic"));
                std::thread::sleep(Duration::from_millis(5));
            }
        }
        assert!((0..3).all(|_| pool.submit(Task::Wait).is_ok()));
        let late = Instant::now() + SOON;
        while names("test-elastic") != all {
            assert!(Instant::now() < late, "{:?}", names("test-elastic"));
            std::thread::sleep(Duration::from_millis(5));
        }
        pool.stop_jobs();
        for _ in 0..3 {
            assert_eq!(finished.recv_timeout(SOON).unwrap().outcome, Ok(Err(Interrupted::Stopped)));
        }
        drop(pool);
        assert!(names("test-elastic").is_empty());
    }
}
