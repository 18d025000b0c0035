//! HTTP to the services of one cloud: requests over ureq that end when they must.
//!
//! [`Client`] makes one request and returns what came of it; [`send`] repeats what may be repeated and makes
//! errors of refusals; [`text`] finds the server's own words. Below ureq, [`tcp`] and [`tls`] make the
//! connections and [`limits`] tells them when to end. Nothing here knows what a token or an image is.

mod client;
mod early;
mod limits;
mod pacer;
mod proxy;
mod send;
mod tcp;
mod text;
mod tls;

use std::io::Read;
use std::time::Duration;

pub(super) use client::{Client, Origin};
use serde_json::Value as Json;

use super::clouds::Secret;

/// A request.
pub(super) struct Request<'a> {
    pub(super) method: &'static str,
    /// The whole address.
    pub(super) url: String,
    /// Sent as `X-Auth-Token`.
    pub(super) token: Option<Secret>,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: Body<'a>,
    /// When it is made again.
    pub(super) repeat: Repeat,
    /// Whether it waits for its turn. What removes a half image does not.
    pub(super) paced: bool,
    /// How long the server may be silent when it has heard a stream to its end, if longer than usual.
    pub(super) patience: Option<Duration>,
    /// Set when the server may have heard it without an answer having come: it may still be done.
    pub(super) in_doubt: bool,
}

/// What a request carries.
pub(super) enum Body<'a> {
    Nothing,
    Json(&'a Json),
    /// So many bytes of a reader.
    Stream(&'a mut (dyn Read + Send), u64),
}

/// When a request that has failed is made again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Repeat {
    /// Whenever it may succeed: to make it twice is to make it once.
    Always,
    /// Only while the server has not heard it, or has put it off.
    Unheard,
    /// Never: it cannot be said twice.
    Never,
}

/// What a server has answered.
#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: ureq::http::HeaderMap,
    pub(super) body: Vec<u8>,
}

impl<'a> Request<'a> {
    /// A request without body that may be made again.
    pub(super) fn new(method: &'static str, url: impl Into<String>) -> Self {
        Self {
            method,
            url: url.into(),
            token: None,
            headers: Vec::new(),
            body: Body::Nothing,
            repeat: Repeat::Always,
            paced: true,
            patience: None,
            in_doubt: false,
        }
    }

    /// The same with a JSON body.
    pub(super) fn json(mut self, body: &'a Json) -> Self {
        self.body = Body::Json(body);
        self
    }

    /// The address without what is before its path, for messages.
    pub(super) fn path(&self) -> &str {
        let after_scheme = self.url.find("://").map_or(0, |at| at + 3);
        self.url[after_scheme..].find('/').map_or("/", |at| &self.url[after_scheme + at..])
    }
}

impl Reply {
    /// A header's value, if it is text.
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name)?.to_str().ok()
    }

    /// Whether the request was done.
    pub(super) fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// The body as JSON.
    pub(super) fn json(&self) -> Option<Json> {
        serde_json::from_slice(&self.body).ok()
    }
}
