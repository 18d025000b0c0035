//! `image-name-format`: how an image is named at a provider.
//!
//! The format is text with placeholders in braces; `{{` and `}}` stand for the braces themselves, as in the
//! original, whose formats must work unchanged. It is checked once, when the configuration is read.

/// The placeholders that a format may have, as an error message lists them.
const KNOWN: &str = "{image_name}, {timestamp}, {upload_id}";

/// A part of a format.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Piece<'a> {
    Text(&'a str),
    ImageName,
    Timestamp,
    UploadId,
}

/// Takes a format apart; the error says what is wrong with it.
pub(super) fn parse(format: &str) -> Result<Vec<Piece<'_>>, String> {
    let mut pieces = Vec::new();
    let mut rest = format;
    while let Some(at) = rest.find(['{', '}']) {
        let (text, tail) = rest.split_at(at);
        if !text.is_empty() {
            pieces.push(Piece::Text(text));
        }
        if tail.starts_with("{{") || tail.starts_with("}}") {
            pieces.push(Piece::Text(&tail[..1]));
            rest = &tail[2..];
            continue;
        }
        let Some(inside) = tail.strip_prefix('{') else {
            return Err(format!(
                "a '}}' without a '{{' before it; write '}}}}' for the brace itself{}",
                known()
            ));
        };
        let Some((placeholder, after)) = inside.split_once('}') else {
            return Err(format!(
                "a '{{' without a '}}' after it; write '{{{{' for the brace itself{}",
                known()
            ));
        };
        pieces.push(match placeholder {
            "image_name" => Piece::ImageName,
            "timestamp" => Piece::Timestamp,
            "upload_id" => Piece::UploadId,
            other => return Err(format!("unknown placeholder '{{{other}}}'{}", known())),
        });
        rest = after;
    }
    if !rest.is_empty() {
        pieces.push(Piece::Text(rest));
    }
    if pieces.is_empty() {
        return Err(format!("must not be empty{}", known()));
    }
    Ok(pieces)
}

fn known() -> String {
    format!(" (the placeholders are {KNOWN})")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_and_placeholders_alternate() {
        let pieces = parse("ci-{image_name}-{timestamp}.{upload_id}").unwrap();
        let expected = [
            Piece::Text("ci-"),
            Piece::ImageName,
            Piece::Text("-"),
            Piece::Timestamp,
            Piece::Text("."),
            Piece::UploadId,
        ];
        assert_eq!(pieces, expected);
    }

    #[test]
    fn doubled_braces_are_braces() {
        let expected = [Piece::Text("{"), Piece::Text("a"), Piece::Text("}"), Piece::ImageName];
        assert_eq!(parse("{{a}}{image_name}").unwrap(), expected);
    }

    #[test]
    fn every_mistake_lists_the_placeholders() {
        for wrong in ["{name}", "{}", "{timestamp", "timestamp}", "a}b", "{image_name!s}", "{", "}", ""] {
            let message = parse(wrong).unwrap_err();
            assert!(message.contains(KNOWN), "{wrong}: {message}");
        }
    }
}
