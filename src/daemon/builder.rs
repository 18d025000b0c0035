//! `nodepool-builder`: its command line, its start and its stop (spec/cli.md).

use std::path::Path;
use std::process::ExitCode;

use clap::Parser as _;
use crossbeam_channel::{Receiver, select};
use nodepool_threads::{
    Detached, Signal, SignalThread, block_signals, default_signals, detach, give_memory_back,
    kill_child_groups, register_main,
};
use slog::{debug, error, info};

use super::arguments::{Arguments, NAME};
use super::pid_file::PidFile;
use super::settle::settle;
use super::stack_dump::{Fallback, StackDumps};
use super::stop_limit::StopLimit;
use crate::builder::{NodepoolBuilderApp, Options, Stopped};
use crate::config::{ConfigFiles, Env, Loaded};
use crate::logging::{LogSettings, Logging, Stream, Writers};

/// The program.
pub fn builder_main() -> ExitCode {
    default_signals();
    give_memory_back();
    let arguments = Arguments::parse();
    let pid_file = std::path::absolute(&arguments.pid_file).unwrap_or_else(|_| arguments.pid_file.clone());
    if let Err(why) = settle(&arguments, (!arguments.in_foreground()).then_some(&pid_file)) {
        return refuse(&why);
    }
    // As the user, who has to read the files at each change as well.
    let files = ConfigFiles::new(&arguments.config, arguments.secure.as_deref(), Env::of_process());
    let loaded = match files.load() {
        Ok(loaded) => loaded,
        Err(error) => return refuse(&error.to_string()),
    };
    let logging = match log_settings(&arguments) {
        Ok(settings) => settings,
        Err(why) => return refuse(&why),
    };
    if arguments.in_foreground() {
        return start_logging(logging)
            .and_then(|(logging, _writers)| run(&arguments, &files, loaded, &logging, &pid_file, || Ok(())))
            .unwrap_or_else(|why| refuse(&why));
    }
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
        None if arguments.in_foreground() => Ok(LogSettings::console(Stream::Stdout, arguments.debug)),
        None => Ok(LogSettings::daemon(NAME)),
    }
}

/// Starts logging, and with it the first threads: from here on signals wait for the thread that takes them.
fn start_logging(settings: LogSettings) -> Result<(Logging, Writers), String> {
    block_signals().map_err(|error| format!("cannot block signals: {error}"))?;
    Logging::start(settings, NAME)
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
    let prepared = PidFile::lock(pid_file).and_then(|pid| Ok((pid, start_logging(logging.in_background())?)));
    // Dropped in the reverse order: the log has all that was said, and only then is the pid file gone, by which
    // others know that the daemon has ended.
    let (mut pid, (logging, _writers)) = match prepared {
        Ok(prepared) => prepared,
        Err(why) => {
            startup.failed(&why);
            return ExitCode::FAILURE;
        }
    };
    let mut startup = Some(startup);
    let ended = run(arguments, files, loaded, &logging, pid_file, || {
        pid.write()?;
        let told = startup.take().map(|startup| startup.succeeded());
        told.unwrap_or(Ok(())).map_err(|error| format!("cannot detach from the terminal: {error}"))
    });
    ended.unwrap_or_else(|why| {
        // First, because whoever is told may try again at once.
        drop(pid);
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
    pid_file: &Path,
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
    let fallback = Fallback::beside(pid_file, arguments.in_foreground());
    let (dumps, asker) = StackDumps::start(logging, fallback)
        .map_err(|error| format!("cannot start the thread for stack dumps: {error}"))?;
    let last = logging.clone();
    let last_words = move || {
        error!(last.log(), "a second signal: leaving at once, without cleaning up");
        last.last_words();
    };
    let running = SignalThread::start(move || asker.ask(), last_words)
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
    let asked = wait_for_stop(&signals, &app, logging);
    let _limit = StopLimit::start(logging);
    let stopped = app.stop();
    // Within the limit too: a dump may be being made.
    drop(dumps);
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
            },
        }
    }
}
