//! Several pools and providers, and changes of the configuration.

use serde_json::json;

use super::*;
use crate::support::{Daemon, Signal};

fn two(test: &str, first: &str, second: &str) -> Sandbox<'static> {
    let sandbox = Sandbox::new(&format!("launcher-{test}"));
    let one = provider("one", "", first, &[pool("main", &["a", "b"], "")]);
    let other = provider("other", "", second, &[pool("main", &["a", "c"], "")]);
    sandbox.write_body(&body(&["a", "b", "c"], &[one, other]));
    sandbox
}

fn provider_of(zuul: &Requestor, request: &str) -> String {
    let nodes = zuul.wait_nodes(request);
    zuul.node(&nodes[0]).unwrap()["provider"].as_str().unwrap().to_owned()
}

#[test]
fn each_label_comes_from_who_has_it_and_the_asked_provider_goes_first() {
    let sandbox = two("labels", "", "");
    let zuul = Requestor::new(&sandbox);
    let launcher = sandbox.launcher(&[]);
    zuul.zk.wait_children("/nodepool/components/pool", SOON, |names| names.len() == 2);
    for _ in 0..5 {
        assert_eq!(provider_of(&zuul, &zuul.ask(&["b"])), "one");
        assert_eq!(provider_of(&zuul, &zuul.ask(&["c"])), "other");
        for wanted in ["one", "other"] {
            assert_eq!(provider_of(&zuul, &zuul.ask_with(&["a"], json!({"provider": wanted}))), wanted);
        }
    }
    // Nobody has both.
    let record = zuul.wait(&zuul.ask(&["b", "c"]), "failed");
    assert_eq!(record["declined_by"].as_array().unwrap().len(), 2);
    drop(launcher);
}

#[test]
fn the_pool_with_the_lower_number_goes_first() {
    let sandbox = two("priority", "    priority: 50\n", "    priority: 20\n");
    let zuul = Requestor::new(&sandbox);
    let _launcher = sandbox.launcher(&[]);
    zuul.zk.wait_children("/nodepool/components/pool", SOON, |names| names.len() == 2);
    let priorities: Vec<_> = zuul
        .zk
        .children("/nodepool/components/pool")
        .iter()
        .map(|name| {
            zuul.zk.get_json(&format!("/nodepool/components/pool/{name}")).unwrap()["priority"].clone()
        })
        .collect();
    assert!(priorities.contains(&json!(20)) && priorities.contains(&json!(50)));
    for _ in 0..5 {
        assert_eq!(provider_of(&zuul, &zuul.ask(&["a"])), "other");
    }
}

#[test]
fn a_changed_configuration_is_followed() {
    let sandbox = simple("change", &["a"], "", "");
    let zuul = Requestor::new(&sandbox);
    let launcher = sandbox.launcher(&[]);
    zuul.wait_nodes(&zuul.ask(&["a"]));
    let one = provider("cloud", "", "", &[pool("main", &["a", "b"], "")]);
    let new = provider("new", "", "", &[pool("main", &["c"], "")]);
    sandbox.write_body(&body(&["a", "b", "c"], &[one, new.clone()]));
    launcher.wait_log("the configuration has changed", SOON);
    zuul.zk.wait_children("/nodepool/components/pool", SOON, |names| names.len() == 2);
    assert_eq!(provider_of(&zuul, &zuul.ask(&["c"])), "new");
    zuul.wait_nodes(&zuul.ask(&["b"]));
    sandbox.write_body(&body(&["c"], &[new]));
    zuul.zk.wait_children("/nodepool/components/pool", SOON, |names| names.len() == 1);
    assert_eq!(provider_of(&zuul, &zuul.ask(&["c"])), "new");
    zuul.wait(&zuul.ask(&["a"]), "failed");
}

/// The provider's thread could announce the pool once more, for good, while it took up the new configuration.
#[test]
fn a_pool_that_leaves_a_provider_is_registered_no_more() {
    let sandbox = Sandbox::new("launcher-pool-leaves");
    let write = |pools: &[String]| {
        sandbox.write_body(&body(&["a", "b"], &[provider("cloud", "", "", pools)]));
    };
    let (stays, goes) = (pool("main", &["a"], ""), pool("more", &["b"], ""));
    let both = [stays.clone(), goes];
    write(&both);
    let zuul = Requestor::new(&sandbox);
    let _launcher = sandbox.launcher(&[]);
    let registered = |count| {
        zuul.zk.wait_children("/nodepool/components/pool", SOON, |names| names.len() == count);
    };
    for _ in 0..5 {
        registered(2);
        // The thread has something to do while the configuration changes.
        let requests: Vec<_> = (0..20).map(|_| zuul.ask(&["a"])).collect();
        write(std::slice::from_ref(&stays));
        requests.iter().for_each(|id| zuul.give_back(&zuul.accept(id)[0]));
        registered(1);
        // Nobody but the pool that has stayed is waited for.
        let record = zuul.wait(&zuul.ask(&["b"]), "failed");
        assert_eq!(record["declined_by"].as_array().unwrap().len(), 1);
        registered(1);
        write(&both);
    }
}

/// A launcher that knows a cloud `far`, at which nobody listens.
fn with_a_cloud_far_away(sandbox: &Sandbox<'_>) -> Daemon {
    let auth = "{auth_url: 'http://127.0.0.1:1/v3', username: u, password: p, project_name: p, \
         user_domain_name: d, project_domain_name: d}";
    sandbox.replace("clouds.yaml", &format!("clouds: {{far: {{auth: {auth}}}}}"));
    let mut command = sandbox.launcher_command(&[]);
    command.env("OS_CLIENT_CONFIG_FILE", sandbox.path("clouds.yaml"));
    sandbox.spawn(&command)
}

#[test]
fn a_cloud_that_cannot_be_reached_is_warned_of_once() {
    let sandbox = Sandbox::new("launcher-unreachable");
    let pools = "[{name: main, labels: [{name: a, cloud-image: i, min-ram: 1}, {name: b, cloud-image: i, min-ram: 2}]}]";
    let far =
        format!("  - {{name: far, cloud: far, rate: 0.01, cloud-images: [{{name: i}}], pools: {pools}}}\n");
    sandbox.write_body(&body(&["{name: a, min-ready: 1}", "b"], &[far]));
    let launcher = with_a_cloud_far_away(&sandbox);
    // Each look at it takes as long as the pauses between its tries, of which no two are the same.
    launcher.wait_log("the provider still does not say how it stands", 3 * SOON);
    launcher.signal(Signal::TERM);
    assert!(launcher.wait_exit(SOON).success());
    let log = launcher.log();
    let warnings: Vec<_> = log.lines().filter(|line| line.contains(" WARN ")).collect();
    assert!(warnings.len() == 1 && warnings[0].contains("Connection refused"), "{warnings:#?}");
}

#[test]
fn a_cloud_that_has_not_answered_since_the_start_leaves_requests_to_others() {
    let sandbox = Sandbox::new("launcher-mute");
    let far = "  - {name: far, cloud: far, rate: 0.01, priority: 1, cloud-images: [{name: i}], \
         pools: [{name: main, labels: [{name: a, cloud-image: i, min-ram: 1}]}]}\n";
    let near = provider("near", "", "    priority: 2\n", &[pool("main", &["a"], "")]);
    sandbox.write_body(&body(&["a"], &[far.to_owned(), near]));
    let _launcher = with_a_cloud_far_away(&sandbox);
    let zuul = Requestor::new(&sandbox);
    let nodes = zuul.wait_nodes(&zuul.ask(&["a"]));
    assert_eq!(zuul.node(&nodes[0]).unwrap()["provider"], "near");
}

#[test]
fn a_reload_raises_how_many_are_launched_at_once() {
    let sandbox = Sandbox::new("launcher-more-at-once");
    let write = |most: u32| {
        let keys = format!("    max-concurrency: {most}\n");
        let cloud = provider("cloud", "launch-delay: 3600", &keys, &[pool("main", &["a"], "")]);
        sandbox.write_body(&body(&["a"], &[cloud]));
    };
    write(1);
    let zuul = Requestor::new(&sandbox);
    let launcher = sandbox.launcher(&[]);
    (0..30).for_each(|_| drop(zuul.ask(&["a"])));
    let building = |count: usize| {
        launcher.wait_until(&format!("{count} launches"), SOON, || {
            (nodes_in(&zuul.zk, "building").len() == count).then_some(())
        });
    };
    building(1);
    write(30);
    building(30);
}
