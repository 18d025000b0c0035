//! Raw disk images to resolved ones: each gets what its chain of parents gives it.
//!
//! The chain is applied from its farthest parent to the image itself. Scalars and formats override,
//! `elements` append, `env-vars` update. `metadata` is the image's own alone, as in the original.

use std::collections::{BTreeMap, BTreeSet};

use nodepool_drivers::api::Problems;

use super::diskimage::DiskImage;
use super::raw_image::RawImage;
use super::suggest::did_you_mean;

/// The disk images of a file, abstract ones too.
pub(super) struct Images {
    raw: Vec<RawImage>,
    /// The place of the first image of each name.
    by_name: BTreeMap<String, usize>,
}

impl Images {
    /// Takes the raw images together; the first of several with one name counts.
    pub(super) fn new(raw: Vec<RawImage>, problems: &Problems) -> Self {
        let mut by_name = BTreeMap::new();
        for (index, image) in raw.iter().enumerate() {
            let first = *by_name.entry(image.name.clone()).or_insert(index);
            if first != index {
                let at = &raw[first].path;
                let message = format!("the image '{}' is configured twice, first at {at}", image.name);
                problems.error(format!("{}.name", image.path), message);
            }
        }
        Self { raw, by_name }
    }

    /// What is wrong with a reference to the image `name` from where an image is needed that is built.
    /// `list` is what to call the list of images in the message.
    pub(super) fn mistake_in_reference(&self, name: &str, list: &str) -> Option<String> {
        match self.get(name) {
            Some(image) if image.is_abstract => {
                Some(format!("the image '{name}' is abstract: it is only a parent and never built"))
            }
            Some(_) => None,
            None => {
                let hint = did_you_mean(name, self.by_name.keys());
                Some(format!("the image '{name}' is not configured in {list}{hint}"))
            }
        }
    }

    fn get(&self, name: &str) -> Option<&RawImage> {
        self.by_name.get(name).map(|index| &self.raw[*index])
    }

    /// Resolves every image that is not abstract. One whose parents are wrong is noted and left out.
    pub(super) fn resolve(&self, problems: &Problems) -> BTreeMap<String, DiskImage> {
        let mut resolved = BTreeMap::new();
        for index in self.by_name.values() {
            let image = &self.raw[*index];
            // The parents of abstract images are checked too.
            let Some(chain) = self.chain(image, problems) else { continue };
            if !image.is_abstract {
                let mut disk_image = DiskImage::new(&image.name);
                chain.into_iter().rev().for_each(|raw| apply(raw, &mut disk_image));
                disk_image.metadata = image.metadata.clone();
                resolved.insert(image.name.clone(), disk_image);
            }
        }
        resolved
    }

    /// The image, its parent, the parent of that and so on. `None` if the chain does not end well; what is
    /// wrong is noted at the one image that is to be mended.
    fn chain<'a>(&'a self, image: &'a RawImage, problems: &Problems) -> Option<Vec<&'a RawImage>> {
        let mut chain = vec![image];
        let mut names = BTreeSet::from([image.name.as_str()]);
        let mut last = image;
        while let Some(name) = &last.parent {
            let Some(parent) = self.get(name) else {
                if chain.len() == 1 {
                    let hint = did_you_mean(name, self.by_name.keys());
                    let message =
                        format!("the parent '{name}' of the image '{}' is not configured{hint}", image.name);
                    problems.error(format!("{}.parent", image.path), message);
                }
                return None;
            };
            if !names.insert(&parent.name) {
                let start = chain.iter().position(|member| member.name == parent.name).unwrap_or_default();
                // Every member of the cycle comes here, and so do images that only lead into it.
                if chain[start..].iter().map(|member| &member.name).min() == Some(&image.name) {
                    let names = chain[start..].iter().chain([&parent]).map(|member| member.name.as_str());
                    let message =
                        format!("the parents form a cycle: {}", names.collect::<Vec<_>>().join(" -> "));
                    problems.error(format!("{}.parent", image.path), message);
                }
                return None;
            }
            chain.push(parent);
            last = parent;
        }
        Some(chain)
    }
}

fn apply(raw: &RawImage, image: &mut DiskImage) {
    fn over<T: Clone>(raw: &Option<T>, value: &mut T) {
        if let Some(given) = raw {
            value.clone_from(given);
        }
    }
    image.elements.extend_from_slice(&raw.elements);
    image.env_vars.extend(raw.env_vars.clone());
    over(&raw.release, &mut image.release);
    over(&raw.formats, &mut image.formats);
    over(&raw.rebuild_age, &mut image.rebuild_age);
    over(&raw.build_timeout, &mut image.build_timeout);
    over(&raw.dib_cmd, &mut image.dib_cmd);
    over(&raw.pause, &mut image.pause);
    over(&raw.username, &mut image.username);
    over(&raw.python_path, &mut image.python_path);
    over(&raw.delete_after_upload, &mut image.delete_after_upload);
    over(&raw.keep_formats, &mut image.keep_formats);
    over(&raw.keep_builds, &mut image.keep_builds);
    over(&raw.validate_hook, &mut image.validate_hook);
    if raw.shell_type.is_some() {
        image.shell_type.clone_from(&raw.shell_type);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{raw_image, testing};

    fn resolve(source: &str) -> (BTreeMap<String, DiskImage>, Vec<String>) {
        testing::read(source, |top| {
            let images = Images::new(raw_image::read_all(top), top.problems());
            images.resolve(top.problems())
        })
    }

    #[test]
    fn mistakes_between_images_name_the_image() {
        let cases = [
            (
                "[{name: child, parent: debain}, {name: debian}]",
                vec![
                    "diskimages[0].parent: the parent 'debain' of the image 'child' is not configured; did you mean 'debian'?",
                ],
            ),
            ("[{name: a, parent: a}]", vec!["diskimages[0].parent: the parents form a cycle: a -> a"]),
            (
                "[{name: c, parent: b}, {name: b, parent: a}, {name: a, parent: b, abstract: true}]",
                vec!["diskimages[2].parent: the parents form a cycle: a -> b -> a"],
            ),
            // An image below a broken one is not reported again.
            (
                "[{name: a, parent: b}, {name: b, parent: nowhere}]",
                vec!["diskimages[1].parent: the parent 'nowhere' of the image 'b' is not configured"],
            ),
            (
                "[{name: a}, {name: b}, {name: a}, {name: a}]",
                vec![
                    "diskimages[2].name: the image 'a' is configured twice, first at diskimages[0]",
                    "diskimages[3].name: the image 'a' is configured twice, first at diskimages[0]",
                ],
            ),
        ];
        for (source, expected) in cases {
            assert_eq!(resolve(&format!("diskimages: {source}")).1, expected, "{source}");
        }
    }
}
