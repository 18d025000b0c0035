//! The secure file: what it says is put over the configuration of the main file.
//!
//! It has the main file's format but few of its keys, so that secrets and the way to ZooKeeper can be kept
//! apart. Environment variables go to the resolved image: images that inherit from it do not get them.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use nodepool_drivers::api::{Problems, Table};

use super::problem::{FileProblem, in_file_order};
use super::raw_image::read_env_vars;
use super::resolve::{Draft, Parsed};
use super::zookeeper::{self, Servers, Tls, ZooKeeperConfig};

/// Reads the secure file and puts it over the main file's configuration. Without one, because the main file
/// is broken, it is only checked.
pub(super) fn apply(
    file: &Path,
    secure: &Parsed<'_>,
    draft: Option<&mut Draft>,
    found: &mut Vec<FileProblem>,
) {
    let problems = Problems::new();
    if let Some(top) = Table::new(&secure.tree, "", &problems) {
        let servers = zookeeper::read_servers(&top);
        let tls = zookeeper::read_tls(&top);
        let images = read_secure_images(&top);
        if let Some(draft) = draft {
            replace_zookeeper(&mut draft.config.zookeeper, servers, tls);
            for image in images {
                merge_env_vars(draft, image, &problems);
            }
        }
        top.finish();
    }
    found.extend(in_file_order(file, &secure.source, problems.into_vec()));
}

/// An image in the secure file.
struct SecureImage {
    path: String,
    name: String,
    env_vars: BTreeMap<String, String>,
}

fn read_secure_images(top: &Table<'_>) -> Vec<SecureImage> {
    let images = top.tables("diskimages").into_iter().filter_map(|table| {
        let name = table.required_string("name");
        let env_vars = read_env_vars(&table);
        let path = table.path().to_owned();
        table.finish();
        Some(SecureImage { path, name: name?, env_vars })
    });
    images.collect()
}

fn replace_zookeeper(config: &mut ZooKeeperConfig, servers: Option<Servers>, tls: Option<Tls>) {
    if let Some(Servers { servers, chroot }) = servers {
        config.servers = servers;
        config.chroot = chroot;
    }
    if tls.is_some() {
        config.tls = tls;
    }
}

fn merge_env_vars(draft: &mut Draft, image: SecureImage, problems: &Problems) {
    let list = format!("'diskimages' of {}", draft.config.file.display());
    if let Some(mistake) = draft.images.mistake_in_reference(&image.name, &list) {
        problems.error(format!("{}.name", image.path), mistake);
    } else if let Some(configured) = draft.config.diskimages.get_mut(&image.name) {
        Arc::make_mut(configured).env_vars.extend(image.env_vars);
    }
}
