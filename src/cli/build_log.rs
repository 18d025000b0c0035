//! `dib-image-log`: the log of a build, which is a file on the machine of its builder.
//!
//! ZooKeeper tells when a build that is followed has ended. The file itself is looked at from time to time,
//! because that works wherever it is, be it on another machine's disk.

use std::fs::{self, File};
use std::io::{self, Read as _};
use std::path::PathBuf;
use std::time::Duration;

use crossbeam_channel::{Receiver, after, select};
use slog::Logger;

use super::connection::Connection;
use super::failure::Failure;
use super::marks::{build_not_found, split_build};
use super::output;
use crate::builder::build_log_path;
use crate::config::Config;
use crate::model::{BuildRecord, BuildState, Image};
use crate::zk::{Changes, IMAGES, TreeCache, decode_image};

/// How often to look for what was added.
const LOOK: Duration = Duration::from_millis(200);
const BLOCK: usize = 64 << 10;

/// Prints the log as far as it is written.
pub(super) fn print(
    config: &Config,
    connect: impl Fn() -> Result<Connection, Failure>,
    id: &str,
) -> Result<(), Failure> {
    let (image, build) = split_build(id)?;
    let mut log = Log::new(build_log_path(&config.build_log_dir, image, build));
    // ZooKeeper need not be there for it.
    if log.print()? {
        return Ok(());
    }
    let found = connect()?.images.read_build(image, build)?;
    let (record, _) = found.ok_or_else(|| build_not_found(id))?;
    Err(log.missing(config, id, &record))
}

/// Prints the log and what is added to it until the build ends.
pub(super) fn follow(
    config: &Config,
    connection: &Connection,
    id: &str,
    logger: &Logger,
) -> Result<(), Failure> {
    let (image, build) = split_build(id)?;
    let mut log = Log::new(build_log_path(&config.build_log_dir, image, build));
    let root = format!("{IMAGES}/{image}");
    let (cache, changes) = TreeCache::start(&connection.session, &root, logger)
        .map_err(|error| Failure::because(format!("cannot start a thread: {error}")))?;
    if changes.recv_timeout(config.zookeeper.timeout).is_err() {
        return Err(Failure::because(format!("ZooKeeper: {root} could not be read in time")));
    }
    loop {
        // Looked at first: what was written before the end is there afterwards.
        let record = cache.look(|node| record(&decode_image(image, node, &mut |_, _| {}), build));
        let printed = log.print()?;
        match record {
            Some((_, true)) if printed => {}
            // It is made right after the record.
            Some((record, true)) if is_own(config, &record) => log.announce(id),
            _ if printed => return Ok(()),
            Some((record, _)) => return Err(log.missing(config, id, &record)),
            None => return Err(build_not_found(id)),
        }
        wait(&changes)?;
    }
}

/// The record of a build, and whether the build runs: whoever runs one holds the lock of the image.
fn record(image: &Image, build: &str) -> Option<(BuildRecord, bool)> {
    let record = image.builds.get(build)?.record.clone();
    let runs = image.build_locked && record.state == BuildState::Building;
    Some((record, runs))
}

fn wait(changes: &Receiver<Changes>) -> Result<(), Failure> {
    select! {
        recv(changes) -> change => match change {
            Ok(_) => Ok(()),
            Err(_) => Err(Failure::because("the copy of ZooKeeper's tree has ended")),
        },
        recv(after(LOOK)) -> _ => Ok(()),
    }
}

/// Whether it is a build of this machine's builder.
fn is_own(config: &Config, record: &BuildRecord) -> bool {
    let file = config.images_dir.as_deref().map(|dir| dir.join("builder_id.txt"));
    let own = file.and_then(|file| fs::read_to_string(file).ok());
    own.is_some_and(|own| record.builder_id.as_deref() == Some(own.trim()))
}

/// The file, as far as it has been printed.
struct Log {
    path: PathBuf,
    file: Option<File>,
    block: Vec<u8>,
    announced: bool,
}

impl Log {
    fn new(path: PathBuf) -> Self {
        Self { path, file: None, block: vec![0; BLOCK], announced: false }
    }

    /// Says once that it will come.
    fn announce(&mut self, id: &str) {
        if !std::mem::replace(&mut self.announced, true) {
            output::complain(&format!("{id}: waiting for its log"));
        }
    }

    /// Prints what has not been printed yet. False if there is no such file.
    fn print(&mut self) -> Result<bool, Failure> {
        let path = self.path.display();
        let failed = |error: io::Error| Failure::because(format!("cannot read {path}: {error}"));
        if self.file.is_none() {
            match File::open(&self.path) {
                Ok(file) => self.file = Some(file),
                Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
                Err(error) => return Err(failed(error)),
            }
        }
        let Some(file) = &mut self.file else { return Ok(false) };
        loop {
            match file.read(&mut self.block) {
                Ok(0) => return Ok(true),
                Ok(length) => output::print_bytes(&self.block[..length])?,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(failed(error)),
            }
        }
    }

    /// Why there is no log of a build that has a record.
    fn missing(&self, config: &Config, id: &str, record: &BuildRecord) -> Failure {
        let path = self.path.display();
        if is_own(config, record) {
            let why = "only the newest logs of an image are kept (build-log-retention)";
            return Failure::because(format!("{path} is not there any more: {why}"));
        }
        let builder = record.builder.as_deref().unwrap_or("another machine");
        Failure::because(format!("{path} is not on this machine: the log of {id} is on {builder}"))
    }
}
