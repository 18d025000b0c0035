//! What the pages read from disks, on threads of their own: a disk that hangs, as one of a dead file server
//! does, must not hold up the pages, which are never needed more than then.
//!
//! A page waits a moment for a disk and goes without. While an answer is owed, no page waits at all. That
//! directories are on different disks is taken for granted; each has its thread.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crossbeam_channel::Receiver;
use nodepool_threads::{Finished, Job, Pool, StopToken, activity_within};

use super::log_tail::tail;
use crate::builder::{BuildLog, Space};
use crate::config::DiskImage;
use crate::web::core::units::span;

/// How long a page waits for disks, all in all.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long a disk may take for a page.
const READING: Duration = Duration::from_secs(5);

/// The disks that the pages show something of.
pub(super) struct Disks {
    images: Disk<SpaceOf>,
    logs: Disk<TailOf>,
    /// Until when the page in the making waits.
    until: Instant,
}

impl Disks {
    pub(super) fn new() -> io::Result<Self> {
        let (images, logs) =
            (Disk::start("images-dir", "web-images")?, Disk::start("build-log-dir", "web-logs")?);
        Ok(Self { images, logs, until: Instant::now() })
    }

    /// A page is going to be made.
    pub(super) fn begin_page(&mut self) {
        self.until = Instant::now() + PATIENCE;
    }

    /// The file system of the images directory; none if that cannot be read. The error says that its disk
    /// hangs.
    pub(super) fn space(&mut self, images_dir: PathBuf) -> Result<Option<Space>, String> {
        self.images.read(SpaceOf(images_dir), self.until)
    }

    /// The last `lines` of the log of a build, without secrets. The error says why they cannot be read.
    pub(super) fn tail(&mut self, log: &BuildLog, build: &str, lines: usize) -> Result<String, String> {
        let job = TailOf { log: log.path(build), image: Arc::clone(&log.image), lines };
        self.logs.read(job, self.until)?.map_err(|error| error.to_string())
    }
}

struct SpaceOf(PathBuf);

impl Job for SpaceOf {
    type Outcome = Option<Space>;

    fn describe(&self) -> String {
        "answering a status page".to_owned()
    }

    fn run(&mut self, _stop: &StopToken) -> Option<Space> {
        let _doing = activity_within(READING, format!("asking for the space of {}", self.0.display()));
        Space::of(&self.0)
    }
}

struct TailOf {
    log: PathBuf,
    image: Arc<DiskImage>,
    lines: usize,
}

impl Job for TailOf {
    type Outcome = io::Result<String>;

    fn describe(&self) -> String {
        "answering a status page".to_owned()
    }

    fn run(&mut self, _stop: &StopToken) -> io::Result<String> {
        let _doing = activity_within(READING, format!("reading the end of {}", self.log.display()));
        tail(&self.log, &self.image, self.lines)
    }
}

/// One disk, and the thread that reads from it.
struct Disk<J: Job> {
    /// The setting that names its directory.
    name: &'static str,
    /// Taken at the end only.
    reader: Option<Pool<J>>,
    answers: Receiver<Finished<J>>,
    /// Since when an answer is owed.
    asked: Option<Instant>,
}

impl<J: Job> Disk<J> {
    fn start(name: &'static str, thread: &str) -> io::Result<Self> {
        let (reader, answers) = Pool::start(thread, "disk reader of the status pages", 1)?;
        Ok(Self { name, reader: Some(reader), answers, asked: None })
    }

    /// Reads, or says why not. An answer that comes later serves nobody, but tells that the disk is back.
    fn read(&mut self, job: J, until: Instant) -> Result<J::Outcome, String> {
        if self.asked.is_some() && self.answers.try_recv().is_err() {
            return Err(self.hangs());
        }
        self.asked = None;
        if Instant::now() >= until {
            return Err(format!("the disk of {} has been too slow for all of the page", self.name));
        }
        let asked = self.reader.as_ref().is_some_and(|reader| reader.submit(job).is_ok());
        self.asked = asked.then(Instant::now);
        match self.answers.recv_deadline(until) {
            Ok(finished) => {
                self.asked = None;
                finished.outcome.map_err(|panicked| format!("this is a bug: {}", panicked.0))
            }
            Err(_) => Err(self.hangs()),
        }
    }

    fn hangs(&self) -> String {
        let since = self.asked.map_or(0.0, |asked| asked.elapsed().as_secs_f64());
        format!("the disk of {} has not answered for {}", self.name, span(since))
    }
}

impl<J: Job> Drop for Disk<J> {
    fn drop(&mut self) {
        if self.asked.is_some() && self.answers.try_recv().is_err() {
            // Its reader holds nothing; whoever stops must not wait for a disk.
            std::mem::forget(self.reader.take());
        }
    }
}

#[cfg(test)]
mod tests {
    use crossbeam_channel::bounded;

    use super::*;

    /// Reads what comes, and hangs until then.
    struct Hanging(Receiver<u32>);

    impl Job for Hanging {
        type Outcome = u32;

        fn describe(&self) -> String {
            "hanging".to_owned()
        }

        fn run(&mut self, _stop: &StopToken) -> u32 {
            self.0.recv().unwrap()
        }
    }

    const SOON: Duration = Duration::from_secs(30);

    #[test]
    fn a_disk_that_hangs_is_waited_for_once_and_asked_again_when_it_has_answered() {
        let mut disk = Disk::start("images-dir", "reader").unwrap();
        let (answer, hanging) = bounded(1);
        let why = disk.read(Hanging(hanging.clone()), Instant::now() + PATIENCE).unwrap_err();
        assert!(why.starts_with("the disk of images-dir has not answered for "), "{why}");
        // With an endless patience it would come back only with an answer.
        let why = disk.read(Hanging(hanging.clone()), Instant::now() + 1000 * SOON).unwrap_err();
        assert!(why.starts_with("the disk of images-dir has not answered for "), "{why}");
        answer.send(1).unwrap();
        while disk.answers.is_empty() {
            std::thread::yield_now();
        }
        answer.send(2).unwrap();
        let why = disk.read(Hanging(hanging.clone()), Instant::now()).unwrap_err();
        assert_eq!(why, "the disk of images-dir has been too slow for all of the page");
        assert_eq!(disk.read(Hanging(hanging), Instant::now() + SOON), Ok(2));
    }

    #[test]
    fn the_end_waits_for_no_disk() {
        let mut disk = Disk::start("images-dir", "reader").unwrap();
        let (answer, hanging) = bounded(1);
        assert!(disk.read(Hanging(hanging), Instant::now() + Duration::from_millis(50)).is_err());
        drop(disk);
        // Only now, and somebody is still there to take it.
        answer.send_timeout(1, SOON).unwrap();
    }
}
