//! Flavors, and which one a label means.

use serde_json::Value as Json;

use crate::openstack::config::FlavorWish;
use crate::openstack::service::only;

/// A size of servers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::openstack) struct Flavor {
    pub(in crate::openstack) id: String,
    pub(in crate::openstack) name: String,
    pub(in crate::openstack) cores: i64,
    /// In MiB.
    pub(in crate::openstack) ram: i64,
}

impl Flavor {
    pub(super) fn read(json: &Json) -> Option<Self> {
        let text = |key: &str| json.get(key).and_then(Json::as_str).map(str::to_owned);
        let number = |key: &str| json.get(key).and_then(Json::as_i64);
        let name = text("name").unwrap_or_default();
        Some(Self { id: text("id")?, name, cores: number("vcpus")?, ram: number("ram")? })
    }

    /// The one of these, sorted, that is meant; the error says why there is none.
    pub(in crate::openstack) fn choose<'f>(
        flavors: &'f [Self],
        wish: &FlavorWish,
    ) -> Result<&'f Self, String> {
        let name = wish.name.as_deref().unwrap_or_default();
        let found = if wish.min_ram > 0 {
            flavors.iter().find(|flavor| flavor.ram >= wish.min_ram && flavor.name.contains(name))
        } else {
            flavors.iter().find(|flavor| flavor.name == name || flavor.id == name)
        };
        found.ok_or_else(|| {
            let wanted = match (wish.min_ram, name) {
                (0, name) => format!("'{name}'"),
                (ram, "") => format!("with {ram} MiB of memory"),
                (ram, name) => format!("with {ram} MiB of memory and '{name}' in its name"),
            };
            let names = flavors.iter().map(|flavor| flavor.name.as_str());
            format!("there is no flavor {wanted}, {}", only(names))
        })
    }
}

/// By memory and name.
pub(super) fn sorted(mut flavors: Vec<Flavor>) -> Vec<Flavor> {
    flavors.sort_by(|a, b| (a.ram, &a.name).cmp(&(b.ram, &b.name)));
    flavors
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flavor_is_chosen_by_name_or_id_or_memory() {
        let flavor =
            |id: &str, name: &str, ram| Flavor { id: id.to_owned(), name: name.to_owned(), cores: 1, ram };
        let flavors = sorted(vec![
            flavor("1", "big", 8192),
            flavor("2", "b-small", 2048),
            flavor("3", "a-small", 2048),
            flavor("4", "gpu big", 16384),
        ]);
        for (min_ram, name, expected) in [
            (0, "big", Some("1")),
            (0, "4", Some("4")),
            (0, "bi", None),
            (1, "", Some("3")),
            (2048, "b-", Some("2")),
            (2049, "", Some("1")),
            (2049, "gpu", Some("4")),
            (8192, "small", None),
            (99999, "", None),
        ] {
            let wish = FlavorWish { min_ram, name: Some(name.to_owned()).filter(|name| !name.is_empty()) };
            let found = Flavor::choose(&flavors, &wish).ok().map(|flavor| flavor.id.as_str());
            assert_eq!(found, expected, "{wish:?}");
        }
        let wish = FlavorWish { min_ram: 99999, name: Some("x".to_owned()) };
        assert_eq!(
            Flavor::choose(&flavors, &wish).unwrap_err(),
            "there is no flavor with 99999 MiB of memory and 'x' in its name, only: a-small, b-small, big, gpu big"
        );
    }
}
