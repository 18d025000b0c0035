//! What a cloud of `clouds.yaml` says of its networks.

use super::merge::{self, get};
use super::resolve::{Reader, as_boolean};
use super::{NetworkWish, Reach};
use crate::api::Value;

impl Reader<'_> {
    /// How servers are reached.
    pub(super) fn reach(&mut self) -> Reach {
        let for_all = get(&self.client, "force_ipv4").and_then(as_boolean);
        let only_ipv4 = self.boolean("force_ipv4").or(for_all).unwrap_or(false);
        // As openstacksdk has it: without the key it is Neutron, with nothing behind it there are none.
        let is_empty = |(key, value): &(String, Value)| key == "floating_ip_source" && *value == Value::Null;
        let source = match self.entries.iter().any(is_empty) {
            true => Some(String::new()),
            false => self.text("floating_ip_source"),
        };
        let networks = self.networks();
        for (key, of) in [
            ("nat_source", (|wish| wish.nat_source) as fn(&NetworkWish) -> bool),
            ("nat_destination", |wish| wish.nat_destination),
            ("default_interface", |wish| wish.default_interface),
        ] {
            let named: Vec<_> =
                networks.iter().filter(|wish| of(wish)).map(|wish| wish.name.as_str()).collect();
            if let [first, second, ..] = named.as_slice() {
                let message = format!("'{first}' and '{second}' have {key} both, only one can");
                self.mistake("networks", &message);
            }
        }
        Reach {
            networks,
            private: self.boolean("private").unwrap_or(false),
            only_ipv4,
            no_floating_ips: source
                .is_some_and(|source| source.is_empty() || source.eq_ignore_ascii_case("none")),
        }
    }

    fn networks(&mut self) -> Vec<NetworkWish> {
        let mut networks = Vec::new();
        match get(&self.entries, "networks").cloned() {
            None => {}
            Some(Value::List(items)) => {
                for (index, item) in items.iter().enumerate() {
                    networks.extend(self.network(index, item));
                }
            }
            Some(other) => self.mistake("networks", &format!("expected a list, found {}", other.describe())),
        }
        // The older keys.
        for (key, external) in [("external_network", true), ("internal_network", false)] {
            if let Some(name) = self.text(key).filter(|name| !name.is_empty()) {
                networks.push(NetworkWish {
                    name,
                    external,
                    nat_destination: !external,
                    default_interface: external,
                    ..NetworkWish::default()
                });
            }
        }
        networks
    }

    fn network(&mut self, index: usize, item: &Value) -> Option<NetworkWish> {
        let entries = merge::entries(item);
        let Some(name) = get(&entries, "name").and_then(Value::scalar_text).filter(|name| !name.is_empty())
        else {
            self.missing(&format!("networks[{index}].name"));
            return None;
        };
        let mut flag = |key: &str| {
            let value = get(&entries, key)?;
            let read = as_boolean(value);
            if read.is_none() {
                let found = value.describe();
                self.mistake(
                    &format!("networks[{index}].{key}"),
                    &format!("expected true or false, found {found}"),
                );
            }
            read
        };
        let routes = flag("routes_externally").unwrap_or(false);
        Some(NetworkWish {
            name,
            external: flag("routes_ipv4_externally").unwrap_or(routes),
            nat_source: flag("nat_source").unwrap_or(false),
            nat_destination: flag("nat_destination").unwrap_or(false),
            default_interface: flag("default_interface").unwrap_or(false),
        })
    }
}
