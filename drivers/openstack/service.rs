//! One service of a cloud: requests to it by path, and its lists page by page.

use std::collections::BTreeSet;
use std::sync::Arc;

use serde_json::Value as Json;

use super::http::{Client, Reply, Request};
use super::identity::{self, Good, Identity, ServiceKind};
use crate::api::{CallContext, Error, ErrorKind};

/// How many things are asked for at once; a server may give fewer.
const PAGE: usize = 1000;
/// No project has so many pages: whoever has more goes round in circles.
const MOST_PAGES: usize = 2000;
/// How often a list is begun again whose last page has lost its beginning.
const MOST_BEGINNINGS: usize = 3;

/// The header by which a request is refused with the status 412 if what it is about has changed.
pub(super) const IF_MATCH: &str = "If-Match";

/// A service of a cloud. A clone is the same service.
#[derive(Debug, Clone)]
pub(super) struct Service {
    pub(super) http: Arc<Client>,
    pub(super) identity: Arc<Identity>,
    kind: ServiceKind,
    /// Whether its requests wait for their turn.
    paced: bool,
    /// Sent with each request.
    header: Option<(&'static str, String)>,
}

/// What a deletion has found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Deleted {
    Now,
    NotThere,
    /// It is not what it was when it was listed, and stays.
    Changed,
}

impl Service {
    pub(super) fn new(http: Arc<Client>, identity: Arc<Identity>, kind: ServiceKind) -> Self {
        Self { http, identity, kind, paced: true, header: None }
    }

    /// The same service, asked without waiting for a turn: to take back what must not stay.
    pub(super) fn unpaced(&self) -> Self {
        Self { paced: false, ..self.clone() }
    }

    /// The same service, told this with each request.
    pub(super) fn with_header(&self, name: &'static str, value: String) -> Self {
        Self { header: Some((name, value)), ..self.clone() }
    }

    /// Whether the cloud has it.
    pub(super) fn is_there(&self, call: &CallContext) -> Result<bool, Error> {
        self.identity.has(call, self.kind)
    }

    /// The project that we are in, as its token says.
    pub(super) fn project(&self, call: &CallContext) -> Result<Option<String>, Error> {
        Ok(self.identity.session(call, Good::Now)?.project.clone())
    }

    /// Where it is, with the version that is spoken and without a slash at its end.
    pub(super) fn endpoint(&self, call: &CallContext) -> Result<String, Error> {
        self.identity.endpoint(call, self.kind)
    }

    /// The oldest and the newest microversion that it speaks; `None` if it has none.
    pub(super) fn microversions(&self, call: &CallContext) -> Result<Option<[(u32, u32); 2]>, Error> {
        let endpoint = self.endpoint(call)?;
        let mut request = Request::new("GET", format!("{}/", identity::root(&endpoint)));
        request.paced = self.paced;
        let reply = self.identity.send(call, &mut request)?;
        if reply.status == 404 {
            return Ok(None);
        }
        if !reply.is_success() {
            return Err(self.http.refused(&request, &reply));
        }
        let document = self.object(&request, &reply)?;
        if !document.get("version").is_some_and(Json::is_object) {
            let what = format!("GET {}: the answer tells no version", request.path());
            return Err(self.error(ErrorKind::Transient, what));
        }
        Ok(identity::microversions(&document))
    }

    /// A request without body.
    pub(super) fn request<'b>(
        &self,
        call: &CallContext,
        method: &'static str,
        path: &str,
    ) -> Result<Request<'b>, Error> {
        let mut request = Request::new(method, format!("{}{path}", self.endpoint(call)?));
        request.paced = self.paced;
        request.headers.extend(self.header.clone());
        Ok(request)
    }

    /// Reads something that must be there.
    pub(super) fn get(&self, call: &CallContext, path: &str) -> Result<Json, Error> {
        let mut request = self.request(call, "GET", path)?;
        let reply = self.identity.done(call, &mut request)?;
        self.object(&request, &reply)
    }

    /// Deletes something; what is not there counts as deleted.
    pub(super) fn delete(&self, call: &CallContext, path: &str) -> Result<Deleted, Error> {
        let mut request = self.request(call, "DELETE", path)?;
        let reply = self.identity.send(call, &mut request)?;
        match reply.status {
            200..=299 => Ok(Deleted::Now),
            404 | 410 => Ok(Deleted::NotThere),
            412 if self.header.as_ref().is_some_and(|(name, _)| *name == IF_MATCH) => Ok(Deleted::Changed),
            _ => Err(self.http.refused(&request, &reply)),
        }
    }

    /// The JSON object of an answer.
    pub(super) fn object(&self, request: &Request<'_>, reply: &Reply) -> Result<Json, Error> {
        reply.json().filter(Json::is_object).ok_or_else(|| {
            let what = format!(
                "{} {}: the answer is none of {}'s",
                request.method,
                request.path(),
                self.kind.project
            );
            self.error(ErrorKind::Transient, what)
        })
    }

    /// An error with the name of the cloud.
    pub(super) fn error(&self, kind: ErrorKind, what: impl AsRef<str>) -> Error {
        Error::new(kind, format!("{}: {}", self.http.whose, what.as_ref()))
    }

    /// All things of a list, which has them under `key` and each once.
    pub(super) fn list(&self, call: &CallContext, path: &str, key: &str) -> Result<Vec<Json>, Error> {
        call.stop.check()?;
        for _ in 0..MOST_BEGINNINGS {
            if let Some(items) = self.pages(call, path, key)? {
                return Ok(items);
            }
        }
        let what = format!("GET {path}: the list of {key} changes too fast to be read");
        Err(self.error(ErrorKind::Transient, what))
    }

    /// Reads a list from its beginning. `None` if the thing has gone meanwhile that a page should follow on.
    fn pages(&self, call: &CallContext, path: &str, key: &str) -> Result<Option<Vec<Json>>, Error> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let first = format!("{path}{separator}limit={PAGE}");
        let mut items = Vec::new();
        let mut ids = BTreeSet::new();
        let mut marker: Option<String> = None;
        for _ in 0..MOST_PAGES {
            let path = marker.as_ref().map_or_else(|| first.clone(), |at| format!("{first}&marker={at}"));
            let mut request = self.request(call, "GET", &path)?;
            let reply = self.identity.send(call, &mut request)?;
            if marker.is_some() && matches!(reply.status, 400 | 404) {
                return Ok(None);
            }
            if !reply.is_success() {
                return Err(self.http.refused(&request, &reply));
            }
            let mut page = self.object(&request, &reply)?;
            marker = next_of(&page, key).and_then(marker_of);
            let before = items.len();
            // An answer without it is somebody else's, and says nothing of what there is.
            let Some(Json::Array(found)) = page.get_mut(key).map(Json::take) else {
                let what = format!("GET {}: the answer has no list of {key}", request.path());
                return Err(self.error(ErrorKind::Transient, what));
            };
            // One that was added meanwhile may push another one to the next page, too.
            items.extend(found.into_iter().filter(|item| id_of(item).is_some_and(|id| ids.insert(id))));
            if marker.is_none() {
                return Ok(Some(items));
            }
            if items.len() == before {
                break;
            }
        }
        Err(self.error(ErrorKind::Transient, format!("GET {path}: the list of {key} never ends")))
    }
}

fn id_of(item: &Json) -> Option<String> {
    item.get("id")?.as_str().map(str::to_owned)
}

/// The address of the next page: `next` of Glance, `<key>_links` of the others.
fn next_of<'p>(page: &'p Json, key: &str) -> Option<&'p str> {
    let linked = || {
        let links = page.get(format!("{key}_links"))?.as_array()?;
        links.iter().find(|link| link.get("rel").and_then(Json::as_str) == Some("next"))?.get("href")
    };
    page.get("next").or_else(linked)?.as_str()
}

/// The marker in the address of a page, as it is spelled there. Only the marker is taken: the address may lack what
/// a proxy adds before it.
fn marker_of(next: &str) -> Option<String> {
    let (_, query) = next.split_once('?')?;
    let marker = query.split('&').find_map(|pair| pair.strip_prefix("marker="))?;
    let letters = |letter: u8| letter.is_ascii_alphanumeric() || b"-_.~%+".contains(&letter);
    (!marker.is_empty() && marker.bytes().all(letters)).then(|| marker.to_owned())
}

/// Whether a service could have given this id: they are UUIDs, and at some clouds other words. Whatever else there is
/// was never one, and has no place in an address.
pub(super) fn can_be_id(id: &str) -> bool {
    let letters = |letter: u8| letter.is_ascii_alphanumeric() || matches!(letter, b'-' | b'_');
    !id.is_empty() && id.len() <= 255 && id.bytes().all(letters)
}

/// What there is instead of what was looked for: some names.
pub(super) fn only<'n>(names: impl ExactSizeIterator<Item = &'n str>) -> String {
    const MOST: usize = 20;
    let all = names.len();
    let more = if all > MOST { format!(" and {} more", all - MOST) } else { String::new() };
    let names: Vec<_> = names.take(MOST).collect();
    if all == 0 { "there are none".to_owned() } else { format!("only: {}{more}", names.join(", ")) }
}

/// A text as a value in an address.
pub(super) fn encoded(text: &str) -> String {
    let mut into = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            into.push(char::from(byte));
        } else {
            into.push_str(&format!("%{byte:02X}"));
        }
    }
    into
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_next_page_is_found_in_every_form() {
        let links = json!([{"rel": "previous", "href": "http://n/?marker=a"}, {"rel": "next", "href": "http://n/?limit=1&marker=b"}]);
        for (page, expected) in [
            (json!({"next": "/v2/images?marker=c&limit=1"}), Some("c")),
            (json!({"servers_links": links.clone()}), Some("b")),
            (json!({"ports_links": links}), None),
            (
                json!({"servers_links": [{"rel": "next", "href": "http://n/?marker=m1%2Ebig+x"}]}),
                Some("m1%2Ebig+x"),
            ),
            (json!({"next": "/v2/images?marker=a b"}), None),
            (json!({"next": "/v2/images"}), None),
            (json!({}), None),
        ] {
            let found = next_of(&page, "servers").and_then(marker_of);
            assert_eq!(found.as_deref(), expected, "{page}");
        }
    }

    #[test]
    fn texts_are_spelled_for_an_address() {
        assert_eq!(encoded("Ubuntu 24.04 (é)&x"), "Ubuntu%2024.04%20%28%C3%A9%29%26x");
    }
}
