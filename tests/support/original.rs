//! The Python original, nodepool 11.0.0 with its kazoo: `scripts/original` installs it into a venv, once per checkout.
//!
//! A test that needs it fails when it cannot be installed, and says why. Its programs take a second of the processor
//! before they do anything, hence the long limits.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::sync::OnceLock;
use std::time::Duration;

use super::{Daemon, Outcome, Sandbox, eventually};

const CHECKOUT: &str = env!("CARGO_MANIFEST_DIR");
/// For its daemon and its client on a machine that is busy with other tests.
const LIMIT: Duration = Duration::from_secs(120);
const SOCKET: &str = "original-client";
const BUILDERS: &str = "/nodepool/components/builder";
const POOLS: &str = "/nodepool/components/pool";

/// The venv.
pub struct Original {
    bin: PathBuf,
}

impl Original {
    /// The venv of all tests, made by the first that asks.
    #[track_caller]
    pub fn get() -> &'static Original {
        static ORIGINAL: OnceLock<Result<Original, String>> = OnceLock::new();
        // A panic in here would be repeated to the others as a poisoned lock, without the reason.
        let made = ORIGINAL.get_or_init(|| install(None, &[]).map(|venv| Original { bin: venv.join("bin") }));
        made.as_ref().unwrap_or_else(|why| panic!("{why}"))
    }

    /// The interpreter, which finds kazoo.
    pub fn python(&self) -> Command {
        Command::new(self.bin.join("python"))
    }

    /// Starts its builder on a configuration and waits until it is registered.
    #[track_caller]
    pub fn builder(&self, sandbox: &Sandbox<'_>, config: &Path, args: &[&str]) -> Daemon {
        let zk = sandbox.zk();
        let before = zk.children(BUILDERS);
        let mut command = self.program(sandbox, "nodepool-builder");
        command.arg("-f").arg("-c").arg(config).args(args);
        let daemon = sandbox.spawn(&command);
        daemon.wait_until("its component", LIMIT, || {
            zk.children(BUILDERS).iter().any(|name| !before.contains(name)).then_some(())
        });
        daemon
    }

    /// Starts its launcher on a configuration and waits until a pool of it is registered.
    #[track_caller]
    pub fn launcher(&self, sandbox: &Sandbox<'_>, config: &Path) -> Daemon {
        self.launcher_with(sandbox, config, &["--no-webapp"])
    }

    /// The same with arguments; without `--no-webapp` it has its pages where the configuration says.
    #[track_caller]
    pub fn launcher_with(&self, sandbox: &Sandbox<'_>, config: &Path, args: &[&str]) -> Daemon {
        let zk = sandbox.zk();
        let before = zk.children(POOLS);
        let mut command = self.program(sandbox, "nodepool-launcher");
        command.arg("-f").args(args).arg("-c").arg(config);
        let daemon = sandbox.spawn(&command);
        daemon.wait_until("its pool", LIMIT, || {
            zk.children(POOLS).iter().any(|name| !before.contains(name)).then_some(())
        });
        daemon
    }

    /// Runs its client to the end.
    #[track_caller]
    pub fn nodepool(&self, sandbox: &Sandbox<'_>, config: &Path, args: &[&str]) -> Outcome {
        let mut command = self.program(sandbox, "nodepool");
        command.arg("-c").arg(config).args(args);
        sandbox.run_client(command, "", LIMIT)
    }

    /// Copies of the configurations of its own tests, and whether it accepts them. They want NODEPOOL_PORT.
    #[track_caller]
    pub fn judged_fixtures(&self, sandbox: &Sandbox<'_>) -> Vec<(bool, PathBuf)> {
        let folder = sandbox.path("fixtures");
        std::fs::create_dir(&folder).expect("create the folder of the fixtures");
        let mut command = self.program(sandbox, "python");
        command.arg(Path::new(CHECKOUT).join("tests/support/original-validate.py")).arg(folder);
        command.env("NODEPOOL_PORT", "22");
        let judged = sandbox.run_client(command, "", LIMIT).ok();
        let judged = judged.lines().map(|line| line.split_once(' ').expect("a verdict and a file"));
        judged.map(|(verdict, file)| (verdict == "accepted", file.into())).collect()
    }

    /// One of its programs, with definitions of the clouds that its configurations name and nobody calls.
    fn program(&self, sandbox: &Sandbox<'_>, name: &str) -> Command {
        let clouds = sandbox.path("clouds.yaml");
        if !clouds.exists() {
            let auth = "{username: a, password: a, project_name: a, user_domain_name: a, project_domain_name: a, \
                        auth_url: 'http://localhost'}";
            let clouds = ["fake", "real-cloud", "vanilla-cloud", "chocolate-cloud", "potato", "no-cloud"]
                .map(|name| format!("{name}: {{auth: {auth}}}"));
            sandbox.replace("clouds.yaml", &format!("clouds: {{{}}}\n", clouds.join(", ")));
        }
        let mut command = sandbox.command(self.bin.join(name));
        command.env("OS_CLIENT_CONFIG_FILE", clouds);
        command
    }
}

/// Its client, loaded once for many runs: the program itself takes seconds before it does anything.
pub struct Client<'a> {
    sandbox: &'a Sandbox<'a>,
    config: PathBuf,
    _process: Daemon,
}

impl<'a> Client<'a> {
    #[track_caller]
    pub fn start(sandbox: &'a Sandbox<'a>, config: &Path) -> Client<'a> {
        let mut command = Original::get().program(sandbox, "python");
        command.arg(Path::new(CHECKOUT).join("tests/support/original-client.py")).arg(sandbox.path(SOCKET));
        let process = sandbox.spawn(&command);
        process.wait_log("ready\n", LIMIT);
        Client { sandbox, config: config.to_owned(), _process: process }
    }

    /// Runs the client to the end.
    #[track_caller]
    pub fn run(&self, args: &[&str]) -> Outcome {
        self.run_on(&self.config, "", args)
    }

    /// Runs the client to the end on any configuration, with an answer to its question.
    #[track_caller]
    pub fn run_on(&self, config: &Path, input: &str, args: &[&str]) -> Outcome {
        let dir = self.sandbox.run_dir();
        std::fs::write(dir.join("stdin"), input).expect("write the client's input");
        let words = [dir.to_str().unwrap(), "-c", config.to_str().unwrap()].into_iter();
        let request = words.chain(args.iter().copied()).collect::<Vec<_>>().join("\0");
        let mut status = String::new();
        let mut socket = UnixStream::connect(self.sandbox.path(SOCKET)).expect("reach the original's client");
        socket.set_read_timeout(Some(LIMIT)).unwrap();
        socket.write_all(request.as_bytes()).unwrap();
        socket.shutdown(Shutdown::Write).unwrap();
        socket.read_to_string(&mut status).unwrap_or_else(|e| panic!("no answer to {args:?}: {e}"));
        let text = |name: &str| std::fs::read_to_string(dir.join(name)).expect("read the client's output");
        Outcome {
            status: ExitStatus::from_raw(status.parse().expect("a status")),
            stdout: text("stdout"),
            stderr: text("stderr"),
        }
    }
}

/// Runs `scripts/original`: the venv's directory, or why there is none. Every wait of the script has a limit.
pub fn install(venv: Option<&Path>, env: &[(&str, &str)]) -> Result<PathBuf, String> {
    let mut command = Command::new(Path::new(CHECKOUT).join("scripts/original"));
    let output = command.args(venv).envs(env.iter().copied()).output();
    let output = output.map_err(|error| format!("cannot start scripts/original: {error}"))?;
    if output.status.success() {
        let path = String::from_utf8(output.stdout).map_err(|error| error.to_string())?;
        return Ok(PathBuf::from(path.trim_end()));
    }
    Err(format!(
        "this test needs the Python original, and scripts/original failed ({}):\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    ))
}

/// The rows of a table that either client has printed, its header first and the others sorted.
pub fn rows(table: &str) -> Vec<Vec<String>> {
    let lines = table.lines().filter(|line| line.starts_with('|'));
    let cells = |line: &str| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect();
    let mut rows: Vec<Vec<String>> = lines.map(cells).collect();
    if let Some(body) = rows.get_mut(1..) {
        body.sort();
    }
    rows
}

/// Waits for the end of a program of its that was told to stop.
#[track_caller]
pub fn wait_stopped(daemon: &Daemon) {
    eventually(LIMIT, "the original's end", || daemon.exited().map(|_| ()));
}
