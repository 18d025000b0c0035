//! Machines that stand there already: real SSH servers, whose nodes a keeper has in a real ZooKeeper.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::time::Duration;

use crossbeam_channel::Receiver;
use nodepool::config::{Server, ZooKeeperConfig};
use nodepool::launcher::standing::Keeper;
use nodepool::model::NodeRecord;
use nodepool::zk::{Changes, NODES, Nodes, Session, SessionThread, TreeCache, decode_node};
use nodepool_drivers::api::{Machine, Value as Raw};
use nodepool_threads::StopSource;
use serde_json::{Value, json};
use slog::{Drain, Logger, o};

use crate::support::sshd::{ALL_KEYS, Sshd};
use crate::support::{Header, Original, Sandbox, Transport, ZkClient, within};

const LOCAL: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// A machine that did not answer is looked at again within the first two of these.
const LIMIT: Duration = Duration::from_secs(60);
const ED25519: (&str, u32) = ("ed25519", 256);

fn log() -> Logger {
    let plain = slog_term::PlainSyncDecorator::new(slog_term::TestStdoutWriter);
    Logger::root(slog_term::FullFormat::new(plain).build().fuse(), o!())
}

/// A keeper, and what a launcher does around it: it tells of changes, and deletes what is to be deleted.
struct Fleet<'s> {
    keeper: Keeper,
    nodes: Nodes,
    zk: ZkClient,
    changes: Receiver<Changes>,
    tree: TreeCache,
    _session: Session,
    _thread: SessionThread,
    _sandbox: &'s Sandbox<'static>,
}

impl<'s> Fleet<'s> {
    fn new(sandbox: &'s Sandbox<'static>, machines: &[Machine]) -> Fleet<'s> {
        let server = Server { host: "127.0.0.1".to_owned(), port: sandbox.server().plain_port() };
        let chroot = sandbox.chroot().to_owned();
        let config = ZooKeeperConfig { servers: vec![server], chroot, tls: None, timeout: LIMIT / 6 };
        let (session, thread) = Session::start(&config, &log()).unwrap();
        session.wait_connected(LIMIT).unwrap();
        let (tree, changes) = TreeCache::start(&session, NODES, &log()).unwrap();
        let nodes = Nodes::new(&session, "test");
        let (nudge, _) = crossbeam_channel::bounded(1);
        let keeper = Keeper::start("rack", machines, &nodes, &nudge, &log()).unwrap();
        let zk = sandbox.zk();
        Fleet { keeper, nodes, zk, changes, tree, _session: session, _thread: thread, _sandbox: sandbox }
    }

    /// Takes part in the launcher's work once.
    fn go_on(&self) {
        for change in self.changes.try_iter() {
            let node = |id: &str| {
                let node = self.tree.look(|root| root.children.get(id).cloned())?;
                decode_node(id, &node)?.ok().filter(|node| node.record.provider.as_deref() == Some("rack"))
            };
            match change {
                Changes::All => {
                    let ids: Vec<String> =
                        self.tree.look(|root| root.children.names().map(str::to_owned).collect());
                    self.keeper.saw_all(ids.iter().filter_map(|id| node(id)));
                }
                Changes::Below(ids) => ids.iter().for_each(|id| self.keeper.saw(id, node(id))),
            }
        }
        for (id, record) in self.records() {
            if record["state"] == "deleting" {
                let lock = self.nodes.try_lock(&id).unwrap();
                if let Some(lock) = lock {
                    Nodes::delete(&id, lock).unwrap();
                }
            }
        }
    }

    fn records(&self) -> BTreeMap<String, Value> {
        let ids = self.zk.children(NODES);
        ids.into_iter()
            .filter_map(|id| Some((id.clone(), self.zk.get_json(&format!("{NODES}/{id}"))?)))
            .collect()
    }

    #[track_caller]
    fn wait(&self, what: &str, holds: impl Fn(&BTreeMap<String, Value>) -> bool) -> BTreeMap<String, Value> {
        let found = within(LIMIT, || {
            self.go_on();
            Some(self.records()).filter(&holds)
        });
        found.unwrap_or_else(|| panic!("waited in vain for {what}: {:#?}", self.records()))
    }

    /// Waits until there are so many nodes, all ready.
    #[track_caller]
    fn wait_ready(&self, count: usize) -> BTreeMap<String, Value> {
        self.wait(&format!("{count} ready nodes"), |nodes| {
            nodes.len() == count && nodes.values().all(|node| node["state"] == "ready")
        })
    }

    /// Gives a node to a job, or ends it.
    fn set_state(&self, id: &str, state: &str) {
        let path = format!("{NODES}/{id}");
        let mut record = self.zk.get_json(&path).unwrap();
        record["state"] = json!(state);
        self.zk.set_json(&path, &record);
    }
}

fn machine(sshd: &Sshd, labels: &[&str]) -> Machine {
    Machine {
        pool: "main".into(),
        host: sshd.address().to_string(),
        labels: labels.iter().map(|label| (*label).to_owned()).collect(),
        username: "zuul".into(),
        connection_type: "ssh".into(),
        connection_port: sshd.port(),
        python_path: "auto".into(),
        shell_type: None,
        host_keys: sshd.keys(),
        host_key_checking: true,
        timeout: Duration::from_secs(20),
        slots: 1,
        attributes: Some(Raw::Map(vec![("rack".into(), Raw::Int(7))])),
    }
}

#[test]
fn a_machine_has_a_ready_node_for_each_of_its_jobs_again_and_again() {
    let sandbox = Sandbox::new("standing::life");
    let sshd = Sshd::start(LOCAL, &[ED25519], "");
    let fleet = Fleet::new(&sandbox, &[Machine { slots: 2, ..machine(&sshd, &["small", "large"]) }]);
    let nodes = fleet.wait_ready(2);
    let slots: Vec<_> = nodes.values().map(|node| node["slot"].as_u64().unwrap()).collect();
    assert!(slots == [0, 1] || slots == [1, 0], "{slots:?}");
    for record in nodes.values() {
        let expected = json!({
            "provider": "rack", "pool": "main", "type": ["small", "large"], "launcher": "static driver",
            "external_id": "127.0.0.1", "hostname": "127.0.0.1", "interface_ip": "127.0.0.1",
            "public_ipv4": "127.0.0.1", "username": "zuul", "connection_port": sshd.port(),
            "ssh_port": sshd.port(), "connection_type": "ssh", "python_path": "auto", "shell_type": null,
            "host_keys": sshd.keys(), "attributes": {"rack": 7}, "allocated_to": null,
        });
        for (key, value) in expected.as_object().unwrap() {
            assert_eq!(&record[key], value, "{key} in {record:#}");
        }
    }
    let used = nodes.keys().next().unwrap().clone();
    fleet.set_state(&used, "in-use");
    fleet.set_state(&used, "deleting");
    let again = fleet.wait("another node", |nodes| nodes.len() == 2 && !nodes.contains_key(&used));
    let slots: Vec<_> = again.values().map(|node| node["slot"].clone()).collect();
    assert!(slots.contains(&nodes[&used]["slot"]), "{slots:?}");
}

#[test]
fn a_change_of_configuration_reaches_what_is_free_at_once_and_what_is_used_later() {
    let sandbox = Sandbox::new("standing::change");
    let sshd = Sshd::start(LOCAL, &[ED25519], "");
    let before = Machine { slots: 2, ..machine(&sshd, &["old"]) };
    let fleet = Fleet::new(&sandbox, std::slice::from_ref(&before));
    let nodes = fleet.wait_ready(2);
    let used = nodes.keys().next().unwrap().clone();
    fleet.set_state(&used, "in-use");

    fleet.keeper.configure(&[Machine { slots: 2, attributes: None, ..machine(&sshd, &["new"]) }]);
    let changed =
        fleet.wait("the new label", |nodes| nodes.values().any(|node| node["type"] == json!(["new"])));
    assert_eq!((&changed[&used]["type"], &changed[&used]["state"]), (&json!(["old"]), &json!("in-use")));
    assert_eq!(changed.len(), 2, "updated, not made anew");
    assert!(changed.iter().all(|(id, node)| id == &used || node["attributes"].is_null()), "{changed:#?}");

    // Nothing of it is configured any more, but for another machine.
    fleet.keeper.configure(&[]);
    let left = fleet.wait("the free node to go", |nodes| nodes.len() == 1);
    assert_eq!((left.keys().next(), &left[&used]["state"]), (Some(&used), &json!("in-use")));
    fleet.set_state(&used, "deleting");
    fleet.wait("the used node to go", |nodes| nodes.is_empty());

    fleet.keeper.configure(&[machine(&sshd, &["new"])]);
    assert_eq!(fleet.wait_ready(1).values().next().unwrap()["type"], json!(["new"]));
}

#[test]
fn a_locked_node_is_let_be_until_it_is_free() {
    let sandbox = Sandbox::new("standing::locked");
    let sshd = Sshd::start(LOCAL, &[ED25519], "");
    let fleet = Fleet::new(&sandbox, &[machine(&sshd, &["small"])]);
    let id = fleet.wait_ready(1).keys().next().unwrap().clone();
    {
        let other = sandbox.zk();
        other.hold_lock(&format!("{NODES}/{id}/lock"));
        fleet.keeper.configure(&[Machine { slots: 2, ..machine(&sshd, &["changed"]) }]);
        let nodes = fleet.wait("a second node", |nodes| nodes.len() == 2);
        assert_eq!(nodes[&id]["type"], json!(["small"]));
    }
    fleet.wait("the update", |nodes| nodes[&id]["type"] == json!(["changed"]));
}

#[test]
fn a_machine_that_does_not_answer_has_no_nodes_until_it_does() {
    let sandbox = Sandbox::new("standing::dead");
    let mut sshd = Sshd::prepare(LOCAL, &[ED25519], "");
    let quick = Machine { timeout: Duration::from_secs(1), slots: 2, ..machine(&sshd, &["small"]) };
    let good = Sshd::start(LOCAL, &[ED25519], "");
    let wrong_key = Machine { host_keys: quick.host_keys.clone(), ..machine(&good, &["small"]) };
    let other = Machine { username: "other".into(), ..machine(&good, &["small"]) };
    let fleet = Fleet::new(&sandbox, &[quick.clone(), wrong_key, other]);
    let nodes = fleet.wait_ready(1);
    assert_eq!(nodes.values().next().unwrap()["username"], json!("other"), "the only one with the right key");

    sshd.run();
    let nodes = fleet.wait_ready(3);
    let of_quick = |nodes: &BTreeMap<String, Value>| {
        let port = json!(quick.connection_port);
        let records = nodes.values().filter(|node| node["connection_port"] == port).cloned();
        records.map(|record| serde_json::from_value::<NodeRecord>(record).unwrap()).collect::<Vec<_>>()
    };
    let record = of_quick(&nodes)[0].clone();
    let source = StopSource::new();
    assert!(fleet.keeper.check(&record, &source.token()));

    sshd.server().kill();
    assert!(!fleet.keeper.check(&record, &source.token()));
    fleet.wait("its nodes to go", |nodes| of_quick(nodes).is_empty());
    sshd.run();
    fleet.wait_ready(3);
    assert!(!fleet.keeper.check(&NodeRecord { hostname: json!("elsewhere"), ..record }, &source.token()));
}

#[test]
fn what_has_no_host_keys_or_is_not_asked_for_them_is_registered_as_it_is() {
    let sandbox = Sandbox::new("standing::unchecked");
    let keys = Sshd::prepare(LOCAL, &[ED25519], "");
    let nobody = Machine { host_key_checking: false, ..machine(&keys, &["trusted"]) };
    let port = TcpListener::bind((LOCAL, 0)).unwrap();
    let windows = Machine {
        connection_type: "winrm".into(),
        connection_port: port.local_addr().unwrap().port(),
        host_keys: vec![],
        ..machine(&keys, &["windows"])
    };
    let fleet = Fleet::new(&sandbox, &[nobody, windows]);
    let nodes = fleet.wait_ready(2);
    let found: BTreeMap<_, _> =
        nodes.values().map(|node| (node["type"][0].as_str().unwrap(), &node["host_keys"])).collect();
    assert_eq!(found, BTreeMap::from([("trusted", &json!(keys.keys())), ("windows", &json!([]))]));
    let source = StopSource::new();
    for node in nodes.values() {
        let record = serde_json::from_value(node.clone()).unwrap();
        assert!(fleet.keeper.check(&record, &source.token()), "{node:#}");
    }
}

/// For the original's launcher on a machine that is busy with other tests.
const ORIGINAL: Duration = Duration::from_secs(180);

#[test]
fn nodes_of_the_original_are_taken_over_and_new_ones_are_alike() {
    let sandbox = Sandbox::new("standing::original");
    let sshd = Sshd::start(LOCAL, &ALL_KEYS, "");
    let header = sandbox.header(&Header { transport: Transport::Tls, timeout: 10.0 });
    sandbox.write_config(&format!(
        "{header}labels: [{{name: small}}, {{name: large}}]\n\
         providers:\n\
         - name: rack\n  \
           driver: static\n  \
           pools:\n  \
           - name: main\n    \
             node-attributes: {{rack: 7}}\n    \
             nodes: [{{name: 127.0.0.1, labels: [small, large], connection-port: {}, max-parallel-jobs: 2, timeout: 60}}]\n",
        sshd.port(),
    ));
    let zk = sandbox.zk();
    let theirs = {
        let original = Original::get().launcher(&sandbox, &sandbox.config_file());
        original.wait_until("its nodes", ORIGINAL, || {
            let ids = zk.children(NODES);
            let read = |id: String| Some((id.clone(), zk.get_json(&format!("{NODES}/{id}"))?));
            let nodes: BTreeMap<_, _> = ids.into_iter().filter_map(read).collect();
            (nodes.len() == 2).then_some(nodes)
        })
    };

    let machine = Machine { slots: 3, host_keys: vec![], ..machine(&sshd, &["small", "large"]) };
    let fleet = Fleet::new(&sandbox, &[machine]);
    let nodes = fleet.wait_ready(3);
    assert!(theirs.keys().all(|id| nodes.contains_key(id)), "they stay: {theirs:#?} {nodes:#?}");
    let new = nodes.iter().find(|(id, _)| !theirs.contains_key(*id)).unwrap().1;
    assert_eq!(new["slot"], 2);
    let (_, old) = theirs.iter().next().unwrap();
    let (old, new) = (old.as_object().unwrap(), new.as_object().unwrap());
    assert_eq!(old.keys().collect::<Vec<_>>(), new.keys().collect::<Vec<_>>());
    for (key, value) in old {
        match key.as_str() {
            "state_time" | "created_time" | "slot" => {}
            // It asks for each key by each of its algorithms, and has those of rsa twice.
            "host_keys" => {
                let mut once = value.as_array().unwrap().clone();
                once.dedup();
                assert_eq!(&json!(once), &new[key]);
            }
            _ => assert_eq!(value, &new[key], "{key}"),
        }
    }
}
