//! The command lines of the daemons (spec/cli.md).

use std::path::PathBuf;
use std::time::Duration;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Args, CommandFactory, Parser};

use super::user::UserName;
use crate::arguments::FileArguments;

/// The name of the program that builds images.
pub(super) const BUILDER: &str = "nodepool-builder";
/// The name of the program that serves node requests.
pub(super) const LAUNCHER: &str = "nodepool-launcher";

/// What all daemons can be told.
#[derive(Debug, Args)]
pub(super) struct CommonArguments {
    /// Stay in the foreground and, unless -l says otherwise, log everything
    #[arg(short = 'd')]
    pub(super) debug: bool,

    /// Stay in the foreground
    #[arg(short = 'f')]
    pub(super) foreground: bool,

    /// Become this user, and its group or GROUP, before anything else; only root can
    #[arg(long, value_name = "USER[:GROUP]")]
    pub(super) user: Option<UserName>,
}

impl CommonArguments {
    /// Whether the program stays in the foreground.
    pub(super) fn in_foreground(&self) -> bool {
        self.debug || self.foreground
    }
}

/// Builds disk images with diskimage-builder, uploads them to providers, and cleans up after them.
///
/// Without -d or -f it becomes a daemon. SIGINT and SIGTERM stop it within ten seconds: running builds and
/// uploads are cancelled and cleaned up. A second one, half a second later or more, ends it at once. SIGUSR2 logs
/// the stacks of all threads, SIGHUP opens the log files anew.
#[derive(Debug, Parser)]
#[command(name = BUILDER, version)]
pub(super) struct BuilderArguments {
    #[command(flatten)]
    pub(super) files: FileArguments,

    /// The pid file of the daemon
    #[arg(short = 'p', value_name = "FILE", default_value = "/var/run/nodepool/nodepool-builder.pid")]
    pub(super) pid_file: PathBuf,

    #[command(flatten)]
    pub(super) common: CommonArguments,

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

/// Serves node requests: takes ready nodes or launches new ones, and deletes those that were used.
///
/// Without -d or -f it becomes a daemon. SIGINT, SIGTERM and SIGUSR1 stop it within ten seconds: running launches are
/// cancelled and their requests given back. A second one, half a second later or more, ends it at once. SIGUSR2 logs
/// the stacks of all threads, SIGHUP opens the log files anew.
#[derive(Debug, Parser)]
#[command(name = LAUNCHER, version)]
pub(super) struct LauncherArguments {
    #[command(flatten)]
    pub(super) files: FileArguments,

    /// The pid file of the daemon
    #[arg(short = 'p', value_name = "FILE", default_value = "/var/run/nodepool/nodepool-launcher.pid")]
    pub(super) pid_file: PathBuf,

    #[command(flatten)]
    pub(super) common: CommonArguments,

    /// Serve no status pages
    #[arg(long)]
    pub(super) no_webapp: bool,
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

/// Says of an option that the original has what there is instead.
fn explain<P: CommandFactory>(error: clap::Error) -> clap::Error {
    match error.get(ContextKind::InvalidArg) {
        Some(ContextValue::String(name)) if name == "--repl" => {
            let why = "`--repl` needs an interpreter; SIGUSR2 logs what the threads are doing";
            P::command().error(ErrorKind::UnknownArgument, why)
        }
        _ => error,
    }
}

/// The definition of the builder's command line, for manual pages and completions.
pub fn builder_command() -> clap::Command {
    BuilderArguments::command()
}

/// The definition of the launcher's command line, for manual pages and completions.
pub fn launcher_command() -> clap::Command {
    LauncherArguments::command()
}

/// The command line of this process. One that is wrong, or only asks for help, ends it.
pub(super) fn read<P: Parser>() -> P {
    P::try_parse().unwrap_or_else(|error| explain::<P>(error).exit())
}
