//! The entries of a daemon among the components, whatever becomes of the calls that make and change them.

use std::collections::BTreeMap;
use std::time::Duration;

use nodepool::zk::{Description, Membership, POOLS, PoolDescription, Session, SessionThread};

use super::proxy::{Mode as Net, Proxy};
use super::{SOON, config, connect, log};
use crate::support::{Options, ZkClient, ZooKeeper, eventually};

/// A server that keeps sessions for longer than calls wait, and a daemon's only entry in it.
struct World {
    zk: ZkClient,
    proxy: Proxy,
    session: Session,
    membership: Membership,
    _thread: SessionThread,
    _server: ZooKeeper,
}

fn pool(label: &str) -> Description {
    let pool = PoolDescription {
        id: "host-pool".to_owned(),
        name: Some("main".to_owned()),
        provider_name: "cloud".to_owned(),
        supported_labels: vec![label.to_owned()],
        priority: 100,
        paused: false,
    };
    Description::pool(pool, "host")
}

impl World {
    fn start() -> Self {
        // Sessions expire in steps of an hour.
        let more = "minSessionTimeout=500\n".to_owned();
        let server = ZooKeeper::start_with(Options { tick_ms: 3_600_000, more, ..Options::default() });
        let proxy = Proxy::before(server.plain_port());
        let (session, thread) = connect(&config(proxy.port(), "", Duration::from_secs(1)));
        let zk = ZkClient::connect(&server, "");
        let entries = BTreeMap::from([("main".to_owned(), pool("first"))]);
        let membership = Membership::start(&session, entries, &log()).unwrap();
        let world = Self { zk, proxy, session, membership, _thread: thread, _server: server };
        eventually(SOON, "the entry", || world.membership.is_registered().then_some(()));
        world
    }

    /// The path of the entry, and the label that it has, if it is alone.
    fn entry(&self) -> Option<(String, String)> {
        let [name] = <[String; 1]>::try_from(self.zk.children(POOLS)).ok()?;
        let path = format!("{POOLS}/{name}");
        let label = self.zk.get_json(&path)?["supported_labels"][0].as_str()?.to_owned();
        Some((path, label))
    }

    #[track_caller]
    fn wait_label(&self, wanted: &str) -> String {
        eventually(SOON, &format!("the only entry to have the label {wanted}"), || {
            self.entry().filter(|(_, label)| label == wanted).map(|(path, _)| path)
        })
    }

    /// Loses what is said and then the connection, until the call that this begins, or that goes on, has failed.
    fn outage(&self, begin: impl FnOnce()) {
        let generation = self.session.status().generation;
        // Without a connection no call would be made.
        self.proxy.set(Net::Silent);
        begin();
        eventually(SOON, "the call", || (self.session.calls() > 0).then_some(()));
        self.proxy.set(Net::Refuse);
        self.proxy.cut();
        eventually(SOON, "its failure", || (self.session.calls() == 0).then_some(()));
        self.proxy.set(Net::Pass);
        self.session.wait_connected(SOON).unwrap();
        assert_eq!(self.session.status().generation, generation);
    }
}

/// A pool that left the configuration during an outage stayed in the fleet.
#[test]
fn an_entry_that_could_not_be_removed_is_removed_later() {
    let world = World::start();
    world.outage(|| world.membership.set("main", None));
    world.zk.wait_children(POOLS, SOON, <[String]>::is_empty);
}

/// The version was one behind from then on, and each further change was refused for ever.
#[test]
fn an_entry_goes_on_to_change_after_a_change_whose_answer_was_lost() {
    let world = World::start();
    world.proxy.set(Net::LoseAnswers);
    world.membership.set("main", Some(pool("second")));
    let path = world.wait_label("second");
    // What is wanted again by then is what was known before.
    world.outage(|| world.membership.set("main", Some(pool("first"))));
    assert_eq!(world.wait_label("first"), path);
    world.membership.set("main", Some(pool("third")));
    assert_eq!(world.wait_label("third"), path);
}

#[test]
fn an_entry_that_somebody_has_deleted_is_made_anew_when_it_changes() {
    let world = World::start();
    let path = world.wait_label("first");
    world.zk.delete(&path);
    world.membership.set("main", Some(pool("second")));
    assert_ne!(world.wait_label("second"), path);
}
