//! What is known of a provider besides its configuration, by surveys of it.

use std::collections::{BTreeMap, BTreeSet};

use nodepool_drivers::api::{LabelImage, PoolSettings, Resources};

use super::world::World;

/// What is known of a provider besides its configuration.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ProviderFacts {
    /// What its nodes may need together, less what others use.
    pub limits: Resources,
    /// What a node of a pool's label needs.
    pub needs: BTreeMap<(String, String), Resources>,
    /// Of which pools' labels it lacks what they boot from.
    pub unready: Vec<(String, String)>,
    /// Where nodes may run.
    pub zones: Vec<String>,
    /// Whether nobody was there when it was asked the last time; the rest is what it has said before.
    pub silent: bool,
    /// What it does not tell of the rest.
    pub remarks: BTreeSet<Remark>,
}

/// Something that a provider does not tell, or tells the worst of.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Remark {
    /// What is unknown or wrong, as a sentence.
    pub what: &'static str,
    /// The pool and label that it is about.
    pub of: Option<(String, String)>,
    /// What the provider says.
    pub reason: String,
}

impl ProviderFacts {
    /// What a node of a pool's label needs.
    pub fn needs(&self, pool: &str, label: &str) -> Resources {
        let known = self.needs.get(&(pool.to_owned(), label.to_owned()));
        known.cloned().unwrap_or_else(Resources::one_instance)
    }
}

/// Whether there is what a node of this label boots from; `None` if that has not been asked yet.
pub fn label_ready(
    world: &World,
    provider: &str,
    pool: &PoolSettings,
    facts: Option<&ProviderFacts>,
    label: &str,
) -> Option<bool> {
    let Some(settings) = pool.labels.get(label) else { return Some(false) };
    match &settings.image {
        LabelImage::Disk(image) => Some(world.upload(image, provider).is_some()),
        LabelImage::Cloud(_) | LabelImage::None => {
            facts.map(|facts| !facts.unready.iter().any(|(of, unready)| *of == pool.name && unready == label))
        }
    }
}
