//! What a server says when it refuses: in JSON of several forms, in HTML, or in plain text.

use serde_json::Value as Json;

use super::Reply;

/// Longer texts are pages of somebody else's.
const MOST_CHARS: usize = 500;
/// An answer has a dozen headers.
const MOST_HEADERS: usize = 64;

/// The server's own words; empty if there are none.
pub(super) fn of(reply: &Reply) -> String {
    let body = String::from_utf8_lossy(&reply.body);
    let text = match serde_json::from_str::<Json>(&body) {
        Ok(json) => of_json(&json).unwrap_or_default(),
        Err(_) => of_html(&body),
    };
    let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let text: String = text.chars().filter(|letter| !letter.is_control()).collect();
    if text.chars().count() > MOST_CHARS {
        return text.chars().take(MOST_CHARS).chain("…".chars()).collect();
    }
    text
}

/// The message in `{"error": {"message": …}}` of Keystone, `{"conflictingRequest": {"message": …}}` of Nova and
/// Cinder, `{"NeutronError": {"message": …}}`, `{"errors": [{"detail": …}]}` of Placement, `{"message": …}`.
fn of_json(json: &Json) -> Option<String> {
    match json {
        Json::String(text) => Some(text.clone()),
        Json::Array(items) => items.iter().find_map(of_json),
        Json::Object(map) => {
            let named = ["message", "detail", "faultstring", "title", "error_message"];
            let named = named.iter().find_map(|key| map.get(*key).and_then(Json::as_str).map(str::to_owned));
            named.or_else(|| map.values().filter(|value| !value.is_string()).find_map(of_json))
        }
        _ => None,
    }
}

/// The text of a page without its head and headings.
fn of_html(page: &str) -> String {
    if !page.trim_start().starts_with('<') {
        return page.to_owned();
    }
    let page = without(page, "head");
    let page = without(&page, "h1");
    let mut text = String::new();
    let mut in_tag = false;
    for letter in page.chars() {
        match letter {
            '<' => in_tag = true,
            '>' => {
                in_tag = false;
                text.push(' ');
            }
            letter if !in_tag => text.push(letter),
            _ => {}
        }
    }
    let letters =
        [("&lt;", "<"), ("&gt;", ">"), ("&quot;", "\""), ("&#39;", "'"), ("&#x27;", "'"), ("&amp;", "&")];
    letters.iter().fold(text, |text, (code, letter)| text.replace(code, letter))
}

/// The page without the element.
fn without(page: &str, element: &str) -> String {
    let (open, close) = (format!("<{element}>"), format!("</{element}>"));
    match (page.find(&open), page.find(&close)) {
        (Some(begin), Some(end)) if begin < end => {
            format!("{}{}", &page[..begin], &page[end + close.len()..])
        }
        _ => page.to_owned(),
    }
}

/// The words for a status.
pub(super) fn reason(status: u16) -> String {
    let known = ureq::http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    known.map_or_else(|| status.to_string(), |reason| format!("{status} {reason}"))
}

/// A reply of what was heard of it, if that is a refusal.
pub(super) fn early_reply(bytes: &[u8]) -> Option<Reply> {
    let mut headers = [httparse::EMPTY_HEADER; MOST_HEADERS];
    let mut head = httparse::Response::new(&mut headers);
    let length = match head.parse(bytes).ok()? {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial => return None,
    };
    let status = head.code.filter(|status| *status >= 400)?;
    let mut kept = ureq::http::HeaderMap::new();
    for header in head.headers.iter() {
        let name = ureq::http::HeaderName::from_bytes(header.name.as_bytes());
        let value = ureq::http::HeaderValue::from_bytes(header.value);
        if let (Ok(name), Ok(value)) = (name, value) {
            kept.append(name, value);
        }
    }
    Some(Reply { status, headers: kept, body: bytes[length..].to_vec() })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(body: &str) -> String {
        of(&Reply { status: 409, headers: ureq::http::HeaderMap::new(), body: body.as_bytes().to_vec() })
    }

    #[test]
    fn the_servers_words_are_found_in_every_form() {
        let glance = "<html>\n <head>\n  <title>409 Conflict</title>\n </head>\n <body>\n  <h1>409 Conflict</h1>\n  \
                      Image 5 could not be deleted because it is in use: &lt;disk&gt;<br /><br />\n\n\n </body>\n</html>";
        let cases = [
            (r#"{"error": {"code": 401, "message": "Wrong.", "title": "Unauthorized"}}"#, "Wrong."),
            (r#"{"conflictingRequest": {"code": 409, "message": "Busy."}}"#, "Busy."),
            (r#"{"NeutronError": {"type": "OverQuota", "message": "Quota.", "detail": ""}}"#, "Quota."),
            (r#"{"errors": [{"status": 409, "detail": "Taken."}]}"#, "Taken."),
            (r#"{"message": "No.\n  Really."}"#, "No. Really."),
            (r#"{"code": 5}"#, ""),
            (glance, "Image 5 could not be deleted because it is in use: <disk>"),
            ("plain\u{7} words", "plain words"),
            ("", ""),
        ];
        for (body, expected) in cases {
            assert_eq!(said(body), expected, "{body}");
        }
        assert_eq!(said(&"x".repeat(9000)).chars().count(), MOST_CHARS + 1);
    }

    #[test]
    fn an_early_answer_is_a_reply_only_if_it_refuses() {
        let refused = early_reply(b"HTTP/1.1 413 Too Large\r\nX-A: b\r\n\r\nquota").unwrap();
        assert_eq!(
            (refused.status, refused.header("x-a"), refused.body.as_slice()),
            (413, Some("b"), &b"quota"[..])
        );
        for other in [&b"HTTP/1.1 200 OK\r\n\r\n"[..], b"HTTP/1.1 413 Too", b"", b"\x15\x03\x03"] {
            assert!(early_reply(other).is_none());
        }
    }
}
