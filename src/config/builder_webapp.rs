//! `builder-webapp`: where the builder's status pages are served.
//!
//! It is a section of its own because `webapp` is the launcher's, which may run on the same machine with the
//! same file.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use nodepool_drivers::api::Table;

use super::zookeeper::read_port_from;

/// Where the status pages are served.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BuilderWebApp {
    /// Whether they are served at all.
    pub enabled: bool,
    /// The address of the interface, and the port; port 0 is any that is free.
    pub address: SocketAddr,
    /// Names under which all pages are shown, besides this machine's own.
    pub allowed_hosts: Vec<String>,
}

const DEFAULT_PORT: u16 = 8006;

impl Default for BuilderWebApp {
    fn default() -> Self {
        let address = (Ipv4Addr::LOCALHOST, DEFAULT_PORT).into();
        Self { enabled: true, address, allowed_hosts: Vec::new() }
    }
}

/// Reads the section from the top level.
pub(super) fn read(top: &Table<'_>) -> BuilderWebApp {
    let default = BuilderWebApp::default();
    let Some(table) = top.table("builder-webapp") else { return default };
    let webapp = BuilderWebApp {
        enabled: table.boolean("enabled").unwrap_or(default.enabled),
        address: SocketAddr::new(
            read_address(&table).unwrap_or(default.address.ip()),
            read_port_from(0, &table, "port").unwrap_or(default.address.port()),
        ),
        allowed_hosts: read_hosts(&table, "builds.example.org"),
    };
    table.finish();
    webapp
}

/// `allowed-hosts`. Names alone: one that can never be met would be looked for in vain.
pub(super) fn read_hosts(table: &Table<'_>, example: &str) -> Vec<String> {
    let hosts = table.strings("allowed-hosts").unwrap_or_default();
    let is_name = |host: &String| {
        let mut letters = host.bytes();
        !host.is_empty() && letters.all(|byte| byte.is_ascii_alphanumeric() || b"-._".contains(&byte))
    };
    if let Some(odd) = hosts.iter().find(|host| !is_name(host)) {
        let message = format!("expected names of hosts without a port, such as {example}, found '{odd}'");
        table.error("allowed-hosts", message);
    }
    hosts
}

/// No name of a host: to look one up takes as long as the resolver likes.
fn read_address(table: &Table<'_>) -> Option<IpAddr> {
    let text = table.string("listen_address")?;
    let address = text.parse().ok();
    if address.is_none() {
        table.error("listen_address", format!("expected an IP address such as 127.0.0.1, found '{text}'"));
    }
    address
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing;

    #[test]
    fn the_section_is_read_and_may_be_left_out() {
        let cases = [
            ("{}", true, "127.0.0.1:8006"),
            ("builder-webapp: {}", true, "127.0.0.1:8006"),
            ("builder-webapp: {port: 0}", true, "127.0.0.1:0"),
            ("builder-webapp: {port: '9000', listen_address: '::'}", true, "[::]:9000"),
            ("builder-webapp: {enabled: false}", false, "127.0.0.1:8006"),
            // The launcher's.
            ("webapp: {port: 9000}", true, "127.0.0.1:8006"),
        ];
        for (source, enabled, address) in cases {
            let (webapp, problems) = testing::read(source, read);
            assert_eq!((webapp.enabled, webapp.address.to_string().as_str()), (enabled, address), "{source}");
            assert!(source.starts_with("webapp") || problems.is_empty(), "{source}: {problems:?}");
        }
    }

    #[test]
    fn other_names_of_the_pages_are_a_list() {
        let source = "builder-webapp: {allowed-hosts: [builds.example.org, pages]}";
        let (webapp, problems) = testing::read(source, read);
        assert_eq!(
            (webapp.allowed_hosts, problems),
            (vec!["builds.example.org".to_owned(), "pages".to_owned()], vec![])
        );
    }

    #[test]
    fn mistakes_name_their_path() {
        let cases = [
            ("{port: 70000}", "builder-webapp.port: expected a port from 0 to 65535, found '70000'"),
            (
                "{listen_address: localhost}",
                "builder-webapp.listen_address: expected an IP address such as 127.0.0.1, found 'localhost'",
            ),
            (
                "{allowed-hosts: [a.example.org, 'b.example.org:80']}",
                "builder-webapp.allowed-hosts: expected names of hosts without a port, such as builds.example.org, \
                 found 'b.example.org:80'",
            ),
            ("{enabled: perhaps}", "builder-webapp.enabled: expected true or false, found 'perhaps'"),
            (
                "{listen-address: '::'}",
                "builder-webapp.listen-address: unknown key, did you mean 'listen_address'?",
            ),
        ];
        for (section, expected) in cases {
            assert_eq!(testing::read(&format!("builder-webapp: {section}"), read).1, [expected], "{section}");
        }
    }
}
