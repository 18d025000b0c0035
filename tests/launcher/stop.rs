//! The end of a launcher, and of its session.

use super::*;
use crate::support::Signal;

#[test]
fn a_launcher_that_stops_gives_its_requests_back_and_leaves_no_instance() {
    let sandbox = Sandbox::new("launcher-stop");
    let state = sandbox.path("cloud");
    std::fs::create_dir(&state).unwrap();
    let behaviour = |delay: u32| format!("state-dir: '{}', launch-delay: {delay}", state.display());
    let write = |delay| {
        let cloud = provider("cloud", &behaviour(delay), "", &[pool("main", &["a"], "max-servers: 3")]);
        sandbox.write_body(&body(&["a"], &[cloud]));
    };
    write(3600);
    let zuul = Requestor::new(&sandbox);
    let launcher = sandbox.launcher(&[]);
    // One node, several, and one that waits for room. Asked at once, the last might be seen before the second.
    let (one, several) = (zuul.ask(&["a"]), zuul.ask(&["a", "a"]));
    wait_nodes(&zuul.zk, "building", 3);
    let requests = [one, several, zuul.ask(&["a"])];
    zuul.wait(&requests[2], "pending");
    eventually(SOON, "three instances", || (instances(&state) == 3).then_some(()));
    launcher.signal(Signal::TERM);
    assert!(launcher.wait_exit(Duration::from_secs(12)).success(), "{}", launcher.log());
    for id in &requests {
        let record = zuul.request(id).unwrap();
        assert_eq!(
            (record["state"].as_str(), record["nodes"].as_array().unwrap().len()),
            (Some("requested"), 0)
        );
        assert!(zuul.zk.children(&format!("{LOCKS}/{id}")).is_empty());
    }
    assert!(zuul.zk.children(NODES).is_empty());
    assert!(zuul.zk.children("/nodepool/components/pool").is_empty());
    assert_eq!(instances(&state), 0);
    write(0);
    let _launcher = sandbox.launcher(&[]);
    let nodes = zuul.accept(&requests[0]);
    zuul.accept(&requests[1]);
    zuul.give_back(&nodes[0]);
    zuul.accept(&requests[2]);
}

/// It died of it, with all that it was doing.
#[test]
fn sigusr1_stops_a_launcher_as_it_stops_the_originals() {
    let sandbox = simple("stop-usr1", &["a"], "launch-delay: 3600", "");
    let zuul = Requestor::new(&sandbox);
    let launcher = sandbox.launcher(&[]);
    let id = zuul.ask(&["a"]);
    wait_nodes(&zuul.zk, "building", 1);
    launcher.signal(Signal::USR1);
    assert!(launcher.wait_exit(Duration::from_secs(12)).success(), "{}", launcher.log());
    assert_eq!(zuul.request(&id).unwrap()["state"], "requested");
    assert!(zuul.zk.children(NODES).is_empty());
}

#[test]
fn an_instance_that_cannot_be_deleted_at_the_end_is_deleted_by_the_next_launcher_from_its_record() {
    let sandbox = Sandbox::new("launcher-stop-left");
    let state = sandbox.path("cloud");
    std::fs::create_dir(&state).unwrap();
    let pool = pool("main", &["a"], "").replace("host-key-checking: false", "host-key-checking: true");
    let write = |failures: i32| {
        let behaviour = format!("state-dir: '{}', delete-failures: {failures}", state.display());
        let cloud = provider("cloud", &behaviour, "    boot-timeout: 3600\n", std::slice::from_ref(&pool));
        // Where nobody answers.
        let deaf = cloud.replace("username: zuul", "username: zuul, connection-port: 1");
        sandbox.write_body(&body(&["a"], &[deaf]));
    };
    write(-1);
    let zuul = Requestor::new(&sandbox);
    let launcher = sandbox.launcher(&[]);
    let id = zuul.ask(&["a"]);
    launcher.wait_log("waiting for it to answer", SOON);
    launcher.signal(Signal::TERM);
    assert!(launcher.wait_exit(Duration::from_secs(12)).success(), "{}", launcher.log());
    let nodes = zuul.zk.children(NODES);
    let record = zuul.node(&nodes[0]).unwrap();
    assert_eq!(record["state"], "deleting", "{record}");
    assert!(state.join(record["external_id"].as_str().unwrap()).exists(), "{record}");
    zuul.withdraw(&id);
    write(0);
    let _launcher = sandbox.launcher(&[]);
    zuul.wait_gone(&nodes[0]);
    assert_eq!(instances(&state), 0);
}

fn instances(state: &std::path::Path) -> usize {
    let files = std::fs::read_dir(state).unwrap().flatten();
    files.filter(|file| !file.file_name().to_string_lossy().contains('.')).count()
}

#[test]
fn a_lost_session_costs_the_work_that_was_under_way_and_nothing_else() {
    let sandbox = Sandbox::new("launcher-session");
    let cloud = provider("cloud", "launch-delay: 5", "", &[pool("main", &["a"], "")]);
    let header = sandbox.header(&Header { timeout: 2.0, ..Header::default() });
    sandbox.write_config(&format!("{header}{}", body(&["a"], &[cloud])));
    let zuul = Requestor::new(&sandbox);
    let launcher = sandbox.launcher(&[]);
    let id = zuul.ask(&["a"]);
    let [old] = <[String; 1]>::try_from(wait_nodes(&zuul.zk, "building", 1)).unwrap();
    let before = zuul.zk.children("/nodepool/components/pool");
    launcher.freeze();
    zuul.zk.wait_children("/nodepool/components/pool", SOON, |names| names.is_empty());
    launcher.signal(Signal::CONT);
    zuul.zk.wait_children("/nodepool/components/pool", SOON, |names| names.len() == 1 && names != before);
    let nodes = zuul.wait_nodes(&id);
    assert_ne!(nodes, std::slice::from_ref(&old));
    zuul.wait_gone(&old);
    assert_eq!(zuul.zk.children(NODES), nodes);
}
