//! The builder: the real daemon over a real ZooKeeper, with a stand-in for the build command.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod another_user;
mod build_failures;
mod builds;
mod cleanup;
mod clouds;
mod commands;
mod configuration;
mod crashes;
mod detached;
mod ensemble;
mod fleet;
mod guards;
mod logging;
mod logging_troubles;
mod opening;
mod original;
mod providers;
mod records;
mod sessions;
mod stack_dump;
mod statsd;
mod stop;
mod uploads;
mod web;
mod web_clients;
mod web_disks;

use std::path::PathBuf;
use std::time::Duration;

use serde_json::Value;

use crate::support::{Sandbox, ZkClient, eventually};

/// For what takes milliseconds on an idle machine.
const SOON: Duration = Duration::from_secs(40);
const IMAGES: &str = "/nodepool/images";
/// Leaves what has failed where it is.
const NO_JANITOR: [&str; 2] = ["--cleanup-interval", "0"];

/// An entry of `diskimages`, built by the stand-in; `more` are further keys.
fn image(sandbox: &Sandbox<'_>, name: &str, more: &str) -> String {
    let command = sandbox.fake_dib();
    format!("  - {{name: {name}, dib-cmd: '{}', elements: [vm], {more}}}\n", command.display())
}

/// An entry of `providers` with a store of its own; `more` are further keys.
fn local(sandbox: &Sandbox<'_>, name: &str, images: &[&str], more: &str) -> String {
    let path = sandbox.store().join(name);
    format!(
        "  - {{name: {name}, driver: local, path: '{}', diskimages: [{}], {more}}}\n",
        path.display(),
        listed(images)
    )
}

/// An entry of `providers` for a cloud that behaves as `behaviour` says.
fn fake(name: &str, images: &[&str], behaviour: &str) -> String {
    format!("  - {{name: {name}, driver: fake, diskimages: [{}], fake: {{{behaviour}}}}}\n", listed(images))
}

fn listed(images: &[&str]) -> String {
    images.iter().map(|image| format!("{{name: {image}}}")).collect::<Vec<_>>().join(", ")
}

pub fn body(images: &[String], providers: &[String]) -> String {
    let list = |key: &str, entries: &[String]| match entries {
        [] => format!("{key}: []\n"),
        entries => format!("{key}:\n{}", entries.concat()),
    };
    list("diskimages", images) + &list("providers", providers)
}

fn build_path(image: &str, build: &str) -> String {
    format!("{IMAGES}/{image}/builds/{build}")
}

fn uploads_path(image: &str, build: &str, provider: &str) -> String {
    format!("{}/providers/{provider}/images", build_path(image, build))
}

pub fn request(zk: &ZkClient, image: &str) {
    zk.create(&request_path(image), "");
}

fn request_path(image: &str) -> String {
    format!("{IMAGES}/{image}/request-build")
}

/// The ids and the records of an image's builds. A record that goes meanwhile is left out.
pub fn builds(zk: &ZkClient, image: &str) -> Vec<(String, Value)> {
    records(zk, &format!("{IMAGES}/{image}/builds"))
}

/// The ids and the records of a build's uploads to a provider.
pub fn uploads(zk: &ZkClient, image: &str, build: &str, provider: &str) -> Vec<(String, Value)> {
    records(zk, &uploads_path(image, build, provider))
}

fn records(zk: &ZkClient, parent: &str) -> Vec<(String, Value)> {
    let ids = zk.children(parent).into_iter().filter(|id| id != "lock");
    ids.filter_map(|id| zk.get(&format!("{parent}/{id}"))?.json().map(|record| (id, record))).collect()
}

pub fn in_state(records: Vec<(String, Value)>, state: &str) -> Vec<(String, Value)> {
    records.into_iter().filter(|(_, record)| record["state"] == state).collect()
}

/// Waits until `count` builds of the image are in the state, and returns their ids.
#[track_caller]
fn wait_builds(zk: &ZkClient, image: &str, state: &str, count: usize) -> Vec<String> {
    eventually(SOON, &format!("{count} builds of {image} to be {state}"), || {
        let found = in_state(builds(zk, image), state);
        (found.len() == count).then(|| found.into_iter().map(|(id, _)| id).collect())
    })
}

/// Waits for the only ready build of the image.
#[track_caller]
pub fn wait_ready(zk: &ZkClient, image: &str) -> String {
    wait_builds(zk, image, "ready", 1).remove(0)
}

/// Waits until the provider has the build, and returns the upload.
#[track_caller]
pub fn wait_upload(zk: &ZkClient, image: &str, build: &str, provider: &str, state: &str) -> (String, Value) {
    eventually(SOON, &format!("an upload of {image}-{build} to {provider} to be {state}"), || {
        in_state(uploads(zk, image, build, provider), state).pop()
    })
}

/// The files of an image in `images-dir`, sorted.
fn files(sandbox: &Sandbox<'_>, image: &str) -> Vec<String> {
    names(sandbox.images()).into_iter().filter(|name| name.starts_with(&format!("{image}-"))).collect()
}

/// The files that a local provider has, sorted.
fn stored(sandbox: &Sandbox<'_>, provider: &str) -> Vec<String> {
    names(sandbox.store().join(provider))
}

fn names(dir: PathBuf) -> Vec<String> {
    let entries = std::fs::read_dir(dir).into_iter().flatten().flatten();
    let mut names: Vec<String> = entries.map(|entry| entry.file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// The number that a build, or a hook, has left in a file of the sandbox.
#[track_caller]
fn wait_pid(sandbox: &Sandbox<'_>, file: &str) -> u32 {
    eventually(SOON, &format!("the process id in {file}"), || {
        std::fs::read_to_string(sandbox.path(file)).ok()?.trim().parse().ok()
    })
}

/// A program in the sandbox.
fn script(sandbox: &Sandbox<'_>, name: &str, text: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt;
    // In place only when it is complete and can be run: another thread's fork may still hold it open.
    let (path, new) = (sandbox.path(name), sandbox.path(&format!("{name}.new")));
    std::fs::write(&new, format!("#!/bin/sh\n{text}\n")).unwrap();
    std::fs::set_permissions(&new, PermissionsExt::from_mode(0o755)).unwrap();
    std::fs::rename(&new, &path).unwrap();
    path
}
