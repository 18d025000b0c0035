//! What the services say when they are asked directly, as the administrator.

use std::fs::File;
use std::io::{BufRead, BufReader, Error, Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::Path;
use std::time::Duration;

use serde_json::{Value, json};

use super::{OpenStack, Service};

/// For an answer of a service that starts, or whose machine is busy.
const LIMIT: Duration = Duration::from_secs(60);

/// An answer but for its body.
struct Head {
    status: u16,
    /// As they came, without the status line.
    fields: Vec<String>,
}

impl Head {
    fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find_map(|line| {
            let (found, value) = line.split_once(':')?;
            found.eq_ignore_ascii_case(name).then_some(value.trim())
        })
    }
}

/// The requests are HTTP/1.0: the answer ends with the connection, and comes in no chunks.
fn request(
    port: u16,
    method: &str,
    path: &str,
    token: &str,
    body: Option<&Value>,
) -> std::io::Result<(Head, BufReader<TcpStream>)> {
    let body = body.map(Value::to_string).unwrap_or_default();
    request_with(port, method, path, token, "application/json", body.as_bytes())
}

fn request_with(
    port: u16,
    method: &str,
    path: &str,
    token: &str,
    kind: &str,
    body: &[u8],
) -> std::io::Result<(Head, BufReader<TcpStream>)> {
    let mut stream = TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, port).into(), LIMIT)?;
    stream.set_read_timeout(Some(LIMIT))?;
    stream.set_write_timeout(Some(LIMIT))?;
    let mut text =
        format!("{method} {path} HTTP/1.0\r\nHost: localhost\r\nContent-Length: {}\r\n", body.len());
    if !token.is_empty() {
        text += &format!("X-Auth-Token: {token}\r\n");
    }
    text += &format!("Content-Type: {kind}\r\n\r\n");
    stream.write_all(&[text.as_bytes(), body].concat())?;
    let mut reader = BufReader::new(stream);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? == 0 {
            return Err(Error::other("the connection ended within the head of an answer"));
        }
        if line.trim().is_empty() {
            break;
        }
        lines.push(line.trim().to_owned());
    }
    let status = lines.first().and_then(|line| line.split(' ').nth(1)?.parse().ok());
    let status = status.ok_or_else(|| Error::other(format!("no status: {lines:?}")))?;
    Ok((Head { status, fields: lines.split_off(1) }, reader))
}

fn call(port: u16, method: &str, path: &str, token: &str, body: Option<&Value>) -> std::io::Result<Answer> {
    let (head, mut reader) = request(port, method, path, token, body)?;
    let mut text = String::new();
    reader.read_to_string(&mut text)?;
    Ok(Answer { head, text })
}

struct Answer {
    head: Head,
    text: String,
}

impl Answer {
    #[track_caller]
    fn json(&self, status: u16) -> Value {
        assert_eq!(self.head.status, status, "{}", self.text);
        if self.text.is_empty() { Value::Null } else { serde_json::from_str(&self.text).expect("JSON") }
    }
}

impl OpenStack {
    /// Whether a service answers: Keystone gives a token, and the others take it. Their first answers take long, and
    /// are had here instead of in a test's time limits.
    pub(super) fn serves(&self, service: Service) -> std::io::Result<bool> {
        let answer = self.log_in("demo", "demo-password", "demo")?;
        let Some(token) = answer.head.field("X-Subject-Token") else { return Ok(false) };
        let path = match service {
            Service::Keystone => return Ok(true),
            Service::Glance => "/v2/images",
            // It speaks to administrators only.
            Service::Placement => "/",
            Service::Neutron => "/v2.0/networks",
            Service::Nova => "/v2.1/servers",
            Service::Cinder => "/v3/limits",
        };
        Ok(call(self.port(service), "GET", path, token, None)?.head.status == 200)
    }

    /// A token of this user in this project.
    #[track_caller]
    pub(super) fn token_of(&self, user: &str, project: &str) -> String {
        let answer =
            self.log_in(user, &format!("{user}-password"), project).expect("ask Keystone for a token");
        answer.head.field("X-Subject-Token").unwrap_or_else(|| panic!("no token: {}", answer.text)).to_owned()
    }

    /// Sends a service what must succeed.
    #[track_caller]
    pub(super) fn send(
        &self,
        service: Service,
        token: &str,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Value {
        self.try_send(service, token, method, path, body)
            .unwrap_or_else(|(status, text)| panic!("{method} {path} to {service:?}: {status} {text}"))
    }

    /// Sends a service what it may refuse by a status and a text.
    #[track_caller]
    pub(super) fn try_send(
        &self,
        service: Service,
        token: &str,
        method: &str,
        path: &str,
        body: Option<&Value>,
    ) -> Result<Value, (u16, String)> {
        let answer = call(self.port(service), method, path, token, body)
            .unwrap_or_else(|error| panic!("{method} {path} to {service:?}: {error}"));
        let status = answer.head.status;
        if (200..300).contains(&status) { Ok(answer.json(status)) } else { Err((status, answer.text)) }
    }

    /// Puts content into an image.
    #[track_caller]
    pub(super) fn put_image(&self, token: &str, id: &str, content: &[u8]) {
        let path = format!("/v2/images/{id}/file");
        let kind = "application/octet-stream";
        let (head, _) =
            request_with(self.glance_port(), "PUT", &path, token, kind, content).expect("put an image");
        assert_eq!(head.status, 204);
    }

    fn log_in(&self, user: &str, password: &str, project: &str) -> std::io::Result<Answer> {
        let domain = json!({"id": "default"});
        let user = json!({"name": user, "password": password, "domain": domain});
        let body = json!({"auth": {
            "identity": {"methods": ["password"], "password": {"user": user}},
            "scope": {"project": {"name": project, "domain": domain}},
        }});
        call(self.keystone_port(), "POST", "/v3/auth/tokens", "", Some(&body))
    }

    /// Asks Glance as the administrator, in the project that the tests use. The token is kept for the next time.
    #[track_caller]
    fn glance(&self, method: &str, path: &str, body: Option<&Value>) -> (Head, BufReader<TcpStream>) {
        for _ in 0..2 {
            let token = self.admin_token.lock().take().unwrap_or_else(|| self.admin());
            let (head, reader) = request(self.glance_port(), method, path, &token, body)
                .unwrap_or_else(|error| panic!("{method} {path}: {error}"));
            if head.status != 401 {
                *self.admin_token.lock() = Some(token);
                return (head, reader);
            }
        }
        panic!("Glance does not take a new token")
    }

    /// The same where the answer is text.
    #[track_caller]
    fn glance_json(&self, method: &str, path: &str, body: Option<&Value>, status: u16) -> Value {
        let (head, mut reader) = self.glance(method, path, body);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap_or_else(|error| panic!("{method} {path}: {error}"));
        Answer { head, text }.json(status)
    }

    #[track_caller]
    fn admin(&self) -> String {
        self.token_of("admin", "demo")
    }

    /// A token of the user `demo`.
    #[track_caller]
    pub fn token(&self) -> String {
        self.token_of("demo", "demo")
    }

    /// Whether Glance takes a token.
    #[track_caller]
    pub fn is_good(&self, token: &str) -> bool {
        let answer = call(self.glance_port(), "GET", "/v2/images?limit=1", token, None);
        answer.expect("ask Glance for an image").head.status == 200
    }

    /// All images whose names begin so, as Glance shows them.
    #[track_caller]
    pub fn images(&self, prefix: &str) -> Vec<Value> {
        let mut answer = self.glance_json("GET", "/v2/images?limit=1000", None, 200);
        let Value::Array(mut images) = answer["images"].take() else { panic!("no list: {answer}") };
        images.retain(|image| image["name"].as_str().is_some_and(|name| name.starts_with(prefix)));
        images
    }

    /// The states of the images whose names begin so.
    #[track_caller]
    pub fn image_states(&self, prefix: &str) -> Vec<String> {
        let state = |image: &Value| image["status"].as_str().unwrap_or_default().to_owned();
        self.images(prefix).iter().map(state).collect()
    }

    /// What Glance has of an image, written to a file.
    #[track_caller]
    pub fn download(&self, id: &str, file: &Path) {
        let (head, mut body) = self.glance("GET", &format!("/v2/images/{id}/file"), None);
        assert_eq!(head.status, 200);
        let length: u64 =
            head.field("Content-Length").and_then(|field| field.parse().ok()).expect("a length");
        let mut file = File::create(file).expect("create the file of a download");
        assert_eq!(std::io::copy(&mut body, &mut file).expect("download an image"), length);
    }

    /// Deletes an image behind everybody's back.
    #[track_caller]
    pub fn delete_image(&self, id: &str) {
        self.glance_json("DELETE", &format!("/v2/images/{id}"), None, 204);
    }

    /// Makes an image without content, as somebody else's client might.
    #[track_caller]
    pub fn create_image(&self, name: &str, more: &Value) -> String {
        let mut body = json!({"name": name, "disk_format": "raw", "container_format": "bare"});
        for (key, value) in more.as_object().into_iter().flatten() {
            body[key] = value.clone();
        }
        self.glance_json("POST", "/v2/images", Some(&body), 201)["id"].as_str().expect("an id").to_owned()
    }

    /// Makes all tokens of the user `demo` invalid: the same password again counts as a new one.
    #[track_caller]
    pub fn revoke_tokens(&self) {
        let admin = self.log_in("admin", "admin-password", "admin").expect("ask Keystone for a token");
        let token = admin.head.field("X-Subject-Token").expect("a token");
        let get = call(self.keystone_port(), "GET", "/v3/users?name=demo", token, None);
        let user = get.expect("ask Keystone for a user").json(200)["users"][0]["id"].take();
        let path = format!("/v3/users/{}", user.as_str().expect("an id"));
        let body = json!({"user": {"password": "demo-password"}});
        let set = call(self.keystone_port(), "PATCH", &path, token, Some(&body));
        set.expect("ask Keystone to change a password").json(200);
    }
}
