//! Runs of the `nodepool` client, bounded in time.

use std::fs::File;
use std::path::Path;
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use super::within;

/// No command of the client takes longer than this on a machine that works.
pub const CLIENT_LIMIT: Duration = Duration::from_secs(30);

/// What a run of the client left.
#[derive(Clone, Debug)]
pub struct Outcome {
    pub status: ExitStatus,
    pub stdout: String,
    pub stderr: String,
}

impl Outcome {
    /// The exit code; panics when a signal ended the client.
    #[track_caller]
    pub fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("a signal ended the client: {self:?}"))
    }

    /// The standard output of a run that succeeded; panics with everything for one that did not.
    #[track_caller]
    pub fn ok(self) -> String {
        let Outcome { status, stdout, stderr } = self;
        assert!(
            status.success(),
            "the client failed ({status})\n--- stdout:\n{stdout}\n--- stderr:\n{stderr}"
        );
        stdout
    }

    /// The standard output of a `--output json` run.
    #[track_caller]
    pub fn json(self) -> serde_json::Value {
        let text = self.ok();
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("not JSON ({error}): {text}"))
    }
}

/// Runs `program` with `input`, its streams in files of `dir`, so that no pipe can make it wait for us.
#[track_caller]
pub fn run(mut program: Command, input: &str, dir: &Path, deadline: Duration) -> Outcome {
    let path = |name: &str| dir.join(name);
    let create = |name: &str| File::create(path(name)).unwrap_or_else(|e| panic!("cannot write {name}: {e}"));
    let text = |name: &str| {
        String::from_utf8_lossy(&std::fs::read(path(name)).expect("read the client's output")).into_owned()
    };
    std::fs::write(path("stdin"), input).expect("write the client's input");
    program.stdin(File::open(path("stdin")).expect("open the client's input"));
    program.stdout(Stdio::from(create("stdout"))).stderr(Stdio::from(create("stderr")));
    let mut child = program.spawn().unwrap_or_else(|error| panic!("cannot start {program:?}: {error}"));
    let ended = within(deadline, || child.try_wait().expect("wait for the client"));
    let Some(status) = ended else {
        let _ = child.kill();
        let _ = child.wait();
        panic!(
            "{program:?} still ran after {:.1} s\n--- stdout:\n{}\n--- stderr:\n{}",
            deadline.as_secs_f64(),
            text("stdout"),
            text("stderr")
        );
    };
    Outcome { status, stdout: text("stdout"), stderr: text("stderr") }
}
