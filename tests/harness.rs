//! Tests of the harness itself.
#![allow(clippy::expect_used, clippy::unwrap_used)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::support::history::Change;
use crate::support::leash::{Adopted, is_alive};
use crate::support::openstack::{self, Gate, Service};
use crate::support::original::install;
use crate::support::tls::Flaw;
use crate::support::{
    Ensemble, Header, Network, OpenStack, Options, Sandbox, Signal, Transport, ZkClient, ZooKeeper, again,
    eventually, shared,
};

const SOON: Duration = Duration::from_secs(10);

#[test]
fn the_shared_server_answers_on_both_ports() {
    let server = shared();
    assert!(server.four_letter("mntr").contains("zk_version"));
    let client = server.pki().client();
    for name in ["localhost", "127.0.0.1"] {
        assert_eq!(server.four_letter_tls("ruok", client, name).unwrap(), "imok");
    }
}

#[test]
fn the_server_refuses_bad_client_certificates() {
    let server = shared();
    for flaw in [Flaw::OtherAuthority, Flaw::Expired] {
        let files = server.pki().issue(&format!("{flaw:?}"), flaw);
        let error = server.four_letter_tls("ruok", &files, "localhost").unwrap_err();
        eprintln!("{flaw:?}: {error}");
    }
}

#[test]
fn a_bad_server_certificate_is_noticed() {
    for (flaw, says) in [
        (Flaw::OtherAuthority, "invalid peer certificate"),
        (Flaw::WrongName, "not valid for name"),
        (Flaw::Expired, "expired"),
        (Flaw::NoSubjectAltName, "not valid for name"),
    ] {
        let server = ZooKeeper::start_with(Options { server_flaw: flaw, ..Options::default() });
        let error = server.four_letter_tls("ruok", server.pki().client(), "localhost").unwrap_err();
        assert!(error.to_string().contains(says), "{flaw:?}: {error}");
    }
}

#[test]
fn a_killed_server_comes_back_with_its_data() {
    let began = Instant::now();
    let server = ZooKeeper::start();
    eprintln!("started in {:?}", began.elapsed());
    ZkClient::connect(&server, "").create("/a/b", "kept");
    let (ports, pid) = ([server.plain_port(), server.tls_port()], server.pid());
    server.kill();
    assert!(server.try_four_letter("ruok").is_err());
    server.restart();
    assert_eq!(ports, [server.plain_port(), server.tls_port()]);
    assert_ne!(pid, server.pid());
    assert_eq!(ZkClient::connect(&server, "").get("/a/b").unwrap().data, b"kept");
}

#[test]
fn a_stopped_server_is_silent_until_it_goes_on_and_can_be_ended() {
    let server = ZooKeeper::start();
    server.stop_signal();
    let state = || std::fs::read_to_string(format!("/proc/{}/stat", server.pid())).unwrap();
    eventually(SOON, "the JVM to be stopped", || state().contains(") T ").then_some(()));
    server.cont_signal();
    assert_eq!(server.four_letter("ruok"), "imok");
    server.stop_signal();
    let (pid, dir) = (server.pid(), server.dir().to_owned());
    drop(server);
    assert!(!is_alive(pid) && !dir.exists());
}

#[test]
fn taken_ports_are_noticed() {
    let server = ZooKeeper::start();
    let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    assert!(ZooKeeper::start_on([server.plain_port(), other], Options::default()).is_none());
    assert!(ZooKeeper::start_on([other, server.tls_port()], Options::default()).is_none());
}

#[test]
fn an_ensemble_has_a_new_leader_when_one_is_killed_and_takes_it_back() {
    let began = Instant::now();
    let ensemble = Ensemble::start();
    eprintln!("started in {:?}", began.elapsed());
    let first = ensemble.leader();
    assert!(!ensemble.followers().contains(&first) && ensemble.followers().len() == 2);
    ensemble.zk("").create("/a", "kept");
    let began = Instant::now();
    ensemble.kill(first);
    let second = ensemble.leader();
    eprintln!("a new leader after {:?}", began.elapsed());
    assert_ne!(first, second);
    assert_eq!(ensemble.zk("").get("/a").unwrap().data, b"kept");
    ensemble.restart(first);
    ensemble.wait_complete();
    assert!(ensemble.followers().contains(&first));
    let zk = ZkClient::connect(&ensemble.servers()[first], "");
    assert_eq!(zk.get("/a").unwrap().data, b"kept");
}

#[test]
fn an_ensemble_without_a_majority_has_no_leader() {
    let ensemble = Ensemble::start();
    let zk = ensemble.zk("");
    zk.create_ephemeral("/owned", "");
    let session = zk.get("/owned").unwrap().ephemeral_owner;
    let server = ensemble.server_of(session).unwrap();
    drop(zk);
    assert_eq!(server, ensemble.leader(), "the harness connects to the leader");
    let others = ensemble.followers();
    ensemble.stop_signal(others[0]);
    ensemble.kill(others[1]);
    let state = || ensemble.servers()[server].try_four_letter("mntr").unwrap_or_default();
    eventually(SOON, "the leader to step down", || (!state().contains("zk_server_state")).then_some(()));
    ensemble.cont_signal(others[0]);
    ensemble.wait_quorum();
}

#[test]
fn a_network_loses_packets_in_silence_and_carries_the_same_connection_again() {
    let network = Network::create();
    let listener = network.far_listener();
    let mut near = TcpStream::connect((network.far(), listener.local_addr().unwrap().port())).unwrap();
    let (mut far, peer) = listener.accept().unwrap();
    assert_eq!(peer.ip(), network.near());
    network.lose();
    let short = Some(Duration::from_millis(300));
    near.set_read_timeout(short).unwrap();
    far.set_read_timeout(short).unwrap();
    near.write_all(b"a").unwrap();
    far.write_all(b"b").unwrap();
    for end in [&mut near, &mut far] {
        assert_eq!(end.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
        assert!(end.take_error().unwrap().is_none());
    }
    let dial = TcpStream::connect_timeout(&listener.local_addr().unwrap(), Duration::from_millis(1500));
    assert_eq!(dial.unwrap_err().kind(), std::io::ErrorKind::TimedOut, "not refused, not unreachable");
    network.restore();
    for end in [&mut near, &mut far] {
        end.set_read_timeout(Some(SOON)).unwrap();
        end.read_exact(&mut [0]).unwrap();
    }
}

#[test]
fn a_network_goes_with_its_last_user() {
    let network = Arc::new(Network::create());
    let interface = network.interface().to_owned();
    let server = ZooKeeper::start_with(Options::behind(&network));
    drop(network);
    assert_eq!(server.four_letter("ruok"), "imok");
    drop(server);
    eventually(SOON, "the interface to go", || (!has_interface(&interface)).then_some(()));
}

fn has_interface(name: &str) -> bool {
    std::path::Path::new("/sys/class/net").join(name).exists()
}

/// Not a test: what the next ones run in a process of its own, to kill it.
#[test]
#[ignore = "run by a_server_never_outlives_the_test_process"]
fn holds_a_server() {
    let server = ZooKeeper::start();
    server.stop_signal();
    println!("\nholds {} {}", server.pid(), server.dir().display());
    std::io::stdin().lines().for_each(drop);
}

/// Not a test, as the one above.
#[test]
#[ignore = "run by a_network_never_outlives_the_test_process"]
fn holds_a_network() {
    let network = Arc::new(Network::create());
    let server = ZooKeeper::start_with(Options::behind(&network));
    network.lose();
    println!("\nholds {} {}", server.pid(), network.interface());
    std::io::stdin().lines().for_each(drop);
}

/// Not a test, as the ones above.
#[test]
#[ignore = "run by services_of_openstack_never_outlive_the_test_process"]
fn holds_services_of_openstack() {
    let began = Instant::now();
    let services = OpenStack::start_with(openstack::Options {
        disk_mb: Some(1),
        servers: true,
        volumes: true,
        ..Default::default()
    });
    services.serve_tls();
    eprintln!("started in {:?}", began.elapsed());
    let too_much = std::fs::write(services.store().join("images/filler"), vec![1; 2 << 20]).unwrap_err();
    assert_eq!(too_much.kind(), std::io::ErrorKind::StorageFull);
    println!("\nholds {} {}", services.pid(Service::Nova), services.dir().display());
    std::io::stdin().lines().for_each(drop);
}

/// Runs one of the tests above. Answers it with what it holds: a process and a name.
fn holder(test: &str) -> (Child, u32, String) {
    let mut holder = again(test).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(holder.stdout.take().unwrap()).lines();
    let told = lines.map_while(Result::ok).find_map(|line| line.strip_prefix("holds ").map(str::to_owned));
    let told = told.expect("what the holder holds");
    let (pid, name) = told.split_once(' ').unwrap();
    let pid = pid.parse().unwrap();
    assert!(is_alive(pid));
    (holder, pid, name.to_owned())
}

#[test]
fn a_server_never_outlives_the_test_process() {
    let (mut holder, pid, dir) = holder("harness::holds_a_server");
    let dir = std::path::Path::new(&dir);
    assert!(dir.exists());
    holder.kill().unwrap();
    holder.wait().unwrap();
    eventually(SOON, "the JVM to be killed", || (!is_alive(pid)).then_some(()));
    eventually(SOON, "its data to be removed", || (!dir.exists()).then_some(()));
}

#[test]
fn a_network_never_outlives_the_test_process() {
    let (mut holder, pid, interface) = holder("harness::holds_a_network");
    assert!(has_interface(&interface));
    holder.kill().unwrap();
    holder.wait().unwrap();
    eventually(SOON, "the JVM to be killed", || (!is_alive(pid)).then_some(()));
    // A goodbye that was lost is repeated for a while before the kernel lets go of it.
    eventually(9 * SOON, "the network to go", || (!has_interface(&interface)).then_some(()));
}

#[test]
fn services_of_openstack_never_outlive_the_test_process() {
    let (mut holder, pid, dir) = holder("harness::holds_services_of_openstack");
    let dir = std::path::Path::new(&dir);
    // The services, and the TLS in front of them.
    let processes = || {
        let all = std::fs::read_dir("/proc").unwrap().flatten();
        let of_ours = |entry: &std::fs::DirEntry| {
            let line = std::fs::read(entry.path().join("cmdline")).unwrap_or_default();
            let program = String::from_utf8_lossy(&line).into_owned();
            program.contains(&format!("{}/", dir.display())) && !program.starts_with("/bin/sh")
        };
        all.filter(of_ours).count()
    };
    assert_eq!(processes(), 7);
    holder.kill().unwrap();
    holder.wait().unwrap();
    eventually(SOON, "Nova to be killed", || (!is_alive(pid)).then_some(()));
    eventually(SOON, "all to be killed", || (processes() == 0).then_some(()));
    eventually(SOON, "their data to be removed", || (!dir.exists()).then_some(()));
}

#[test]
fn keystone_and_glance_answer_the_official_client_and_through_tls() {
    let services = openstack::shared();
    let mut client = services.command("openstack");
    let listed = client.args(["--os-cloud", "appcred", "catalog", "list", "-f", "json"]).output().unwrap();
    assert!(listed.status.success(), "{listed:?}");
    let catalogue: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    let image = catalogue.as_array().unwrap().iter().find(|entry| entry["Type"] == "image").unwrap();
    let regions: Vec<_> =
        image["Endpoints"].as_array().unwrap().iter().map(|one| &one["region_id"]).collect();
    for region in ["RegionOne", "RegionTls", "RegionGate"] {
        assert!(regions.iter().any(|&found| found == region), "{regions:?}");
    }
    services.serve_tls();
    let url = |cloud: &str| {
        let text = std::fs::read_to_string(services.clouds()).unwrap();
        text.lines().find(|line| line.contains(cloud)).unwrap().split('\'').nth(1).unwrap().to_owned()
    };
    let tls = url("https://");
    let port = tls.trim_start_matches("https://localhost:").trim_end_matches("/v3").parse::<u16>().unwrap();
    let name = "localhost".to_owned().try_into().unwrap();
    let session = rustls::ClientConnection::new(services.pki().client().client_config(), name).unwrap();
    let mut stream = rustls::StreamOwned::new(session, TcpStream::connect(("127.0.0.1", port)).unwrap());
    stream.write_all(b"GET /v3 HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = [0; 15];
    stream.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"HTTP/1.0 200 OK");
}

#[test]
fn a_killed_glance_comes_back_with_its_images() {
    let services = OpenStack::start();
    let id = services.create_image("kept", &serde_json::json!({"some": "thing"}));
    let pid = services.pid(Service::Glance);
    services.kill(Service::Glance);
    assert!(!is_alive(pid));
    services.restart(Service::Glance);
    let images = services.images("kept");
    assert_eq!(
        (images.len(), images[0]["id"].as_str(), &images[0]["status"]),
        (1, Some(&*id), &"queued".into())
    );
    assert_eq!(images[0]["some"], "thing");
    services.delete_image(&id);
    assert!(services.images("").is_empty());
}

#[test]
fn a_gate_holds_a_connection_in_its_middle_and_tells_the_server_when_the_client_goes() {
    let server = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let gate = Gate::start(server.local_addr().unwrap().port());
    gate.limit(3);
    let connect = || {
        let mut client = TcpStream::connect(("127.0.0.1", gate.port())).unwrap();
        client.write_all(b"abcdef").unwrap();
        let (mut served, _) = server.accept().unwrap();
        served.set_read_timeout(Some(SOON)).unwrap();
        let mut arrived = [0; 3];
        served.read_exact(&mut arrived).unwrap();
        assert_eq!(&arrived, b"abc");
        (client, served)
    };
    let (first, mut second) = (connect(), connect());
    eventually(SOON, "both to stand still", || (gate.standing() == 2).then_some(()));
    second.1.set_read_timeout(Some(Duration::from_millis(200))).unwrap();
    assert_eq!(second.1.read(&mut [0]).unwrap_err().kind(), std::io::ErrorKind::WouldBlock);
    let (client, mut served) = first;
    drop(client);
    assert_eq!(served.read(&mut [0]).unwrap(), 0, "the server sees the end");
    eventually(SOON, "one to stand still", || (gate.standing() == 1).then_some(()));
    gate.open();
    second.1.set_read_timeout(Some(SOON)).unwrap();
    let mut rest = [0; 3];
    second.1.read_exact(&mut rest).unwrap();
    assert_eq!(&rest, b"def");
    second.1.write_all(b"x").unwrap();
    second.0.set_read_timeout(Some(SOON)).unwrap();
    second.0.read_exact(&mut [0]).unwrap();
    drop(second.1);
    assert_eq!(second.0.read(&mut [0]).unwrap(), 0, "the client sees the end");
}

#[test]
fn the_test_client_reads_and_writes() {
    let sandbox = Sandbox::new("harness::client");
    let zk = sandbox.zk();
    zk.set_json("/nodepool/x", &serde_json::json!({"state": "ready"}));
    assert_eq!(zk.get_json("/nodepool/x").unwrap()["state"], "ready");
    assert_eq!(zk.create_sequential("/nodepool/seq/n-", ""), "/nodepool/seq/n-0000000000");
    {
        let other = sandbox.zk();
        other.create_ephemeral("/nodepool/mortal", "");
        other.hold_lock("/nodepool/lock");
        assert!(zk.exists("/nodepool/mortal"));
        assert_ne!(zk.get("/nodepool/mortal").unwrap().ephemeral_owner, 0);
        zk.wait_children("/nodepool/lock", SOON, |names| names.len() == 1);
    }
    zk.wait_for("/nodepool/mortal", SOON, |record| record.is_none());
    zk.wait_children("/nodepool/lock", SOON, <[String]>::is_empty);
    zk.hold_lock("/nodepool/lock");
    assert_eq!(zk.children("/"), ["nodepool"]);
    assert_eq!(zk.dump("/nodepool/seq").len(), 2);
    zk.delete("/nodepool");
    assert!(!zk.exists("/nodepool") && zk.children("/").is_empty());
    // Outside the chroot it is below the sandbox's name.
    assert!(ZkClient::connect(sandbox.server(), "").exists(sandbox.chroot()));
}

#[test]
fn the_history_tells_all_changes_and_their_sessions() {
    let server = ZooKeeper::start();
    let (one, two) = (ZkClient::connect(&server, "/history"), ZkClient::connect(&server, "/history"));
    one.create("/a", "first");
    two.set("/a", "second");
    one.create_ephemeral("/mortal", "");
    let session = one.get("/mortal").unwrap().ephemeral_owner;
    drop(one);
    two.wait_for("/mortal", SOON, |record| record.is_none());
    two.delete("/a");
    let history = server.history();
    let place = |wanted: Change| {
        let found = history.iter().position(|entry| entry.change == wanted);
        found.unwrap_or_else(|| panic!("no {wanted:?} in {history:#?}"))
    };
    let create = |path: &str, data: &str, ephemeral| Change::Create {
        path: path.to_owned(),
        data: data.into(),
        ephemeral,
    };
    let path = || "/history/a".to_owned();
    let places = [
        place(create("/history/a", "first", false)),
        place(Change::Set { path: path(), data: b"second".to_vec() }),
        place(create("/history/mortal", "", true)),
        history.iter().position(|entry| entry.session == session && entry.change == Change::Close).unwrap(),
        place(Change::Delete { path: path() }),
    ];
    assert!(places.is_sorted(), "{places:?}");
    let sessions = places.map(|place| history[place].session == session);
    assert_eq!(sessions, [true, false, true, true, false]);
}

#[test]
fn an_index_out_of_reach_is_told() {
    let sandbox = Sandbox::new("harness::original");
    // Nobody listens on that port, and a folder of packages that the machine may have does not help.
    let nowhere =
        [("PIP_INDEX_URL", "http://127.0.0.1:9/simple"), ("PIP_EXTRA_INDEX_URL", ""), ("PIP_FIND_LINKS", "")];
    let why = install(Some(&sandbox.path("venv")), &nowhere).unwrap_err();
    assert!(why.contains("index of this machine's pip is out of reach"), "{why}");
    assert!(!sandbox.path("venv/requirements-original.txt").exists(), "half a venv counts as none");
}

#[test]
fn the_fake_builder_writes_what_diskimage_builder_does() {
    let sandbox = Sandbox::new("harness::dib");
    let out = sandbox.images().join("image-1");
    let dib = |env: &[(&str, &str)]| {
        let mut command = Command::new(sandbox.fake_dib());
        command.args("-x -t raw,qcow2 --checksum --no-tmpfs --qemu-img-options compat=0.10 -o".split(' '));
        command.arg(&out).args(["fedora", "vm"]).envs(env.iter().copied()).output().unwrap()
    };
    let output = dib(&[("FAKE_DIB_NO_FORMAT", "raw"), ("FAKE_DIB_OUTPUT_MB", "2")]);
    assert!(output.status.success() && output.stdout.len() > 2 << 20, "{output:?}");
    let file = |ending: &str| sandbox.images().join(format!("image-1.{ending}"));
    assert!(file("d").is_dir() && file("qcow2").exists() && !file("raw").exists());
    let sum = std::fs::read_to_string(file("qcow2.sha256")).unwrap();
    let (digest, name) = sum.trim_end().split_once("  ").unwrap();
    assert!(digest.len() == 64 && name == file("qcow2").to_str().unwrap());
    assert_eq!(dib(&[("FAKE_DIB_FAIL", "7")]).status.code(), Some(7));
    assert!(file("raw").exists() && !file("raw.md5").exists());
}

#[test]
fn daemons_are_signalled_awaited_and_killed() {
    let sandbox = Sandbox::new("harness::daemon");
    let mut shell = Command::new("/bin/sh");
    shell.arg("-c").arg("trap 'echo bye; exit 3' TERM; echo up; while :; do sleep 0.05; done");
    let daemon = sandbox.spawn(&shell);
    daemon.wait_log("up\n", SOON);
    eventually(SOON, "its child", || (daemon.children().len() == 1).then_some(()));
    daemon.signal(Signal::TERM);
    assert_eq!(daemon.wait_exit(SOON).code(), Some(3));
    assert_eq!(daemon.log(), "up\nbye\n");
    daemon.signal(Signal::TERM);

    let daemon = sandbox.spawn(&shell);
    let pid = daemon.pid();
    drop(daemon);
    assert!(!is_alive(pid));
}

#[test]
fn a_process_in_the_background_is_adopted() {
    let orphan = || -> u32 {
        let shell =
            Command::new("/bin/sh").arg("-c").arg("sleep 300 >/dev/null 2>&1 & echo $!").output().unwrap();
        String::from_utf8(shell.stdout).unwrap().trim().parse().unwrap()
    };
    let adopted = Adopted::new(orphan());
    assert!(adopted.is_alive());
    let pid = adopted.pid();
    drop(adopted);
    eventually(SOON, "the adopted process to end", || (!is_alive(pid)).then_some(()));

    // Only the pipe goes, as it does when the test process is killed.
    let mut adopted = Adopted::new(orphan());
    drop(adopted.let_go_of_the_pipe());
    eventually(SOON, "the watcher to kill it", || (!adopted.is_alive()).then_some(()));
}

#[test]
fn a_configuration_names_the_server_and_the_certificates() {
    let sandbox = Sandbox::new("harness::config");
    sandbox.write_body("diskimages: []\n");
    let text = std::fs::read_to_string(sandbox.config_file()).unwrap();
    assert!(
        text.contains(&format!("port: {}\n", sandbox.server().plain_port())) && text.contains("diskimages")
    );
    let tls = sandbox.header(&Header { transport: Transport::Tls, timeout: 2.5 });
    assert!(
        tls.contains("host: localhost")
            && tls.contains("zookeeper-timeout: 2.5\n")
            && tls.contains("cert: /")
    );
}
