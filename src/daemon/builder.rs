//! `nodepool-builder`: its command line, its start and its stop (spec/cli.md).

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use clap::Parser;
use crossbeam_channel::{Receiver, select};
use nodepool_threads::{
    Detached, Report, Signal, SignalThread, Watchdog, detach, give_memory_back, kill_child_groups,
    register_main, threads,
};
use slog::{Logger, debug, error, info, warn};

use super::pid_file::PidFile;
use super::stop_limit::StopLimit;
use crate::builder::{NodepoolBuilderApp, Options, Stopped};
use crate::config::{ConfigFiles, Env, Loaded};
use crate::logging::{LogSettings, Logging, Stream};

const NAME: &str = "nodepool-builder";

/// Builds disk images with diskimage-builder, uploads them to providers, and cleans up after them.
///
/// Without -d or -f it becomes a daemon. SIGINT and SIGTERM stop it within ten seconds: running builds and
/// uploads are cancelled and cleaned up. A second one ends it at once.
#[derive(Debug, Parser)]
#[command(name = NAME, version)]
struct Arguments {
    /// The configuration file
    #[arg(short = 'c', value_name = "FILE", default_value = "/etc/nodepool/nodepool.yaml")]
    config: PathBuf,

    /// The secure file, with what must not be world-readable
    #[arg(short = 's', value_name = "FILE")]
    secure: Option<PathBuf>,

    /// The logging configuration: a YAML file of ours, or a file of the original's in YAML or ini form
    #[arg(short = 'l', value_name = "FILE")]
    logging: Option<PathBuf>,

    /// The pid file of the daemon
    #[arg(short = 'p', value_name = "FILE", default_value = "/var/run/nodepool/nodepool-builder.pid")]
    pid_file: PathBuf,

    /// Stay in the foreground and log everything
    #[arg(short = 'd')]
    debug: bool,

    /// Stay in the foreground
    #[arg(short = 'f')]
    foreground: bool,

    /// How many images are built at the same time
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = workers)]
    build_workers: usize,

    /// How many uploads run at the same time
    #[arg(long, value_name = "N", default_value_t = 4, value_parser = workers)]
    upload_workers: usize,

    /// How often to look for what must be cleaned up without a change telling of it; 0 cleans up nothing
    #[arg(long, value_name = "SECONDS", default_value = "60", value_parser = interval)]
    cleanup_interval: Duration,
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

/// The program.
pub fn builder_main() -> ExitCode {
    give_memory_back();
    let arguments = Arguments::parse();
    let files = ConfigFiles::new(&arguments.config, arguments.secure.as_deref(), Env::of_process());
    let loaded = match files.load() {
        Ok(loaded) => loaded,
        Err(error) => return refuse(&error.to_string()),
    };
    let logging = match log_settings(&arguments) {
        Ok(settings) => settings,
        Err(why) => return refuse(&why),
    };
    if arguments.debug || arguments.foreground {
        return Logging::start(logging, NAME)
            .and_then(|(logging, _writers)| run(&arguments, &files, loaded, &logging, || Ok(())))
            .unwrap_or_else(|why| refuse(&why));
    }
    let pid_file = std::path::absolute(&arguments.pid_file).unwrap_or_else(|_| arguments.pid_file.clone());
    become_daemon(&arguments, &files, loaded, logging, &pid_file)
}

fn refuse(why: &str) -> ExitCode {
    use std::io::Write as _;
    // With standard error closed there is only the exit code left to tell.
    for line in why.lines() {
        let _ = writeln!(std::io::stderr(), "{NAME}: {line}");
    }
    ExitCode::FAILURE
}

/// What `-l` says; else the default files of a daemon, or standard output in the foreground.
fn log_settings(arguments: &Arguments) -> Result<LogSettings, String> {
    match &arguments.logging {
        Some(file) => LogSettings::read(file).map_err(|error| error.to_string()),
        None if arguments.debug || arguments.foreground => {
            Ok(LogSettings::console(Stream::Stdout, arguments.debug))
        }
        None => Ok(LogSettings::daemon(NAME)),
    }
}

fn become_daemon(
    arguments: &Arguments,
    files: &ConfigFiles,
    loaded: Loaded,
    logging: LogSettings,
    pid_file: &Path,
) -> ExitCode {
    let startup = match detach() {
        Ok(Detached::Daemon(startup)) => startup,
        Ok(Detached::Starter(Ok(()))) => return ExitCode::SUCCESS,
        Ok(Detached::Starter(Err(why))) => return refuse(&why),
        Err(error) => return refuse(&format!("cannot become a daemon: {error}")),
    };
    let prepared =
        PidFile::lock(pid_file).and_then(|pid| Ok((Logging::start(logging.in_background(), NAME)?, pid)));
    // The writers go last, so that the log has all that was said.
    let ((logging, _writers), mut pid) = match prepared {
        Ok(prepared) => prepared,
        Err(why) => {
            startup.failed(&why);
            return ExitCode::FAILURE;
        }
    };
    let mut startup = Some(startup);
    let ended = run(arguments, files, loaded, &logging, || {
        pid.write()?;
        let told = startup.take().map(|startup| startup.succeeded());
        told.unwrap_or(Ok(())).map_err(|error| format!("cannot detach from the terminal: {error}"))
    });
    ended.unwrap_or_else(|why| {
        if let Some(startup) = startup {
            startup.failed(&why);
        }
        ExitCode::FAILURE
    })
}

/// Runs the builder to its stop. `started` is called once the start has succeeded. The error is the reason
/// why it has not.
fn run(
    arguments: &Arguments,
    files: &ConfigFiles,
    loaded: Loaded,
    logging: &Logging,
    started: impl FnOnce() -> Result<(), String>,
) -> Result<ExitCode, String> {
    let _main = register_main();
    let log = logging.log();
    logging.log_panics();
    info!(log, "starting"; "program" => NAME, "version" => env!("CARGO_PKG_VERSION"));
    let options = Options {
        build_workers: arguments.build_workers,
        upload_workers: arguments.upload_workers,
        cleanup_interval: Some(arguments.cleanup_interval).filter(|interval| !interval.is_zero()),
    };
    let last_words = {
        let logging = logging.clone();
        move || logging.last_words()
    };
    let running = SignalThread::start(last_words)
        .map_err(|error| format!("cannot take signals: {error}"))
        .and_then(|(signal_thread, signals)| {
            let app = NodepoolBuilderApp::start(files, loaded, options, log)?;
            started()?;
            Ok((signal_thread, signals, app))
        });
    let (_signal_thread, signals, app) = match running {
        Ok(running) => running,
        Err(why) => {
            error!(log, "the start has failed"; "reason" => &why);
            return Err(why);
        }
    };
    let watchdog = watch_threads(log);
    let asked = wait_for_stop(&signals, &app, logging);
    let _limit = StopLimit::start(logging);
    let stopped = app.stop();
    // Within the limit too: it may be in the middle of a report.
    drop(watchdog);
    Ok(match stopped {
        Stopped::Clean if asked => ExitCode::SUCCESS,
        Stopped::Clean => ExitCode::FAILURE,
        // Some thread does not end. Leaving `main` ends the process all the same, but not its children.
        Stopped::Overdue => {
            kill_child_groups();
            ExitCode::FAILURE
        }
    })
}

/// Logs threads that are stuck. Without room for another thread nobody does.
fn watch_threads(log: &Logger) -> Option<Watchdog> {
    let for_reports = log.clone();
    let started = Watchdog::start(move |report| match &report {
        Report::Stuck(_) => error!(for_reports, "{report}"),
        Report::WentOn(_) => warn!(for_reports, "{report}"),
    });
    started.inspect_err(|error| warn!(log, "stuck threads will not be noticed"; "reason" => %error)).ok()
}

/// Waits until a signal asks for the stop. False if the builder has ended by itself.
fn wait_for_stop(signals: &Receiver<Signal>, app: &NodepoolBuilderApp, logging: &Logging) -> bool {
    let log = logging.log();
    loop {
        select! {
            recv(app.ended()) -> _ => {
                error!(log, "the builder thread has ended; this is a bug");
                return false;
            }
            recv(signals) -> signal => match signal {
                Ok(Signal::Stop) | Err(_) => return true,
                Ok(Signal::Reload) => {
                    logging.reopen();
                    debug!(log, "SIGHUP: the log is opened anew; the configuration is watched anyway");
                }
                Ok(Signal::Dump) => say_what_threads_do(log),
            },
        }
    }
}

fn say_what_threads_do(log: &Logger) {
    for thread in threads() {
        let doing: Vec<String> = thread
            .activities
            .iter()
            .map(|(what, since)| format!("{what} for {:.1} s", since.as_secs_f64()))
            .collect();
        debug!(log, "thread"; "name" => thread.name, "role" => thread.role, "id" => thread.id,
            "age in s" => thread.age.as_secs(), "doing" => doing.join(" > "));
    }
}
