//! What the command line prints.

use std::process::Command;

#[test]
fn help_and_version_are_printed() {
    for (option, says) in [("--help", "--build-workers"), ("--version", env!("CARGO_PKG_VERSION"))] {
        let output = Command::new(env!("CARGO_BIN_EXE_nodepool-builder")).arg(option).output().unwrap();
        assert!(output.status.success());
        assert!(String::from_utf8_lossy(&output.stdout).contains(says), "{output:?}");
    }
}
