//! The name of this host, and its fully qualified form, which the system's resolver is asked for.

use std::convert::Infallible;
use std::io;
use std::net::ToSocketAddrs as _;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, bounded};
use nodepool_threads::{SLOW_RESOLVER, activity_within, spawn};

/// How long to wait for the system's resolver.
const RESOLVER_LIMIT: Duration = Duration::from_secs(2);

/// The host's names.
#[derive(Debug)]
pub struct HostName {
    name: String,
    /// The resolver's answer, however late it comes.
    full: Arc<OnceLock<String>>,
    /// Disconnected once that is there.
    answered: Receiver<Infallible>,
    /// Until when the answer is waited for.
    patience: Instant,
}

impl HostName {
    /// The host's name as it is now; its full form is asked for, and not waited for.
    pub fn look_up() -> io::Result<Self> {
        let name = rustix::system::uname().nodename().to_string_lossy().into_owned();
        Self::ask(name, RESOLVER_LIMIT, qualify)
    }

    fn ask(
        name: String,
        limit: Duration,
        qualify: impl FnOnce(&str) -> Option<String> + Send + 'static,
    ) -> io::Result<Self> {
        let (tell, answered) = bounded(0);
        let full = Arc::new(OnceLock::new());
        let (wanted, answer) = (name.clone(), Arc::clone(&full));
        let resolver = spawn("host-name", "name resolver", move || {
            let _doing = activity_within(SLOW_RESOLVER, "looking up the host's own name");
            let _ = answer.set(qualify(&wanted).unwrap_or(wanted));
            drop(tell);
        })?;
        // The system's resolver knows no deadline. It holds nothing, so nobody waits for its end.
        resolver.detach();
        Ok(Self { name, full, answered, patience: Instant::now() + limit })
    }

    /// As the kernel has it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The fully qualified name, or the name where the system's resolver does not know more, or has not answered yet.
    /// Who asks early may have to wait for that.
    pub fn full(&self) -> &str {
        let _ = self.answered.recv_deadline(self.patience);
        self.full_by_now().unwrap_or(&self.name)
    }

    /// The fully qualified name, if it is known by now.
    pub fn full_by_now(&self) -> Option<&str> {
        self.full.get().map(String::as_str)
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
        assert!(host.full().starts_with(|first: char| first.is_ascii_alphanumeric()), "{}", host.full());
    }

    #[test]
    fn an_answer_that_comes_late_counts_from_then_on() {
        let (tell, told) = bounded::<String>(1);
        let host = HostName::ask("host".to_owned(), Duration::ZERO, move |_| told.recv().ok()).unwrap();
        assert_eq!((host.full(), host.full_by_now()), ("host", None));
        tell.send("host.example.org".to_owned()).unwrap();
        assert!(host.answered.recv_timeout(Duration::from_secs(10)).is_err());
        assert_eq!(host.full(), "host.example.org");
    }
}
