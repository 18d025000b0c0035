//! What has nothing to do with records: arguments, files, streams, servers out of reach.

use std::io::Read;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::{BODY, refused};
use crate::support::Sandbox;

#[test]
fn config_validate_shows_every_problem() {
    let sandbox = Sandbox::new("client-validate");
    sandbox.write_body(BODY);
    let file = sandbox.config_file().display().to_string();
    assert_eq!(sandbox.nodepool(&["config-validate"]).ok(), format!("{file}: no problems found\n"));
    let secure = sandbox.path("secure.yaml").display().to_string();
    sandbox.replace("secure.yaml", "diskimages: [{name: debain}]\n");
    sandbox.write_body(&format!("{BODY}colour: red\nlabels: 5\n"));
    let outcome = sandbox.nodepool(&["-s", &secure, "config-validate"]);
    let lines: Vec<_> = outcome.stderr.lines().collect();
    assert_eq!((outcome.code(), outcome.stdout.as_str(), lines.len()), (1, "", 4), "{outcome:?}");
    let text = std::fs::read_to_string(sandbox.config_file()).unwrap();
    let line = text.lines().position(|line| line.starts_with("colour")).unwrap() + 1;
    assert_eq!(lines[0], format!("{file}:{line}:1: colour: unknown key"));
    assert!(lines[1].starts_with(&format!("{file}:{}:1: labels: expected a list", line + 1)), "{outcome:?}");
    assert!(
        lines[2].starts_with(&format!("{secure}:1:15: diskimages[0].name: the image 'debain'")),
        "{outcome:?}"
    );
    assert!(lines[3].starts_with(&format!("{secure}: warning: everybody can read")), "{outcome:?}");
    // What is only odd is told and is no failure.
    sandbox.write_body(&format!("{BODY}labels: [{{name: small}}]\n"));
    let outcome = sandbox.nodepool(&["config-validate"]);
    assert_eq!((outcome.code(), outcome.stdout), (0, format!("{file}: no errors found\n")));
    assert!(outcome.stderr.contains("labels[0]: warning: no pool of any provider has the label 'small'"));
    // Only the validator minds an unknown key.
    sandbox.write_body(&format!("{BODY}colour: red\n"));
    assert_eq!(sandbox.nodepool(&["config-validate"]).code(), 1);
    assert_eq!(sandbox.nodepool(&["image-list"]).code(), 0);
    // No other command does anything with a broken file.
    sandbox.write_config("labels: 5\ndiskimages: 6\n");
    let outcome = sandbox.nodepool(&["image-build", "debian"]);
    let lines: Vec<_> = outcome.stderr.lines().collect();
    assert_eq!((outcome.code(), lines.len()), (1, 2), "{outcome:?}");
    assert!(lines.iter().all(|line| line.starts_with(&format!("nodepool: {file}:"))), "{outcome:?}");
}

#[test]
fn the_secure_file_is_read_and_debug_needs_no_logging_file() {
    let sandbox = Sandbox::new("client-secure");
    let (host, port) = ("127.0.0.1", sandbox.server().plain_port());
    let servers =
        format!("zookeeper-servers: [{{host: {host}, port: {port}, chroot: {}}}]\n", sandbox.chroot());
    sandbox.replace("secure.yaml", &servers);
    sandbox.write_config(BODY);
    let file = sandbox.config_file().display().to_string();
    let without = sandbox.nodepool(&["image-list"]);
    let why = "the required key 'zookeeper-servers' is missing; expected a list with at least one 'host'";
    refused(&without, &format!("{file}: {why}"));
    let outcome = sandbox.nodepool(&["-s", "secure.yaml", "-l", "logging.conf", "--debug", "image-list"]);
    assert!(outcome.stderr.contains("connected to ZooKeeper"), "{outcome:?}");
    assert!(outcome.ok().contains("| Build ID |"));
}

#[test]
fn servers_that_cannot_be_reached_are_named_within_the_session_timeout() {
    let sandbox = Sandbox::new("client-unreachable");
    sandbox.write_config(&format!(
        "zookeeper-servers: [{{host: 127.0.0.1, port: 1}}, {{host: 127.0.0.1, port: 2}}]\n\
         zookeeper-timeout: 1.0\n{BODY}"
    ));
    let began = Instant::now();
    let outcome = sandbox.nodepool(&["image-list"]);
    let took = began.elapsed();
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert_eq!((outcome.code(), outcome.stdout.as_str(), outcome.stderr.lines().count()), (1, "", 1));
    for part in ["nodepool: ZooKeeper: no connection", "127.0.0.1:1: ", "127.0.0.1:2: ", "refused"] {
        assert!(outcome.stderr.contains(part), "{outcome:?}");
    }
}

#[test]
fn usage_errors_end_with_2_and_help_with_0() {
    let sandbox = Sandbox::new("client-usage");
    for args in [
        &[][..],
        &["no-such-command"],
        &["image-build"],
        &["image-list", "--output", "xml"],
        &["image-delete", "--image", "a"],
    ] {
        let outcome = sandbox.nodepool(args);
        assert_eq!((outcome.code(), outcome.stdout.as_str()), (2, ""), "{args:?}");
        assert!(outcome.stderr.contains("--help"), "{outcome:?}");
    }
    assert_eq!(sandbox.nodepool(&["--version"]).ok(), concat!("nodepool ", env!("CARGO_PKG_VERSION"), "\n"));
    let help = sandbox.nodepool(&["--help"]).ok();
    for command in [
        "image-build",
        "dib-image-list",
        "image-list",
        "image-status",
        "dib-image-delete",
        "image-delete",
        "image-pause",
        "image-unpause",
        "dib-image-log",
        "alien-image-list",
        "info",
        "erase",
        "export-image-data",
        "import-image-data",
        "config-validate",
    ] {
        assert!(help.contains(command), "{command}: {help}");
        let own = sandbox.nodepool(&[command, "--help"]).ok();
        assert!(own.contains(&format!("Usage: nodepool {command}")), "{own}");
    }
}

#[test]
fn what_only_the_original_has_is_told_apart_from_a_mistake() {
    let builder = Command::new(env!("CARGO_BIN_EXE_nodepool-builder")).arg("--repl").output().unwrap();
    let told = String::from_utf8_lossy(&builder.stderr).into_owned();
    assert!(builder.status.code() == Some(2) && told.starts_with("error: `--repl` needs"), "{told}");
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let sandbox = Sandbox::new("client-pipe");
    sandbox.write_body(BODY);
    let mut client = Command::new(env!("CARGO_BIN_EXE_nodepool"));
    client.arg("-c").arg(sandbox.config_file()).arg("image-list");
    let mut client = client.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    drop(client.stdout.take());
    let mut told = String::new();
    client.stderr.take().unwrap().read_to_string(&mut told).unwrap();
    assert_eq!((client.wait().unwrap().code(), told.as_str()), (Some(0), ""));
    // A full disk is one.
    let full = std::fs::File::create("/dev/full").unwrap();
    let mut client = Command::new(env!("CARGO_BIN_EXE_nodepool"));
    client.arg("-c").arg(sandbox.config_file()).arg("image-list").stdout(full);
    let outcome = client.output().unwrap();
    let told = String::from_utf8_lossy(&outcome.stderr).into_owned();
    assert_eq!(outcome.status.code(), Some(1), "{told}");
    assert!(told.starts_with("nodepool: cannot write to standard output: No space left"), "{told}");
}
