//! The builder's log: what each kind of logging configuration makes of it, and what its lines carry.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

use super::*;
use crate::support::{Daemon, Signal};

/// Writes a logging configuration, with DIR replaced, and starts a builder with it.
pub(super) fn builder(sandbox: &Sandbox<'_>, config: &str) -> Daemon {
    sandbox.builder(&["-l", &log_config(sandbox, config)])
}

pub(super) fn log_config(sandbox: &Sandbox<'_>, config: &str) -> String {
    sandbox.replace("logging", &config.replace("DIR", &sandbox.dir().display().to_string()));
    sandbox.path("logging").display().to_string()
}

pub(super) fn read(path: &Path) -> String {
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Waits until a log holds the text.
#[track_caller]
pub(super) fn wait_line(path: &Path, text: &str) {
    eventually(SOON, &format!("`{text}` in {}", path.display()), || read(path).contains(text).then_some(()));
}

/// The objects of a JSON log.
#[track_caller]
pub(super) fn objects(path: &Path) -> Vec<Value> {
    let text = read(path);
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect()
}

fn one_image(sandbox: &Sandbox<'_>) {
    sandbox.write_body(&body(&[image(sandbox, "debian", "formats: [qcow2]")], &[]));
}

#[test]
fn our_own_form_gives_each_output_its_level_and_format_and_each_logger_its_level() {
    let sandbox = Sandbox::new("builder-log-own");
    one_image(&sandbox);
    let builder = builder(
        &sandbox,
        "outputs:\n- {file: DIR/info.log, level: info}\n- {file: DIR/debug.json, format: json}\n- console: stderr\n  level: off\n\
         levels: {nodepool: debug, nodepool.zk: error}\n",
    );
    wait_ready(&sandbox.zk(), "debian");
    builder.signal(Signal::USR2);
    let (info, debug) = (sandbox.path("info.log"), sandbox.path("debug.json"));
    wait_line(&debug, "stack dump ends");
    wait_line(&info, "INFO nodepool.builder.build_worker: the build is ready, build: ");
    builder.signal(Signal::TERM);
    builder.wait_exit(SOON);
    let (text, objects) = (read(&info), objects(&debug));
    assert!(!text.contains("stack_dump") && !text.contains("DEBG"), "{text}");
    assert!(!text.contains("nodepool.zk") && !text.contains("connected to ZooKeeper"), "{text}");
    assert!(text.ends_with(": stopped\n"), "the last line is there: {text}");
    assert_eq!(builder.log(), "", "nothing on the console");
    assert!(objects.iter().any(|line| line["level"] == "debug" && line["logger"] == "nodepool.stack_dump"));
    let infos: Vec<_> = objects.iter().filter(|line| line["level"] != "debug").collect();
    assert_eq!(infos.len(), text.lines().count(), "both have the same lines");
    assert_eq!(infos[0]["version"], env!("CARGO_PKG_VERSION"));
}

#[test]
fn the_originals_yaml_form_is_in_force() {
    let sandbox = Sandbox::new("builder-log-dict");
    one_image(&sandbox);
    let builder = builder(
        &sandbox,
        "version: 1\nformatters: {simple: {format: '%(message)s'}}\nhandlers:\n\
         \x20 console: {class: logging.StreamHandler, level: WARNING, formatter: simple, stream: 'ext://sys.stdout'}\n\
         \x20 builds: {class: logging.handlers.WatchedFileHandler, filename: DIR/builds.log}\n\
         \x20 all: {class: logging.handlers.RotatingFileHandler, filename: DIR/all.log, maxBytes: 100}\n\
         loggers:\n  nodepool: {level: DEBUG, handlers: [all]}\n  kazoo: {level: WARNING}\n\
         \x20 nodepool.builder.BuildWorker: {level: INFO, handlers: [builds], propagate: 0}\n\
         root: {level: WARNING, handlers: [console]}\n",
    );
    wait_ready(&sandbox.zk(), "debian");
    builder.signal(Signal::HUP);
    wait_line(&sandbox.path("all.log"), "SIGHUP");
    wait_line(&sandbox.path("builds.log"), "the build is ready");
    let (builds, all) = (read(&sandbox.path("builds.log")), read(&sandbox.path("all.log")));
    assert!(builds.lines().all(|line| line.contains(" nodepool.builder.build_worker: ")), "{builds}");
    assert!(!all.contains("build_worker") && !all.contains("nodepool.zk."), "{all}");
    assert_eq!(all.matches("formats of the logging configuration are ignored").count(), 1, "{all}");
    assert_eq!(all.matches("let logrotate do it").count(), 1, "{all}");
    assert!(!sandbox.path("all.log.1").exists());
    let console = builder.log();
    assert!(console.lines().count() == 2 && console.lines().all(|line| line.contains(" WARN ")), "{console}");
}

#[test]
fn the_originals_ini_form_is_in_force() {
    let sandbox = Sandbox::new("builder-log-ini");
    one_image(&sandbox);
    let builder = builder(
        &sandbox,
        "[loggers]\nkeys=root,nodepool,zk\n[handlers]\nkeys=console,file\n[formatters]\nkeys=\n\
         [logger_root]\nlevel=ERROR\nhandlers=console\n[logger_nodepool]\nlevel=INFO\nqualname=nodepool\nhandlers=file\n\
         propagate=0\n[logger_zk]\nlevel=CRITICAL\nqualname=nodepool.zk\nhandlers=\n\
         [handler_console]\nclass=StreamHandler\nargs=(sys.stderr,)\n\
         [handler_file]\nlevel=DEBUG\nclass=FileHandler\nargs=('DIR/builder.log', 'a')\n",
    );
    wait_ready(&sandbox.zk(), "debian");
    let log = sandbox.path("builder.log");
    wait_line(&log, "the build is ready");
    builder.signal(Signal::TERM);
    builder.wait_exit(SOON);
    let text = read(&log);
    assert!(text.contains("INFO nodepool.daemon.program: starting"), "{text}");
    assert!(!text.contains("DEBG") && !text.contains("nodepool.zk"), "{text}");
    assert_eq!(builder.log(), "");
    use std::os::unix::fs::PermissionsExt as _;
    let mode = std::fs::metadata(&log).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o640, "not for everybody");
}

#[test]
fn a_logging_configuration_that_is_wrong_is_an_error_of_the_start() {
    let sandbox = Sandbox::new("builder-log-wrong");
    one_image(&sandbox);
    for (config, why) in [
        ("outputs: [{file: /x, level: loud}]", "outputs[0].level: expected a level"),
        ("outputs: [", "not valid YAML"),
        (
            "version: 1\nhandlers: {a: {class: x.Y}}",
            "handlers.a.class: the handler class 'x.Y' is not supported",
        ),
        ("[loggers]\nkeys=root\n[handlers]\nkeys=\n[logger_root]\nlevel=HIGH", ":6:1: expected a level"),
        (
            "outputs: [{file: DIR/no/such/dir/log}]",
            "No such file or directory (os error 2); does its directory exist?",
        ),
        ("outputs: [{file: DIR}]", "Is a directory"),
    ] {
        let file = log_config(&sandbox, config);
        let pid_file = sandbox.path("pid").display().to_string();
        for mode in [&["-f"][..], &["-p", &pid_file]] {
            let mut command = sandbox.command(env!("CARGO_BIN_EXE_nodepool-builder"));
            command.arg("-c").arg(sandbox.config_file()).args(["-l", &file]).args(mode);
            let run = sandbox.run_client(command, "", SOON);
            assert_eq!((run.code(), run.stdout.as_str()), (1, ""), "{config}: {run:?}");
            assert!(
                run.stderr.starts_with("nodepool-builder: ") && run.stderr.contains(why),
                "{config}: {run:?}"
            );
            assert_eq!(run.stderr.lines().count(), 1, "{config}: {run:?}");
        }
    }
}

/// As in `detached`, but with a logging configuration; and the last lines are there when it has ended.
#[test]
fn a_daemon_in_the_background_logs_where_it_is_told() {
    let sandbox = Sandbox::new("builder-log-daemon");
    one_image(&sandbox);
    let config = log_config(&sandbox, "outputs: [{file: relative.log}]");
    let pid_file = sandbox.path("pid");
    let mut command = sandbox.command(env!("CARGO_BIN_EXE_nodepool-builder"));
    command.arg("-c").arg(sandbox.config_file()).args(["-l", &config]).arg("-p").arg(&pid_file);
    let run = sandbox.run_client(command, "", SOON);
    assert_eq!((run.code(), run.stderr.as_str()), (0, ""));
    let pid = read(&pid_file).trim().parse().unwrap();
    let daemon = crate::support::leash::Adopted::new(pid);
    // Where it was started, although its own directory is another one.
    wait_line(&sandbox.path("relative.log"), "the build is ready");
    daemon.signal(Signal::TERM);
    eventually(SOON, "the daemon's end", || (!daemon.is_alive()).then_some(()));
    let text = read(&sandbox.path("relative.log"));
    assert!(text.lines().last().unwrap().contains("closing the ZooKeeper session"), "the last line: {text}");
}

/// Loggers that speak of something else than an image, with the keys that they have nevertheless.
const OF_NO_BUILD: [(&str, &[&str]); 8] = [
    ("nodepool.config.reload", &[]),
    ("nodepool.daemon.program", &[]),
    ("nodepool.zk.supervisor", &[]),
    ("nodepool.zk.membership", &[]),
    ("nodepool.builder.manager", &[]),
    ("nodepool.builder.providers", &["provider"]),
    ("nodepool.web.core.http.server", &[]),
    // What it finds when the provider is opened.
    ("nodepool.driver.local.journal", &["provider"]),
];

#[test]
fn every_line_but_those_of_a_few_loggers_names_image_build_and_provider_once() {
    let sandbox = Sandbox::new("builder-log-fields");
    let images = [
        image(&sandbox, "debian", "formats: [qcow2]"),
        image(&sandbox, "broken", "formats: [qcow2], env-vars: {FAKE_DIB_FAIL: '3'}"),
    ];
    let providers =
        [local(&sandbox, "shelf", &["debian"], ""), fake("cloud", &["debian"], "upload-fails: true")];
    sandbox.write_body(&body(&images, &providers));
    // Something for the driver to speak of, when it is opened and when it lists its images.
    let (shelf, id) = (sandbox.store().join("shelf"), "8f0e5b43-7f4f-4d52-9a3c-0b9d8c2f6e11");
    std::fs::create_dir_all(&shelf).unwrap();
    std::fs::write(shelf.join(format!(".nodepool-{id}.part")), "left over").unwrap();
    std::fs::write(shelf.join(format!("x-{id}.qcow2.json")), "no record").unwrap();
    let zk = sandbox.zk();
    let log = sandbox.path("log.json");
    let builder = builder(&sandbox, "outputs: [{file: DIR/log.json, format: json, level: trace}]");
    let build = wait_ready(&zk, "debian");
    let (upload, _) = wait_upload(&zk, "debian", &build, "shelf", "ready");
    let id = ["--provider", "shelf", "--image", "debian", "--build-id", &build, "--upload-id", &upload];
    sandbox.nodepool(&[&["image-delete"], &id[..]].concat()).ok();
    // The next upload looks at what is there.
    wait_line(&log, "not the record of an image");
    wait_line(&log, "the build command failed");
    sandbox.nodepool(&["dib-image-delete", &format!("debian-{build}")]).ok();
    wait_line(&log, "the build is removed");
    builder.signal(Signal::TERM);
    builder.wait_exit(SOON);
    let mut seen = BTreeSet::new();
    for (line, text) in objects(&log).iter().zip(read(&log).lines()) {
        let logger = line["logger"].as_str().unwrap();
        let of_upload = logger.ends_with(".upload_worker") || line.get("upload").is_some();
        let expected = match OF_NO_BUILD.iter().find(|(known, _)| *known == logger) {
            Some((_, keys)) => *keys,
            None if of_upload || logger.starts_with("nodepool.driver.") => &["image", "build", "provider"],
            None => &["image", "build"],
        };
        for key in expected {
            assert!(line[key].is_string(), "{key} is missing: {text}");
            assert_eq!(text.matches(&format!("\"{key}\":")).count(), 1, "{text}");
        }
        let identifiers =
            |key: &String| key.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_'));
        assert!(line.as_object().unwrap().keys().all(identifiers), "{text}");
        seen.insert(logger.to_owned());
    }
    let of_builds = ["build_worker", "upload_worker", "janitor", "outcomes"]
        .map(|name| format!("nodepool.builder.{name}"));
    let of_drivers = ["journal", "store"].map(|name| format!("nodepool.driver.local.{name}"));
    for logger in of_builds.iter().chain(&of_drivers) {
        assert!(seen.contains(logger), "{logger} has said nothing: {seen:?}");
    }
}

#[test]
fn the_client_logs_where_the_file_says_and_checks_it() {
    let sandbox = Sandbox::new("client-log");
    one_image(&sandbox);
    let good = log_config(&sandbox, "outputs: [{file: DIR/client.log, level: debug}]");
    let run = sandbox.nodepool(&["-l", &good, "image-list", "--output", "json"]);
    assert_eq!(run.stderr, "");
    assert_eq!(run.json(), serde_json::json!([]));
    let text = read(&sandbox.path("client.log"));
    assert!(text.contains("INFO nodepool.zk.supervisor: connected to ZooKeeper"), "{text}");
    assert!(text.contains("closing the ZooKeeper session"), "its last line is there: {text}");
    let config = sandbox.config_file().display().to_string();
    let run = sandbox.nodepool(&["-l", &good, "config-validate"]);
    assert_eq!(run.ok(), format!("{config}: no problems found\n{good}: no problems found\n"));

    let odd = log_config(
        &sandbox,
        "{version: 1, formatters: {f: {}}, handlers: {}, loggers: {nodepool.bulder: {}}}",
    );
    let run = sandbox.nodepool(&["-l", &odd, "config-validate"]);
    let expected = format!(
        "{odd}: warning: no logger has a handler, so nothing is logged at all\n\
         {odd}:1:14: formatters: warning: the formats of the logging configuration are ignored\n\
         {odd}:1:59: loggers.nodepool.bulder: warning: no logger is named 'nodepool.bulder', so this has no effect; did you \
         mean 'nodepool.builder'?\n"
    );
    assert_eq!((run.code(), run.stderr.as_str()), (0, expected.as_str()));
    assert_eq!(run.stdout, format!("{config}: no problems found\n{odd}: no errors found\n"));
    // An unknown key, which a daemon goes on with, is a failure here as it is in the main file.
    let unknown = log_config(&sandbox, "outputs: [{file: DIR/client.log}]\nlevel: debug");
    let run = sandbox.nodepool(&["-l", &unknown, "config-validate"]);
    let expected = format!("{unknown}:2:1: level: unknown key, did you mean 'levels'?\n");
    assert_eq!((run.code(), run.stdout.as_str(), run.stderr.as_str()), (1, "", expected.as_str()));
    sandbox.nodepool(&["-l", &unknown, "image-list"]).ok();
    let text = read(&sandbox.path("client.log"));
    assert!(text.contains("WARN nodepool.logging: unknown key, did you mean 'levels'?"), "{text}");

    let bad = log_config(&sandbox, "outputs: [{flie: x}]");
    let why = format!("{bad}:1:12: outputs[0].flie: unknown key, did you mean 'file'?");
    for command in ["image-list", "config-validate"] {
        let run = sandbox.nodepool(&["-l", &bad, command]);
        assert_eq!((run.code(), run.stdout.as_str()), (1, ""), "{run:?}");
        assert!(run.stderr.contains(&why), "{run:?}");
    }
    let unwritable = log_config(&sandbox, "outputs: [{file: DIR/no/such/log}]");
    let run = sandbox.nodepool(&["-l", &unwritable, "image-list"]);
    assert!(run.code() == 1 && run.stderr.contains("cannot write the log"), "{run:?}");
    // It is the configuration that is checked, not the disk.
    sandbox.nodepool(&["-l", &unwritable, "config-validate"]).ok();
}

/// What the example shows is what it says.
#[test]
fn the_example_of_a_logging_configuration_is_valid() {
    let sandbox = Sandbox::new("client-log-example");
    one_image(&sandbox);
    let example = Path::new(env!("CARGO_MANIFEST_DIR")).join("config-examples/logging.yaml");
    let mut command: Command = sandbox.command(env!("CARGO_BIN_EXE_nodepool"));
    command.arg("-c").arg(sandbox.config_file()).arg("-l").arg(example).arg("config-validate");
    sandbox.run_client(command, "", SOON).ok();
}
