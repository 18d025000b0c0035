//! Who may log in and how, which region there is, whom TLS trusts.

use super::*;
use crate::support::openstack;

/// The only failed upload of an image is told with these words, and without any password.
#[track_caller]
fn assert_told(builder: &Daemon, provider: &str, words: &[&str]) {
    let line = builder.wait_until(&format!("a failed upload to {provider} in the log"), SOON, || {
        let log = builder.log();
        let mut lines = log.lines().filter(|line| line.contains("the upload failed"));
        lines.find(|line| line.contains(provider)).map(str::to_owned)
    });
    eprintln!("{line}");
    for word in words {
        assert!(line.contains(word), "no `{word}` in {line}");
    }
}

#[test]
fn wrong_logins_and_regions_are_told_and_hold_up_no_application_credential() {
    let services = openstack::shared();
    let sandbox = Sandbox::new("openstack-logins");
    let image = qcow2(&sandbox, "login", 1, "");
    let clouds = ["wrong", "nowhere", "appcred"].map(|cloud| provider(cloud, "{name: login}", ""));
    sandbox.write_body(&body(&[image], &clouds));
    let zk = sandbox.zk();
    let builder = builder(&sandbox, &services, &["--upload-workers", "1"]);
    let build = wait_ready(&zk, "login");
    let (_, upload) = wait_upload(&zk, "login", &build, "appcred-here", "ready");
    assert_told(&builder, "wrong-here", &["cloud 'wrong'", "401", "clouds.yaml"]);
    assert_told(&builder, "nowhere-here", &["RegionNowhere", "RegionOne", "RegionTls", "RegionGate"]);
    for provider in ["wrong-here", "nowhere-here"] {
        assert!(!in_state(uploads(&zk, "login", &build, provider), "ready").iter().any(|_| true));
    }
    let listed = nodepool(&sandbox, &services, &["alien-image-list", "wrong-here"]);
    assert_eq!(listed.code(), 1, "{listed:?}");
    assert!(listed.stderr.contains("cloud 'wrong'"), "{listed:?}");

    let credential =
        std::fs::read_to_string(services.dir().join("state/application-credential.json")).unwrap();
    let credential: Value = serde_json::from_str(&credential).unwrap();
    let told = builder.log() + &listed.stdout + &listed.stderr;
    for secret in ["not-the-password", "demo-password", credential["secret"].as_str().unwrap()] {
        assert!(!told.contains(secret), "{secret} in the log");
    }
    services.delete_image(upload["external_id"].as_str().unwrap());
}

#[test]
fn tls_with_a_private_authority_wants_its_certificate() {
    let services = openstack::shared();
    services.serve_tls();
    let sandbox = Sandbox::new("openstack-tls");
    let image = qcow2(&sandbox, "private", 5, "");
    let clouds = ["tls-unknown", "tls"].map(|cloud| provider(cloud, "{name: private}", ""));
    sandbox.write_body(&body(&[image], &clouds));
    let zk = sandbox.zk();
    let builder = builder(&sandbox, &services, &[]);
    let build = wait_ready(&zk, "private");
    let (_, upload) = wait_upload(&zk, "private", &build, "tls-here", "ready");
    assert_told(&builder, "tls-unknown-here", &["certificate", "cacert"]);
    services.delete_image(upload["external_id"].as_str().unwrap());
}

#[test]
fn config_validate_names_the_clouds_that_there_are() {
    let sandbox = Sandbox::new("openstack-unknown-cloud");
    sandbox.replace("clouds.yaml", "clouds: {here: {auth: {auth_url: 'http://127.0.0.1:1/v3', username: a, password: b, project_name: c}}}\n");
    sandbox.write_body(&body(&[qcow2(&sandbox, "any", 1, "")], &[provider("there", "{name: any}", "")]));
    let mut command = sandbox.command(env!("CARGO_BIN_EXE_nodepool"));
    command.env("OS_CLIENT_CONFIG_FILE", sandbox.path("clouds.yaml"));
    command.arg("-c").arg(sandbox.config_file()).arg("config-validate");
    let outcome = sandbox.run_client(command, "", SOON);
    assert_eq!(outcome.code(), 1, "{outcome:?}");
    let told = outcome.stdout + &outcome.stderr;
    for word in ["providers[0].cloud", "there", "here", "clouds.yaml"] {
        assert!(told.contains(word), "no `{word}` in {told}");
    }
}
