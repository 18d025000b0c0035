//! How it stands at one moment: what the builder thread says, and the images as its copy of the tree has
//! them.

use std::collections::BTreeSet;

use crate::builder::{Attempt, View, Window};
use crate::model::{Image, now};
use crate::web::core::readiness::unready;
use crate::web::core::rows::read_images;
use crate::window::NoAnswer;

/// How it stands.
pub(super) struct Snapshot {
    /// What the builder thread says.
    pub(super) view: Box<View>,
    /// Why the builder is not ready; none if it is.
    pub(super) unready: Option<&'static str>,
    /// The images that ZooKeeper has, by name.
    pub(super) images: Vec<Image>,
    /// The paths of records that cannot be read.
    pub(super) damaged: Vec<String>,
    /// When it was taken, UNIX seconds.
    pub(super) now: f64,
}

/// What the builder thread says, and why the builder is not ready.
pub(super) fn readiness(window: &mut Window) -> Result<(Box<View>, Option<&'static str>), NoAnswer> {
    let view = window.look()?;
    let unready = unready(window.session.status().state, view.tree_complete);
    Ok((view, unready))
}

impl Snapshot {
    /// Takes it.
    pub(super) fn take(window: &mut Window) -> Result<Self, NoAnswer> {
        let (view, unready) = readiness(window)?;
        let mut damaged = Vec::new();
        let images = read_images(&window.own.tree, &mut damaged);
        Ok(Self { view, unready, images, damaged, now: now() })
    }

    /// The names of all images, also of those that are configured and not in ZooKeeper yet.
    pub(super) fn image_names(&self) -> BTreeSet<&str> {
        let known = self.images.iter().map(|image| image.name.as_str());
        known.chain(self.view.config.diskimages.keys().map(String::as_str)).collect()
    }

    /// What ZooKeeper has of an image.
    pub(super) fn image(&self, name: &str) -> Option<&Image> {
        let index = self.images.binary_search_by(|image| image.name.as_str().cmp(name)).ok()?;
        self.images.get(index)
    }

    /// The providers that shall have an image.
    pub(super) fn providers_of(&self, image: &str) -> impl Iterator<Item = &str> {
        let providers = self.view.config.providers.iter();
        providers.filter_map(move |(name, provider)| {
            let entry = provider.images()?.diskimages.get(image)?;
            (!entry.pause).then_some(name.as_str())
        })
    }

    /// Whether builds of an image fail on this builder.
    pub(super) fn fails_to_build(&self, image: &str) -> bool {
        let builds = self.view.setbacks.iter().map(|setback| &setback.attempt);
        builds.into_iter().any(|attempt| matches!(attempt, Attempt::Build(name, _) if name == image))
    }

    /// The providers that uploads of an image fail at.
    pub(super) fn failing_at(&self, image: &str) -> impl Iterator<Item = &str> {
        self.view.setbacks.iter().filter_map(move |setback| match &setback.attempt {
            Attempt::Upload(name, provider) if name == image => Some(provider.as_str()),
            _ => None,
        })
    }
}
