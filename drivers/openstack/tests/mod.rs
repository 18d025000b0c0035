//! The driver against a scripted cloud: everything that real services do on bad days only.

mod config;
mod images;
mod nodes;
mod robust;
mod server;
mod tls;
mod tokens;

use std::sync::Arc;

use serde_json::{Value as Json, json};

use super::clouds::Search;
use super::config::OpenStackConfig;
use super::*;
use crate::testing::{self, Scratch};
use server::{Answer, Heard, Server};

/// A cloud that does everything right, at one address: Keystone below `/identity`, Glance below `/image`.
fn right(heard: &Heard) -> Answer {
    let path = heard.path.as_str();
    let host = heard.header("host").unwrap_or_default();
    let image = |id: &str| json!({"id": id, "name": "n", "status": "active", "checksum": null});
    match (heard.method.as_str(), path) {
        ("POST", "/identity/v3/auth/tokens") => token(&format!("token-{}", heard.nth), &catalog(host), 3600),
        ("GET", "/image/") => Answer::json(
            300,
            json!({"versions": [
                {"id": "v2.16", "status": "CURRENT", "links": [{"rel": "self", "href": "http://inside:9292/v2/"}]},
            ]}),
        ),
        ("POST", "/image/v2/images") => Answer::json(201, image(&id_in(heard))),
        ("GET", "/image/v2/images?limit=1000") => Answer::json(200, json!({"images": []})),
        ("GET", _) if path.starts_with("/image/v2/images/") => {
            Answer::json(200, image(path.rsplit('/').next().unwrap()))
        }
        ("PUT" | "DELETE", _) if path.starts_with("/image/v2/images/") => Answer::empty(204),
        _ => Answer::Reply(404, Vec::new(), format!("no such thing: {} {path}", heard.method)),
    }
}

/// The id in the body of a creation.
fn id_in(heard: &Heard) -> String {
    let body: Json = serde_json::from_slice(&heard.body).unwrap();
    body["id"].as_str().unwrap().to_owned()
}

fn catalog(host: &str) -> Json {
    json!([{"type": "image", "name": "glance", "endpoints":
        [{"interface": "public", "region": "one", "region_id": "one", "url": format!("http://{host}/image")}]}])
}

/// A new token that is good for `life` seconds.
fn token(token: &str, catalog: &Json, life: u64) -> Answer {
    let expires = format!("2026-01-01T{:02}:{:02}:{:02}.000000Z", life / 3600, life / 60 % 60, life % 60);
    let body = json!({"token": {"issued_at": "2026-01-01T00:00:00.000000Z", "expires_at": expires, "catalog": catalog,
        "project": {"id": "project-1"}}});
    Answer::Reply(201, vec![("X-Subject-Token", token.to_owned())], body.to_string())
}

/// A provider of the cloud at `server`; `keys` are further ones of the cloud.
struct Fixture {
    scratch: Scratch,
    provider: Arc<dyn Provider>,
}

impl Fixture {
    fn new(server: &Server, keys: &str) -> Self {
        Self::of(&format!("http://{}/identity/v3", server.address), keys)
    }

    fn of(auth_url: &str, keys: &str) -> Self {
        let scratch = Scratch::new();
        let provider = config(&scratch, auth_url, keys).open(&testing::logger()).unwrap();
        Self { scratch, provider }
    }

    fn images(&self) -> &dyn Images {
        self.provider.images().unwrap()
    }

    /// An image with a file of so many bytes.
    fn image(&self, size: u64) -> ImageUpload {
        let file = self.scratch.path().join("image.raw");
        std::fs::File::create(&file).unwrap().set_len(size).unwrap();
        ImageUpload {
            name: "debian-1700000000".to_owned(),
            file,
            format: "raw".to_owned(),
            md5: None,
            sha256: None,
            properties: [("nodepool_build_id".to_owned(), "b".to_owned())].into(),
            progress: Default::default(),
        }
    }

    fn list(&self) -> Result<Vec<StoredImage>, Error> {
        let (_source, call) = testing::unstopped();
        self.images().list(&call)
    }

    fn upload(&self, image: &ImageUpload) -> Result<String, Error> {
        let (_source, call) = testing::unstopped();
        self.images().upload(&call, image)
    }

    fn delete(&self, id: &str) -> Result<(), Error> {
        let (_source, call) = testing::unstopped();
        self.images().delete(&call, id)
    }
}

/// A section with the cloud `c`, which has `keys` besides its `auth`.
fn config(scratch: &Scratch, auth_url: &str, keys: &str) -> OpenStackConfig {
    let cloud = format!(
        "clouds: {{c: {{auth: {{auth_url: '{auth_url}', user_id: u, password: s3cret, project_id: p}}{keys}}}}}"
    );
    std::fs::write(scratch.path().join("clouds.yaml"), cloud).unwrap();
    let section = json!({"name": "p", "cloud": "c", "rate": 0});
    let (config, mut problems) = read(scratch, section);
    problems.retain(|problem| !problem.contains(": warning: "));
    assert_eq!(problems, [""; 0]);
    config.unwrap()
}

/// Reads a section with the `clouds.yaml` of `scratch`.
fn read(scratch: &Scratch, section: Json) -> (Option<OpenStackConfig>, Vec<String>) {
    let search = Search::of_directory(scratch.path());
    testing::read(section, |table| OpenStackConfig::read(table, "openstack", &search))
}
