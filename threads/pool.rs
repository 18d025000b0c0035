//! A fixed set of worker threads that take jobs from a bounded channel and send every one back.
//!
//! A job is an owned value: it moves into the pool, runs on one worker, and comes back as [`Finished`] with
//! its outcome, also when it panicked, so that whatever it owns (locks, records, files) is never lost with
//! a worker. The pool knows nothing of what jobs do.

use std::any::Any;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};

use crossbeam_channel::{Receiver, Sender, bounded};

use crate::registry::{Thread, activity, spawn};
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

/// A fixed pool of workers.
#[derive(Debug)]
pub struct Pool<J: Job> {
    // Dropped in this order: the jobs' stop, then the channel (idle workers end), then the threads.
    stop: StopSource,
    jobs: Sender<J>,
    workers: Vec<Thread<()>>,
}

impl<J: Job> Pool<J> {
    /// Starts `size` workers named `<name>-<n>`. Finished jobs arrive at the returned receiver, which
    /// must be drained: it has room for as many as can be on their way.
    pub fn start(name: &str, role: &'static str, size: usize) -> io::Result<(Self, Receiver<Finished<J>>)> {
        // As many waiting jobs as workers keeps them busy without hiding a queue from whoever decides.
        let (jobs, take) = bounded::<J>(size.max(1));
        let (give_back, finished) = bounded(2 * size.max(1));
        let stop = StopSource::new();
        let workers = (0..size)
            .map(|index| {
                let (take, give_back, token) = (take.clone(), give_back.clone(), stop.token());
                spawn(format!("{name}-{index}"), role, move || work(&take, &give_back, &token))
            })
            .collect::<io::Result<_>>()?;
        Ok((Self { stop, jobs, workers }, finished))
    }

    /// How many workers there are.
    pub fn size(&self) -> usize {
        self.workers.len()
    }

    /// Hands a job to the workers. Gives it back when they have no room for it; an owner that counts what
    /// it has handed out, and stays within [`Pool::size`], always finds room.
    pub fn submit(&self, job: J) -> Result<(), J> {
        self.jobs.try_send(job).map_err(crossbeam_channel::TrySendError::into_inner)
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

fn work<J: Job>(take: &Receiver<J>, give_back: &Sender<Finished<J>>, stop: &StopToken) {
    for mut job in take {
        let outcome = {
            let _doing = activity(job.describe());
            catch_unwind(AssertUnwindSafe(|| job.run(stop)))
                .map_err(|payload| Panicked::from_payload(payload.as_ref()))
        };
        if give_back.send(Finished { job, outcome }).is_err() {
            return; // The owner is gone, and with it the reason to work.
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::stop::Interrupted;
    use std::time::Duration;

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
}
