//! Providers that cannot be opened.

use std::time::Instant;

use super::*;

/// Found while reading: the pause after failures of a provider outlived the mistake in its configuration.
#[test]
fn a_provider_that_cannot_be_opened_holds_up_nothing_and_is_opened_once_it_is_mended() {
    let sandbox = Sandbox::new("builder-cannot-open");
    std::fs::write(sandbox.path("a-file"), "").unwrap();
    let with = |path: &str| {
        let broken = format!(
            "  - {{name: broken, driver: local, path: '{}', diskimages: [{{name: debian}}]}}\n",
            sandbox.path(path).display()
        );
        let images = [image(&sandbox, "debian", "formats: [qcow2]")];
        body(&images, &[broken, local(&sandbox, "shelf", &["debian"], "")])
    };
    sandbox.write_body(&with("a-file/store"));
    let zk = sandbox.zk();
    let builder = sandbox.builder(&["--upload-workers", "1"]);
    let id = wait_ready(&zk, "debian");
    wait_upload(&zk, "debian", &id, "shelf", "ready");
    // The pause after the fifth failure is far longer than opening a provider and an upload take.
    let pause = builder.wait_until("five attempts", SOON, || {
        let log = builder.log();
        let failures = log.lines().filter(|line| line.contains("the provider cannot be opened"));
        failures
            .filter_map(|line| line.split_once("again in s: ")?.1.split(',').next()?.parse::<u64>().ok())
            .nth(4)
    });
    let failed = Instant::now();
    sandbox.write_body(&with("store/broken"));
    wait_upload(&zk, "debian", &id, "broken", "ready");
    assert!(failed.elapsed() < Duration::from_secs(pause), "it waited for the end of the pause of {pause} s");
}

#[test]
fn a_provider_that_can_be_opened_later_is_opened_then() {
    let sandbox = Sandbox::new("builder-open-later");
    let blocked = sandbox.store().join("shelf");
    std::fs::write(&blocked, "").unwrap();
    let images = [image(&sandbox, "debian", "formats: [qcow2]")];
    sandbox.write_body(&body(&images, &[local(&sandbox, "shelf", &["debian"], "")]));
    let zk = sandbox.zk();
    let builder = sandbox.builder(&[]);
    builder.wait_log("the provider cannot be opened", SOON);
    let id = wait_ready(&zk, "debian");
    std::fs::remove_file(blocked).unwrap();
    wait_upload(&zk, "debian", &id, "shelf", "ready");
}
