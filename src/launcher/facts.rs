//! What is known of a provider besides its configuration, by surveys of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use nodepool_drivers::api::{LabelImage, PoolSettings, ProviderSettings, Resources, Value};

use super::world::World;

/// What is known of a provider besides its configuration.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct ProviderFacts {
    /// What its nodes may need together, less what others use.
    pub limits: Resources,
    /// What it says of the labels of its pools.
    pub labels: BTreeMap<(String, String), LabelFacts>,
    /// Where nodes may run.
    pub zones: Vec<String>,
    /// Whether nobody was there when it was asked the last time; the rest is what it has said before.
    pub silent: bool,
    /// What it does not tell of the rest.
    pub remarks: BTreeSet<Remark>,
}

/// What a provider says of a label of a pool.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct LabelFacts {
    /// What a node of it needs, if that is known.
    pub needs: Option<Resources>,
    /// Whether there is what it boots from, as far as that is not told by ZooKeeper; `None` where it was not asked, or has not
    /// said.
    pub boots: Option<bool>,
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
        let known = self.label(pool, label).and_then(|label| label.needs.clone());
        known.unwrap_or_else(Resources::one_instance)
    }

    /// Whether it has been asked what these labels of a pool need and boot from.
    pub fn knows(&self, pool: &str, labels: &[String]) -> bool {
        labels.iter().all(|label| self.label(pool, label).is_some_and(|label| label.boots.is_some()))
    }

    fn label(&self, pool: &str, label: &str) -> Option<&LabelFacts> {
        self.labels.get(&(pool.to_owned(), label.to_owned()))
    }

    /// What still counts of them when the provider's configuration has changed: nothing if it may be another place.
    pub fn after(self: &Arc<Self>, old: &ProviderSettings, new: &ProviderSettings) -> Option<Arc<Self>> {
        let is_same = old.driver == new.driver
            && old.outside == new.outside
            && place(&old.section).eq(place(&new.section));
        is_same.then(|| {
            let mut facts = Arc::clone(self);
            Arc::make_mut(&mut facts).labels.values_mut().for_each(|label| label.boots = None);
            facts
        })
    }
}

/// What a section says but for what it wants to have there.
fn place(section: &Value) -> impl Iterator<Item = &(String, Value)> {
    const WISHES: [&str; 5] = ["pools", "cloud-images", "diskimages", "max-concurrency", "priority"];
    let entries = if let Value::Map(entries) = section { entries.as_slice() } else { &[] };
    entries.iter().filter(|(key, _)| !WISHES.contains(&key.as_str()))
}

/// Whether there is what a node of this label boots from; `None` if the provider has not said that yet.
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
        LabelImage::Cloud(_) | LabelImage::None => facts?.label(&pool.name, label)?.boots,
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::launcher::tools::testing::fake;

    fn settings(section: serde_json::Value, outside: Option<&str>) -> ProviderSettings {
        ProviderSettings { outside: outside.map(str::to_owned), ..fake(section).settings().clone() }
    }

    #[test]
    fn what_is_known_of_a_provider_outlives_what_is_wanted_of_it_but_not_the_place() {
        let label = LabelFacts { needs: Some(Resources::one_instance()), boots: Some(true) };
        let key = ("main".to_owned(), "a".to_owned());
        let facts = Arc::new(ProviderFacts {
            zones: vec!["here".to_owned()],
            labels: [(key.clone(), label.clone())].into(),
            ..ProviderFacts::default()
        });
        let section = || json!({"name": "p", "cloud": "fake", "region-name": "one", "pools": []});
        let old = settings(section(), Some("x"));
        for (key_of_section, value) in [
            ("pools", json!([{"name": "main", "labels": []}])),
            ("max-concurrency", json!(5)),
            ("priority", json!(1)),
        ] {
            let mut new = section();
            new[key_of_section] = value;
            let kept = facts.after(&old, &settings(new, Some("x"))).unwrap();
            assert_eq!(kept.zones, facts.zones);
            // Whether it can still be launched is asked anew.
            assert_eq!(kept.labels[&key], LabelFacts { boots: None, ..label.clone() });
            assert!(facts.knows("main", &["a".to_owned()]) && !kept.knows("main", &["a".to_owned()]));
        }
        let mut elsewhere = section();
        elsewhere["region-name"] = json!("two");
        for (new, outside) in [(elsewhere, Some("x")), (section(), Some("y")), (section(), None)] {
            assert_eq!(facts.after(&old, &settings(new, outside)), None);
        }
        let other = ProviderSettings { driver: "openstack".to_owned(), ..old.clone() };
        assert_eq!(facts.after(&old, &other), None);
    }
}
