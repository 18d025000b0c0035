//! The packages and the service: installed on a copy of the test machine, driven through the init script, removed.
//!
//! The package is built once, of the programs that the tests were built with; scripts/package-deb and
//! package-rpm do the rest as they do for a release.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod debian;
mod init_script;
mod machine;
mod rpm;
mod start;

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use machine::Machine;

use crate::support::{Header, Outcome, Sandbox, eventually, scratch_dir};

/// For what takes a second on an idle machine.
const SOON: Duration = Duration::from_secs(60);
const SERVICE: &str = "/etc/init.d/nodepool-builder";
const PID_FILE: &str = "/run/nodepool/nodepool-builder.pid";
const DEBUG_LOG: &str = "/var/log/nodepool/nodepool-builder-debug.log";

/// Runs one of the packaging scripts: the package's file, in a folder of its own.
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
    let of_this_test = ["CARGO_PKG_", "CARGO_MANIFEST_", "CARGO_BIN_EXE_", "CARGO_CRATE_", "CARGO_PRIMARY_"];
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
    let file = std::fs::read_dir(&output).unwrap().next().ok_or("no package was built")?;
    Ok(file.unwrap().path())
}

/// The Debian package of all tests, copied into the sandbox.
#[track_caller]
fn deb(sandbox: &Sandbox<'_>) -> PathBuf {
    static BYTES: OnceLock<Result<Vec<u8>, String>> = OnceLock::new();
    let built = BYTES.get_or_init(|| {
        let file = build("package-deb")?;
        let bytes = std::fs::read(&file).map_err(|error| error.to_string());
        std::fs::remove_dir_all(file.parent().unwrap()).map_err(|error| error.to_string())?;
        bytes
    });
    let copy = sandbox.path("nodepool.deb");
    std::fs::write(&copy, built.as_ref().unwrap_or_else(|why| panic!("{why}"))).unwrap();
    copy
}

/// A copy of this machine where the package is installed and nothing is configured.
#[track_caller]
fn installed<'a>(sandbox: &'a Sandbox<'a>) -> Machine<'a> {
    let package = deb(sandbox);
    let machine = Machine::start(sandbox);
    machine.ok(&format!("dpkg --install {}", package.display()));
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

/// A verb of the init script.
#[track_caller]
fn service(machine: &Machine<'_>, verb: &str) -> Outcome {
    machine.sh(&format!("{SERVICE} {verb}"))
}

/// Runs a verb that must end with this exit code.
#[track_caller]
fn expect(machine: &Machine<'_>, verb: &str, code: i32) -> String {
    let outcome = service(machine, verb);
    assert_eq!(outcome.status.code(), Some(code), "{verb}: {outcome:?}");
    outcome.stdout + &outcome.stderr
}

/// The daemon's number in the copy.
#[track_caller]
fn daemon(machine: &Machine<'_>) -> u32 {
    machine.ok(&format!("cat {PID_FILE}")).trim().parse().unwrap()
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
