//! Versions of a service: an address with one is taken as it is, any other is asked which there are.
//!
//! The addresses in a document of versions are often those of a machine behind a proxy. So an address that is
//! not at the server that was asked only tells the version, which is then sought below the one that was asked.

use serde_json::Value as Json;

use crate::api::{CallContext, Error};
use crate::openstack::http::{Client, Origin, Request};

/// The address with version `major`, without a slash at its end.
pub(super) fn versioned(http: &Client, call: &CallContext, url: &str, major: u32) -> Result<String, Error> {
    let url = url.trim_end_matches('/');
    let base = match version_in_path(url) {
        Some((found, _)) if found == major => return Ok(url.to_owned()),
        // Such as a Keystone of old, /v2.0: there may be the right one beside it.
        Some((_, at)) => url[..at].trim_end_matches('/'),
        None => url,
    };
    let mut request = Request::new("GET", format!("{base}/"));
    request.paced = false;
    let reply = http.send(call, &mut request)?;
    let found = reply.json().as_ref().and_then(|document| best(document, major));
    Ok(match found {
        Some(href) => at_home(base, &href, major),
        None if reply.status >= 500 => return Err(http.refused(&request, &reply)),
        // Who does not tell may have it nevertheless.
        None => format!("{base}/v{major}"),
    })
}

/// The major version in an address, and where that begins.
fn version_in_path(url: &str) -> Option<(u32, usize)> {
    let path_at = url.find("://").map(|at| at + 3)?;
    let mut at = path_at;
    let mut found = None;
    for (index, segment) in url[path_at..].split('/').enumerate() {
        if index > 0 {
            found = major_of(segment).map(|major| (major, at)).or(found);
        }
        at += segment.len() + 1;
    }
    found
}

/// An address up to its version.
pub(in crate::openstack) fn root(url: &str) -> &str {
    let Some((_, at)) = version_in_path(url) else { return url };
    let end = url[at..].find('/').map_or(url.len(), |length| at + length);
    &url[..end]
}

/// The oldest and the newest microversion that a service speaks, by its own document; `None` if it has none.
pub(in crate::openstack) fn microversions(document: &Json) -> Option<[(u32, u32); 2]> {
    let number = |key: &str| {
        let text = document.get("version")?.get(key)?.as_str()?;
        let (major, minor) = text.split_once('.')?;
        Some((major.parse().ok()?, minor.parse().ok()?))
    };
    Some([number("min_version")?, number("version")?])
}

/// The major version that `v2`, `v2.16` or `V3` names.
fn major_of(text: &str) -> Option<u32> {
    version_of(text).map(|(major, _)| major)
}

fn version_of(text: &str) -> Option<(u32, u32)> {
    let numbers = text.strip_prefix(['v', 'V'])?;
    let (major, minor) = numbers.split_once('.').unwrap_or((numbers, "0"));
    Some((major.parse().ok()?, minor.parse().ok()?))
}

/// The address of the newest version of `major` in a document: `{"versions": {"values": […]}}` of Keystone,
/// `{"versions": […]}` of the others, `{"version": {…}}` of a single one.
fn best(document: &Json, major: u32) -> Option<String> {
    let versions = document.get("versions").map(|versions| versions.get("values").unwrap_or(versions));
    let single = document.get("version").cloned().map(|version| Json::Array(vec![version]));
    let versions = versions.or(single.as_ref())?.as_array()?;
    let found = versions.iter().filter_map(|version| {
        let id = version_of(version.get("id")?.as_str()?).filter(|(found, _)| *found == major)?;
        let links = version.get("links")?.as_array()?;
        let of_itself = links.iter().find(|link| link.get("rel").and_then(Json::as_str) == Some("self"))?;
        Some((id, of_itself.get("href")?.as_str()?.to_owned()))
    });
    found.max_by_key(|(id, _)| *id).map(|(_, href)| href)
}

/// The address in a document, or the same version below `base` if that is at another server.
fn at_home(base: &str, href: &str, major: u32) -> String {
    let href = href.trim_end_matches('/');
    if Origin::of(base) == Origin::of(href) && version_in_path(href).is_some_and(|(found, _)| found == major)
    {
        return href.to_owned();
    }
    let last = href.rsplit('/').next().filter(|last| major_of(last) == Some(major));
    format!("{base}/{}", last.map_or_else(|| format!("v{major}"), str::to_owned))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn versions_are_seen_in_addresses() {
        for (url, expected) in [
            ("http://k:5000/v3", Some(3)),
            ("https://c/identity/v3", Some(3)),
            ("https://n/v2.1/0123abc", Some(2)),
            ("https://g/image", None),
            ("https://v2.example.com", None),
            ("https://v2/x", None),
        ] {
            assert_eq!(version_in_path(url).map(|(major, _)| major), expected, "{url}");
        }
        let (_, at) = version_in_path("http://k/a/v2.0").unwrap();
        assert_eq!(&"http://k/a/v2.0"[..at], "http://k/a/");
    }

    #[test]
    fn microversions_are_those_of_the_document() {
        let document =
            |min: &str, max: &str| json!({"version": {"id": "v2.1", "min_version": min, "version": max}});
        assert_eq!(microversions(&document("2.1", "2.103")), Some([(2, 1), (2, 103)]));
        assert_eq!(microversions(&document("", "")), None);
        assert_eq!(microversions(&json!({"versions": []})), None);
        assert_eq!(root("http://n/compute/v2.1/0123abc"), "http://n/compute/v2.1");
        assert_eq!(root("http://n/v2.1"), "http://n/v2.1");
        assert_eq!(root("http://n/compute"), "http://n/compute");
    }

    #[test]
    fn the_newest_of_the_major_version_is_found_in_every_form() {
        let version = |id: &str, href: &str| json!({"id": id, "links": [{"rel": "other"}, {"rel": "self", "href": href}]});
        let cases = [
            (
                json!({"versions": {"values": [version("v3.14", "http://k/v3/"), version("v2.0", "http://k/v2.0/")]}}),
                3,
                "http://k/v3/",
            ),
            (
                json!({"versions": [version("v2.9", "http://g/v2/"), version("v2.16", "http://g/v2.16/"), version("v1.0", "x")]}),
                2,
                "http://g/v2.16/",
            ),
            (json!({"version": version("v3.8", "http://k/v3/")}), 3, "http://k/v3/"),
        ];
        for (document, major, expected) in cases {
            assert_eq!(best(&document, major).as_deref(), Some(expected), "{document}");
        }
        for document in [json!({}), json!([]), json!({"versions": 5}), json!({"versions": [{"id": "v2"}]})] {
            assert_eq!(best(&document, 2), None, "{document}");
        }
    }

    #[test]
    fn an_address_of_another_server_only_tells_the_version() {
        let cases = [
            ("http://g", "http://g/v2/", "http://g/v2"),
            ("https://cloud/image", "http://10.0.0.5:9292/v2/", "https://cloud/image/v2"),
            ("https://cloud/image", "https://cloud/image/v2/", "https://cloud/image/v2"),
            ("https://cloud/compute", "http://inside/v2.1/", "https://cloud/compute/v2.1"),
            ("https://cloud/image", "", "https://cloud/image/v2"),
        ];
        for (base, href, expected) in cases {
            assert_eq!(at_home(base, href, 2), expected, "{base} {href}");
        }
    }
}
