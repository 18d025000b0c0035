//! What only the launcher does as a service: it gives its requests back when it stops, and its unit allows it no more
//! than it needs.

use super::*;
use crate::launcher::requestor::Requestor;
use crate::launcher::{body, pool, provider, wait_nodes};

/// A cloud that keeps its instances in the sandbox, and takes so many seconds for each.
fn cloud(sandbox: &Sandbox<'_>, delay: &str) -> String {
    let state = sandbox.path("run/cloud");
    std::fs::create_dir_all(&state).unwrap();
    let behaviour = format!("state-dir: '{}', launch-delay: {delay}", state.display());
    body(&["a"], &[provider("cloud", &behaviour, "", &[pool("main", &["a"], "")])])
}

fn instances(sandbox: &Sandbox<'_>) -> Vec<String> {
    let files = std::fs::read_dir(sandbox.path("run/cloud")).unwrap();
    let names = files.map(|file| file.unwrap().file_name().into_string().unwrap());
    names.filter(|name| !name.contains('.')).collect()
}

#[test]
fn a_restart_gives_a_request_back_and_leaves_no_instance_and_the_next_launcher_serves_it() {
    let sandbox = Sandbox::new("init-launcher-restart");
    let machine = installed(&sandbox, &[LAUNCHER]);
    let launcher = LAUNCHER.on(&machine);
    configure(&sandbox, &machine, &cloud(&sandbox, "3600"));
    launcher.expect("start", 0);
    let zuul = Requestor::new(&sandbox);
    let request = zuul.ask(&["a"]);
    let launching = || {
        let [node] = wait_nodes(&zuul.zk, "building", 1).try_into().unwrap();
        let instance = eventually(SOON, "an instance", || instances(&sandbox).pop());
        (node, instance)
    };
    let (first, of_first) = launching();
    launcher.expect("restart", 0);
    zuul.wait_gone(&first);
    let (second, of_second) = launching();
    assert!(second != first && of_second != of_first);
    assert_eq!(instances(&sandbox), [of_second]);

    launcher.expect("stop", 0);
    assert_eq!(zuul.wait(&request, "requested")["nodes"], serde_json::json!([]));
    assert_eq!(instances(&sandbox), [""; 0]);
    assert_eq!(processes(&machine, LAUNCHER.name), [0; 0]);
    configure(&sandbox, &machine, &cloud(&sandbox, "0.01"));
    launcher.expect("start", 0);
    assert_eq!(zuul.accept(&request).len(), 1);
    launcher.expect("stop", 0);
}

/// It serves requests and shows its stacks, and can do little else.
#[test]
fn the_unit_lets_the_launcher_serve_requests_but_neither_become_root_nor_change_the_system() {
    let sandbox = Sandbox::new("systemd-launcher");
    let machine = systemd::booted(&sandbox, &[LAUNCHER]);
    let launcher = LAUNCHER.on(&machine);
    configure(&sandbox, &machine, &cloud(&sandbox, "0.01"));
    machine.ok("systemctl start nodepool-launcher");
    let zuul = Requestor::new(&sandbox);
    zuul.accept(&zuul.ask(&["a"]));
    assert_eq!(instances(&sandbox).len(), 1);
    let dump = launcher.expect("dump", 0);
    assert!(dump.contains(launcher.thread) && dump.contains("nodepool::launcher::"), "{dump}");

    let pid = launcher.pid();
    let status = machine.ok(&format!("cat /proc/{pid}/status"));
    for line in ["NoNewPrivs:\t1", "CapBnd:\t0000000000000000", "Seccomp:\t2"] {
        assert!(status.lines().any(|one| one == line), "{line} in:\n{status}");
    }
    let mounts = machine.ok(&format!("cat /proc/{pid}/mountinfo"));
    for path in ["/", "/usr", "/etc"] {
        // Of all mounts on a path the last one is what can be seen.
        let last = mounts.lines().rfind(|line| line.split(' ').nth(4) == Some(path));
        assert!(
            last.is_none_or(|line| line.split(' ').nth(5).unwrap().starts_with("ro")),
            "{path} in:\n{mounts}"
        );
    }
}
