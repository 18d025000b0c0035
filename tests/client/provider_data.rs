//! `info` and `erase`.

use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::Stdio;

use serde_json::{Value, json};

use super::{BODY, NEW, OLD, build_path, put_build, put_node, put_upload, refused, upload_path};
use crate::support::{Sandbox, ZkClient};

/// Records at two providers, neither of which is configured.
pub(super) fn put_data(zk: &ZkClient) {
    put_build(zk, "debian", NEW, "ready");
    put_build(zk, "debian", OLD, "ready");
    put_build(zk, "fedora", OLD, "failed");
    for (provider, upload) in
        [("east", "0000000002"), ("east", "0000000001"), ("west", "0000000001"), ("west", "0000000007")]
    {
        put_upload(zk, "debian", OLD, provider, upload, "ready");
    }
    // Tried to be uploaded, nothing more.
    zk.create(&format!("{}/providers/east/images/lock", build_path("debian", NEW)), "");
    put_node(zk, "0000000005", "east", json!("server-5"));
    put_node(zk, "0000000006", "west", json!("server-6"));
    put_node(zk, "0000000004", "east", Value::Null);
    zk.create("/nodepool/nodes/0000000005/lock", "");
    // What a lock has left of a node.
    zk.create("/nodepool/nodes/0000000003/lock", "");
}

const EAST: &str = "\
ZooKeeper data for provider east

Image data:
+------------+----------------------------------+-----------------------+
| Image Name | Build ID                         | Upload IDs            |
+------------+----------------------------------+-----------------------+
| debian     | 00000000000000000000000000000000 | 0000000001,0000000002 |
| debian     | ffffffffffffffffffffffffffffffff |                       |
+------------+----------------------------------+-----------------------+

Nodes:
+------------+-----------+
| ID         | Server ID |
+------------+-----------+
| 0000000004 | None      |
| 0000000005 | server-5  |
+------------+-----------+
";

#[test]
fn info_shows_uploads_and_nodes_of_a_provider() {
    let sandbox = Sandbox::new("client-info");
    sandbox.write_body(BODY);
    let zk = sandbox.zk();
    put_data(&zk);
    assert_eq!(sandbox.nodepool(&["info", "east"]).ok(), EAST);
    let info = sandbox.nodepool(&["info", "west", "--output", "json"]).json();
    let expected = json!({
        "provider": "west",
        "builds": [{"image": "debian", "id": OLD, "upload_ids": ["0000000001", "0000000007"]}],
        "nodes": [{"id": "0000000006", "server_id": "server-6"}],
    });
    assert_eq!(info, expected);
    // A damaged record is told, and the rest is shown.
    zk.set("/nodepool/nodes/0000000006", "{");
    zk.set(&upload_path("debian", OLD, "west", "0000000001"), "{");
    let outcome = sandbox.nodepool(&["info", "west", "--output", "json"]);
    assert_eq!(outcome.stderr.lines().count(), 2, "{outcome:?}");
    assert!(outcome.stderr.contains("the record at /nodepool/nodes/0000000006 is left out"), "{outcome:?}");
    let info = outcome.json();
    assert_eq!((&info["nodes"], &info["builds"][0]["upload_ids"]), (&json!([]), &json!(["0000000007"])));
}

#[test]
fn info_and_erase_refuse_a_provider_that_nobody_knows() {
    let sandbox = Sandbox::new("client-info-unknown");
    sandbox.write_body(BODY);
    put_data(&sandbox.zk());
    let file = sandbox.config_file().display().to_string();
    let why = format!("the provider 'north' is neither configured in {file} nor has data in ZooKeeper");
    refused(&sandbox.nodepool(&["info", "north"]), &why);
    refused(&sandbox.nodepool(&["erase", "north", "--force"]), &why);
    // One that is configured just has none.
    assert!(sandbox.nodepool(&["info", "fake-1"]).ok().starts_with("ZooKeeper data for provider fake-1\n"));
}

#[test]
fn erase_removes_the_data_of_a_provider_after_a_question() {
    let sandbox = Sandbox::new("client-erase");
    sandbox.write_body(BODY);
    let zk = sandbox.zk();
    put_data(&zk);
    let before = zk.dump("/nodepool");
    let question =
        "\nWARNING! This action is not reversible!\nErase ZooKeeper data for provider east? [N/y] ";
    let aborted = format!("{question}Aborting. No data erased.\n");
    for answer in ["n\n", "\n", "yes\n", " y\n"] {
        assert_eq!(sandbox.nodepool_with_input(answer, &["erase", "east"]).ok(), aborted, "{answer:?}");
    }
    let silence = sandbox.nodepool(&["erase", "east"]);
    assert_eq!((silence.code(), silence.stdout.as_str()), (1, question));
    assert!(silence.stderr.starts_with("nodepool: no answer on standard input"), "{silence:?}");
    assert_eq!(zk.dump("/nodepool"), before);

    let erased = "Erasing build data for east...\nErasing node data for east...\n";
    let outcome = sandbox.nodepool_with_input("Y\n", &["erase", "east"]);
    assert_eq!(outcome.ok(), format!("{question}{erased}"));

    let mut left = before;
    left.retain(|(path, _)| {
        !["/east", "nodes/0000000004", "nodes/0000000005"].iter().any(|gone| path.contains(gone))
    });
    assert_eq!(zk.dump("/nodepool"), left);
    assert_eq!(sandbox.nodepool(&["erase", "west", "--force"]).ok(), erased.replace("east", "west"));
    assert_eq!(zk.children("/nodepool/nodes"), ["0000000003"]);
    assert!(zk.children(&format!("{}/providers", build_path("debian", OLD))).is_empty());
    assert!(zk.exists(&build_path("debian", OLD)));
}

/// As with `| head -1`: half of it was left, and the exit code said that all was done.
#[test]
fn erase_goes_on_when_nobody_reads_what_it_says() {
    let sandbox = Sandbox::new("client-erase-unread");
    sandbox.write_body(BODY);
    let zk = sandbox.zk();
    put_data(&zk);
    let (unread, reader) = UnixStream::pair().unwrap();
    drop(reader);
    let mut erase = sandbox.command(env!("CARGO_BIN_EXE_nodepool"));
    erase.arg("-c").arg(sandbox.config_file()).args(["erase", "east", "--force"]);
    let ended = erase.stdout(OwnedFd::from(unread)).stderr(Stdio::inherit()).status().unwrap();
    assert_eq!(ended.code(), Some(0));
    assert_eq!(zk.children("/nodepool/nodes"), ["0000000003", "0000000006"]);
    assert_eq!(zk.children(&format!("{}/providers", build_path("debian", OLD))), ["west"]);
}
