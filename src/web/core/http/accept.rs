//! The header `Accept`: whether a client would rather have JSON than text.

/// Whether the header asks for JSON. As in the original, text is given where the client likes both equally,
/// and where it likes neither.
pub(super) fn wants_json(accept: &str) -> bool {
    let quality = |kind: &str, subtype: &str| {
        let ranges = accept.split(',').filter_map(|range| parse(range, kind, subtype));
        // The most exact range decides.
        ranges.max_by_key(|(exactness, _)| *exactness).map_or(0, |(_, quality)| quality)
    };
    let text = quality("text", "plain").max(quality("text", "html"));
    quality("application", "json") > text
}

/// How exactly a media range names the type, and its quality in thousandths; none if it is another type's.
fn parse(range: &str, kind: &str, subtype: &str) -> Option<(u8, u32)> {
    let mut parts = range.split(';').map(str::trim);
    let (found_kind, found_subtype) = parts.next()?.split_once('/')?;
    let is = |found: &str, name: &str| found.eq_ignore_ascii_case(name);
    let exactness = match (is(found_kind, kind), is(found_subtype, subtype)) {
        (true, true) => 2,
        (true, false) if found_subtype == "*" => 1,
        (false, _) if (found_kind, found_subtype) == ("*", "*") => 0,
        _ => return None,
    };
    let quality = parts.find_map(|part| {
        let (name, value) = part.split_once('=')?;
        is(name.trim(), "q").then(|| value.trim().parse::<f64>().unwrap_or(0.0))
    });
    Some((exactness, (quality.unwrap_or(1.0).clamp(0.0, 1.0) * 1000.0) as u32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_for_those_who_like_it_better_than_text() {
        for (accept, json) in [
            ("", false),
            ("*/*", false),
            ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", false),
            ("application/json", true),
            ("Application/JSON; charset=utf-8", true),
            ("application/json, text/plain, */*", false),
            ("application/json, */*;q=0.8", true),
            ("application/json;q=0.5, text/html", false),
            ("text/plain;q=0.5,application/json;q=0.6", true),
            ("application/*", true),
            ("application/json;q=0, */*", false),
            ("image/png", false),
            ("application/json;q=x", false),
            (",;/,", false),
        ] {
            assert_eq!(wants_json(accept), json, "{accept}");
        }
    }
}
