//! TLS, and each way in which it fails.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::time::Duration;

use nodepool::config::{Tls, ZooKeeperConfig};

use super::{SOON, assert_trouble, at, config, connect};
use crate::support::tls::{CertFiles, Flaw};
use crate::support::{Options, Sandbox, ZooKeeper, shared};

fn tls(host: &str, server: &ZooKeeper, files: &CertFiles) -> ZooKeeperConfig {
    let CertFiles { cert, key, ca } = files.clone();
    ZooKeeperConfig {
        servers: vec![at(host, server.tls_port())],
        tls: Some(Tls { cert, key, ca, verify_hostname: true }),
        ..config(0, "", SOON)
    }
}

fn without_name_check(mut config: ZooKeeperConfig) -> ZooKeeperConfig {
    config.tls.as_mut().unwrap().verify_hostname = false;
    config
}

#[test]
fn a_client_certificate_is_let_in() {
    let sandbox = Sandbox::new("zk::tls::good");
    for host in ["localhost", "127.0.0.1"] {
        let config = tls(host, shared(), shared().pki().client());
        let (session, _thread) = connect(&ZooKeeperConfig { chroot: sandbox.chroot().to_owned(), ..config });
        session.ensure_path("/a").unwrap();
        let large = vec![b'x'; 1_000_000];
        let path = format!("/large-{host}");
        session.create(&path, &large).unwrap();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..5).for_each(|_| assert_eq!(session.get(&path).unwrap().0, large)));
            }
        });
    }
}

#[test]
fn a_server_of_an_unknown_authority_is_refused() {
    let files = CertFiles { ca: shared().pki().other_ca(), ..shared().pki().client().clone() };
    assert_trouble(
        &tls("localhost", shared(), &files),
        &["localhost:", "not signed by a CA in", "other-ca.pem", "zookeeper-tls: ca"],
    );
    assert_trouble(&without_name_check(tls("localhost", shared(), &files)), &["not signed by a CA in"]);
}

#[test]
fn a_wrong_name_is_refused_unless_names_are_not_checked() {
    let server = ZooKeeper::start_with(Options { server_flaw: Flaw::WrongName, ..Options::default() });
    let config = tls("localhost", &server, server.pki().client());
    assert_trouble(&config, &["localhost", "zookeeper.example.org", "verify-hostname: false"]);
    connect(&without_name_check(config)).0.ensure_path("/a").unwrap();
}

#[test]
fn a_certificate_that_is_made_out_to_an_address_is_checked_by_it() {
    let of = |flaw, address: IpAddr| {
        ZooKeeper::start_with(Options { server_flaw: flaw, address, ..Options::default() })
    };
    let server = of(Flaw::AddressesOnly, Ipv4Addr::LOCALHOST.into());
    connect(&tls("127.0.0.1", &server, server.pki().client())).0.ensure_path("/a").unwrap();
    let by_name = tls("localhost", &server, server.pki().client());
    assert_trouble(&by_name, &["localhost", "127.0.0.1", "verify-hostname: false"]);
    connect(&without_name_check(by_name)).0.ensure_path("/b").unwrap();

    let server = of(Flaw::AddressesOnly, Ipv6Addr::LOCALHOST.into());
    connect(&tls("::1", &server, server.pki().client())).0.ensure_path("/a").unwrap();

    // Here the certificate is for other names, and for another address.
    let server = of(Flaw::None, Ipv6Addr::LOCALHOST.into());
    let config = tls("::1", &server, server.pki().client());
    assert_trouble(&config, &["[::1]:", "localhost", "verify-hostname: false"]);
    connect(&without_name_check(config)).0.ensure_path("/a").unwrap();
}

#[test]
fn of_several_authorities_in_one_file_any_may_have_signed() {
    let sandbox = Sandbox::new("zk::tls::bundle");
    let pki = shared().pki();
    let [other, ca] = [&pki.other_ca(), pki.ca()].map(|file| std::fs::read_to_string(file).unwrap());
    let bundle = sandbox.path("bundle.pem");
    let files = CertFiles { ca: bundle.clone(), ..pki.client().clone() };
    // As distributions write them: with comments, and whatever else stands in such files.
    for text in [format!("# one\n{other}\n# two\n{ca}"), format!("{ca}{other}")] {
        std::fs::write(&bundle, text).unwrap();
        connect(&tls("localhost", shared(), &files)).0.stat("/").unwrap();
    }
    std::fs::write(&bundle, format!("{other}{other}")).unwrap();
    assert_trouble(&tls("localhost", shared(), &files), &["not signed by a CA in", "bundle.pem"]);
}

#[test]
fn a_certificate_without_names_is_refused_unless_names_are_not_checked() {
    let server = ZooKeeper::start_with(Options { server_flaw: Flaw::NoSubjectAltName, ..Options::default() });
    let config = tls("localhost", &server, server.pki().client());
    assert_trouble(&config, &["localhost", "verify-hostname: false"]);
    connect(&without_name_check(config)).0.ensure_path("/a").unwrap();
}

#[test]
fn an_expired_server_certificate_is_refused() {
    let server = ZooKeeper::start_with(Options { server_flaw: Flaw::Expired, ..Options::default() });
    let config = tls("localhost", &server, server.pki().client());
    for config in [without_name_check(config.clone()), config] {
        assert_trouble(&config, &["the server's certificate", "expired"]);
    }
}

#[test]
fn files_that_are_missing_or_wrong_are_named() {
    let sandbox = Sandbox::new("zk::tls::files");
    let good = shared().pki().client().clone();
    let other = shared().pki().issue("zk-tls-files", Flaw::None);
    let (missing, empty) = (sandbox.path("missing.pem"), sandbox.path("empty.pem"));
    std::fs::write(&empty, "no PEM here\n").unwrap();
    let cases = [
        (
            CertFiles { cert: missing.clone(), ..good.clone() },
            ["missing.pem", "zookeeper-tls: cert", "No such file"],
        ),
        (
            CertFiles { key: missing.clone(), ..good.clone() },
            ["missing.pem", "zookeeper-tls: key", "No such file"],
        ),
        (CertFiles { ca: missing, ..good.clone() }, ["missing.pem", "zookeeper-tls: ca", "No such file"]),
        (
            CertFiles { cert: empty.clone(), ..good.clone() },
            ["empty.pem", "zookeeper-tls: cert", "no certificate"],
        ),
        (
            CertFiles { key: empty.clone(), ..good.clone() },
            ["empty.pem", "zookeeper-tls: key", "no private key"],
        ),
        (CertFiles { ca: empty, ..good.clone() }, ["empty.pem", "zookeeper-tls: ca", "no certificate"]),
        (CertFiles { key: other.key, ..good }, ["client.pem", "zookeeper-tls: cert", "does not fit the key"]),
    ];
    for (files, parts) in cases {
        assert_trouble(&tls("localhost", shared(), &files), &parts);
    }
}

#[test]
fn a_client_certificate_that_the_server_does_not_accept_is_named() {
    for flaw in [Flaw::OtherAuthority, Flaw::Expired] {
        let files = shared().pki().issue(&format!("zk-tls-client-{flaw:?}"), flaw);
        assert_trouble(
            &tls("localhost", shared(), &files),
            &["may not accept the client certificate", files.cert.to_str().unwrap()],
        );
    }
}

#[test]
fn plain_and_tls_ports_that_are_mixed_up_are_told() {
    let client = shared().pki().client();
    let mut wrong = tls("localhost", shared(), client);
    wrong.servers = vec![at("localhost", shared().plain_port())];
    assert_trouble(&wrong, &["is this its plain port?"]);
    assert_trouble(&config(shared().tls_port(), "", SOON), &["127.0.0.1:", "TLS"]);
}

#[test]
fn a_renewed_certificate_needs_no_restart() {
    let sandbox = Sandbox::new("zk::tls::renewed");
    let good = shared().pki().client();
    let files =
        CertFiles { cert: sandbox.path("cert.pem"), key: sandbox.path("key.pem"), ca: good.ca.clone() };
    let config = tls("localhost", shared(), &files);
    let (session, _thread) = nodepool::zk::Session::start(&config, &super::log()).unwrap();
    session.wait_connected(Duration::from_millis(500)).unwrap_err();
    std::fs::copy(&good.key, &files.key).unwrap();
    std::fs::copy(&good.cert, &files.cert).unwrap();
    session.wait_connected(SOON).unwrap();
}
