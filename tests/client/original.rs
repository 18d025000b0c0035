//! The Python original's client and ours on the same records: the same tables, the same data in ZooKeeper.

use std::path::Path;

use serde_json::Value;

use super::{
    IMAGES, NEW, OLD, aliens, backup, build_path, nodes, provider_data, put_build, put_upload, upload_path,
};
use crate::support::original::{Client, rows};
use crate::support::{Header, Sandbox, Transport, ZkClient};

/// A configuration that both read.
fn write_config(sandbox: &Sandbox<'_>) {
    let provider = |name: &str| {
        format!("  - {{name: {name}, driver: fake, cloud: fake, diskimages: [{{name: debian}}]}}\n")
    };
    let header = sandbox.header(&Header { transport: Transport::Tls, timeout: 10.0 });
    sandbox.write_config(&format!(
        "{header}labels: []\ndiskimages:\n  - {{name: debian, elements: [vm], formats: [qcow2]}}\nproviders:\n{}{}",
        provider("east"),
        provider("west")
    ));
}

/// Sees that both have the same rows, and returns how many. The rows are sorted: the original's are in the order of a
/// hash table. Ages may differ by as much as one of the clients was slower.
#[track_caller]
fn same_rows(ours: &str, theirs: &str) -> usize {
    let [mut our_rows, mut their_rows] = [ours, theirs].map(rows);
    if let Some(age) = our_rows[0].iter().position(|title| title.ends_with("Age")) {
        for (our_row, their_row) in our_rows.iter_mut().zip(&mut their_rows).skip(1) {
            let [our_age, their_age] =
                [our_row, their_row].map(|row| age_seconds(&std::mem::take(&mut row[age])));
            let apart = our_age.zip(their_age).map_or(0, |(ours, theirs)| ours.abs_diff(theirs));
            assert!(our_age.is_some() == their_age.is_some() && apart < 600, "{ours}\n{theirs}");
        }
    }
    assert_eq!(our_rows, their_rows, "{ours}\n{theirs}");
    our_rows.len()
}

/// The seconds of an age, `DD:HH:MM:SS`.
fn age_seconds(cell: &str) -> Option<u64> {
    let parts: Vec<u64> = cell.split(':').map(|part| part.parse().ok()).collect::<Option<_>>()?;
    let [days, hours, minutes, seconds] = parts[..] else { return None };
    Some(((days * 24 + hours) * 60 + minutes) * 60 + seconds)
}

#[track_caller]
fn both_print_the_same(sandbox: &Sandbox<'_>, theirs: &Client<'_>, args: &[&str], row_count: usize) {
    let (ours, theirs) = (sandbox.nodepool(args).ok(), theirs.run(args).ok());
    assert_eq!(same_rows(&ours, &theirs), row_count, "{args:?}\n{ours}");
    // All but the rows is the same in every character.
    let frame = |text: &str| {
        text.lines().filter(|line| !line.starts_with("| ")).map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(frame(&ours), frame(&theirs), "{args:?}");
    assert_eq!(
        ours.lines().find(|line| line.starts_with('|')),
        theirs.lines().find(|line| line.starts_with('|'))
    );
}

/// Its client takes seconds to start, so that one of it serves all commands.
#[test]
fn the_original_and_ours_print_and_write_the_same() {
    let sandbox = Sandbox::new("client-original");
    write_config(&sandbox);
    let theirs = Client::start(&sandbox, &sandbox.config_file());
    dib_image_list_image_list_image_status_and_info(&sandbox, &theirs);
    alien_image_list(&theirs);
    image_pause_and_image_unpause(&theirs);
    list_and_request_list(&sandbox, &theirs);
    delete_and_hold(&theirs);
    erase(&theirs);
    export_image_data_and_import_image_data(&theirs);
}

fn dib_image_list_image_list_image_status_and_info(sandbox: &Sandbox<'_>, theirs: &Client<'_>) {
    let zk = sandbox.zk();
    provider_data::put_data(&zk);
    zk.create("/nodepool/images/fedora/pause", "");
    zk.create("/nodepool/images/gentoo/request-build", "");
    put_build(&zk, "gentoo", NEW, "building");
    zk.hold_lock("/nodepool/images/gentoo/builds/lock");
    zk.create("/nodepool/images/debian/request-build", "");
    put_upload(&zk, "debian", NEW, "east", "0000000001", "uploading");
    both_print_the_same(sandbox, theirs, &["dib-image-list"], 5);
    both_print_the_same(sandbox, theirs, &["image-list"], 6);
    both_print_the_same(sandbox, theirs, &["image-status"], 4);
    both_print_the_same(sandbox, theirs, &["info", "east"], 6);
}

fn alien_image_list(theirs: &Client<'_>) {
    let sandbox = Sandbox::new("client-original-aliens");
    write_config(&sandbox);
    let zk = sandbox.zk();
    put_build(&zk, "debian", OLD, "ready");
    let known = aliens::store_image(&sandbox, 1, &aliens::origin(OLD, "0000000001"));
    aliens::record_upload(&zk, OLD, "west", "0000000001", Some(&known));
    aliens::store_image(&sandbox, 2, &aliens::origin(NEW, "0000000001"));
    aliens::store_image(&sandbox, 3, &aliens::origin(NEW, "0000000002"));
    aliens::store_image(&sandbox, 4, &[("somebody", "else")]);
    let by_them = theirs.run_on(&sandbox.config_file(), "", &["alien-image-list", "west"]).ok();
    // Our fake cloud keeps nothing, so the same images are at a local provider of the same name.
    let text = std::fs::read_to_string(sandbox.config_file()).unwrap();
    let fake = "name: west, driver: fake, cloud: fake,";
    let local = format!("name: west, driver: local, path: {},", sandbox.store().display());
    assert!(text.contains(fake), "{text}");
    sandbox.write_config(&text.replace(fake, &local));
    let by_us = sandbox.nodepool(&["alien-image-list", "west"]).ok();
    assert_eq!(same_rows(&by_us, &by_them), 3, "{by_us}");
}

fn list_and_request_list(sandbox: &Sandbox<'_>, theirs: &Client<'_>) {
    let zk = sandbox.zk();
    zk.dump("/nodepool/nodes").iter().rev().for_each(|(path, _)| zk.delete(path));
    nodes::put_data(&zk);
    both_print_the_same(sandbox, theirs, &["list"], 3);
    both_print_the_same(sandbox, theirs, &["list", "--detail"], 3);
    both_print_the_same(sandbox, theirs, &["request-list"], 4);
}

fn delete_and_hold(theirs: &Client<'_>) {
    let [by_them, by_us] = twins("nodes", nodes::put_data);
    for command in ["hold", "delete"] {
        let args = [command, "0000000002"];
        let original = theirs.run_on(&by_them.config_file(), "", &args).ok();
        let ours = by_us.nodepool(&args).ok();
        same_rows(&ours, &original);
        let [mut theirs, mut ours] = [&by_them, &by_us].map(|sandbox| {
            let record = sandbox.zk().get_json("/nodepool/nodes/0000000002").unwrap();
            record.as_object().unwrap().clone()
        });
        for record in [&mut theirs, &mut ours] {
            // Times differ; a key that is null or empty is as good as none; the original loses unknown keys.
            record.retain(|key, value| {
                let empty = value.is_null() || value.as_array().is_some_and(Vec::is_empty);
                !empty && !key.ends_with("_time") && !["from_the_future", "ssh_port"].contains(&key.as_str())
            });
        }
        assert_eq!(ours, theirs, "{args:?}");
    }
}

/// Two sandboxes with the same records, for either client to change.
fn twins(name: &str, put_data: impl Fn(&ZkClient)) -> [Sandbox<'static>; 2] {
    ["theirs", "ours"].map(|who| {
        let sandbox = Sandbox::new(&format!("client-original-{name}-{who}"));
        write_config(&sandbox);
        put_data(&sandbox.zk());
        sandbox
    })
}

/// The times in the records of twins differ.
fn paths(sandbox: &Sandbox<'_>) -> Vec<String> {
    let all = [IMAGES, "/nodepool/nodes"].map(|root| sandbox.zk().dump(root)).concat();
    all.into_iter().map(|(path, _)| path).collect()
}

fn image_pause_and_image_unpause(theirs: &Client<'_>) {
    let [by_them, by_us] = twins("pause", |zk| put_build(zk, "debian", OLD, "ready"));
    for args in [["image-pause", "debian"], ["image-pause", "unknown"], ["image-unpause", "debian"]] {
        let codes = (by_us.nodepool(&args).code(), theirs.run_on(&by_them.config_file(), "", &args).code());
        assert_eq!(codes, if args[1] == "unknown" { (1, 1) } else { (0, 0) }, "{args:?}");
        assert_eq!(paths(&by_us), paths(&by_them), "{args:?}");
        assert_eq!(by_us.zk().exists("/nodepool/images/debian/pause"), args[0] == "image-pause");
    }
}

fn erase(theirs: &Client<'_>) {
    let [by_them, by_us] = twins("erase", provider_data::put_data);
    for (answer, more) in [("n\n", &[][..]), ("y\n", &[]), ("", &["--force"])] {
        let provider = if more.is_empty() { "east" } else { "west" };
        let args = [&["erase", provider][..], more].concat();
        let original = theirs.run_on(&by_them.config_file(), answer, &args);
        let ours = by_us.nodepool_with_input(answer, &args);
        assert_eq!((ours.code(), ours.stdout), (original.code(), original.stdout), "{args:?}");
        assert_eq!(paths(&by_us), paths(&by_them), "{args:?}");
        assert_eq!(paths(&by_us).iter().any(|path| path.contains(provider)), answer == "n\n");
    }
}

fn data(zk: &ZkClient) -> Vec<(String, String)> {
    let mut all = zk.dump(IMAGES);
    all.retain(|(_, data)| !data.is_empty());
    all
}

fn export_image_data_and_import_image_data(theirs: &Client<'_>) {
    let names = ["from", "to-them", "to-us"].map(|name| format!("client-original-{name}"));
    let [from, to_them, to_us] = names.map(|name| Sandbox::new(&name));
    for sandbox in [&from, &to_them, &to_us] {
        write_config(sandbox);
    }
    backup::put_data(&from.zk());
    let text = |path: &Path| path.to_str().unwrap().to_owned();
    let [our_file, their_file] = ["ours.json", "theirs.json"].map(|name| from.path(name));
    from.nodepool(&["export-image-data", &text(&our_file)]).ok();
    theirs.run_on(&from.config_file(), "", &["export-image-data", &text(&their_file)]).ok();
    let read = |path: &Path| -> Value { serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap() };
    assert_eq!(read(&our_file), read(&their_file));

    theirs.run_on(&to_them.config_file(), "", &["import-image-data", &text(&our_file)]).ok();
    to_us.nodepool(&["import-image-data", &text(&their_file)]).ok();
    let (before, them, us) = (from.zk(), to_them.zk(), to_us.zk());
    assert!(data(&before).len() >= 8);
    assert_eq!(data(&them), data(&before));
    assert_eq!(data(&us), data(&before));
    assert_eq!(us.dump(IMAGES), them.dump(IMAGES), "the empty ones are the same too");
    assert!(us.exists("/nodepool/images/fedora/pause"));
    // The next upload has a number that no other has.
    for (build, provider, last) in [(OLD, "east", 7), (OLD, "west", 1), (NEW, "west", 2)] {
        for zk in [&them, &us] {
            let parent = format!("{}/providers/{provider}/images", build_path("debian", build));
            let made = zk.create_sequential(&format!("{parent}/x-"), "");
            let number: u32 = made.rsplit('-').next().unwrap().parse().unwrap();
            assert!(number > last, "{made}");
        }
    }
    assert!(us.exists(&upload_path("debian", NEW, "west", "0000000002")));
}
