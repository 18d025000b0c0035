//! Services that end, are silent and come back.

use super::{OpenStack, Service};
use crate::support::Signal;

impl OpenStack {
    /// Ends a service by SIGKILL; what it has stored stays for [`OpenStack::restart`].
    pub fn kill(&self, service: Service) {
        self.assert_own();
        self.process(service).lock().take();
    }

    /// Makes a service silent, until [`OpenStack::thaw`]: it takes connections, and answers nothing.
    pub fn freeze(&self, service: Service) {
        self.assert_own();
        self.process(service).lock().as_mut().expect("the service was killed").freeze();
    }

    pub fn thaw(&self, service: Service) {
        self.process(service).lock().as_mut().expect("the service was killed").signal(Signal::CONT);
    }

    #[track_caller]
    fn assert_own(&self) {
        assert!(
            !self.shared,
            "these services are for all tests: start some with OpenStack::start() to stop one"
        );
    }

    /// Starts a service again (killing it first if it runs) on the same port.
    #[track_caller]
    pub fn restart(&self, service: Service) {
        self.kill(service);
        self.launch(service);
        let ready = self.wait_ready(&[service]).unwrap_or_else(|why| panic!("{why}"));
        assert!(ready, "another process took the port of the killed {}", service.name());
    }

    /// Whether somebody has asked a frozen service something: bytes that it has not read wait at its port.
    pub fn has_unread(&self, service: Service) -> bool {
        let port = format!(":{:04X}", self.port(service));
        let sockets = std::fs::read_to_string("/proc/net/tcp").unwrap();
        // Local address, remote address, state (0A: it listens), bytes to send and to read.
        sockets.lines().skip(1).any(|line| {
            let fields: Vec<_> = line.split_whitespace().collect();
            fields[1].ends_with(&port) && fields[3] != "0A" && !fields[4].ends_with(":00000000")
        })
    }
}
