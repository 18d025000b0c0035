//! The command line of `nodepool-builder` (spec/cli.md).

use std::path::PathBuf;
use std::time::Duration;

use clap::{CommandFactory as _, Parser};

use super::user::UserName;

/// The program's name.
pub(super) const NAME: &str = "nodepool-builder";

/// Builds disk images with diskimage-builder, uploads them to providers, and cleans up after them.
///
/// Without -d or -f it becomes a daemon. SIGINT and SIGTERM stop it within ten seconds: running builds and
/// uploads are cancelled and cleaned up. A second one, half a second later or more, ends it at once. SIGUSR2 logs
/// the stacks of all threads, SIGHUP opens the log files anew.
#[derive(Debug, Parser)]
#[command(name = NAME, version)]
pub(super) struct Arguments {
    /// The configuration file
    #[arg(short = 'c', value_name = "FILE", default_value = "/etc/nodepool/nodepool.yaml")]
    pub(super) config: PathBuf,

    /// The secure file, with what must not be world-readable
    #[arg(short = 's', value_name = "FILE")]
    pub(super) secure: Option<PathBuf>,

    /// The logging configuration: a YAML file of ours, or a file of the original's in YAML or ini form
    #[arg(short = 'l', value_name = "FILE")]
    pub(super) logging: Option<PathBuf>,

    /// The pid file of the daemon
    #[arg(short = 'p', value_name = "FILE", default_value = "/var/run/nodepool/nodepool-builder.pid")]
    pub(super) pid_file: PathBuf,

    /// Stay in the foreground and, unless -l says otherwise, log everything
    #[arg(short = 'd')]
    pub(super) debug: bool,

    /// Stay in the foreground
    #[arg(short = 'f')]
    pub(super) foreground: bool,

    /// Become this user, and its group or GROUP, before anything else; only root can
    #[arg(long, value_name = "USER[:GROUP]")]
    pub(super) user: Option<UserName>,

    /// How many images are built at the same time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = workers)]
    pub(super) build_workers: usize,

    /// How many uploads run at the same time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = workers)]
    pub(super) upload_workers: usize,

    /// How often to look for what must be cleaned up without a change telling of it; 0 cleans up nothing
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = interval)]
    pub(super) cleanup_interval: Duration,
}

/// Far more than any machine can use, and far less than would exhaust it.
const MAX_WORKERS: usize = 256;

fn workers(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(number) if number <= MAX_WORKERS => Ok(number),
        _ => Err(format!("expected a whole number from 0 to {MAX_WORKERS}")),
    }
}

fn interval(text: &str) -> Result<Duration, String> {
    let seconds = text.parse().ok().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok());
    // Below that it would only burn the processor, and above it no clock can count.
    let sane = Duration::from_millis(100)..=Duration::from_secs(366 * 24 * 3600);
    let wanted = seconds.filter(|interval| interval.is_zero() || sane.contains(interval));
    wanted.ok_or_else(|| "expected 0, or a number of seconds from 0.1 to a year".to_owned())
}

/// The definition of the command line, for manual pages and completions.
pub fn builder_command() -> clap::Command {
    Arguments::command()
}

impl Arguments {
    /// Whether the program stays in the foreground.
    pub(super) fn in_foreground(&self) -> bool {
        self.debug || self.foreground
    }
}
