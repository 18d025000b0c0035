//! `-s`: what the secure file says is put over the main file.

use std::path::Path;
use std::time::Duration;

use crate::config::testing::{config, load};

const MAIN: &str = "
    zookeeper-servers: [{host: '%(NODEPOOL_HOST)', port: '%(NODEPOOL_PORT)', chroot: /np}]
    zookeeper-tls: {cert: c, key: k, ca: a}
    zookeeper-timeout: 15
    diskimages:
    - {name: base, abstract: true, env-vars: {A: base}}
    - {name: debian, parent: base, formats: [raw], env-vars: {B: main}}
    - {name: child, parent: debian}
";

#[test]
fn zookeeper_servers_replace_those_of_the_main_file() {
    let before = config(MAIN, Some("")).zookeeper;
    assert_eq!((before.servers[0].to_string().as_str(), before.chroot.as_str()), ("zk01:2181", "/np"));
    let after = config(MAIN, Some("zookeeper-servers: [{host: s}, {host: '%(NODEPOOL_HOST)'}]")).zookeeper;
    let servers: Vec<_> = after.servers.iter().map(ToString::to_string).collect();
    assert_eq!(servers, ["s:2281", "zk01:2281"]);
    assert_eq!((after.chroot.as_str(), after.tls, after.timeout), ("", before.tls, Duration::from_secs(15)));
}

#[test]
fn zookeeper_tls_replaces_that_of_the_main_file() {
    let zookeeper =
        config(MAIN, Some("zookeeper-tls: {cert: sc, key: sk, ca: sa, verify-hostname: false}")).zookeeper;
    let tls = zookeeper.tls.unwrap();
    assert_eq!([tls.cert, tls.key, tls.ca], ["sc", "sk", "sa"].map(|name| Path::new(name).to_owned()));
    assert!(!tls.verify_hostname);
    assert_eq!(zookeeper.servers.len(), 1);
}

#[test]
fn env_vars_are_merged_into_the_named_image_only_and_are_no_secret_that_shows() {
    let config = config(MAIN, Some("diskimages: [{name: debian, env-vars: {B: secure, C: hunter2}}]"));
    let env = &config.diskimages["debian"].env_vars;
    assert_eq!([&env["A"], &env["B"], &env["C"]], ["base", "secure", "hunter2"]);
    let child = &config.diskimages["child"].env_vars;
    assert_eq!((child["B"].as_str(), child.get("C")), ("main", None));
    assert!(!format!("{config:?}").contains("hunter2"));
}

#[test]
fn name_of_an_image_that_is_unknown_or_abstract_is_an_error() {
    let (loaded, problems) = load(MAIN, Some("diskimages: [{name: debain}, {name: base}]"));
    assert!(loaded.is_none());
    assert_eq!(
        problems,
        [
            "s.yaml:1:15: diskimages[0].name: the image 'debain' is not configured in 'diskimages' of n.yaml; did you mean \
             'debian'?",
            "s.yaml:1:31: diskimages[1].name: the image 'base' is abstract: it is only a parent and never built",
        ]
    );
}

#[test]
fn nothing_else_may_stand_in_it() {
    let (loaded, problems) = load(MAIN, Some("zookeeper-timeout: 5"));
    assert_eq!(problems, ["s.yaml:1:1: zookeeper-timeout: unknown key"]);
    assert_eq!(loaded.unwrap().config.zookeeper.timeout, Duration::from_secs(15));
}

#[test]
fn an_empty_one_changes_nothing() {
    let before = config(MAIN, Some("")).zookeeper;
    for secure in ["# nothing\n", "zookeeper-servers: []\nzookeeper-tls:\ndiskimages:\n"] {
        assert_eq!(config(MAIN, Some(secure)).zookeeper, before, "{secure}");
    }
}
