//! Znodes whose name is a number alone, made by us and by kazoo.

use std::collections::BTreeSet;

use super::{SOON, T, config, connect, open};
use crate::support::{Original, Sandbox};

#[test]
fn a_numbered_znode_has_the_servers_next_number_for_its_name() {
    let sandbox = Sandbox::new("zk::numbered::names");
    let (session, _thread) = open(&sandbox);
    session.ensure_path("/nodes").unwrap();
    assert_eq!(session.create_numbered("/nodes", b"one").unwrap(), "0000000000");
    session.create("/nodes/other", b"").unwrap();
    assert_eq!(session.create_numbered("/nodes", b"two").unwrap(), "0000000002");
    let zk = sandbox.zk();
    assert_eq!(zk.get("/nodes/0000000002").unwrap().data, b"two");
    assert_eq!(zk.get("/nodes/0000000002").unwrap().ephemeral_owner, 0);
    assert!(session.create_numbered("/missing", b"").is_err());
    // The connection has borne it.
    assert_eq!(session.create_numbered("/nodes", b"").unwrap(), "0000000003");
}

#[test]
fn kazoo_and_we_number_in_one_line() {
    let sandbox = Sandbox::new("zk::numbered::kazoo");
    let (session, _thread) = connect(&config(sandbox.server().plain_port(), sandbox.chroot(), T));
    session.ensure_path("/nodes").unwrap();
    let mut command = Original::get().python();
    let script = "import sys; from kazoo.client import KazooClient
client = KazooClient(hosts=sys.argv[1]); client.start(60)
for _ in range(100): print(client.create('/nodes/', b'theirs', sequence=True).rsplit('/')[-1], flush=True)";
    command.args(["-c", script]);
    command.arg(format!("127.0.0.1:{}{}", sandbox.server().plain_port(), sandbox.chroot()));
    let kazoo = sandbox.spawn(&command);
    let mut ours: BTreeSet<String> = BTreeSet::new();
    kazoo.wait_until("its first number", 3 * SOON, || kazoo.log().contains('\n').then_some(()));
    for _ in 0..100 {
        ours.insert(session.create_numbered("/nodes", b"ours").unwrap());
    }
    assert!(kazoo.wait_exit(3 * SOON).success());
    let theirs: BTreeSet<String> = kazoo.log().lines().map(str::to_owned).collect();
    assert_eq!((ours.len(), theirs.len()), (100, 100));
    assert!(ours.is_disjoint(&theirs));
    let all: BTreeSet<String> = (0..200).map(|number| format!("{number:010}")).collect();
    assert_eq!(&ours | &theirs, all);
}
