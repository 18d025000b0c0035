//! How the nodes of machines end, and the launcher that has them.

use std::net::TcpListener;

use serde_json::json;

use super::*;
use crate::support::Signal;

#[test]
fn nodes_that_people_delete_come_again_and_those_that_they_hold_do_not() {
    let sshd = sshd();
    let sandbox = racked("people", &["small"], &[machine(&sshd, &["small"], PATIENT)]);
    let zuul = Requestor::new(&sandbox);
    let _launcher = sandbox.launcher(&[]);
    let mut last = wait_free(&zuul.zk, 1).pop_first().unwrap();
    for now in [&[][..], &["--now"]] {
        let args = [&["delete", last.as_str()], now].concat();
        sandbox.nodepool(&args).ok();
        let again = eventually(SOON, "another node", || free(&zuul.zk).pop_first().filter(|id| *id != last));
        zuul.wait_gone(&last);
        last = again;
    }
    sandbox.nodepool(&["hold", &last]).ok();
    let waits = zuul.ask(&["small"]);
    zuul.wait(&zuul.ask(&["unknown"]), "failed");
    assert_eq!(zuul.request(&waits).unwrap()["state"], "requested");
    assert_eq!(zuul.zk.children(NODES), [last.clone()]);
    sandbox.nodepool(&["delete", &last]).ok();
    assert_ne!(zuul.accept(&waits), [last]);
}

#[test]
fn a_node_that_is_ready_for_too_long_is_made_anew_after_a_look_at_its_machine() {
    let sshd = sshd();
    let labels = ["{name: small, max-ready-age: 2}"];
    let sandbox = racked("max-ready-age", &labels, &[machine(&sshd, &["small"], PATIENT)]);
    let zuul = Requestor::new(&sandbox);
    let _launcher = sandbox.launcher(&[]);
    let first = wait_free(&zuul.zk, 1).pop_first().unwrap();
    zuul.wait_gone(&first);
    wait_free(&zuul.zk, 1);
}

#[test]
fn a_node_whose_request_is_gone_is_anybodys() {
    let sshd = sshd();
    let sandbox = racked("withdrawn", &["small"], &[machine(&sshd, &["small"], PATIENT)]);
    let zuul = Requestor::new(&sandbox);
    let _launcher = sandbox.launcher(&[]);
    let id = zuul.ask(&["small"]);
    let nodes = zuul.wait_nodes(&id);
    zuul.withdraw(&id);
    let id = zuul.ask(&["small"]);
    assert_eq!(zuul.accept(&id), nodes);
}

#[test]
fn a_launcher_stops_while_machines_hang() {
    // The kernel accepts connections for a server that never will.
    let silent: Vec<_> = (0..20).map(|_| TcpListener::bind((LOCAL, 0)).unwrap()).collect();
    silent.iter().for_each(|one| one.set_nonblocking(true).unwrap());
    let sshd = sshd();
    let entry =
        |port: u16| format!("{{name: 127.0.0.1, labels: [hangs], connection-port: {port}, timeout: 3600}}");
    let mut machines: Vec<_> = silent.iter().map(|one| entry(one.local_addr().unwrap().port())).collect();
    machines.push(machine(&sshd, &["small"], PATIENT));
    let sandbox = racked("stop", &["small", "hangs"], &machines);
    let zuul = Requestor::new(&sandbox);
    let launcher = sandbox.launcher(&[]);
    let waits = zuul.ask(&["hangs"]);
    let mut called = Vec::new();
    eventually(SOON, "calls of several machines", || {
        called.extend(silent.iter().filter_map(|one| one.accept().ok()));
        (called.len() >= 10).then_some(())
    });
    launcher.signal(Signal::TERM);
    assert!(launcher.wait_exit(Duration::from_secs(12)).success(), "{}", launcher.log());
    assert_eq!(zuul.request(&waits).unwrap()["state"], json!("requested"));
    assert!(zuul.zk.children("/nodepool/components/pool").is_empty());
}

#[test]
fn a_launcher_takes_the_nodes_over_that_the_one_before_has_left() {
    let (one, mut other) = (sshd(), sshd());
    let machines = [machine(&one, &["small"], PATIENT), machine(&other, &["small"], QUICK)];
    let sandbox = racked("restart", &["small"], &machines);
    let zuul = Requestor::new(&sandbox);
    let before = {
        let launcher = sandbox.launcher(&[]);
        let before = wait_free(&zuul.zk, 2);
        launcher.signal(Signal::TERM);
        assert!(launcher.wait_exit(Duration::from_secs(12)).success(), "{}", launcher.log());
        before
    };
    assert_eq!(free(&zuul.zk), before, "machines stay");
    other.server().kill();
    let _launcher = sandbox.launcher(&[]);
    let left = wait_free(&zuul.zk, 1);
    assert_eq!(port_of(&zuul.zk, left.first().unwrap()), u64::from(one.port()));
    assert!(before.is_superset(&left));
}

#[test]
fn a_lost_session_costs_machines_nothing() {
    let sshd = sshd();
    let sandbox = Sandbox::new("launcher-machines-session");
    let header = sandbox.header(&Header { timeout: 2.0, ..Header::default() });
    let write = |labels: &[&str]| {
        let entry = machine(&sshd, labels, &format!("max-parallel-jobs: 3, {PATIENT}"));
        sandbox.write_config(&format!("{header}{}", body(&["small", "large"], &[rack("rack", &[entry])])));
    };
    write(&["small"]);
    let zuul = Requestor::new(&sandbox);
    let launcher = sandbox.launcher(&[]);
    let used = zuul.accept(&zuul.ask(&["small"]));
    let before = wait_free(&zuul.zk, 2);
    launcher.freeze();
    zuul.zk.wait_children("/nodepool/components/pool", SOON, |names| names.is_empty());
    // What has changed meanwhile is seen.
    zuul.give_back(&used[0]);
    launcher.signal(Signal::CONT);
    zuul.wait_gone(&used[0]);
    assert!(wait_free(&zuul.zk, 3).is_superset(&before));
    write(&["large"]);
    eventually(SOON, "the new label in the fleet", || {
        (advertised(&zuul.zk)?["supported_labels"] == json!(["large"])).then_some(())
    });
    assert_eq!(zuul.accept(&zuul.ask(&["large", "large", "large"])).len(), 3);
    assert_eq!(zuul.zk.children(NODES).len(), 3);
}
