//! The driver `openstack`, and builder and launcher with it, against real services.
#![allow(clippy::expect_used, clippy::panic, clippy::unwrap_used)]

mod contract;
mod crashes;
mod floating;
mod logins;
mod original;
mod peers;
mod servers;
mod servers_many;
mod servers_troubles;
mod tokens;
mod troubles;
mod uploads;

use std::time::Duration;

use serde_json::Value;

use crate::builder::{body, in_state, request, uploads, wait_ready, wait_upload};
use crate::support::{Daemon, OpenStack, Outcome, Sandbox, eventually};

/// For what takes a second or two on an idle machine.
const SOON: Duration = Duration::from_secs(120);

/// An entry of `diskimages` whose builds are real qcow2 images of random bytes. The images in Glance are named after
/// it, so the name must be the test's own.
fn qcow2(sandbox: &Sandbox<'_>, name: &str, megabytes: u32, more: &str) -> String {
    let command = sandbox.fake_dib();
    format!(
        "  - {{name: {name}, dib-cmd: '{}', elements: [vm], formats: [qcow2], {more} \
         env-vars: {{FAKE_DIB_QCOW2_MB: '{megabytes}'}}}}\n",
        command.display()
    )
}

/// An entry of `providers`, named after its cloud. `images` as in the file.
fn provider(cloud: &str, images: &str, more: &str) -> String {
    // Without `driver`, as operators have it.
    format!("  - {{name: {cloud}-here, cloud: {cloud}, rate: 0.01, diskimages: [{images}], {more}}}\n")
}

/// Starts a builder that knows the clouds.
fn builder(sandbox: &Sandbox<'_>, services: &OpenStack, args: &[&str]) -> Daemon {
    let mut command = sandbox.builder_command(args);
    command.env("OS_CLIENT_CONFIG_FILE", services.clouds());
    sandbox.spawn(&command)
}

/// Runs the client where the clouds are known.
#[track_caller]
fn nodepool(sandbox: &Sandbox<'_>, services: &OpenStack, args: &[&str]) -> Outcome {
    let mut command = sandbox.command(env!("CARGO_BIN_EXE_nodepool"));
    command.env("OS_CLIENT_CONFIG_FILE", services.clouds()).arg("-c").arg(sandbox.config_file()).args(args);
    sandbox.run_client(command, "", SOON)
}

/// Waits for the state of the only image in Glance whose name begins so, and returns the image.
#[track_caller]
fn wait_image(builder: &Daemon, services: &OpenStack, name: &str, status: &str) -> Value {
    builder.wait_until(&format!("an image {name} that is {status}"), SOON, || {
        let mut images = services.images(&format!("{name}-"));
        let one = images.len() == 1 && images[0]["status"] == status;
        one.then(|| images.remove(0))
    })
}

/// Waits until Glance has no such image.
#[track_caller]
fn wait_no_image(services: &OpenStack, name: &str) {
    eventually(SOON, &format!("no image {name} in Glance"), || {
        services.images(&format!("{name}-")).is_empty().then_some(())
    });
}
