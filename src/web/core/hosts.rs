//! By which names a page is shown.
//!
//! A page of a foreign site may have the name of that site point to this machine, and then read from here
//! through its visitor's browser what that one may see ("DNS rebinding"). What gives it away is the name,
//! which the browser sends along. An address is no name of a site's.
//!
//! That holds wherever the pages are served: what is reached in here by a foreign page is reached from the visitor's
//! machine, so a server that listens everywhere behind a firewall needs it as much as one on the loopback.

use std::net::{IpAddr, Ipv6Addr};

/// Whether the `Host` of a request is one of ours: an address, one of this machine's names with its short form, or one
/// that is allowed. Only programs send none.
pub(in crate::web) fn is_ours(host: Option<&str>, host_names: &[&str], allowed: &[String]) -> bool {
    let Some(host) = host else { return true };
    let name = without_port(host).trim_end_matches('.');
    if let Some(address) = name.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
        return address.parse::<Ipv6Addr>().is_ok();
    }
    let short = host_names.iter().filter_map(|name| name.split('.').next());
    let own = std::iter::once("localhost").chain(host_names.iter().copied()).chain(short);
    let mut names = own.chain(allowed.iter().map(String::as_str)).filter(|ours| !ours.is_empty());
    name.parse::<IpAddr>().is_ok() || names.any(|ours| name.eq_ignore_ascii_case(ours))
}

fn without_port(host: &str) -> &str {
    match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|byte| byte.is_ascii_digit()) => name,
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_and_names_of_ours_are_known_and_those_of_others_are_not() {
        let allowed = ["builds.example.org".to_owned()];
        for (host, ours) in [
            (None, true),
            (Some("127.0.0.1:8006"), true),
            (Some("192.0.2.7"), true),
            (Some("[::1]:8006"), true),
            (Some("[::1]"), true),
            (Some("localhost:8006"), true),
            (Some("LocalHost."), true),
            (Some("builder1:8006"), true),
            (Some("builder1.example.org"), true),
            (Some("Builds.Example.org:443"), true),
            (Some("builder1.example.com"), false),
            (Some("evil.example.com:8006"), false),
            (Some("localhost.example.com"), false),
            (Some("127.0.0.1.example.com:8006"), false),
            (Some("x.builds.example.org"), false),
            (Some("[::1].example.com"), false),
            (Some("[evil]"), false),
            (Some(""), false),
            (Some(":8006"), false),
        ] {
            assert_eq!(is_ours(host, &["builder1.example.org"], &allowed), ours, "{host:?}");
        }
        // A machine without a name is no reason for anything.
        assert!(!is_ours(Some(""), &[""], &[]));
        // The kernel may have the short name only, and the resolver the other.
        assert!(is_ours(Some("builder1.example.org"), &["builder1", "builder1.example.org"], &[]));
    }
}
