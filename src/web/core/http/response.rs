//! A response: its status, the fields that depend on the page, and a body that several clients may share.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::SystemTime;

/// The type of plain text.
pub const TEXT: &str = "text/plain; charset=utf-8";

/// The bytes of a page.
pub type Body = Arc<[u8]>;

/// What came of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    /// Here it is.
    Ok,
    /// The client has it.
    NotModified,
    /// It is no request.
    BadRequest,
    /// There is no such page.
    NotFound,
    /// Only GET and HEAD can be answered.
    MethodNotAllowed,
    /// The request did not come in time.
    Timeout,
    /// It is for somebody else, by the name that it was sent to.
    Misdirected,
    /// The head of the request is too long.
    HeadTooLarge,
    /// A bug.
    InternalError,
    /// Not now.
    Unavailable,
}

impl Status {
    fn line(self) -> &'static str {
        match self {
            Self::Ok => "200 OK",
            Self::NotModified => "304 Not Modified",
            Self::BadRequest => "400 Bad Request",
            Self::NotFound => "404 Not Found",
            Self::MethodNotAllowed => "405 Method Not Allowed",
            Self::Timeout => "408 Request Timeout",
            Self::Misdirected => "421 Misdirected Request",
            Self::HeadTooLarge => "431 Request Header Fields Too Large",
            Self::InternalError => "500 Internal Server Error",
            Self::Unavailable => "503 Service Unavailable",
        }
    }
}

/// A response.
#[derive(Debug, Clone)]
pub struct Response {
    /// What came of the request.
    pub status: Status,
    /// Further header fields. Their values are ours, never a client's.
    pub fields: Vec<(&'static str, String)>,
    /// The page.
    pub body: Body,
}

impl Response {
    /// A response of plain text that nobody should keep.
    pub fn text(status: Status, text: &str) -> Self {
        Self::of_now(status, TEXT, text)
    }

    /// A response that nobody should keep.
    pub fn of_now(status: Status, content_type: &str, text: &str) -> Self {
        let fields =
            vec![("Content-Type", content_type.to_owned()), ("Cache-Control", "no-store".to_owned())];
        Self { status, fields, body: text.as_bytes().into() }
    }

    /// The response to what cannot be answered.
    pub fn refusal(status: Status) -> Self {
        let mut refusal = Self::text(status, &format!("{}\n", status.line()));
        if status == Status::MethodNotAllowed {
            refusal.fields.push(("Allow", "GET, HEAD".to_owned()));
        }
        refusal
    }

    /// The head as it is sent. A connection carries one request.
    pub(super) fn head(&self) -> Vec<u8> {
        let date = httpdate::fmt_http_date(SystemTime::now());
        let mut head = format!("HTTP/1.1 {}\r\nDate: {date}\r\nConnection: close\r\n", self.status.line());
        head.push_str("X-Content-Type-Options: nosniff\r\nReferrer-Policy: no-referrer\r\n");
        for (name, value) in &self.fields {
            // A text can always be written to.
            let _ = write!(head, "{name}: {value}\r\n");
        }
        if self.status != Status::NotModified {
            let _ = write!(head, "Content-Length: {}\r\n", self.body.len());
        }
        head.push_str("\r\n");
        head.into_bytes()
    }
}
