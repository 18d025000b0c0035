//! `clouds.yaml` beside the configuration. No cloud is asked: a provider without images makes no call.

use super::*;

const CLOUDS: &str =
    "clouds: {c: {auth: {auth_url: 'http://127.0.0.1:1', user_id: u, password: PASSWORD, project_id: p}}}";

#[test]
fn clouds_yaml_is_watched_and_a_new_password_opens_its_provider_anew() {
    let sandbox = Sandbox::new("builder-clouds");
    let clouds = sandbox.path("clouds.yaml");
    let shelf = local(&sandbox, "shelf", &["debian"], "");
    let cloud = "  - {name: cloud, cloud: c, diskimages: []}\n".to_owned();
    sandbox.write_body(&body(&[image(&sandbox, "debian", "formats: [raw]")], &[shelf, cloud]));
    sandbox.replace("clouds.yaml", &CLOUDS.replace("PASSWORD", "s3cret-one"));
    let mut command = sandbox.builder_command(&[]);
    command.env("OS_CLIENT_CONFIG_FILE", &clouds);
    let builder = sandbox.spawn(&command);
    let opened = |provider: &str, times: usize| {
        builder.wait_until("the provider to be opened", SOON, || {
            let log = builder.log();
            let lines = log.lines().filter(|line| line.contains("provider opened"));
            let found = lines.filter(|line| line.contains(&format!("provider: {provider}"))).count();
            assert!(found <= times, "{provider} was opened {found} times");
            (found == times).then_some(())
        });
    };
    opened("cloud", 1);
    opened("shelf", 1);

    sandbox.replace("clouds.yaml", &CLOUDS.replace("PASSWORD", "s3cret-two"));
    opened("cloud", 2);
    sandbox.replace("clouds.yaml", &CLOUDS.replace("password: PASSWORD, ", ""));
    builder.wait_log(&format!("{}: clouds.c.auth.password: is missing", clouds.display()), SOON);
    // Mended, it takes effect by itself; nodepool.yaml has not changed.
    sandbox.replace("clouds.yaml", &CLOUDS.replace("PASSWORD", "s3cret-three"));
    opened("cloud", 3);
    opened("shelf", 1);
    assert!(!builder.log().contains("s3cret"));
}
