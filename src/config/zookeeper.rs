//! How the configuration names the ZooKeeper servers.
//!
//! `zookeeper-servers` and `zookeeper-tls` may stand in the main file or, replacing it, in the secure file;
//! both are read here. Whether servers are needed at all is not known here: `config-validate` does without.

use std::fmt;
use std::path::PathBuf;
use std::time::Duration;

use nodepool_drivers::api::Table;

const DEFAULT_PORT: u16 = 2281;
/// Longer than any server grants: its limit is twenty of its ticks by default.
const MAX_TIMEOUT: Duration = Duration::from_secs(24 * 3600);
const DEFAULT_TIMEOUT: Duration = Duration::from_secs(10);

/// Where ZooKeeper is and how it is reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ZooKeeperConfig {
    /// The servers in the order of the file; empty if the file names none.
    pub servers: Vec<Server>,
    /// The znode below which everything is, such as `/a/b`; empty for the root.
    pub chroot: String,
    /// Set if the servers are reached over TLS.
    pub tls: Option<Tls>,
    /// The session timeout.
    pub timeout: Duration,
}

/// A ZooKeeper server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// A name or an address; an IPv6 address stands without brackets.
    pub host: String,
    /// The port of its clients.
    pub port: u16,
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { host, port } = self;
        if host.contains(':') { write!(f, "[{host}]:{port}") } else { write!(f, "{host}:{port}") }
    }
}

/// What the TLS connection is made with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// The file of the client's certificate.
    pub cert: PathBuf,
    /// The file of its private key.
    pub key: PathBuf,
    /// The file of the authorities that the servers' certificates must come from.
    pub ca: PathBuf,
    /// Whether a server's certificate must be for the name that it was reached by.
    pub verify_hostname: bool,
}

/// The servers and the chroot that they have in common.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Servers {
    pub(super) servers: Vec<Server>,
    pub(super) chroot: String,
}

/// Reads `zookeeper-servers`. An empty list counts as none.
pub(super) fn read_servers(top: &Table<'_>) -> Option<Servers> {
    let mut read = Servers::default();
    let mut chroot: Option<(String, String)> = None;
    for table in top.tables("zookeeper-servers") {
        let host = table.required_string("host").map(|host| without_brackets(&host).to_owned());
        let port = read_port(&table, "port").unwrap_or(DEFAULT_PORT);
        if let Some(own) = read_chroot(&table) {
            match &chroot {
                None => chroot = Some((own, table.path().to_owned())),
                Some((first, _)) if *first == own => {}
                Some((first, at)) => table.error(
                    "chroot",
                    format!("all servers must have the same chroot, expected '{first}' as in {at}"),
                ),
            }
        }
        table.finish();
        read.servers.extend(host.map(|host| Server { host, port }));
    }
    read.chroot = chroot.map(|(chroot, _)| chroot).unwrap_or_default();
    (!read.servers.is_empty()).then_some(read)
}

fn without_brackets(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

/// A TCP port. Text is taken too: a substituted variable can stand in a file only within quotes.
pub(super) fn read_port(table: &Table<'_>, key: &'static str) -> Option<u16> {
    read_port_from(1, table, key)
}

/// The same from `least` on.
pub(super) fn read_port_from(least: u16, table: &Table<'_>, key: &'static str) -> Option<u16> {
    let text = table.text(key)?;
    match text.parse() {
        Ok(port) if port >= least => Some(port),
        _ => {
            table.error(key, format!("expected a port from {least} to 65535, found '{text}'"));
            None
        }
    }
}

/// The server's chroot as `/a/b`; `None` if it gives none or the root.
fn read_chroot(table: &Table<'_>) -> Option<String> {
    let text = table.string("chroot")?;
    let parts: Vec<_> = text.split('/').filter(|part| !part.is_empty()).collect();
    if parts.iter().any(|part| matches!(*part, "." | "..") || part.chars().any(char::is_control)) {
        table.error("chroot", "a znode's path must not have '.', '..' or control characters");
        return None;
    }
    (!parts.is_empty()).then(|| format!("/{}", parts.join("/")))
}

/// Reads `zookeeper-tls`.
pub(super) fn read_tls(top: &Table<'_>) -> Option<Tls> {
    let table = top.table("zookeeper-tls")?;
    let file = |key| table.required_string(key).map(PathBuf::from);
    let (cert, key, ca) = (file("cert"), file("key"), file("ca"));
    let verify_hostname = table.boolean("verify-hostname").unwrap_or(true);
    table.finish();
    Some(Tls { cert: cert?, key: key?, ca: ca?, verify_hostname })
}

/// Reads `zookeeper-timeout`.
pub(super) fn read_timeout(top: &Table<'_>) -> Duration {
    read_seconds(top, "zookeeper-timeout").unwrap_or(DEFAULT_TIMEOUT)
}

/// A time span in seconds, more than 0.
fn read_seconds(table: &Table<'_>, key: &'static str) -> Option<Duration> {
    let seconds = table.number(key)?;
    match Duration::try_from_secs_f64(seconds) {
        Ok(span) if span > MAX_TIMEOUT => {
            table.error(key, format!("expected at most {} seconds, found {seconds}", MAX_TIMEOUT.as_secs()));
            None
        }
        Ok(span) if !span.is_zero() => Some(span),
        Ok(_) => {
            table.error(key, "expected a time in seconds that is more than 0, found 0");
            None
        }
        Err(_) => {
            table.error(key, format!("{seconds} seconds is too long a time"));
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::testing::read;

    fn server(host: &str, port: u16) -> Server {
        Server { host: host.to_owned(), port }
    }

    #[test]
    fn servers_are_read_with_defaults_and_a_normal_chroot() {
        let cases = [
            ("zookeeper-servers: [{host: zk01}]", vec![server("zk01", 2281)], ""),
            ("zookeeper-servers: [{host: '::1', port: 2181, chroot: /}]", vec![server("::1", 2181)], ""),
            ("zookeeper-servers: [{host: '[::1]', port: '2181', chroot: ''}]", vec![server("::1", 2181)], ""),
            (
                "zookeeper-servers: [{host: a}, {host: b, chroot: a//b/}, {host: c, chroot: /a/b}]",
                vec![server("a", 2281), server("b", 2281), server("c", 2281)],
                "/a/b",
            ),
        ];
        for (source, servers, chroot) in cases {
            let expected = Servers { servers, chroot: chroot.to_owned() };
            assert_eq!(read(source, read_servers), (Some(expected), vec![]), "{source}");
        }
        for source in ["zookeeper-servers: []", "zookeeper-servers:", "a: 1"] {
            assert_eq!(read(source, read_servers), (None, vec![]), "{source}");
        }
    }

    #[test]
    fn mistakes_in_servers_are_named() {
        let cases = [
            ("zookeeper-servers: zk01", "zookeeper-servers: expected a list, found 'zk01'"),
            ("zookeeper-servers: [zk01]", "zookeeper-servers[0]: expected a mapping, found a string"),
            ("zookeeper-servers: [{port: 1}]", "zookeeper-servers[0]: the required key 'host' is missing"),
            ("zookeeper-servers: [{host: ''}]", "zookeeper-servers[0].host: must not be empty"),
            (
                "zookeeper-servers: [{host: a, port: 0}]",
                "zookeeper-servers[0].port: expected a port from 1 to 65535, found '0'",
            ),
            (
                "zookeeper-servers: [{host: a, port: none}]",
                "zookeeper-servers[0].port: expected a port from 1 to 65535, found 'none'",
            ),
            (
                "zookeeper-servers: [{host: a, chroot: /a}, {host: b, chroot: /b}]",
                "zookeeper-servers[1].chroot: all servers must have the same chroot, expected '/a' as in \
                 zookeeper-servers[0]",
            ),
            (
                "zookeeper-servers: [{host: a, chroot: /a/../b}]",
                "zookeeper-servers[0].chroot: a znode's path must not have '.', '..' or control characters",
            ),
            (
                "zookeeper-servers: [{host: a, prot: 1}]",
                "zookeeper-servers[0].prot: unknown key, did you mean 'port'?",
            ),
        ];
        for (source, expected) in cases {
            assert_eq!(read(source, read_servers).1, [expected], "{source}");
        }
    }

    #[test]
    fn tls_needs_all_three_files_if_it_is_there() {
        let tls = |verify_hostname| {
            Some(Tls { cert: "c".into(), key: "k".into(), ca: "a".into(), verify_hostname })
        };
        assert_eq!(read("zookeeper-tls: {cert: c, key: k, ca: a}", read_tls), (tls(true), vec![]));
        let off = "zookeeper-tls: {cert: c, key: k, ca: a, verify-hostname: false}";
        assert_eq!(read(off, read_tls), (tls(false), vec![]));
        assert_eq!(read("zookeeper-tls:", read_tls), (None, vec![]));
        let missing = |key| format!("zookeeper-tls: the required key '{key}' is missing");
        assert_eq!(read("zookeeper-tls: {}", read_tls), (None, ["cert", "key", "ca"].map(missing).into()));
        assert_eq!(read("zookeeper-tls: {cert: c, ca: a}", read_tls), (None, vec![missing("key")]));
        let empty = "zookeeper-tls: {cert: c, key: '', ca: a}";
        assert_eq!(read(empty, read_tls).1, ["zookeeper-tls.key: must not be empty"]);
        assert_eq!(
            read("zookeeper-tls: 5", read_tls).1,
            ["zookeeper-tls: expected a mapping, found a whole number"]
        );
    }

    #[test]
    fn the_timeout_is_a_positive_time() {
        let cases = [
            ("zookeeper-timeout: 2.5", Duration::from_millis(2500), None),
            ("zookeeper-timeout: 30", Duration::from_secs(30), None),
            ("a: 1", DEFAULT_TIMEOUT, None),
            (
                "zookeeper-timeout: 0",
                DEFAULT_TIMEOUT,
                Some("zookeeper-timeout: expected a time in seconds that is more than 0, found 0"),
            ),
            (
                "zookeeper-timeout: -1",
                DEFAULT_TIMEOUT,
                Some("zookeeper-timeout: expected a number of at least 0, found -1"),
            ),
            (
                "zookeeper-timeout: 1.0e+30",
                DEFAULT_TIMEOUT,
                Some("zookeeper-timeout: 1000000000000000000000000000000 seconds is too long a time"),
            ),
        ];
        for (source, expected, problem) in cases {
            let problems: Vec<_> = problem.into_iter().map(str::to_owned).collect();
            assert_eq!(read(source, read_timeout), (expected, problems), "{source}");
        }
    }
}
