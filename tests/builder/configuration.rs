//! Edits of the configuration while the builder runs.

use super::*;

#[test]
fn images_and_providers_come_and_go_with_the_configuration() {
    let sandbox = Sandbox::new("builder-edits");
    let debian = image(&sandbox, "debian", "formats: [qcow2]");
    let fedora = image(&sandbox, "fedora", "formats: [qcow2]");
    let one = |images: &[&str]| local(&sandbox, "one", images, "");
    let two = |images: &[&str]| local(&sandbox, "two", images, "");
    sandbox.write_body(&body(std::slice::from_ref(&debian), &[one(&["debian"])]));
    let zk = sandbox.zk();
    let _builder = sandbox.builder(&[]);
    let first = wait_ready(&zk, "debian");
    wait_upload(&zk, "debian", &first, "one", "ready");

    // An image comes.
    let both = [debian.clone(), fedora];
    sandbox.write_body(&body(&both, &[one(&["debian", "fedora"])]));
    let second = wait_ready(&zk, "fedora");
    wait_upload(&zk, "fedora", &second, "one", "ready");

    // A provider comes.
    sandbox.write_body(&body(&both, &[one(&["debian", "fedora"]), two(&["debian", "fedora"])]));
    wait_upload(&zk, "debian", &first, "two", "ready");
    wait_upload(&zk, "fedora", &second, "two", "ready");
    assert_eq!(stored(&sandbox, "two").len(), 4);

    // A provider's list is emptied.
    sandbox.write_body(&body(&both, &[one(&["debian", "fedora"]), two(&[])]));
    eventually(SOON, "the second provider's uploads to go", || {
        let left = uploads(&zk, "debian", &first, "two").len() + uploads(&zk, "fedora", &second, "two").len();
        (left + stored(&sandbox, "two").len() == 0).then_some(())
    });
    assert_eq!(stored(&sandbox, "one").len(), 4);

    // An image goes.
    sandbox.write_body(&body(&[debian], &[one(&["debian"])]));
    eventually(SOON, "everything of the image to go", || {
        let left = builds(&zk, "fedora").len() + files(&sandbox, "fedora").len();
        (left == 0 && stored(&sandbox, "one").len() == 2).then_some(())
    });
    assert_eq!(wait_ready(&zk, "debian"), first);
    wait_upload(&zk, "debian", &first, "one", "ready");
}

#[test]
fn uploads_at_a_provider_that_is_gone_stay_until_it_comes_back() {
    let sandbox = Sandbox::new("builder-provider-gone");
    let debian = image(&sandbox, "debian", "formats: [qcow2]");
    let shelf = local(&sandbox, "shelf", &["debian"], "");
    sandbox.write_body(&body(std::slice::from_ref(&debian), &[shelf]));
    let zk = sandbox.zk();
    let builder = sandbox.builder(&[]);
    let id = wait_ready(&zk, "debian");
    wait_upload(&zk, "debian", &id, "shelf", "ready");
    sandbox.write_body(&body(std::slice::from_ref(&debian), &[]));
    builder.wait_log("the configuration has changed", SOON);
    request(&zk, "debian");
    eventually(SOON, "another build", || (builds(&zk, "debian").len() == 2).then_some(()));
    assert_eq!(uploads(&zk, "debian", &id, "shelf").len(), 1);
    sandbox.write_body(&body(&[debian], &[local(&sandbox, "shelf", &[], "")]));
    eventually(SOON, "the upload to go", || uploads(&zk, "debian", &id, "shelf").is_empty().then_some(()));
}

#[test]
fn a_broken_file_is_told_and_the_last_good_one_stays_in_force() {
    let sandbox = Sandbox::new("builder-broken-yaml");
    let good = body(&[image(&sandbox, "debian", "formats: [raw]")], &[]);
    sandbox.write_body(&good);
    let zk = sandbox.zk();
    let builder = sandbox.builder(&[]);
    wait_ready(&zk, "debian");
    let file = sandbox.config_file().display().to_string();
    sandbox.write_config("images-dir: /x\n\ndiskimages: [{name: a}\n");
    builder.wait_until("the error with its place", SOON, || {
        let log = builder.log();
        log.lines().find(|line| line.contains(&format!("{file}:4:1: ")) && line.contains("refused")).map(drop)
    });
    request(&zk, "debian");
    wait_builds(&zk, "debian", "ready", 2);
    sandbox.write_body(&format!("{good}labels: 7\n"));
    builder.wait_log(": labels: expected a list", SOON);
    request(&zk, "debian");
    eventually(SOON, "the request to be gone", || (!zk.exists(&request_path("debian"))).then_some(()));
}

#[test]
fn an_unknown_key_is_warned_of_once_with_a_suggestion() {
    let sandbox = Sandbox::new("builder-unknown-key");
    let with = |names: &[&str]| {
        let images: Vec<String> =
            names.iter().map(|name| image(&sandbox, name, "formats: [raw], rebuild-aeg: 5")).collect();
        body(&images, &[])
    };
    sandbox.write_body(&with(&["debian"]));
    let zk = sandbox.zk();
    let builder = sandbox.builder(&[]);
    sandbox.write_body(&with(&["debian", "fedora"]));
    wait_ready(&zk, "fedora");
    let log = builder.log();
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains("rebuild-aeg")).collect();
    assert_eq!(warnings.len(), 2, "one for each image: {warnings:#?}");
    assert!(warnings.iter().all(|line| line.contains("rebuild-age'")), "{warnings:#?}");
}
