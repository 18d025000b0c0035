//! The status pages: who asks for them, and where they are.

use std::io::Write as _;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};

use serde_json::json;

use super::pages::ready_pages;
use super::*;
use crate::support::Signal;
use crate::support::http::{connect, get, get_json, request};

/// Nodes that no launcher here takes for its own.
fn foreign_nodes(zk: &ZkClient, count: usize) {
    for number in 0..count {
        let node = json!({"state": "in-use", "state_time": 5.5, "type": ["x"], "provider": "elsewhere",
            "pool": "main", "allocated_to": format!("100-{number:010}"), "comment": "c".repeat(100)});
        zk.create(&format!("{NODES}/{:010}", 100_000 + number), node.to_string());
    }
}

#[test]
fn many_clients_are_served_while_requests_are_and_the_stop_waits_for_none_of_them() {
    let sandbox = simple("pages-clients", &["a"], "", "");
    let zuul = Requestor::new(&sandbox);
    foreign_nodes(&zuul.zk, 2000);
    let launcher = sandbox.launcher(&[]);
    let web = ready_pages(&launcher);
    launcher.wait_until("all nodes", SOON, || {
        (get_json(web, "/node-list").json().as_array()?.len() == 2000).then_some(())
    });
    let served = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for client in 0..8 {
            let served = &served;
            scope.spawn(move || {
                for round in 0..10 {
                    let path = ["/node-list", "/", "/metrics", "/request-list", "/node-list?fields=id"];
                    let answer = get(web, path[(client + round) % path.len()]);
                    assert_eq!(answer.status, 200);
                    served.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        for _ in 0..5 {
            zuul.accept(&zuul.ask(&["a"]));
        }
    });
    assert_eq!(served.load(Ordering::SeqCst), 80);
    assert!(get(web, "/").body.len() > 300_000);
    // Some that send nothing, half a request, or read nothing of a long answer.
    let dawdlers: Vec<TcpStream> = (0..100)
        .map(|n| {
            let mut stream = connect(web);
            // Some are shown the door before.
            let _ = stream.write_all(["", "GET / HT", "GET /node-list HTTP/1.1\r\n\r\n"][n % 3].as_bytes());
            stream
        })
        .collect();
    assert_eq!(get(web, "/ready").body, "OK");
    launcher.signal(Signal::TERM);
    assert!(launcher.wait_exit(SOON).success());
    drop(dawdlers);
}

fn with_webapp(sandbox: &Sandbox<'_>, section: &str) {
    let header = sandbox.header(&Header::default());
    let cloud = provider("cloud", "", "", &[pool("main", &["a"], "")]);
    let here = "{port: 0, listen_address: 127.0.0.1}";
    assert!(header.contains(here));
    sandbox.write_config(&(header.replace(here, section) + &body(&["a"], &[cloud])));
}

#[test]
fn an_address_that_is_taken_is_a_warning_and_another_one_is_taken_at_a_reload() {
    let sandbox = Sandbox::new("launcher-pages-address");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    with_webapp(&sandbox, &format!("{{port: {port}, listen_address: 127.0.0.1}}"));
    let launcher = sandbox.launcher(&[]);
    launcher.wait_log("cannot serve the status pages, to be tried again each minute", SOON);
    with_webapp(&sandbox, "{port: 0, listen_address: localhost}");
    let first = launcher.web();
    assert!(first.ip().is_loopback());
    ready_pages(&launcher);
    drop(taken);
    with_webapp(&sandbox, &format!("{{port: {port}, listen_address: 127.0.0.1}}"));
    launcher.wait_until("the pages at the new address", SOON, || {
        (launcher.web().port() == port).then(|| assert_eq!(get(launcher.web(), "/ready").status, 200))
    });
    assert!(TcpStream::connect(first).is_err());
    assert!(launcher.exited().is_none());
}

#[test]
fn no_webapp_means_no_pages() {
    let sandbox = simple("pages-none", &["a"], "", "");
    let launcher = sandbox.launcher(&["--no-webapp"]);
    let zuul = Requestor::new(&sandbox);
    zuul.wait_nodes(&zuul.ask(&["a"]));
    assert!(!launcher.log().contains("serving the status pages"), "{}", launcher.log());
    let threads = std::fs::read_dir(format!("/proc/{}/task", launcher.pid())).unwrap();
    let mut names =
        threads.filter_map(|task| std::fs::read_to_string(task.unwrap().path().join("comm")).ok());
    assert!(names.all(|name| name.trim() != "web"));
}

/// "DNS rebinding": a page of a foreign site has the name of that site point to this machine, and reads from
/// here through its visitor's browser what that one may see.
#[test]
fn what_goes_on_is_shown_by_the_names_of_this_machine_only_and_the_originals_pages_by_any() {
    let sandbox = Sandbox::new("launcher-pages-hosts");
    with_webapp(&sandbox, "{port: 0}");
    let launcher = sandbox.launcher(&[]);
    let everywhere = launcher.web();
    assert!(everywhere.ip().is_unspecified(), "{everywhere}");
    let web = ([127, 0, 0, 1], everywhere.port()).into();
    launcher
        .wait_until("a launcher that is ready", SOON, || (get(web, "/ready").status == 200).then_some(()));
    let status =
        |path: &str, host: &str| request(web, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).status;
    let own = rustix::system::uname().nodename().to_string_lossy().into_owned();
    for path in ["/", "/threads"] {
        for host in ["127.0.0.1", "192.0.2.7:8005", "localhost", &own] {
            assert_eq!(status(path, host), 200, "{path} {host}");
        }
        assert_eq!(status(path, "evil.example.org"), 421, "{path}");
    }
    let refused = request(web, "GET / HTTP/1.1\r\nHost: pages.example.org\r\n\r\n");
    assert!(refused.body.contains("add it to webapp.allowed-hosts"), "{refused:?}");
    for path in ["/node-list", "/request-list", "/label-list", "/image-list", "/ready", "/metrics"] {
        assert_eq!(status(path, "evil.example.org"), 200, "{path}");
    }
    with_webapp(&sandbox, "{port: 0, allowed-hosts: [pages.example.org]}");
    launcher.wait_until("the page by another name", SOON, || {
        (status("/", "pages.example.org") == 200).then_some(())
    });
}
