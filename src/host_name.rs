//! The name of this host, and its fully qualified form, which the system's resolver is asked for.

use std::io;
use std::net::ToSocketAddrs as _;
use std::sync::OnceLock;
use std::time::Duration;

use crossbeam_channel::{Receiver, bounded};
use nodepool_threads::{SLOW_RESOLVER, activity_within, spawn};

/// How long to wait for the system's resolver.
const RESOLVER_LIMIT: Duration = Duration::from_secs(2);

/// The host's names.
#[derive(Debug)]
pub struct HostName {
    name: String,
    full: OnceLock<String>,
    /// Where the resolver's answer arrives.
    resolved: Receiver<Option<String>>,
}

impl HostName {
    /// The host's name as it is now; its full form is asked for, and not waited for.
    pub fn look_up() -> io::Result<Self> {
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        let (tell, resolved) = bounded(1);
        let wanted = name.clone();
        let resolver = spawn("host-name", "name resolver", move || {
            let _doing = activity_within(SLOW_RESOLVER, "looking up the host's own name");
            // Nobody may be waiting any more.
            let _ = tell.send(qualify(&wanted));
        })?;
        // The system's resolver knows no deadline. It holds nothing, so nobody waits for its end.
        std::mem::forget(resolver);
        Ok(Self { name, full: OnceLock::new(), resolved })
    }

    /// As the kernel has it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The fully qualified name, or the name where the system's resolver does not know more. The first call may have to
    /// wait for that.
    pub fn full(&self) -> &str {
        self.full.get_or_init(|| {
            let answer = self.resolved.recv_timeout(RESOLVER_LIMIT).ok().flatten();
            answer.unwrap_or_else(|| self.name.clone())
        })
    }

    /// The fully qualified name, if it is known by now.
    pub fn full_by_now(&self) -> Option<&str> {
        if let Some(full) = self.full.get() {
            return Some(full);
        }
        let answer = self.resolved.try_recv().ok()?;
        Some(self.full.get_or_init(|| answer.unwrap_or_else(|| self.name.clone())))
    }
}

/// The canonical name of the host's own address.
fn qualify(hostname: &str) -> Option<String> {
    if hostname.contains('.') {
        return Some(hostname.to_owned());
    }
    let address = (hostname, 0).to_socket_addrs().ok()?.next()?.ip();
    // An address that only this machine has says nothing about its name.
    dns_lookup::lookup_addr(&address)
        .ok()
        .filter(|name| name.contains('.') && name != "localhost.localdomain")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_has_a_name_and_a_full_one() {
        let host = HostName::look_up().unwrap();
        assert!(!host.name().is_empty());
        let full = host.full().to_owned();
        assert!(!full.is_empty());
        assert_eq!(host.full_by_now(), Some(full.as_str()));
    }
}
