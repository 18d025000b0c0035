//! A request, as far as the server wants to know it.

use super::accept::wants_json;
use super::response::Status;

/// How long the head of a request may be.
const LONGEST_HEAD: usize = 8 * 1024;
/// How many header fields it may have.
const MOST_FIELDS: usize = 64;

/// A request for a page.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Request {
    /// Only the head of the answer is wanted.
    pub head_only: bool,
    /// The path as it was sent.
    pub path: String,
    /// Whom it is for: a name or an address, and perhaps a port.
    pub host: Option<String>,
    /// What follows the `?`, as it was sent; empty without.
    query: String,
    /// The client would rather have JSON than text.
    pub wants_json: bool,
    /// `If-Modified-Since`.
    pub modified_since: Option<String>,
}

impl Request {
    /// The request that `bytes` begin with. None while its end is missing; the error is what to refuse it
    /// with.
    pub fn parse(bytes: &[u8]) -> Result<Option<Self>, Status> {
        let mut fields = [httparse::EMPTY_HEADER; MOST_FIELDS];
        let mut parsed = httparse::Request::new(&mut fields);
        let complete = match parsed.parse(bytes) {
            Ok(status) => status.is_complete(),
            Err(httparse::Error::TooManyHeaders) => return Err(Status::HeadTooLarge),
            Err(_) => return Err(Status::BadRequest),
        };
        if !complete {
            return if bytes.len() < LONGEST_HEAD { Ok(None) } else { Err(Status::HeadTooLarge) };
        }
        let head_only = match parsed.method {
            Some("GET") => false,
            Some("HEAD") => true,
            _ => return Err(Status::MethodNotAllowed),
        };
        let (authority, target) = split_target(parsed.path.unwrap_or_default());
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let fields = |name: &'static str| {
            let found = parsed.headers.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
            found.filter_map(|field| std::str::from_utf8(field.value).ok())
        };
        if fields("host").count() > 1 {
            return Err(Status::BadRequest);
        }
        let accept = fields("accept").collect::<Vec<_>>().join(",");
        Ok(Some(Self {
            head_only,
            path: path.to_owned(),
            host: authority.or_else(|| fields("host").next()).map(str::to_owned),
            query: query.to_owned(),
            wants_json: wants_json(&accept),
            modified_since: fields("if-modified-since").next().map(str::to_owned),
        }))
    }

    /// A parameter of the query, decoded; none if it is missing or empty.
    pub fn parameter(&self, name: &str) -> Option<String> {
        let mut pairs = self.query.split('&').filter_map(|pair| pair.split_once('='));
        let value = pairs.find(|(key, _)| *key == name).map(|(_, value)| decode(value))?;
        (!value.is_empty()).then_some(value)
    }
}

/// Host and path of a target that may be a whole URL, as it is sent to proxies.
fn split_target(target: &str) -> (Option<&str>, &str) {
    let Some(rest) = target.strip_prefix("http://") else { return (None, target) };
    match rest.find('/') {
        Some(path) => (Some(&rest[..path]), &rest[path..]),
        None => (Some(rest), "/"),
    }
}

/// Replaces `%2C` and the like. What is no number stays.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&first, behind)) = rest.split_first() {
        let code = behind.get(..2).and_then(|digits| std::str::from_utf8(digits).ok());
        match code.filter(|_| first == b'%').and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &behind[2..];
            }
            None => {
                bytes.push(if first == b'+' { b' ' } else { first });
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Option<Request>, Status> {
        Request::parse(text.as_bytes())
    }

    #[test]
    fn a_request_has_path_query_and_wishes() {
        let request = parse(
            "GET /image-list?fields=id%2Cimage&x HTTP/1.1\r\nHost: a\r\naccept: text/plain;q=0.1\r\n\
             Accept: application/json\r\nIf-Modified-Since: then\r\n\r\nmore",
        );
        let request = request.unwrap().unwrap();
        assert_eq!((request.path.as_str(), request.head_only), ("/image-list", false));
        assert_eq!(request.host.as_deref(), Some("a"));
        assert_eq!(request.parameter("fields").as_deref(), Some("id,image"));
        assert_eq!(request.parameter("x"), None);
        assert!(request.wants_json);
        assert_eq!(request.modified_since.as_deref(), Some("then"));
        let head = parse("HEAD http://a:1/ready HTTP/1.0\r\n\r\n").unwrap().unwrap();
        let (path, host) = ("/ready".to_owned(), Some("a:1".to_owned()));
        assert_eq!(head, Request { head_only: true, path, host, ..Request::default() });
        // The target counts, if both are there.
        let both = parse("GET http://a/b HTTP/1.1\r\nHost: c\r\n\r\n").unwrap().unwrap();
        assert_eq!(both.host.as_deref(), Some("a"));
        assert_eq!(parse("GET http://a HTTP/1.1\r\n\r\n").unwrap().unwrap().path, "/");
    }

    #[test]
    fn what_is_no_request_is_refused_and_what_is_unfinished_is_waited_for() {
        assert_eq!(parse("GET / HTTP/1.1\r\nHost: a\r\n"), Ok(None));
        assert_eq!(parse(""), Ok(None));
        assert_eq!(parse("POST / HTTP/1.1\r\n\r\n"), Err(Status::MethodNotAllowed));
        assert_eq!(parse("\u{16}\u{3}\u{1}hello"), Err(Status::BadRequest));
        assert_eq!(parse("GET / HTTP/3\r\n\r\n"), Err(Status::BadRequest));
        assert_eq!(parse("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"), Err(Status::BadRequest));
        let many = "a: b\r\n".repeat(100);
        assert_eq!(parse(&format!("GET / HTTP/1.1\r\n{many}\r\n")), Err(Status::HeadTooLarge));
        let long = "a".repeat(9000);
        assert_eq!(parse(&format!("GET /{long}")), Err(Status::HeadTooLarge));
        // It is there already: nobody has to be angry about its length.
        assert!(parse(&format!("GET /{long} HTTP/1.1\r\n\r\n")).unwrap().is_some());
    }

    #[test]
    fn percent_codes_are_decoded_and_others_stay() {
        for (text, decoded) in
            [("a%20b+c", "a b c"), ("%", "%"), ("%4", "%4"), ("%zz%41", "%zzA"), ("%ff", "\u{fffd}")]
        {
            assert_eq!(decode(text), decoded);
        }
    }
}
