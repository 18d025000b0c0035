//! The status pages: who asks for them, and where they are.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread::JoinHandle;
use std::time::Duration;

use super::*;
use crate::support::http::{connect, get, read, request as request_page};
use crate::support::{Daemon, Signal};

fn open_files(builder: &Daemon) -> usize {
    names(PathBuf::from(format!("/proc/{}/fd", builder.pid()))).len()
}

/// Clients that send nothing, half a request, or too many bytes, and some that read nothing of a long answer.
#[test]
fn clients_that_dawdle_cost_little_and_hold_up_neither_others_nor_the_stop() {
    let sandbox = Sandbox::new("web-dawdlers");
    // Long enough that no socket takes the whole page.
    let long = "i".repeat(200);
    let images: Vec<_> =
        (0..2000).map(|n| format!("  - {{name: {long}{n}, dib-cmd: x, formats: []}}\n")).collect();
    sandbox.write_body(&body(&images, &[]));
    let builder = sandbox.builder(&[]);
    let web = builder.web();
    builder.wait_until("a builder that is ready", SOON, || (get(web, "/ready").status == 200).then_some(()));
    assert!(get(web, "/").body.len() > 600_000);
    let before = open_files(&builder);
    let dawdlers: Vec<TcpStream> = (0..150)
        .map(|n| {
            let mut stream = connect(web);
            let request = ["", "GET / HT", "GET / HTTP/1.1\r\n\r\n"][n % 3];
            // Some are shown the door before.
            let _ = stream.write_all(request.as_bytes());
            stream
        })
        .collect();
    for _ in 0..20 {
        assert_eq!(get(web, "/ready").body, "OK");
    }
    let during = open_files(&builder);
    assert!(during <= before + 40, "{before} files, then {during}");
    builder.signal(Signal::TERM);
    assert!(builder.wait_exit(SOON).success());
    drop(dawdlers);
}

#[test]
fn a_client_that_sends_too_slowly_is_told_and_let_go() {
    let sandbox = Sandbox::new("web-slow");
    sandbox.write_body(&body(&[], &[]));
    let builder = sandbox.builder(&[]);
    let before = open_files(&builder);
    let mut half = connect(builder.web());
    half.write_all(b"GET / HTTP/1.1\r\nHost: te").unwrap();
    let mut silent = connect(builder.web());
    // Two that are never quiet: one that never comes to an end, one that goes on after it has its answer.
    let dripping = feed(connect(builder.web()), b"a", Duration::from_millis(20));
    let mut flooding = connect(builder.web());
    flooding.write_all(b"GET /ready HTTP/1.1\r\n\r\n").unwrap();
    let flooding = feed(flooding, &[b'a'; 65536], Duration::ZERO);
    builder.wait_until("the first three to be let in", SOON, || {
        (open_files(&builder) >= before + 3).then_some(())
    });
    assert_eq!(read(&mut half).status, 408);
    let mut nothing = Vec::new();
    silent.read_to_end(&mut nothing).unwrap();
    assert_eq!(nothing, b"");
    for fed in [dripping, flooding] {
        builder
            .wait_until("the end of a client that is never quiet", SOON, || fed.is_finished().then_some(()));
        fed.join().unwrap();
    }
    builder
        .wait_until("the connections to be closed", SOON, || (open_files(&builder) <= before).then_some(()));
}

/// Sends the same again and again until the other side does not want it any more.
fn feed(mut stream: TcpStream, bytes: &'static [u8], pause: Duration) -> JoinHandle<()> {
    std::thread::spawn(move || {
        while stream.write_all(bytes).is_ok() {
            std::thread::sleep(pause);
        }
    })
}

/// It may be another program's; the builder has better things to do than to die of it.
#[test]
fn an_address_that_is_taken_is_a_warning_and_another_one_is_taken_at_a_reload() {
    let sandbox = Sandbox::new("web-address");
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port();
    let images = body(&[image(&sandbox, "debian", "formats: [raw]")], &[]);
    let with = |section: &str| {
        let header = sandbox.header(&crate::support::Header::default());
        sandbox.write_config(&(header.replace("{port: 0}", section) + &images));
    };
    with(&format!("{{port: {port}}}"));
    let zk = sandbox.zk();
    let builder = sandbox.builder(&[]);
    wait_ready(&zk, "debian");
    builder.wait_log("cannot serve the status pages, to be tried again each minute", SOON);
    let log = builder.log();
    let warnings: Vec<_> = log.lines().filter(|line| line.contains("cannot serve")).collect();
    assert!(warnings.len() == 1 && warnings[0].contains(&format!("127.0.0.1:{port}")), "{warnings:?}");
    assert!(warnings[0].contains("Address already in use"), "{warnings:?}");

    with("{port: 0}");
    let first = builder.web();
    assert_eq!(get(first, "/ready").status, 200);
    // A change of something else leaves it where it is.
    let other = sandbox.header(&crate::support::Header::default());
    sandbox.write_config(&format!("{other}max-hold-age: 5\n{images}"));
    builder.wait_until("the second change", SOON, || {
        (builder.log().matches("the configuration has changed").count() == 2).then_some(())
    });
    assert_eq!(get(first, "/ready").status, 200);
    drop(taken);
    with(&format!("{{port: {port}}}"));
    builder.wait_until("the pages at the new address", SOON, || {
        (builder.web().port() == port).then(|| assert_eq!(get(builder.web(), "/ready").status, 200))
    });
    assert!(TcpStream::connect(first).is_err());
    with("{enabled: false}");
    builder.wait_log("the status pages are not served any more", SOON);
    assert!(TcpStream::connect(("127.0.0.1", port)).is_err());
    assert!(builder.exited().is_none());
}

/// "DNS rebinding": a page of a foreign site has the name of that site point to this machine, and reads from
/// here through its visitor's browser what that one may see.
#[test]
fn what_a_build_prints_is_shown_by_the_names_of_this_machine_only() {
    let sandbox = Sandbox::new("web-hosts");
    let images = body(&[], &[]);
    let with = |section: &str| {
        let header = sandbox.header(&crate::support::Header::default());
        sandbox.write_config(&(header.replace("{port: 0}", section) + &images));
    };
    with("{port: 0}");
    let builder = sandbox.builder(&[]);
    let web = builder.web();
    let status = |path: &str, host: &str| {
        request_page(web, &format!("GET {path} HTTP/1.1\r\nHost: {host}\r\n\r\n")).status
    };
    let port = web.port();
    for path in ["/", "/threads"] {
        for host in [format!("127.0.0.1:{port}"), format!("localhost:{port}"), "[::1]".to_owned()] {
            assert_eq!(status(path, &host), 200, "{path} {host}");
        }
        assert_eq!(request_page(web, &format!("GET {path} HTTP/1.0\r\n\r\n")).status, 200);
        assert_eq!(status(path, &format!("evil.example.org:{port}")), 421, "{path}");
    }
    let refused = request_page(web, "GET / HTTP/1.1\r\nHost: pages.example.org\r\n\r\n");
    assert!(refused.body.contains("add it to builder-webapp.allowed-hosts"), "{refused:?}");
    // Dashboards of other sites and monitoring may have these by any name.
    for path in ["/ready", "/metrics", "/image-list"] {
        builder.wait_until(path, SOON, || (status(path, "evil.example.org") == 200).then_some(()));
    }
    with("{port: 0, allowed-hosts: [pages.example.org]}");
    builder.wait_until("the page by another name", SOON, || {
        (status("/", "pages.example.org") == 200).then_some(())
    });
    assert_eq!(status("/", "evil.example.org"), 421);
}
