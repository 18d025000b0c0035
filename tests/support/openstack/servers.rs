//! The services that run servers, beside Keystone and Glance: Placement, Neutron, Nova, if asked Cinder.
//!
//! They start side by side, and find each other without the catalogue; it names them once they serve.

use serde_json::json;

use super::{OpenStack, Options, Service, jvm};

/// The order of their ports, and of their start: what takes longest begins first.
const SERVICES: [Service; 4] = [Service::Nova, Service::Neutron, Service::Placement, Service::Cinder];

impl OpenStack {
    /// Services of the test's own that run servers; all serve when this returns.
    #[track_caller]
    pub fn with_servers() -> OpenStack {
        OpenStack::start_with(Options { servers: true, ..Options::default() })
    }

    /// The port of a service that has been started.
    #[track_caller]
    pub fn port(&self, service: Service) -> u16 {
        match service {
            Service::Keystone => self.keystone_port(),
            Service::Glance => self.glance_port(),
            _ => {
                let ports = self.server_ports.lock().expect("services that run servers have been started");
                ports[SERVICES.iter().position(|&one| one == service).expect("one of them")]
            }
        }
    }

    fn server_services(&self) -> &'static [Service] {
        if self.options.volumes { &SERVICES } else { &SERVICES[..3] }
    }

    /// Adds those that run servers to services that serve already.
    pub(super) fn add_servers(&self) -> Result<(), String> {
        for _ in 0..10 {
            self.launch_servers()?;
            if self.wait_servers()? {
                return Ok(());
            }
            for &service in self.server_services() {
                self.process(service).lock().take();
            }
        }
        Err("ten times another process took the ports chosen for OpenStack's services".to_owned())
    }

    pub(super) fn launch_servers(&self) -> Result<(), String> {
        let ports: [u16; 4] = jvm::free_ports();
        let name =
            |(service, port): (&Service, u16)| format!("{}_PORT={port}", service.name().to_uppercase());
        let values: Vec<_> = SERVICES.iter().zip(ports).map(name).collect();
        self.run_place(&["--servers"], &values)?;
        *self.server_ports.lock() = Some(ports);
        for &service in self.server_services() {
            self.launch(service);
        }
        Ok(())
    }

    /// Waits until they serve, and puts them into the catalogue; `false` when a port is taken.
    pub(super) fn wait_servers(&self) -> Result<bool, String> {
        if !self.wait_ready(self.server_services())? {
            return Ok(false);
        }
        let token = self.token_of("admin", "admin");
        let send = |path, body| self.send(Service::Keystone, &token, "POST", path, Some(&body));
        for &service in self.server_services() {
            let (kind, path) = match service {
                Service::Placement => ("placement", ""),
                Service::Neutron => ("network", ""),
                Service::Nova => ("compute", "/v2.1"),
                _ => ("block-storage", "/v3"),
            };
            let made = send("/v3/services", json!({"service": {"name": service.name(), "type": kind}}));
            let url = format!("http://127.0.0.1:{}{path}", self.port(service));
            for interface in ["public", "internal", "admin"] {
                let endpoint = json!({
                    "service_id": made["service"]["id"], "interface": interface, "url": url,
                    "region_id": "RegionOne",
                });
                send("/v3/endpoints", json!({"endpoint": endpoint}));
            }
        }
        Ok(true)
    }
}
