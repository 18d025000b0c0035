//! Two builders on one ZooKeeper, each with an `images-dir` of its own.

use std::collections::BTreeMap;
use std::process::Command;

use super::*;
use crate::support::{Daemon, Header};

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

/// A builder with the `images-dir` and the configuration `name`.
pub(super) fn start(sandbox: &Sandbox<'_>, name: &str, body: &str) -> Daemon {
    start_with(sandbox, name, &sandbox.header(&Header::default()), body)
}

/// The same with a header of the test's choice.
pub(super) fn start_with(sandbox: &Sandbox<'_>, name: &str, header: &str, body: &str) -> Daemon {
    let images = sandbox.path(name);
    std::fs::create_dir(&images).unwrap();
    let own = sandbox.images().display().to_string();
    let config = header.replace(&format!("images-dir: {own}"), &format!("images-dir: {}", images.display()));
    sandbox.replace(&format!("{name}.yaml"), &format!("{config}{body}"));
    let mut command = Command::new(env!("CARGO_BIN_EXE_nodepool-builder"));
    command.args(["-f", "-d", "--build-workers", "3", "-c"]).arg(sandbox.path(&format!("{name}.yaml")));
    sandbox.spawn(&command)
}

fn builder_id(sandbox: &Sandbox<'_>, name: &str) -> String {
    std::fs::read_to_string(sandbox.path(name).join("builder_id.txt")).unwrap().trim().to_owned()
}

#[test]
fn two_builders_share_the_work_and_never_do_it_twice() {
    let sandbox = Sandbox::new("builder-fleet");
    sandbox.fake_dib();
    // Says so when two commands build the same image at the same time.
    let dib = script(
        &sandbox,
        "dib",
        &format!(
            "cd {0}; mkdir busy-$DIB_IMAGE_NAME || touch overlap; ./fake-dib \"$@\"; code=$?; \
             rmdir busy-$DIB_IMAGE_NAME; exit $code",
            sandbox.dir().display()
        ),
    );
    let env = "env-vars: {FAKE_DIB_SLEEP: '0.1'}";
    let images = NAMES
        .map(|name| format!("  - {{name: {name}, dib-cmd: '{}', formats: [qcow2], {env}}}\n", dib.display()));
    let body = body(&images, &[local(&sandbox, "shelf", &NAMES, "")]);
    let daemons = ["first", "second"].map(|name| (name, start(&sandbox, name, &body)));
    let zk = sandbox.zk();

    for round in 1..=3 {
        for name in NAMES {
            eventually(SOON, &format!("build {round} of {name} at the provider"), || {
                let ready = in_state(builds(&zk, name), "ready");
                let uploaded =
                    |(id, _): &(String, Value)| in_state(uploads(&zk, name, id, "shelf"), "ready").len() == 1;
                // The third one has removed the first.
                (ready.len() == round.min(2) && ready.iter().all(uploaded)).then_some(())
            });
        }
        if round < 3 {
            NAMES.iter().for_each(|name| request(&zk, name));
            for name in NAMES {
                eventually(SOON, "the request to be answered", || {
                    (!zk.exists(&request_path(name))).then_some(())
                });
            }
        }
    }
    assert!(!sandbox.path("overlap").exists(), "two builds of one image at the same time");

    let mut built: BTreeMap<String, &str> = BTreeMap::new();
    for (name, daemon) in &daemons {
        let log = daemon.log();
        assert!(!log.contains("ERRO") && !log.contains("panicked"), "{name}: {log}");
        for line in log.lines().filter(|line| line.contains("the build is ready")) {
            assert_eq!(built.insert(field(line, "build"), name), None, "{line}");
        }
    }
    assert_eq!(built.len(), 3 * NAMES.len(), "each image is built once for each reason");
    for (name, daemon) in &daemons {
        for line in daemon.log().lines().filter(|line| line.contains("the upload is ready")) {
            assert_eq!(built.get(&field(line, "build")), Some(name), "{line}");
        }
    }
    for name in NAMES {
        // One that is on its way out may have lost its files already.
        for (id, record) in in_state(builds(&zk, name), "ready") {
            assert_eq!(record["builder_id"], Value::String(builder_id(&sandbox, built[&id])), "{id}");
            let here = sandbox.path(built[&id]).join(format!("{name}-{id}.qcow2"));
            assert!(here.exists(), "{}", here.display());
        }
        // A lock taken below a record that has just gone must not bring it back without data.
        let records = zk.dump(&format!("{IMAGES}/{name}/builds"));
        let is_build = |path: &str| path.rsplit('/').next().is_some_and(|id| id.len() == 32);
        let empty: Vec<_> = records.iter().filter(|(path, data)| is_build(path) && data.is_empty()).collect();
        assert!(empty.is_empty(), "{empty:?}");
    }
}

/// The value of a key in a line of the log.
fn field(line: &str, key: &str) -> String {
    let (_, rest) = line.split_once(&format!("{key}: ")).unwrap_or_else(|| panic!("no {key} in {line}"));
    rest.split([',', ' ', '\n']).next().unwrap().to_owned()
}
