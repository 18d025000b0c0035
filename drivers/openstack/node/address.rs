//! Which of a server's addresses is for what: the rules of openstacksdk (`openstack/cloud/meta.py`), which the
//! original's records follow. Unlike it, nothing is tried out: of several addresses the first one counts, floating ones
//! before others. And a node that is reached by none of its rules is reached by what it has.

use std::fs;
use std::net::Ipv4Addr;

use crate::openstack::clouds::Reach;
use crate::openstack::compute::{Address, Server};
use crate::openstack::network::Network;

/// A server's addresses by what they are for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Addresses {
    /// Where it is reached.
    pub(super) interface: Option<String>,
    pub(super) public_ipv4: Option<String>,
    pub(super) private_ipv4: Option<String>,
    pub(super) public_ipv6: Option<String>,
}

/// What is known besides the server.
#[derive(Clone, Copy)]
pub(super) struct Surroundings<'a> {
    pub(super) networks: &'a [Network],
    pub(super) reach: &'a Reach,
    /// Whether this machine has an IPv6 address of its own.
    pub(super) ipv6_here: bool,
}

impl Surroundings<'_> {
    /// The addresses of a server.
    pub(super) fn addresses(&self, server: &Server) -> Addresses {
        let public_ipv4 = self.public_ipv4(server);
        let private_ipv4 = self.private_ipv4(server);
        let public_ipv6 = (!self.reach.only_ipv4).then(|| public_ipv6(server)).flatten();
        let first_6 = self.ipv6_here && !self.reach.only_ipv4;
        let interface = self
            .default_interface(server)
            .or_else(|| private_ipv4.clone().filter(|_| self.reach.private))
            .or_else(|| public_ipv6.clone().filter(|_| first_6))
            .or_else(|| public_ipv4.clone())
            .or_else(|| private_ipv4.clone())
            .or_else(|| server.addresses.values().flatten().next().map(|found| found.address.clone()));
        Addresses { interface, public_ipv4, private_ipv4, public_ipv6 }
    }

    /// Whether a server is reached by a floating IP only, which it does not have.
    pub(super) fn needs_floating_ip(&self, server: &Server) -> bool {
        let has_public = self.public_ipv4(server).is_some() || server.floating().next().is_some();
        let has_fixed = self.private_ipv4(server).is_some()
            || server.addresses.values().flatten().any(|address| address.floating == Some(false));
        !has_public && has_fixed && !self.reach.private && !self.reach.no_floating_ips
    }

    fn public_ipv4(&self, server: &Server) -> Option<String> {
        server
            .access_ipv4
            .clone()
            .or_else(|| self.names(true).find_map(|name| pick(server, &Wanted::in_network(name))))
            .or_else(|| pick(server, &Wanted { floating: Some(true), ..Wanted::default() }))
            .or_else(|| pick(server, &Wanted::in_network("public")))
            .or_else(|| {
                let all = server.addresses.values().flatten();
                all.map(|found| &found.address).find(|address| is_global(address)).cloned()
            })
    }

    fn private_ipv4(&self, server: &Server) -> Option<String> {
        // That which the floating IP leads to, if there is one.
        let mac =
            server.floating().find(|address| address.version == 4).and_then(|found| found.mac.as_deref());
        let fixed = |name| pick(server, &Wanted { floating: Some(false), mac, ..Wanted::in_network(name) });
        let any = |name| pick(server, &Wanted { mac, ..Wanted::in_network(name) });
        self.names(false)
            .find_map(fixed)
            .or_else(|| self.names(false).find_map(any))
            .or_else(|| fixed("private"))
            .or_else(|| pick(server, &Wanted::in_network("private")))
    }

    fn default_interface(&self, server: &Server) -> Option<String> {
        let wish = self.reach.networks.iter().find(|wish| wish.default_interface)?;
        let network = self.networks.iter().find(|network| network.is(&wish.name));
        let name = network.map_or(wish.name.as_str(), |network| network.name.as_str());
        let versions: &[u64] = if self.ipv6_here && !self.reach.only_ipv4 { &[6, 4] } else { &[4] };
        versions
            .iter()
            .find_map(|version| pick(server, &Wanted { version: *version, ..Wanted::in_network(name) }))
    }

    /// The names of the networks outside, or of those inside.
    fn names(&self, outside: bool) -> impl Iterator<Item = &str> {
        let wished = move |network: &Network, external: bool| {
            self.reach.networks.iter().any(|wish| wish.external == external && network.is(&wish.name))
        };
        let seems = move |network: &Network| (network.is_external || network.is_physical) == outside;
        let is_one = move |network: &&Network| {
            wished(network, outside) || seems(network) && !wished(network, !outside)
        };
        // A cloud without Neutron, or one that does not show all.
        let unknown = self.reach.networks.iter().filter(move |wish| {
            wish.external == outside && !self.networks.iter().any(|network| network.is(&wish.name))
        });
        let known = self.networks.iter().filter(is_one).map(|network| network.name.as_str());
        known.chain(unknown.map(|wish| wish.name.as_str()))
    }
}

/// Which addresses are in question.
#[derive(Clone, Copy)]
struct Wanted<'a> {
    network: Option<&'a str>,
    version: u64,
    floating: Option<bool>,
    mac: Option<&'a str>,
}

impl Default for Wanted<'_> {
    fn default() -> Self {
        Self { network: None, version: 4, floating: None, mac: None }
    }
}

impl<'a> Wanted<'a> {
    fn in_network(name: &'a str) -> Self {
        Self { network: Some(name), ..Self::default() }
    }

    fn is(&self, address: &Address) -> bool {
        address.version == self.version
            && (self.floating.is_none() || address.floating == self.floating)
            && self.mac.is_none_or(|mac| address.mac.as_deref() == Some(mac))
    }
}

/// The best of the addresses in question.
fn pick(server: &Server, wanted: &Wanted<'_>) -> Option<String> {
    let of_network = |name: &str| wanted.network.is_none_or(|network| network == name);
    let lists = server.addresses.iter().filter(|(name, _)| of_network(name));
    let found: Vec<_> = lists.flat_map(|(_, list)| list).filter(|address| wanted.is(address)).collect();
    let best = found.iter().find(|address| address.floating == Some(true)).or_else(|| found.first());
    best.map(|address| address.address.clone())
}

/// An IPv6 address counts as reachable from everywhere.
fn public_ipv6(server: &Server) -> Option<String> {
    server.access_ipv6.clone().or_else(|| pick(server, &Wanted { version: 6, ..Wanted::default() }))
}

/// Whether an IPv4 address is one of the world (the registry of IANA, as Python's `ipaddress` has it).
fn is_global(address: &str) -> bool {
    let Ok(address) = address.parse::<Ipv4Addr>() else { return false };
    let own = address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_documentation()
        || matches!(address.octets(), [0, ..] | [192, 0, 0, _] | [198, 18 | 19, ..] | [240..=255, ..]);
    !own
}

/// Whether this machine has an IPv6 address by which others can be reached.
pub(super) fn ipv6_here() -> bool {
    // Address, interface, length, scope, flags, name; scopes 10 and 20 are loopback and link.
    let table = fs::read_to_string("/proc/net/if_inet6").unwrap_or_default();
    table
        .lines()
        .any(|line| line.split_whitespace().nth(3).is_some_and(|scope| !matches!(scope, "10" | "20")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::openstack::clouds::NetworkWish;

    /// Addresses as `network kind address`, where the kind is `fixed`, `floating` or `?`.
    fn server(addresses: &[&str]) -> Server {
        let mut server = Server::default();
        for text in addresses {
            let [network, kind, address] = text.split(' ').collect::<Vec<_>>().try_into().unwrap();
            let version = if address.contains(':') { 6 } else { 4 };
            let floating = (kind != "?").then_some(kind == "floating");
            let address = Address { address: address.to_owned(), version, floating, mac: None };
            server.addresses.entry(network.to_owned()).or_default().push(address);
        }
        server
    }

    fn networks() -> Vec<Network> {
        let network = |name: &str, is_external, is_physical| Network {
            id: format!("id-of-{name}"),
            name: name.to_owned(),
            is_external,
            is_physical,
        };
        vec![network("outside", true, false), network("lan", false, false), network("rack", false, true)]
    }

    fn wish(name: &str, external: bool, default_interface: bool) -> NetworkWish {
        NetworkWish { name: name.to_owned(), external, default_interface, ..NetworkWish::default() }
    }

    #[test]
    fn addresses_are_chosen_as_openstacksdk_does() {
        let plain = Reach::default;
        let private = || Reach { private: true, ..plain() };
        let wishes = |wishes: &[NetworkWish]| Reach { networks: wishes.to_vec(), ..plain() };
        // Interface, public, private, public IPv6; whether it needs a floating IP.
        #[rustfmt::skip]
        let cases: Vec<(Server, Reach, bool, [&str; 4], bool)> = vec![
            (server(&["outside fixed 8.8.8.8"]), plain(), false, ["8.8.8.8", "8.8.8.8", "", ""], false),
            (server(&["lan fixed 10.0.0.5"]), plain(), false, ["10.0.0.5", "", "10.0.0.5", ""], true),
            (server(&["lan fixed 10.0.0.5"]), private(), false, ["10.0.0.5", "", "10.0.0.5", ""], false),
            (server(&["lan fixed 10.0.0.5", "lan floating 203.0.113.7"]), plain(), false,
             ["203.0.113.7", "203.0.113.7", "10.0.0.5", ""], false),
            (server(&["lan fixed 10.0.0.5", "lan floating 203.0.113.7"]), private(), false,
             ["10.0.0.5", "203.0.113.7", "10.0.0.5", ""], false),
            // What only administrators see of it makes a network one of outside.
            (server(&["rack fixed 10.9.0.5"]), plain(), false, ["10.9.0.5", "10.9.0.5", "", ""], false),
            // A network that is not shown, with an address of the world or of one's own.
            (server(&["other fixed 9.9.9.9"]), plain(), false, ["9.9.9.9", "9.9.9.9", "", ""], false),
            (server(&["other fixed 192.168.0.9"]), plain(), false, ["192.168.0.9", "", "", ""], true),
            (server(&["public ? 10.1.1.1", "private ? 10.2.2.2"]), plain(), false, ["10.1.1.1", "10.1.1.1", "10.2.2.2", ""], false),
            // IPv6, where this machine has it and where it has not.
            (server(&["outside fixed 8.8.8.8", "outside fixed 2001:db8::8"]), plain(), true,
             ["2001:db8::8", "8.8.8.8", "", "2001:db8::8"], false),
            (server(&["outside fixed 8.8.8.8", "outside fixed 2001:db8::8"]), plain(), false,
             ["8.8.8.8", "8.8.8.8", "", "2001:db8::8"], false),
            (server(&["outside fixed 8.8.8.8", "outside fixed 2001:db8::8"]), Reach { only_ipv4: true, ..plain() }, true,
             ["8.8.8.8", "8.8.8.8", "", ""], false),
            (server(&["lan fixed 2001:db8::8"]), plain(), false, ["2001:db8::8", "", "", "2001:db8::8"], true),
            // clouds.yaml knows better.
            (server(&["lan fixed 10.0.0.5"]), wishes(&[wish("lan", true, false)]), false, ["10.0.0.5", "10.0.0.5", "", ""], false),
            (server(&["outside fixed 8.8.8.8"]), wishes(&[wish("id-of-outside", false, false)]), false,
             ["8.8.8.8", "8.8.8.8", "8.8.8.8", ""], false),
            (server(&["lan fixed 10.0.0.5", "lan floating 203.0.113.7", "rack fixed 10.9.0.5"]),
             wishes(&[wish("rack", true, true)]), false, ["10.9.0.5", "10.9.0.5", "10.0.0.5", ""], false),
            (server(&["lan fixed 10.0.0.5"]), Reach { no_floating_ips: true, ..plain() }, false,
             ["10.0.0.5", "", "10.0.0.5", ""], false),
            (server(&[]), plain(), false, ["", "", "", ""], false),
            (Server { access_ipv4: Some("1.2.3.4".to_owned()), ..server(&["lan fixed 10.0.0.5"]) }, plain(), false,
             ["1.2.3.4", "1.2.3.4", "10.0.0.5", ""], false),
        ];
        for (server, reach, ipv6_here, expected, needs) in cases {
            let networks = networks();
            let around = Surroundings { networks: &networks, reach: &reach, ipv6_here };
            let found = around.addresses(&server);
            let found = [found.interface, found.public_ipv4, found.private_ipv4, found.public_ipv6];
            assert_eq!(found.map(Option::unwrap_or_default), expected, "{server:?} {reach:?}");
            assert_eq!(around.needs_floating_ip(&server), needs, "{server:?} {reach:?}");
        }
    }

    #[test]
    fn the_private_address_is_that_which_the_floating_ip_leads_to() {
        let with_mac = |text: &str, mac: &str| {
            let mut server = server(&[text]);
            let mut list = server.addresses.pop_first().unwrap().1;
            list[0].mac = Some(mac.to_owned());
            list.remove(0)
        };
        let mut server = Server::default();
        let list = [
            with_mac("lan fixed 10.0.0.5", "a"),
            with_mac("lan fixed 10.0.0.6", "b"),
            with_mac("lan floating 203.0.113.7", "b"),
        ];
        server.addresses.insert("lan".to_owned(), list.into());
        let networks = networks();
        let around = Surroundings { networks: &networks, reach: &Reach::default(), ipv6_here: false };
        assert_eq!(around.addresses(&server).private_ipv4.as_deref(), Some("10.0.0.6"));
    }

    #[test]
    fn addresses_of_the_world_are_told_from_others() {
        for (address, expected) in [
            ("8.8.8.8", true),
            ("100.64.0.1", true),
            ("10.0.0.1", false),
            ("172.31.0.1", false),
            ("203.0.113.5", false),
            ("198.19.0.1", false),
            ("169.254.1.1", false),
            ("255.255.255.255", false),
            ("0.1.2.3", false),
            ("2001:db8::1", false),
        ] {
            assert_eq!(is_global(address), expected, "{address}");
        }
    }
}
