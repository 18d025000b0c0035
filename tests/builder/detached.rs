//! The builder as a daemon in the background.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Output, Stdio};

use super::*;
use crate::support::Signal;
use crate::support::leash::Adopted;

/// Starts it without `-f`, and returns what the process that was started here had to say.
fn start(sandbox: &Sandbox<'_>) -> Output {
    start_with(sandbox, &pid_file(sandbox), "outputs: [{file: DIR/daemon.log, level: debug}]")
}

/// Its default log files are a matter of the packages' tests, which have a machine of their own for them.
fn start_with(sandbox: &Sandbox<'_>, pid_file: &Path, logging: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_nodepool-builder"));
    command.arg("-c").arg(sandbox.config_file()).arg("-p").arg(pid_file);
    command.arg("-l").arg(super::logging::log_config(sandbox, logging));
    // Files, because the daemon must not be able to hold a pipe open.
    let (out, err) = (sandbox.path("stdout"), sandbox.path("stderr"));
    command.stdin(Stdio::null()).stdout(File::create(&out).unwrap()).stderr(File::create(&err).unwrap());
    let mut starter = command.spawn().unwrap();
    let status = eventually(SOON, "the starter's end", || starter.try_wait().unwrap());
    Output { status, stdout: std::fs::read(out).unwrap(), stderr: std::fs::read(err).unwrap() }
}

fn pid_file(sandbox: &Sandbox<'_>) -> PathBuf {
    sandbox.path("builder.pid")
}

fn adopt(sandbox: &Sandbox<'_>) -> Adopted {
    Adopted::new(std::fs::read_to_string(pid_file(sandbox)).unwrap().trim().parse().unwrap())
}

/// The fields of a process's `stat` from the state on.
fn stat(pid: u32) -> Vec<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    stat.rsplit_once(") ").unwrap().1.split_whitespace().map(str::to_owned).collect()
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn it_goes_to_the_background_works_there_and_is_stopped_by_its_pid() {
    let sandbox = Sandbox::new("builder-daemon");
    sandbox.write_body(&body(&[image(&sandbox, "debian", "formats: [raw]")], &[]));
    let zk = sandbox.zk();
    let started = start(&sandbox);
    assert!(
        started.status.success() && started.stderr.is_empty() && started.stdout.is_empty(),
        "{started:?}"
    );
    let daemon = adopt(&sandbox);
    wait_ready(&zk, "debian");

    let fields = stat(daemon.pid());
    let (session, terminal) = (&fields[3], &fields[4]);
    assert_ne!(*session, stat(std::process::id())[3], "a session of its own");
    assert_ne!(*session, daemon.pid().to_string(), "and not its leader");
    assert_eq!(terminal, "0");
    assert_eq!(std::fs::read_link(format!("/proc/{}/cwd", daemon.pid())).unwrap(), PathBuf::from("/"));
    for stream in 0..3 {
        let link = std::fs::read_link(format!("/proc/{}/fd/{stream}", daemon.pid())).unwrap();
        assert_eq!(link, PathBuf::from("/dev/null"));
    }

    let second = start(&sandbox);
    assert_eq!(second.status.code(), Some(1));
    let expected = format!("already running as process {}", daemon.pid());
    assert!(stderr(&second).contains(&expected), "{second:?}");
    assert!(daemon.is_alive() && pid_file(&sandbox).exists());

    daemon.signal(Signal::TERM);
    eventually(SOON, "the daemon's end", || (!daemon.is_alive()).then_some(()));
    assert!(!pid_file(&sandbox).exists());
}

#[test]
fn a_stale_pid_file_is_replaced() {
    let sandbox = Sandbox::new("builder-stale-pid");
    sandbox.write_body(&body(&[], &[]));
    std::fs::create_dir(sandbox.path("run")).unwrap();
    // Process 1 lives, but is no daemon of ours; and the number of one that was killed.
    std::fs::write(pid_file(&sandbox), "1\n").unwrap();
    let first = start(&sandbox);
    assert!(first.status.success(), "{first:?}");
    let daemon = adopt(&sandbox);
    daemon.signal(Signal::KILL);
    eventually(SOON, "the daemon's end", || (!daemon.is_alive()).then_some(()));
    assert!(pid_file(&sandbox).exists());
    // The kernel takes a moment to let go of all that a killed process had.
    eventually(SOON, "a start over the stale file", || start(&sandbox).status.success().then_some(()));
    assert_ne!(adopt(&sandbox).pid(), daemon.pid());
}

#[test]
fn a_start_that_fails_is_told_to_whoever_started_it() {
    let sandbox = Sandbox::new("builder-daemon-fails");
    let header = sandbox.header(&crate::support::Header::default());
    let images_dir = format!("images-dir: {}", sandbox.images().display());
    for (config, why) in [
        (header.replace(&images_dir, ""), "the required key 'images-dir' is missing"),
        (
            header.replace(&images_dir, "images-dir: /no/such/directory"),
            "images-dir /no/such/directory does not exist",
        ),
        ("diskimages: [".to_owned(), "not valid YAML"),
    ] {
        sandbox.write_config(&config);
        let failed = start(&sandbox);
        assert_eq!(failed.status.code(), Some(1), "{failed:?}");
        let said = stderr(&failed);
        assert!(said.starts_with("nodepool-builder: ") && said.contains(why), "{said}");
        assert_eq!(said.lines().count(), 1, "said once: {said}");
        assert!(!pid_file(&sandbox).exists());
    }
}

#[test]
fn whose_images_dir_is_taken_hears_whom_it_waits_for_and_then_one_reason() {
    let sandbox = Sandbox::new("builder-taken");
    sandbox.write_body(&body(&[], &[]));
    let first = sandbox.builder(&[]);
    let notice = format!(
        "another builder (process {}) has the images-dir {}: waiting up to 3 s for its end",
        first.pid(),
        sandbox.images().display()
    );
    let reason = format!("another builder is running on it (process {})", first.pid());
    let is_told = |said: &[&str]| {
        let [waits, fails] = said else { panic!("{said:?}") };
        assert!(waits.contains(&notice), "{waits}");
        assert!(fails.contains(&reason) && fails.contains("stop that one, or give"), "{fails}");
    };
    let second = start_with(&sandbox, &sandbox.path("second.pid"), "outputs: [{file: DIR/second.log}]");
    assert_eq!(second.status.code(), Some(1));
    is_told(&stderr(&second).lines().collect::<Vec<_>>());

    // In the foreground the log is on the same terminal.
    let third = sandbox.spawn(&sandbox.builder_command(&[]));
    third.wait_exit(SOON);
    is_told(&third.log().lines().filter(|line| line.contains("another builder")).collect::<Vec<_>>());
}

#[test]
fn a_start_waits_for_the_end_of_the_builder_before_it() {
    let sandbox = Sandbox::new("builder-overlap");
    sandbox.write_body(&body(&[], &[]));
    let first = sandbox.builder(&[]);
    let second = sandbox.spawn(&sandbox.builder_command(&[]));
    second.wait_log("waiting up to", SOON);
    first.kill();
    second.wait_log("registered", SOON);
    assert!(second.exited().is_none());
}

/// A dump is read after the restart that has ended the hang.
#[test]
fn a_dump_that_no_log_takes_outlives_the_daemon_and_says_whose_it_is() {
    let sandbox = Sandbox::new("builder-daemon-dump");
    sandbox.write_body(&body(&[], &[]));
    let log = sandbox.path("info.log");
    let started = start_with(&sandbox, &pid_file(&sandbox), "outputs: [{file: DIR/info.log, level: info}]");
    assert!(started.status.success(), "{started:?}");
    let daemon = adopt(&sandbox);
    let file = pid_file(&sandbox).with_extension("stacks");
    let dump = || std::fs::read_to_string(&file).ok().filter(|text| text.contains("\nstack dump ends"));
    daemon.signal(Signal::USR2);
    let text = eventually(SOON, "a whole dump in the file", dump);
    let source = format!("nodepool-builder {}, process {}, 20", env!("CARGO_PKG_VERSION"), daemon.pid());
    assert!(text.starts_with(&format!("stack dump begins: {source}")), "{text}");
    super::logging::wait_line(&log, "the stack dump is in a file of its own only");
    daemon.signal(Signal::TERM);
    eventually(SOON, "the daemon's end", || (!daemon.is_alive()).then_some(()));
    assert!(!pid_file(&sandbox).exists());
    assert_eq!(dump(), Some(text));
}
