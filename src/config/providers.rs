//! The `providers` section: which driver reads an entry, and what entries have to do with each other and
//! with the disk images.
//!
//! What a section means is the driver's business; nothing is known of it here but `name`, `driver` and the
//! names in `diskimages`.

use std::collections::BTreeMap;
use std::sync::Arc;

use nodepool_drivers::api::{Driver, LabelImage, ProviderConfig, Table, Value, name_mistake};

use super::inherit::Images;
use super::launcher::Label;
use super::suggest::did_you_mean;

const DEFAULT_DRIVER: &str = "openstack";

/// What the original has, and this version does not.
const DRIVERS_OF_THE_ORIGINAL: [&str; 8] =
    ["aws", "azure", "gce", "ibmvpc", "kubernetes", "metastatic", "openshift", "openshiftpods"];

/// The providers by name.
pub(super) type Providers = BTreeMap<String, Arc<dyn ProviderConfig>>;

/// Reads `providers` with the drivers that there are.
pub(super) fn read(top: &Table<'_>, images: &Images, drivers: &[&dyn Driver]) -> Providers {
    let mut providers = Providers::new();
    let mut first: BTreeMap<&str, String> = BTreeMap::new();
    let sections = top.list("providers").unwrap_or_default();
    for (index, section) in sections.iter().enumerate() {
        let at = format!("{}[{index}]", top.path_of("providers"));
        let Some(table) = Table::new(section, &*at, top.problems()) else { continue };
        let name = text_of(section, "name");
        let earlier = name.and_then(|name| first.get(name));
        if let (Some(name), Some(earlier)) = (name, earlier) {
            table.error("name", format!("the provider '{name}' is configured twice, first at {earlier}"));
        }
        check_diskimages(section, &table, images);
        match choose(&table, name, drivers) {
            Some(driver) => {
                let config = driver.configure(&table).filter(|_| earlier.is_none());
                providers.extend(config.map(|config| (config.settings().name.clone(), config)));
            }
            None => {
                // Only its driver knows the keys of the section.
                table.accept_all();
                table.required_string("name");
            }
        }
        table.finish();
        if let Some(name) = name {
            first.entry(name).or_insert(at);
        }
    }
    providers
}

/// The driver of a section. `None`, with the problem noted, if there is none.
fn choose<'d>(table: &Table<'_>, name: Option<&str>, drivers: &[&'d dyn Driver]) -> Option<&'d dyn Driver> {
    let given = match table.value("driver") {
        None => None,
        Some(_) => Some(table.string("driver")?),
    };
    let wanted = match name {
        // As in the original, whatever `driver` says.
        Some(name) if name.starts_with("fake") => "fake",
        _ => given.as_deref().unwrap_or(DEFAULT_DRIVER),
    };
    let found = drivers.iter().copied().find(|driver| driver.name() == wanted);
    if found.is_none() {
        let available = drivers.iter().map(|driver| driver.name());
        let list = available.clone().collect::<Vec<_>>().join(", ");
        let provider =
            name.map_or_else(|| "this provider".to_owned(), |name| format!("the provider '{name}'"));
        let message = if DRIVERS_OF_THE_ORIGINAL.contains(&wanted) {
            format!("this version does not have the driver '{wanted}' of {provider} yet; available: {list}")
        } else {
            let hint = did_you_mean(wanted, available.chain(DRIVERS_OF_THE_ORIGINAL));
            format!("unknown driver '{wanted}' of {provider}; available: {list}{hint}")
        };
        table.error("driver", message);
    }
    found
}

/// Checks that each listed image is one that is built. Whatever else is wrong with an entry, the driver says.
fn check_diskimages(section: &Value, table: &Table<'_>, images: &Images) {
    // Not asked of the table: whether the section may have this key is for its driver to say.
    let Some(Value::List(items)) = section.get("diskimages") else { return };
    for (index, item) in items.iter().enumerate() {
        let Some(name) = text_of(item, "name").filter(|name| name_mistake(name).is_none()) else { continue };
        if let Some(mistake) = images.mistake_in_reference(name, "'diskimages'") {
            table.problems().error(format!("{}[{index}].name", table.path_of("diskimages")), mistake);
        }
    }
}

/// Checks that each label of a pool or a machine is one that may be asked for, and that its disk image is one of the
/// provider's. Of a driver that is not there nobody knows.
pub(super) fn check_labels(top: &Table<'_>, providers: &Providers, labels: &BTreeMap<String, Label>) {
    let check_name = |name: &str, path: String| {
        if !labels.contains_key(name) {
            let hint = did_you_mean(name, labels.keys().map(String::as_str));
            let message = format!("the label '{name}' is not configured in 'labels'{hint}");
            top.problems().error(path, message);
        }
    };
    let sections = top.list("providers").unwrap_or_default();
    for (index, section) in sections.iter().enumerate() {
        let Some(provider) = text_of(section, "name").and_then(|name| providers.get(name)) else { continue };
        // Without it, the driver itself has looked at the images of its pools.
        let nodes = provider.nodes();
        for (at_pool, pool) in items(section.get("pools")).enumerate() {
            let path = format!("{}[{index}].pools[{at_pool}]", top.path_of("providers"));
            let settings = nodes.zip(text_of(pool, "name")).and_then(|(nodes, name)| nodes.pools.get(name));
            for (at, entry) in items(pool.get("labels")).enumerate() {
                let Some(name) = text_of(entry, "name") else { continue };
                check_name(name, format!("{path}.labels[{at}].name"));
                let image = settings.and_then(|pool| pool.labels.get(name)).map(|label| &label.image);
                if let Some(LabelImage::Disk(image)) = image {
                    if !provider.images().is_some_and(|images| images.diskimages.contains_key(image)) {
                        let message = format!("the image '{image}' is not in the provider's 'diskimages'");
                        top.problems().error(format!("{path}.labels[{at}].diskimage"), message);
                    }
                }
            }
            for (at, machine) in items(pool.get("nodes")).enumerate() {
                let path = format!("{path}.nodes[{at}].labels");
                match machine.get("labels") {
                    Some(Value::Str(name)) => check_name(name, path),
                    names => items(names).enumerate().for_each(|(at, name)| {
                        if let Value::Str(name) = name {
                            check_name(name, format!("{path}[{at}]"));
                        }
                    }),
                }
            }
        }
    }
}

/// The items of a list; none of anything else.
pub(super) fn items(list: Option<&Value>) -> impl Iterator<Item = &Value> {
    match list {
        Some(Value::List(items)) => items.iter(),
        _ => [].iter(),
    }
}

/// The text of a key, if there is one.
pub(super) fn text_of<'v>(value: &'v Value, key: &str) -> Option<&'v str> {
    match value.get(key) {
        Some(Value::Str(text)) => Some(text),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::fmt;

    use nodepool_drivers::api::{Error, ImageSettings, Provider, ProviderSettings};
    use slog::Logger;

    use super::*;
    use crate::config::{raw_image, testing};

    /// A driver that stores images, and knows no more than it must.
    struct TestDriver(&'static str);

    struct TestConfig(ProviderSettings, ImageSettings);

    impl fmt::Debug for TestConfig {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(&self.0.driver)
        }
    }

    impl Driver for TestDriver {
        fn name(&self) -> &'static str {
            self.0
        }

        fn configure(&self, section: &Table<'_>) -> Option<Arc<dyn ProviderConfig>> {
            let settings = ProviderSettings::read(section, self.0);
            let images = ImageSettings::read(section, "raw");
            Some(Arc::new(TestConfig(settings?, images)))
        }
    }

    impl ProviderConfig for TestConfig {
        fn settings(&self) -> &ProviderSettings {
            &self.0
        }

        fn images(&self) -> Option<&ImageSettings> {
            Some(&self.1)
        }

        fn open(&self, _: &Logger) -> Result<Arc<dyn Provider>, Error> {
            unreachable!("no test opens it")
        }
    }

    fn providers(source: &str) -> (Providers, Vec<String>) {
        let images = "diskimages: [{name: debian}, {name: base, abstract: true}]\nproviders: ";
        testing::read(&format!("{images}{source}"), |top| {
            let images = Images::new(raw_image::read_all(top), top.problems());
            read(top, &images, &[&TestDriver("fake"), &TestDriver("local"), &TestDriver(DEFAULT_DRIVER)])
        })
    }

    #[test]
    fn a_section_is_read_by_its_driver() {
        let source = "[{name: a, driver: local, diskimages: [{name: debian, pause: true}]}, {name: fake-b},
            {name: fake-c, driver: openstack}, {name: o}]";
        let (providers, problems) = providers(source);
        assert_eq!(problems, [""; 0]);
        let drivers: Vec<_> = providers.iter().map(|(name, config)| format!("{name} {config:?}")).collect();
        assert_eq!(drivers, ["a local", "fake-b fake", "fake-c fake", "o openstack"]);
        assert!(providers["a"].images().unwrap().diskimages["debian"].pause);
    }

    #[test]
    fn mistakes_are_named() {
        let cases = [
            ("{a: b}", "providers: expected a list, found a mapping"),
            ("[a]", "providers[0]: expected a mapping, found a string"),
            (
                "[{name: p, driver: aws, any-key: 1}]",
                "providers[0].driver: this version does not have the driver 'aws' of the provider 'p' yet; \
                 available: fake, local, openstack",
            ),
            (
                "[{name: p, driver: lcoal}]",
                "providers[0].driver: unknown driver 'lcoal' of the provider 'p'; available: fake, local, openstack; did \
                 you mean 'local'?",
            ),
            (
                "[{name: p, driver: mycloud}]",
                "providers[0].driver: unknown driver 'mycloud' of the provider 'p'; available: fake, local, openstack",
            ),
            ("[{name: p, driver: [local]}]", "providers[0].driver: expected a string, found a list"),
            ("[{driver: local}]", "providers[0]: the required key 'name' is missing"),
            (
                "[{name: p, driver: local}, {name: p, driver: local}]",
                "providers[1].name: the provider 'p' is configured twice, first at providers[0]",
            ),
            (
                "[{name: p, driver: local, diskimages: [{name: debian}, {name: debain}]}]",
                "providers[0].diskimages[1].name: the image 'debain' is not configured in 'diskimages'; did you \
                 mean 'debian'?",
            ),
            (
                "[{name: p, driver: local, diskimages: [{name: base}]}]",
                "providers[0].diskimages[0].name: the image 'base' is abstract: it is only a parent and never \
                 built",
            ),
            (
                "[{name: p, driver: local, max-concurency: 1}]",
                "providers[0].max-concurency: unknown key, did you mean 'max-concurrency'?",
            ),
        ];
        for (source, expected) in cases {
            assert_eq!(providers(source).1, [expected], "{source}");
        }
        let (_, problems) = providers("[{diskimages: [{name: x}]}]");
        let expected = [
            "providers[0].diskimages[0].name: the image 'x' is not configured in 'diskimages'",
            "providers[0]: the required key 'name' is missing",
        ];
        assert_eq!(problems, expected);
    }

    #[test]
    fn every_driver_of_the_original_that_is_missing_is_missing_only_yet() {
        for driver in DRIVERS_OF_THE_ORIGINAL {
            let (_, problems) = providers(&format!("[{{name: p, driver: {driver}}}]"));
            assert!(
                problems[0].contains(&format!("does not have the driver '{driver}' of the provider 'p' yet"))
            );
        }
    }
}
