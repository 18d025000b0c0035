//! What the daemons' programs do alike: from the command line to the end (spec/cli.md).

use std::convert::Infallible;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use crossbeam_channel::{Receiver, select};
use nodepool_threads::{
    Detached, Signal, SignalThread, StopSignals, activity_within, block_dump_signal, block_signals,
    default_signals, detach, give_memory_back, keep_no_thread_caches, kill_child_groups, register_main,
};
use slog::{Logger, error, info};

use super::arguments::CommonArguments;
use super::pid_file::PidFile;
use super::settle::settle;
use super::stack_dump::{Besides, StackDumps, dump_file};
use super::stop_limit::StopLimit;
use crate::arguments::FileArguments;
use crate::config::{Config, ConfigFiles, Loaded};
use crate::logging::{LogSettings, Logging, Stream, Writers};

/// How long the start may take: another daemon and what it has left running are waited for.
const START_LIMIT: Duration = Duration::from_secs(20);

/// How long whoever has started a daemon waits to hear how that went. Only what hangs takes so long.
const STARTER_LIMIT: Duration = Duration::from_secs(180);

/// A daemon's program, with the command line that it was started with.
pub(super) trait Program {
    /// Its name.
    const NAME: &'static str;
    /// What asks it to stop.
    const STOPS: StopSignals;
    /// What it runs.
    type App: App;

    /// The files that it reads.
    fn files(&self) -> &FileArguments;

    /// Where its pid file is.
    fn pid_file(&self) -> &Path;

    /// What all daemons can be told.
    fn common(&self) -> &CommonArguments;

    /// Where its pages are to be served, if anywhere.
    fn pages(&self, config: &Config) -> Option<SocketAddr>;

    /// Starts what it runs; `notice` is told if something must be waited for. The error is the reason why it cannot.
    fn start(
        &self,
        prepared: Prepared,
        log: &Logger,
        notice: &mut dyn FnMut(&str),
    ) -> Result<Self::App, String>;
}

/// What a daemon's program runs.
pub(super) trait App {
    /// Reads as disconnected once it has ended by itself, which only a bug makes it do.
    fn ended(&self) -> &Receiver<Infallible>;

    /// Stops it: running work is cancelled and cleaned up. False if some of its threads do not let go.
    fn stop(self) -> bool;
}

/// What a program starts on.
pub(super) struct Prepared {
    pub(super) files: ConfigFiles,
    pub(super) loaded: Loaded,
    /// For its pages, where only root may listen.
    pub(super) door: Option<TcpListener>,
}

/// A program being run.
struct Run<'a, P> {
    program: &'a P,
    pid_file: PathBuf,
}

/// The program, from its begin to its end.
pub(super) fn main<P: Program>(read: impl FnOnce() -> P) -> ExitCode {
    keep_no_thread_caches();
    default_signals();
    // Whoever wants to see why a start hangs must not end it. It waits for the thread that makes dumps.
    if let Err(error) = block_dump_signal() {
        return refuse::<P>(&format!("cannot block a signal: {error}"));
    }
    give_memory_back();
    let program = read();
    let pid_file = std::path::absolute(program.pid_file()).unwrap_or_else(|_| program.pid_file().to_owned());
    let common = program.common();
    let pages = || program.pages(&program.files().config_files().load().ok()?.config);
    let door = match settle(common, (!common.in_foreground()).then_some(&pid_file), pages) {
        Ok(door) => door,
        Err(why) => return refuse::<P>(&why),
    };
    // As the user, who has to read the files at each change as well.
    let files = program.files().config_files();
    let loaded = match files.load() {
        Ok(loaded) => loaded,
        Err(error) => return refuse::<P>(&error.to_string()),
    };
    let logging = match log_settings(&program) {
        Ok(settings) => settings,
        Err(why) => return refuse::<P>(&why),
    };
    let run = Run { program: &program, pid_file };
    let prepared = Prepared { files, loaded, door };
    if common.in_foreground() {
        return start_logging::<P>(logging)
            .and_then(|(logging, _writers)| run.run(prepared, &logging, || Ok(())))
            .unwrap_or_else(|why| refuse::<P>(&why));
    }
    run.become_daemon(prepared, logging)
}

fn refuse<P: Program>(why: &str) -> ExitCode {
    say::<P>(why);
    ExitCode::FAILURE
}

/// Tells whoever has started the program.
fn say<P: Program>(text: &str) {
    use std::io::Write as _;
    // With standard error closed there is only the exit code left to tell.
    for line in text.lines() {
        let _ = writeln!(std::io::stderr(), "{}: {line}", P::NAME);
    }
}

/// What `-l` says; else the default files of a daemon, or standard output in the foreground.
fn log_settings<P: Program>(program: &P) -> Result<LogSettings, String> {
    let common = program.common();
    match &program.files().logging {
        Some(file) => LogSettings::read(file).map_err(|error| error.to_string()),
        None if common.in_foreground() => Ok(LogSettings::console(Stream::Stdout, common.debug)),
        None => Ok(LogSettings::daemon(P::NAME)),
    }
}

/// Starts logging, and with it the first threads: from here on signals wait for the thread that takes them.
fn start_logging<P: Program>(settings: LogSettings) -> Result<(Logging, Writers), String> {
    block_signals(P::STOPS).map_err(|error| format!("cannot block signals: {error}"))?;
    Logging::start(settings, P::NAME)
}

impl<P: Program> Run<'_, P> {
    fn become_daemon(&self, prepared: Prepared, logging: LogSettings) -> ExitCode {
        let startup = match detach(STARTER_LIMIT) {
            Ok(Detached::Daemon(startup)) => startup,
            Ok(Detached::Starter(Ok(()))) => return ExitCode::SUCCESS,
            Ok(Detached::Starter(Err(why))) => return refuse::<P>(&why),
            Err(error) => return refuse::<P>(&format!("cannot become a daemon: {error}")),
        };
        let locked = PidFile::lock(&self.pid_file)
            .and_then(|pid| Ok((pid, start_logging::<P>(logging.in_background())?)));
        // Dropped in the reverse order: the log has all that was said, and only then is the pid file gone, by which
        // others know that the daemon has ended.
        let (mut pid, (logging, _writers)) = match locked {
            Ok(locked) => locked,
            Err(why) => {
                startup.failed(&why);
                return ExitCode::FAILURE;
            }
        };
        let mut startup = Some(startup);
        let ended = self.run(prepared, &logging, || {
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

    /// Runs it to its stop. `started` is called once the start has succeeded. The error is the reason
    /// why it has not.
    fn run(
        &self,
        prepared: Prepared,
        logging: &Logging,
        started: impl FnOnce() -> Result<(), String>,
    ) -> Result<ExitCode, String> {
        let _main = register_main();
        let log = logging.log();
        let common = self.program.common();
        // Then what is logged is seen where this is said.
        let logs_to_terminal = common.in_foreground() && self.program.files().logging.is_none();
        logging.log_panics();
        info!(log, "starting"; "program" => P::NAME, "version" => env!("CARGO_PKG_VERSION"));
        let file = dump_file(&self.pid_file);
        let besides = if common.in_foreground() { Besides::Foreground(file) } else { Besides::Daemon(file) };
        let (dumps, asker) = StackDumps::start(P::NAME, logging, besides)
            .map_err(|error| format!("cannot start the thread for stack dumps: {error}"))?;
        let last = logging.clone();
        let last_words = move || {
            error!(last.log(), "a second signal: leaving at once, without cleaning up");
            last.last_words();
        };
        let running = SignalThread::start(P::STOPS, move || asker.ask(), last_words)
            .map_err(|error| format!("cannot take signals: {error}"))
            .and_then(|(signal_thread, signals)| {
                let _doing = activity_within(START_LIMIT, "starting");
                let app = self.program.start(prepared, log, &mut |notice| {
                    info!(log, "{notice}");
                    if !logs_to_terminal {
                        say::<P>(notice);
                    }
                })?;
                started()?;
                Ok((signal_thread, signals, app))
            });
        let (_signal_thread, signals, app) = match running {
            Ok(running) => running,
            Err(why) => {
                if !logs_to_terminal {
                    error!(log, "the start has failed"; "reason" => &why);
                }
                return Err(why);
            }
        };
        let asked = wait_for_stop(&signals, &app, logging);
        let _limit = StopLimit::start(logging);
        let _doing = activity_within(StopLimit::LIMIT, "stopping");
        let clean = app.stop();
        // Within the limit too: a dump may be being made.
        drop(dumps);
        Ok(match clean {
            true if asked => ExitCode::SUCCESS,
            true => ExitCode::FAILURE,
            // Some thread does not end. Leaving `main` ends the process all the same, but not its children.
            false => {
                kill_child_groups();
                ExitCode::FAILURE
            }
        })
    }
}

/// Waits until a signal asks for the stop. False if the app has ended by itself.
fn wait_for_stop(signals: &Receiver<Signal>, app: &impl App, logging: &Logging) -> bool {
    let log = logging.log();
    loop {
        select! {
            recv(app.ended()) -> _ => {
                error!(log, "the thread that decides has ended; this is a bug");
                return false;
            }
            recv(signals) -> signal => match signal {
                Ok(Signal::Stop) | Err(_) => return true,
                Ok(Signal::Reload) => {
                    logging.reopen();
                    info!(log, "SIGHUP: the log files are opened anew; the configuration is watched anyway");
                }
            },
        }
    }
}
