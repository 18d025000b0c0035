//! `image-build`: asks for a build, and with `--wait` stays until it is done.

use std::collections::BTreeSet;

use nodepool_drivers::api::ProviderConfig;
use slog::Logger;

use super::connection::Connection;
use super::failure::Failure;
use super::{output, wait};
use crate::config::Config;

/// Asks for a build of `image`.
pub(super) fn image_build(config: &Config, image: &str, wait: bool, log: &Logger) -> Result<(), Failure> {
    check(config, image)?;
    let connection = Connection::open(config, log)?;
    if wait {
        return wait::build(config, image, &providers(config, image), &connection, log);
    }
    connection.images.request_build(image)?;
    let paused = match connection.images.is_paused(image)? {
        true => "; it is paused, and will be built when it is unpaused",
        false => "",
    };
    output::print(&format!("{image}: build requested{paused}\n"))
}

/// Refuses what builders would not build.
fn check(config: &Config, image: &str) -> Result<(), Failure> {
    let file = config.file.display();
    let Some(found) = config.diskimages.get(image) else {
        return Err(Failure::because(format!("the image '{image}' is not configured in {file}")));
    };
    if found.pause {
        return Err(Failure::because(format!("the image '{image}' is paused in {file}")));
    }
    if found.formats.is_empty() {
        // Builders may have another file than this machine.
        output::warn(&format!(
            "the image '{image}' has no formats in {file}, and no provider lists it: it is not built"
        ));
    }
    Ok(())
}

/// The providers that shall have the image.
fn providers(config: &Config, image: &str) -> BTreeSet<String> {
    let takes = |provider: &&dyn ProviderConfig| {
        let listed = provider.images().and_then(|images| images.diskimages.get(image));
        listed.is_some_and(|listed| !listed.pause)
    };
    let all = config.providers.values().map(|provider| &**provider as &dyn ProviderConfig);
    all.filter(takes).map(|provider| provider.settings().name.clone()).collect()
}
