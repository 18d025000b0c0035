//! The packages and the service: installed on a copy of the test machine, driven through the init script, removed.
//!
//! The packages are built once, of the programs that the tests were built with; scripts/package-deb and
//! package-rpm do the rest as they do for a release. What both daemons must do is asked of both.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod debian;
mod init_script;
mod launcher;
mod machine;
mod rpm;
mod start;
mod systemd;
mod upgrade;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use machine::Machine;

use crate::support::{Header, Outcome, Sandbox, eventually, scratch_dir};

/// For what takes a second on an idle machine.
const SOON: Duration = Duration::from_secs(60);

/// A daemon that has a package.
struct Daemon {
    name: &'static str,
    /// A thread that each dump shows.
    thread: &'static str,
    /// What is made again after a restart.
    again: &'static str,
}

const BUILDER: &Daemon =
    &Daemon { name: "nodepool-builder", thread: "build-worker-0", again: "builds and uploads that ran" };
const LAUNCHER: &Daemon =
    &Daemon { name: "nodepool-launcher", thread: "errand-worker-0", again: "launches that ran" };
const DAEMONS: [&Daemon; 2] = [BUILDER, LAUNCHER];

impl Daemon {
    fn on<'a>(&'static self, machine: &'a Machine<'a>) -> Service<'a> {
        let Daemon { name, thread, again } = self;
        let run = |end: &str| format!("/run/nodepool/{name}.{end}");
        Service {
            machine,
            name,
            thread,
            again,
            script: format!("/etc/init.d/{name}"),
            program: format!("/usr/sbin/{name}"),
            pid_file: run("pid"),
            stacks: run("stacks"),
            log: format!("/var/log/nodepool/{name}.log"),
            debug_log: format!("/var/log/nodepool/{name}-debug.log"),
            unit: format!("{name}.service"),
        }
    }
}

/// A daemon as a service of a copy of this machine.
struct Service<'a> {
    machine: &'a Machine<'a>,
    name: &'static str,
    thread: &'static str,
    again: &'static str,
    script: String,
    program: String,
    pid_file: String,
    stacks: String,
    log: String,
    debug_log: String,
    unit: String,
}

impl Service<'_> {
    /// A verb of the init script.
    #[track_caller]
    fn run(&self, verb: &str) -> Outcome {
        self.machine.sh(&format!("{} {verb}", self.script))
    }

    /// Runs a verb that must end with this exit code.
    #[track_caller]
    fn expect(&self, verb: &str, code: i32) -> String {
        let outcome = self.run(verb);
        assert_eq!(outcome.status.code(), Some(code), "{} {verb}: {outcome:?}", self.name);
        outcome.stdout + &outcome.stderr
    }

    /// The daemon's number in the copy.
    #[track_caller]
    fn pid(&self) -> u32 {
        self.machine.ok(&format!("cat {}", self.pid_file)).trim().parse().unwrap()
    }

    #[track_caller]
    fn wait_for_line(&self, line: &str) {
        eventually(SOON, &format!("{line:?} in the log"), || {
            self.machine.sh(&format!("cat {}", self.debug_log)).stdout.contains(line).then_some(())
        });
    }
}

/// Runs one of the packaging scripts: the folder, made for it, where the packages are.
fn build(script: &str) -> Result<PathBuf, String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let bins = Path::new(env!("CARGO_BIN_EXE_nodepool")).parent().unwrap();
    // Built already when all tests are.
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--quiet", "--locked", "--offline", "--example", "generate-docs"]).current_dir(root);
    cargo.arg("--target-dir").arg(bins.parent().unwrap());
    if bins.ends_with("release") {
        cargo.arg("--release");
    }
    // What cargo tells the tests about themselves would have it build some dependencies again.
    let of_this_test =
        ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_EXE_", "CARGO_CRATE_", "CARGO_PRIMARY_", "OUT_DIR"];
    for (key, _) in std::env::vars().filter(|(key, _)| of_this_test.iter().any(|own| key.starts_with(own))) {
        cargo.env_remove(key);
    }
    let mut package = Command::new(root.join("scripts").join(script));
    let output = scratch_dir(script);
    package.arg("--bins").arg(bins).arg(&output);
    for command in [&mut cargo, &mut package] {
        let ran = command.output().map_err(|error| format!("cannot run {command:?}: {error}"))?;
        if !ran.status.success() {
            return Err(format!("{command:?} failed: {}", String::from_utf8_lossy(&ran.stderr)));
        }
    }
    Ok(output)
}

/// The packages of one kind with the names of their files, built once for all tests.
type Built = OnceLock<Result<Vec<(String, Vec<u8>)>, String>>;

/// The packages that this script builds: the common one, and those of the daemons. Copied into the sandbox.
#[track_caller]
fn packages(sandbox: &Sandbox<'_>, script: &str, built: &Built, daemons: &[&Daemon]) -> Vec<PathBuf> {
    let built = built.get_or_init(|| {
        let folder = build(script)?;
        let read = || {
            let files = std::fs::read_dir(&folder)?.map(|entry| {
                let entry = entry?;
                Ok((entry.file_name().into_string().unwrap(), std::fs::read(entry.path())?))
            });
            let files: Vec<_> = files.collect::<std::io::Result<_>>()?;
            std::fs::remove_dir_all(&folder).map(|()| files)
        };
        read().map_err(|error| error.to_string())
    });
    let built = built.as_ref().unwrap_or_else(|why| panic!("{why}"));
    let names = ["nodepool"].into_iter().chain(daemons.iter().map(|daemon| daemon.name));
    let copies = names.map(|name| {
        let is = |file: &str| {
            file.strip_prefix(name)
                .and_then(|rest| rest.strip_prefix(['-', '_']))
                .is_some_and(|rest| rest.starts_with(|first: char| first.is_ascii_digit()))
        };
        let (file, bytes) = built.iter().find(|(file, _)| is(file)).unwrap_or_else(|| panic!("no {name}"));
        let copy = sandbox.path(file);
        std::fs::write(&copy, bytes).unwrap();
        copy
    });
    copies.collect()
}

#[track_caller]
fn debs(sandbox: &Sandbox<'_>, daemons: &[&Daemon]) -> Vec<PathBuf> {
    static BUILT: Built = OnceLock::new();
    packages(sandbox, "package-deb", &BUILT, daemons)
}

#[track_caller]
fn rpms(sandbox: &Sandbox<'_>, daemons: &[&Daemon]) -> Vec<PathBuf> {
    static BUILT: Built = OnceLock::new();
    packages(sandbox, "package-rpm", &BUILT, daemons)
}

/// As arguments of a shell's command.
fn words(files: &[PathBuf]) -> String {
    files.iter().map(|file| file.display().to_string()).collect::<Vec<_>>().join(" ")
}

/// A copy of this machine where the packages are installed and nothing is configured.
#[track_caller]
fn installed<'a>(sandbox: &'a Sandbox<'a>, daemons: &[&Daemon]) -> Machine<'a> {
    install(sandbox, Machine::start(sandbox), daemons)
}

/// The same machine with the packages.
#[track_caller]
fn install<'a>(sandbox: &Sandbox<'_>, machine: Machine<'a>, daemons: &[&Daemon]) -> Machine<'a> {
    let packages = debs(sandbox, daemons);
    let said = machine.ok(&format!("dpkg --install {} 2>&1", words(&packages)));
    assert!(!said.contains("fail"), "there is nothing to start yet, which is no failure: {said}");
    machine
}

/// Writes the configuration and gives the sandbox's folders to the service's user.
fn configure(sandbox: &Sandbox<'_>, machine: &Machine<'_>, body: &str) {
    sandbox.write_config(&format!("{}{body}", sandbox.header(&Header::default())));
    std::fs::create_dir_all(sandbox.path("run")).unwrap();
    let dir = sandbox.dir().display();
    machine.ok(&format!(
        "cp {dir}/nodepool.yaml /etc/nodepool/ && cd {dir} && chown -R nodepool: images logs store elements run"
    ));
}

/// The processes that have the word in their command line.
fn processes(machine: &Machine<'_>, word: &str) -> Vec<u32> {
    // So that the shell that asks does not have it.
    let (first, rest) = word.split_at(1);
    let listed = machine.sh(&format!("pgrep -f -- '[{first}]{rest}'"));
    listed.stdout.lines().filter_map(|line| line.parse().ok()).collect()
}

fn is_alive(machine: &Machine<'_>, pid: u32) -> bool {
    let state = machine.sh(&format!("sed 's/.*) //' /proc/{pid}/stat")).stdout;
    !state.is_empty() && !state.starts_with('Z')
}

#[track_caller]
fn wait_gone(machine: &Machine<'_>, pid: u32) {
    eventually(SOON, &format!("the end of process {pid}"), || (!is_alive(machine, pid)).then_some(()));
}
