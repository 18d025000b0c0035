//! A project of one test's own, so that tests can share services: its servers, addresses and quotas are nobody else's.

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::{Value, json};

use super::super::eventually;
use super::{OpenStack, Service};

/// A public key of OpenSSH; nobody has the private one.
const PUBLIC_KEY: &str =
    "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBUnJ2eZcIAd9Nu9BCNk6WfRlEvyN3mfwKzUFsuzdOL4 nodepool";

/// What is asked of the services here is asked as the administrator, in the project.
pub struct Project<'a> {
    services: &'a OpenStack,
    name: String,
    id: String,
    token: String,
}

impl OpenStack {
    /// Makes a project. Its users are those of the cloud `demo`, and its quotas the default ones, such as ten servers.
    #[track_caller]
    pub fn project(&self, name: &str) -> Project<'_> {
        let token = self.token_of("admin", "admin");
        let ask = |method, path: &str, body| self.send(Service::Keystone, &token, method, path, body);
        let body = json!({"project": {"name": name, "domain_id": "default"}});
        let made = ask("POST", "/v3/projects", Some(&body));
        let id = made["project"]["id"].as_str().expect("an id").to_owned();
        let find = |kind: &str, name: &str| {
            let found = ask("GET", &format!("/v3/{kind}?name={name}"), None);
            found[kind][0]["id"].as_str().expect("an id").to_owned()
        };
        for (user, role) in [("demo", "member"), ("admin", "admin")] {
            let (user, role) = (find("users", user), find("roles", role));
            ask("PUT", &format!("/v3/projects/{id}/users/{user}/roles/{role}"), None);
        }
        let text = std::fs::read_to_string(self.clouds()).expect("read clouds.yaml");
        let text = text.replace("project_name: demo", &format!("project_name: {name}"));
        let project =
            Project { services: self, name: name.to_owned(), id, token: self.token_of("admin", name) };
        std::fs::write(project.clouds(), text).expect("write clouds.yaml");
        project
    }
}

impl Project<'_> {
    pub fn id(&self) -> &str {
        &self.id
    }

    /// As [`OpenStack::clouds`], where the project of `demo` is this one.
    pub fn clouds(&self) -> PathBuf {
        self.services.dir().join(format!("clouds-{}.yaml", self.name))
    }

    /// The official client, for the cloud `demo` of this project.
    pub fn client(&self, args: &[&str]) -> Value {
        let mut command = self.services.command("openstack");
        command.env("OS_CLIENT_CONFIG_FILE", self.clouds()).env("OS_CLOUD", "demo");
        let output = command.args(args).args(["-f", "json"]).output().expect("start the client");
        assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    #[track_caller]
    fn send(&self, service: Service, method: &str, path: &str, body: Option<&Value>) -> Value {
        self.services.send(service, &self.token, method, path, body)
    }

    #[track_caller]
    fn list(&self, service: Service, path: &str, key: &str) -> Vec<Value> {
        let Value::Array(list) = self.send(service, "GET", path, None)[key].take() else { panic!("no list") };
        list
    }

    #[track_caller]
    fn create(&self, service: Service, path: &str, key: &str, body: &Value) -> Value {
        self.send(service, "POST", path, Some(&json!({key: body})))[key].take()
    }

    /// The servers, as Nova shows them; up to a thousand.
    #[track_caller]
    pub fn servers(&self) -> Vec<Value> {
        self.list(Service::Nova, "/v2.1/servers/detail", "servers")
    }

    #[track_caller]
    pub fn ports(&self) -> Vec<Value> {
        self.list(Service::Neutron, &format!("/v2.0/ports?project_id={}", self.id), "ports")
    }

    #[track_caller]
    pub fn floating_ips(&self) -> Vec<Value> {
        self.list(Service::Neutron, &format!("/v2.0/floatingips?project_id={}", self.id), "floatingips")
    }

    /// Waits until there are no servers, ports and floating IPs.
    #[track_caller]
    pub fn wait_empty(&self, deadline: Duration) {
        eventually(deadline, "nothing to be left in the project", || {
            let left = self.servers().len() + self.ports().len() + self.floating_ips().len();
            (left == 0).then_some(())
        });
    }

    /// Sets quotas of Nova, such as `{"instances": 3}`; -1 is unlimited.
    #[track_caller]
    pub fn set_quota(&self, quota: &Value) {
        let body = json!({"quota_set": quota});
        self.send(Service::Nova, "PUT", &format!("/v2.1/os-quota-sets/{}", self.id), Some(&body));
    }

    /// Makes a raw image from which servers can be started, and answers its id.
    #[track_caller]
    pub fn create_image(&self, name: &str) -> String {
        let body = json!({"name": name, "disk_format": "raw", "container_format": "bare"});
        let made = self.send(Service::Glance, "POST", "/v2/images", Some(&body));
        let id = made["id"].as_str().expect("an id").to_owned();
        self.services.put_image(&self.token, &id, &[0; 512]);
        id
    }

    /// Makes a server behind everybody's back, from an image, on the flavor m1.tiny and the network `private`.
    #[track_caller]
    pub fn create_server(&self, name: &str, image: &str, metadata: &Value) -> String {
        self.try_create_server(name, image, metadata).unwrap_or_else(|refusal| panic!("{refusal:?}"))
    }

    /// The same where Nova may refuse, which it does by a status and a text.
    pub fn try_create_server(
        &self,
        name: &str,
        image: &str,
        metadata: &Value,
    ) -> Result<String, (u16, String)> {
        let networks = self.list(Service::Neutron, "/v2.0/networks?name=private", "networks");
        let body = json!({"server": {
            "name": name, "imageRef": image, "flavorRef": "m1.tiny", "metadata": metadata,
            "networks": [{"uuid": networks[0]["id"]}],
        }});
        let made =
            self.services.try_send(Service::Nova, &self.token, "POST", "/v2.1/servers", Some(&body))?;
        Ok(made["server"]["id"].as_str().expect("an id").to_owned())
    }

    #[track_caller]
    pub fn delete_server(&self, id: &str) {
        self.send(Service::Nova, "DELETE", &format!("/v2.1/servers/{id}"), None);
    }

    /// Makes a network with addresses of this range, without a way outside, and answers its id.
    #[track_caller]
    pub fn create_network(&self, name: &str, range: &str) -> String {
        let network = self.create(Service::Neutron, "/v2.0/networks", "network", &json!({"name": name}));
        let subnet = json!({"name": name, "network_id": network["id"], "ip_version": 4, "cidr": range});
        self.create(Service::Neutron, "/v2.0/subnets", "subnet", &subnet);
        network["id"].as_str().expect("an id").to_owned()
    }

    /// Makes a floating IP that leads nowhere, and answers its address. `None` if somebody has deleted it meanwhile.
    #[track_caller]
    pub fn create_floating_ip(&self) -> Option<String> {
        let networks = self.list(Service::Neutron, "/v2.0/networks?name=public", "networks");
        let body = json!({"floatingip": {"floating_network_id": networks[0]["id"]}});
        let path = "/v2.0/floatingips";
        match self.services.try_send(Service::Neutron, &self.token, "POST", path, Some(&body)) {
            Ok(made) => {
                Some(made["floatingip"]["floating_ip_address"].as_str().expect("an address").to_owned())
            }
            Err((404, text)) if text.contains("PortNotFound") => None,
            Err(refusal) => panic!("{refusal:?}"),
        }
    }

    #[track_caller]
    pub fn create_security_group(&self, name: &str) -> String {
        let body = json!({"name": name});
        let made = self.create(Service::Neutron, "/v2.0/security-groups", "security_group", &body);
        made["id"].as_str().expect("an id").to_owned()
    }

    /// Makes a key pair of the user `demo`, whose key pairs all projects see.
    #[track_caller]
    pub fn create_keypair(&self, name: &str) {
        let token = self.services.token_of("demo", &self.name);
        let body = json!({"keypair": {"name": name, "public_key": PUBLIC_KEY}});
        self.services.send(Service::Nova, &token, "POST", "/v2.1/os-keypairs", Some(&body));
    }

    /// How often a service was asked in the name of this project, by requests whose line begins so, such as
    /// `GET /v2.1/servers/detail`.
    pub fn calls(&self, service: Service, request: &str) -> usize {
        let log: &Path = &self.services.log_file(service.name());
        let log = String::from_utf8_lossy(&std::fs::read(log).expect("read a log")).into_owned();
        log.matches(&format!("request of project {}: {request}", self.id)).count()
    }
}
