//! Tests that want a process of their own: for what belongs to a whole process, or to be killed.
//!
//! What such a test does stands in an ignored one, which the test program is run again for.

use std::process::Command;

/// The test program, to run this ignored test alone.
pub fn again(test: &str) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command.args(["--ignored", "--exact", test, "--nocapture", "--test-threads=1"]);
    command
}

/// Runs what [`again`] has made, and returns what it prints. That it ends well is not enough: without a test of that
/// name it would, too.
#[track_caller]
pub fn passes(mut command: Command) -> String {
    let output = command.output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && text.contains("1 passed"), "{command:?}: {}\n{text}", output.status);
    text.into_owned()
}
