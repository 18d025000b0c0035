//! Texts with `{request.tenant_name}` in them, as Python's `str.format` fills them for the original.

use std::collections::BTreeMap;

use serde_json::Value as Json;

use crate::api::NodeRequest;

/// What of a request can be named (`getSafeAttributes` of the original).
const ATTRIBUTES: [&str; 8] = [
    "id",
    "labels",
    "requestor",
    "requestor_data",
    "relative_priority",
    "event_id",
    "created_time",
    "tenant_name",
];

/// A text with places to be filled.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::openstack) struct Template(Vec<Piece>);

#[derive(Debug, PartialEq, Eq)]
enum Piece {
    Text(String),
    /// An attribute of the request.
    Attribute(&'static str),
}

impl Template {
    /// Reads a text; `{{` and `}}` stand for braces.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            rest = &rest[at + 1..];
            match rest.strip_prefix(brace) {
                Some(after) => {
                    plain.push_str(brace);
                    rest = after;
                }
                None => {
                    let (inner, after) = rest
                        .split_once('}')
                        .filter(|_| brace == "{")
                        .ok_or("has a brace without the other one; a brace itself is written twice")?;
                    rest = after;
                    let named = inner.strip_prefix("request.");
                    let found = ATTRIBUTES.iter().find(|name| named == Some(**name)).ok_or_else(|| {
                        let known = ATTRIBUTES.map(|name| format!("{{request.{name}}}")).join(", ");
                        format!("'{{{inner}}}' stands for nothing; known are: {known}")
                    })?;
                    pieces.push(Piece::Text(std::mem::take(&mut plain)));
                    pieces.push(Piece::Attribute(found));
                }
            }
        }
        plain.push_str(rest);
        pieces.push(Piece::Text(plain));
        pieces.retain(|piece| *piece != Piece::Text(String::new()));
        Ok(Self(pieces))
    }

    /// The text for a request. What the request does not say is `None`, as in the original.
    pub(in crate::openstack) fn fill(&self, request: &NodeRequest) -> String {
        self.0
            .iter()
            .map(|piece| match piece {
                Piece::Text(text) => text.clone(),
                Piece::Attribute("id") => request.id.clone(),
                Piece::Attribute("labels") => python(&Json::from(request.labels.clone())),
                Piece::Attribute(name) => shown(&request.attributes, name),
            })
            .collect()
    }
}

fn shown(attributes: &BTreeMap<String, Json>, name: &str) -> String {
    match attributes.get(name) {
        None => "None".to_owned(),
        Some(Json::String(text)) => text.clone(),
        Some(other) => python(other),
    }
}

/// A value as Python's `repr` spells it.
fn python(value: &Json) -> String {
    match value {
        Json::Null => "None".to_owned(),
        Json::Bool(true) => "True".to_owned(),
        Json::Bool(false) => "False".to_owned(),
        Json::Number(number) => number.to_string(),
        Json::String(text) => quoted(text),
        Json::Array(items) => {
            let items: Vec<_> = items.iter().map(python).collect();
            format!("[{}]", items.join(", "))
        }
        Json::Object(entries) => {
            let entries: Vec<_> =
                entries.iter().map(|(key, value)| format!("{}: {}", quoted(key), python(value))).collect();
            format!("{{{}}}", entries.join(", "))
        }
    }
}

/// A text in Python's quotes: single ones, unless only these are in it.
fn quoted(text: &str) -> String {
    let quote = if text.contains('\'') && !text.contains('"') { '"' } else { '\'' };
    let mut into = String::from(quote);
    for letter in text.chars() {
        match letter {
            '\n' => into.push_str("\\n"),
            '\r' => into.push_str("\\r"),
            '\t' => into.push_str("\\t"),
            '\\' => into.push_str("\\\\"),
            _ if letter == quote => into.extend(['\\', letter]),
            _ if letter.is_control() => into.push_str(&format!("\\x{:02x}", u32::from(letter))),
            _ => into.push(letter),
        }
    }
    into.push(quote);
    into
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn places_are_filled_from_the_request() {
        let request = NodeRequest {
            id: "200-0000000001".to_owned(),
            labels: vec!["small".to_owned()],
            attributes: [
                ("tenant_name".to_owned(), json!("acme")),
                ("relative_priority".to_owned(), json!(3)),
                ("requestor_data".to_owned(), json!({"a": [true, null, 1.5, "it's"], "b": "'\"\\\n\u{7f}é"})),
            ]
            .into(),
        };
        for (text, expected) in [
            ("plain", "plain"),
            ("", ""),
            ("{request.tenant_name}/{request.id}", "acme/200-0000000001"),
            ("{{x}} {request.labels} {request.relative_priority}", "{x} ['small'] 3"),
            // As Python 3 says of the same.
            ("{request.requestor_data}", r#"{'a': [True, None, 1.5, "it's"], 'b': '\'"\\\n\x7fé'}"#),
            ("{request.event_id}", "None"),
        ] {
            assert_eq!(Template::parse(text).unwrap().fill(&request), expected, "{text}");
        }
        for text in ["{x}", "{request.node}", "{request.id", "a}", "{}"] {
            assert!(Template::parse(text).is_err(), "{text}");
        }
    }
}
