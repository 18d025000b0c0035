//! A scripted cloud that runs servers: Keystone, Nova, Neutron and Glance at one address, with as much memory as a
//! launch needs. What a server does is in its metadata.

use std::sync::Arc;

use nodepool_threads::Mutex;
use serde_json::{Value as Json, json};

use crate::openstack::tests::server::{Answer, Heard, Server};
use crate::openstack::tests::token;

/// The cloud's memory.
#[derive(Default)]
pub(super) struct State {
    pub(super) servers: Vec<Json>,
    pub(super) floating: Vec<Json>,
    /// Ports that are down and belong to no server here.
    pub(super) ports: Vec<Json>,
    next: u64,
}

#[derive(Clone, Default)]
pub(super) struct World(Arc<Memory>);

pub(super) struct Memory(Mutex<State>);

impl Default for Memory {
    fn default() -> Self {
        Self(Mutex::new("scripted cloud", State::default()))
    }
}

impl World {
    /// A server that first asks `other`.
    pub(super) fn start(
        &self,
        other: impl Fn(&Heard, &World) -> Option<Answer> + Send + Sync + 'static,
    ) -> Server {
        let world = self.clone();
        Server::start(move |heard| other(heard, &world).unwrap_or_else(|| world.answer(heard)))
    }

    pub(super) fn state(&self) -> nodepool_threads::MutexGuard<'_, State> {
        self.0.0.lock()
    }

    /// What a cloud answers that does everything right.
    pub(super) fn answer(&self, heard: &Heard) -> Answer {
        let mut state = self.state();
        let host = heard.header("host").unwrap_or_default();
        let path = heard.path.split('?').next().unwrap();
        let last = path.rsplit('/').next().unwrap();
        let object = |object: Json| Answer::json(200, object);
        match (heard.method.as_str(), path) {
            ("POST", "/identity/v3/auth/tokens") => token("token", &catalog(host), 3600),
            ("GET", "/compute/v2.1/") => {
                object(json!({"version": {"id": "v2.1", "min_version": "2.1", "version": "2.90"}}))
            }
            ("GET", "/compute/v2.1/flavors/detail") => object(json!({"flavors": [
                {"id": "f1", "name": "small", "ram": 1024, "vcpus": 1}, {"id": "f2", "name": "large", "ram": 8192, "vcpus": 8},
            ]})),
            ("GET", "/compute/v2.1/servers/detail") => object(json!({"servers": state.list()})),
            ("POST", "/compute/v2.1/servers") => {
                let body: Json = serde_json::from_slice(&heard.body).unwrap();
                Answer::json(202, json!({"server": {"id": state.create(&body["server"])}}))
            }
            ("DELETE", _) if path.starts_with("/compute/v2.1/servers/") => {
                let before = state.servers.len();
                state.servers.retain(|server| server["id"] != last);
                Answer::empty(if state.servers.len() < before { 204 } else { 404 })
            }
            ("GET", "/network/v2.0/networks") => object(json!({"networks": [
                {"id": "net-out", "name": "out", "router:external": true}, {"id": "net-lan", "name": "lan", "router:external": false},
            ]})),
            ("GET", "/network/v2.0/ports") => object(json!({"ports": state.ports(&heard.path)})),
            ("GET", "/network/v2.0/floatingips") => object(json!({"floatingips": state.floating})),
            ("POST", "/network/v2.0/floatingips") => {
                let body: Json = serde_json::from_slice(&heard.body).unwrap();
                Answer::json(201, json!({"floatingip": state.float(&body["floatingip"])}))
            }
            (method @ ("PUT" | "DELETE"), _) if path.starts_with("/network/v2.0/floatingips/") => {
                let Some(at) = state.floating.iter().position(|floating| floating["id"] == last) else {
                    return Answer::empty(404);
                };
                let revision = format!("revision_number={}", state.floating[at]["revision_number"]);
                if heard.header("if-match").is_some_and(|wanted| wanted != revision) {
                    return Answer::json(412, json!({"message": "Constrained to another revision"}));
                }
                let floating = state.floating.remove(at);
                if method == "DELETE" {
                    return Answer::empty(204);
                }
                let body: Json = serde_json::from_slice(&heard.body).unwrap();
                object(json!({"floatingip": state.lead(floating, &body["floatingip"])}))
            }
            ("DELETE", _) if path.starts_with("/network/v2.0/ports/") => {
                state.ports.retain(|port| port["id"] != last);
                Answer::empty(204)
            }
            _ => Answer::Reply(404, Vec::new(), format!("no such thing: {} {path}", heard.method)),
        }
    }
}

impl State {
    /// A list of the servers, each of which becomes what it shall when it has been listed as often as it shall.
    fn list(&mut self) -> Vec<Json> {
        for server in &mut self.servers {
            let wanted = |key: &str| server["metadata"][key].as_str().map(str::to_owned);
            let after: u64 = wanted("after").map_or(0, |number| number.parse().unwrap());
            let listed = server["listed"].as_u64().unwrap() + 1;
            let fault = wanted("fault");
            server["listed"] = json!(listed);
            if listed > after {
                server["status"] = json!(if fault.is_some() { "ERROR" } else { "ACTIVE" });
                if let Some(fault) = fault {
                    server["fault"] = json!({ "message": fault });
                }
            }
        }
        self.servers.clone()
    }

    pub(super) fn create(&mut self, wish: &Json) -> String {
        self.next += 1;
        let id = format!("server-{}", self.next);
        let fixed = format!("10.0.0.{}", self.next);
        self.servers.push(json!({
            "id": id, "name": wish["name"], "metadata": wish["metadata"], "status": "BUILD", "listed": 0, "hostId": "host",
            "OS-EXT-AZ:availability_zone": "zone", "OS-EXT-STS:task_state": "spawning", "flavor": {"vcpus": 1, "ram": 1024},
            "addresses": {"lan": [{"addr": fixed, "version": 4, "OS-EXT-IPS:type": "fixed"}]},
        }));
        id
    }

    /// The ports of the server in an address, or those that are down.
    fn ports(&self, path: &str) -> Vec<Json> {
        let Some((_, device)) = path.split_once("device_id=") else { return self.ports.clone() };
        let device = device.split('&').next().unwrap();
        let servers = self.servers.iter().filter(|server| server["id"] == device);
        let port = |server: &Json| {
            let fixed = &server["addresses"]["lan"][0]["addr"];
            json!({"id": format!("port-of-{device}"), "network_id": "net-lan", "device_id": device, "fixed_ips": [{"ip_address": fixed}]})
        };
        servers.map(port).collect()
    }

    fn float(&mut self, wish: &Json) -> Json {
        self.next += 1;
        let floating = json!({
            "id": format!("floating-{}", self.next), "floating_ip_address": format!("203.0.113.{}", self.next),
            "floating_network_id": wish["floating_network_id"], "revision_number": 0,
        });
        self.lead(floating, wish)
    }

    /// Has a floating IP lead to a port.
    fn lead(&mut self, mut floating: Json, wish: &Json) -> Json {
        let server = wish["port_id"].as_str().unwrap().strip_prefix("port-of-").unwrap_or_default();
        floating["port_id"] = wish["port_id"].clone();
        floating["fixed_ip_address"] = wish["fixed_ip_address"].clone();
        floating["port_details"] = json!({ "device_id": server });
        floating["status"] = json!("ACTIVE");
        floating["revision_number"] = json!(floating["revision_number"].as_u64().unwrap() + 1);
        self.floating.push(floating.clone());
        // As Neutron does before its agent has heard of it.
        floating["status"] = json!("DOWN");
        floating
    }
}

fn catalog(host: &str) -> Json {
    let service = |kind: &str, path: &str| {
        json!({"type": kind, "name": kind, "endpoints":
        [{"interface": "public", "region": "one", "region_id": "one", "url": format!("http://{host}{path}")}]})
    };
    json!([
        service("compute", "/compute/v2.1"),
        service("network", "/network/v2.0"),
        service("image", "/image/v2")
    ])
}
