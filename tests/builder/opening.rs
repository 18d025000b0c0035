//! Starts that fail, and odd ones that do not.

use super::*;

/// Runs the builder to its end and returns its output.
#[track_caller]
fn refused(sandbox: &Sandbox<'_>, args: &[&str], code: i32) -> String {
    let builder = sandbox.spawn(&sandbox.builder_command(args));
    assert_eq!(builder.wait_exit(SOON).code(), Some(code), "{}", builder.log());
    builder.log()
}

#[test]
fn a_start_that_cannot_succeed_says_why() {
    let sandbox = Sandbox::new("builder-refused");
    let file = sandbox.config_file().display().to_string();
    let log = refused(&sandbox, &[], 1);
    assert!(log.contains(&format!("nodepool-builder: {file}: ")) && log.contains("No such file"), "{log}");

    let header = sandbox.header(&crate::support::Header::default());
    let images_dir = format!("images-dir: {}", sandbox.images().display());
    let servers = header.lines().take_while(|line| !line.starts_with("zookeeper-timeout"));
    let servers: String = servers.map(|line| format!("{line}\n")).collect();
    for (config, why) in [
        ("diskimages: [\n".to_owned(), ":2:1: not valid YAML"),
        ("diskimages: [{name: a/b}]\n".to_owned(), "diskimages[0]"),
        (header.replace(&servers, ""), "'zookeeper-servers' is missing"),
        (header.replace(&images_dir, ""), "'images-dir' is missing"),
        (
            header.replace(&images_dir, "images-dir: /no/such/directory"),
            "images-dir /no/such/directory does not exist",
        ),
        // Nobody may write there, not even root.
        (header.replace(&images_dir, "images-dir: /proc"), "images-dir /proc: "),
    ] {
        sandbox.write_config(&config);
        let log = refused(&sandbox, &[], 1);
        assert!(
            log.lines().any(|line| line.starts_with("nodepool-builder: ") && line.contains(why)),
            "{log}"
        );
        assert!(!log.contains("panicked"), "{log}");
    }
}

#[test]
fn bad_arguments_are_refused() {
    let sandbox = Sandbox::new("builder-arguments");
    sandbox.write_body("");
    for bad in ["-1", "x", "1.5", "100000", ""] {
        for option in ["--build-workers", "--upload-workers"] {
            let log = refused(&sandbox, &[&format!("{option}={bad}")], 2);
            assert!(log.contains(option) && log.contains("whole number"), "{log}");
        }
    }
    for bad in ["-1", "x", "NaN", "inf"] {
        let log = refused(&sandbox, &[&format!("--cleanup-interval={bad}")], 2);
        assert!(log.contains("number of seconds"), "{log}");
    }
    assert!(refused(&sandbox, &["--nonsense"], 2).contains("--nonsense"));
}

/// Found while reading: a pool without workers looked like one that had died, and the builder ended.
#[test]
fn a_builder_without_build_workers_uploads_and_goes_on() {
    let sandbox = Sandbox::new("builder-no-workers");
    let debian = image(&sandbox, "debian", "formats: [qcow2]");
    sandbox.write_body(&body(std::slice::from_ref(&debian), &[]));
    let zk = sandbox.zk();
    let builder = sandbox.builder(&["--upload-workers", "0"]);
    let id = wait_ready(&zk, "debian");
    drop(builder);
    sandbox.write_body(&body(&[debian], &[local(&sandbox, "shelf", &["debian"], "")]));
    request(&zk, "debian");
    let builder = sandbox.builder(&["--build-workers", "0"]);
    wait_upload(&zk, "debian", &id, "shelf", "ready");
    assert_eq!(wait_ready(&zk, "debian"), id);
    assert!(builder.exited().is_none() && zk.exists(&request_path("debian")));
}

/// What is started in a container belongs to a session and a process group whose leader is outside: the kernel
/// says 0 for both. No process id may be 0, and it was taken for one.
#[test]
fn a_builder_in_a_container_builds() {
    let sandbox = Sandbox::new("builder-container");
    sandbox.write_body(&body(&[image(&sandbox, "debian", "formats: [qcow2]")], &[]));
    let zk = sandbox.zk();
    let builder = sandbox.builder_command(&[]);
    let mut container = sandbox.command("unshare");
    container.args(["--pid", "--fork", "--kill-child", "--mount-proc"]);
    container.arg(builder.get_program()).args(builder.get_args());
    let _builder = sandbox.spawn(&container);
    wait_ready(&zk, "debian");
}
