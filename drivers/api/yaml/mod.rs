//! YAML text to a [`Value`]; the only place that names `serde_yaml`.
//!
//! Reads what PyYAML's safe loader reads from the same file: the last of repeated keys counts, and merge
//! keys (`<<: *anchor`) are resolved. A file is read in several passes: an anchor that is used over and over
//! can make gigabytes out of a few lines, so the first one only adds up how large the tree would be; and the
//! last one mends numbers that are none to PyYAML.

mod numbers;
mod places;

use std::cell::Cell;
use std::collections::{BTreeSet, HashMap};
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

use super::Value;
use numbers::{Respell, has_numbers};
use places::Walk;
pub use places::{Places, Position};

/// How much memory the parsed file may take, roughly. Real ones take less than a hundredth of it.
const MOST_BYTES: usize = 16 << 20;

/// Why a text is no YAML document that can be read.
#[derive(Debug, PartialEq, Eq)]
pub struct SyntaxError {
    /// Where, if it is known.
    pub at: Option<Position>,
    /// What is wrong.
    pub message: String,
}

/// The tree that `text` stands for; [`Value::Null`] when there is nothing in it.
pub fn parse(text: &str) -> Result<Value, SyntaxError> {
    let text = without_mark(text);
    if text.lines().all(|line| line.trim_start().starts_with('#') || line.trim().is_empty()) {
        return Ok(Value::Null);
    }
    let left = Cell::new(MOST_BYTES);
    Budget(&left).deserialize(serde_yaml::Deserializer::from_str(text)).map_err(syntax_error)?;
    let mut raw: Value = serde_yaml::from_str(text).map_err(syntax_error)?;
    if has_numbers(&raw) {
        Respell(&mut raw).deserialize(serde_yaml::Deserializer::from_str(text)).map_err(syntax_error)?;
    }
    tidy(raw)
}

/// Where the values of `text` stand, which is one that can be parsed.
pub fn places(text: &str) -> Places {
    Walk.deserialize(serde_yaml::Deserializer::from_str(without_mark(text))).unwrap_or_default()
}

/// The paths of the keys that stand more than once in their mapping, of a text that can be parsed.
pub fn repeated_keys(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    if let Ok(raw) = serde_yaml::from_str(without_mark(text)) {
        find_repeated("", &raw, &mut found);
    }
    found
}

fn find_repeated(path: &str, value: &Value, found: &mut Vec<String>) {
    match value {
        Value::List(items) => {
            for (index, item) in items.iter().enumerate() {
                find_repeated(&format!("{path}[{index}]"), item, found);
            }
        }
        Value::Map(entries) => {
            let mut seen = BTreeSet::new();
            for (key, value) in entries {
                let path = if path.is_empty() { key.clone() } else { format!("{path}.{key}") };
                if !seen.insert(key) && !found.contains(&path) {
                    found.push(path.clone());
                }
                find_repeated(&path, value, found);
            }
        }
        _ => {}
    }
}

/// The text without the mark by which some editors say that it is UTF-8. To the parser that would begin a document of
/// its own.
pub fn without_mark(text: &str) -> &str {
    text.strip_prefix('\u{feff}').unwrap_or(text)
}

fn syntax_error(error: serde_yaml::Error) -> SyntaxError {
    let text = error.to_string();
    let Some(at) = error.location() else {
        let message = if text.contains("more than one document") {
            "expected one YAML document, found several (a line '---' begins a new one)".to_owned()
        } else {
            format!("not valid YAML: {text}")
        };
        return SyntaxError { at: None, message };
    };
    let at = Position { line: at.line(), column: at.column() };
    // The place stands before the message already.
    let text = text.replacen(&format!(" at line {} column {}", at.line, at.column), "", 1);
    SyntaxError { at: Some(at), message: format!("not valid YAML: {text}") }
}

/// Resolves merge keys and repeated keys in the whole tree.
fn tidy(value: Value) -> Result<Value, SyntaxError> {
    match value {
        Value::List(items) => items.into_iter().map(tidy).collect::<Result<_, _>>().map(Value::List),
        Value::Map(entries) => tidy_map(entries).map(Value::Map),
        scalar => Ok(scalar),
    }
}

fn tidy_map(entries: Vec<(String, Value)>) -> Result<Vec<(String, Value)>, SyntaxError> {
    let (merges, own): (Vec<_>, Vec<_>) = entries.into_iter().partition(|(key, _)| key == "<<");
    let mut tidied = Entries { list: Vec::with_capacity(own.len()), places: HashMap::new() };
    for (_, merge) in merges {
        merge_into(&mut tidied, tidy(merge)?)?;
    }
    // The mapping's own keys come last, and so win over merged ones.
    for (key, value) in own {
        tidied.put(key, tidy(value)?);
    }
    Ok(tidied.list)
}

/// Adds the entries of a merge key's value: a mapping, or a list of mappings of which earlier ones win.
fn merge_into(entries: &mut Entries, merge: Value) -> Result<(), SyntaxError> {
    match merge {
        Value::Map(merged) => {
            for (key, value) in merged {
                entries.put(key, value);
            }
            Ok(())
        }
        Value::List(items) if items.iter().all(|item| matches!(item, Value::Map(_))) => {
            items.into_iter().rev().try_for_each(|item| merge_into(entries, item))
        }
        other => {
            let found = other.kind();
            let message = format!("the merge key '<<' needs a mapping or a list of mappings, found {found}");
            Err(SyntaxError { at: None, message })
        }
    }
}

/// A mapping in the order of its keys' first places. Found by key, because a file may have very many of them.
struct Entries {
    list: Vec<(String, Value)>,
    places: HashMap<String, usize>,
}

impl Entries {
    fn put(&mut self, key: String, value: Value) {
        match self.places.get(&key) {
            Some(place) => self.list[*place].1 = value,
            None => {
                self.places.insert(key.clone(), self.list.len());
                self.list.push((key, value));
            }
        }
    }
}

/// Walks a document without keeping anything, and fails when it would take more than what is left.
#[derive(Clone, Copy)]
struct Budget<'a>(&'a Cell<usize>);

impl Budget<'_> {
    fn spend<E: Error>(self, text: usize) -> Result<(), E> {
        let left = self.0.get().checked_sub(size_of::<Value>() + text);
        self.0.set(left.ok_or_else(|| E::custom("the aliases of the file make it too large"))?);
        Ok(())
    }
}

impl<'de> DeserializeSeed<'de> for Budget<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Budget<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value without a special tag")
    }

    fn visit_unit<E: Error>(self) -> Result<(), E> {
        self.spend(0)
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<(), E> {
        self.spend(0)
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<(), E> {
        self.spend(0)
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<(), E> {
        self.spend(0)
    }

    fn visit_i128<E: Error>(self, _: i128) -> Result<(), E> {
        self.spend(0)
    }

    fn visit_u128<E: Error>(self, _: u128) -> Result<(), E> {
        self.spend(0)
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<(), E> {
        self.spend(0)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.spend(text.len())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<(), A::Error> {
        self.spend(0)?;
        while seq.next_element_seed(self)?.is_some() {}
        Ok(())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        self.spend(0)?;
        while map.next_entry_seed(self, self)?.is_some() {}
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map<const N: usize>(entries: [(&str, Value); N]) -> Value {
        Value::Map(entries.map(|(key, value)| (key.to_owned(), value)).into())
    }

    fn text(text: &str) -> Value {
        Value::Str(text.to_owned())
    }

    #[test]
    fn reads_the_same_as_pyyaml_does() {
        let cases = [
            ("a: 1\nb: x\n", map([("a", Value::Int(1)), ("b", text("x"))])),
            ("a: 1\na: 2\n", map([("a", Value::Int(2))])),
            (
                "a: &x {p: 1}\nb: *x\n",
                map([("a", map([("p", Value::Int(1))])), ("b", map([("p", Value::Int(1))]))]),
            ),
            ("b: {<<: {p: 1, q: 2}, q: 3}", map([("b", map([("p", Value::Int(1)), ("q", Value::Int(3))]))])),
            // The mapping's own key wins even if the merge key comes after it.
            ("b: {q: 3, <<: {p: 1, q: 2}}", map([("b", map([("p", Value::Int(1)), ("q", Value::Int(3))]))])),
            (
                "b: {<<: [{p: 1}, {p: 2, q: 2}]}",
                map([("b", map([("p", Value::Int(1)), ("q", Value::Int(2))]))]),
            ),
            ("b: {<<: {<<: {p: 1}, q: 2}}", map([("b", map([("p", Value::Int(1)), ("q", Value::Int(2))]))])),
            ("21: x", map([("21", text("x"))])),
            (
                "- 1\n- [a, ~]\n- !!str 5\n",
                Value::List(vec![Value::Int(1), Value::List(vec![text("a"), Value::Null]), text("5")]),
            ),
            ("---\na: yes\n...\n", map([("a", text("yes"))])),
            ("", Value::Null),
            ("# nothing\n\n  # at all\n", Value::Null),
            ("---\n", Value::Null),
        ];
        for (source, expected) in cases {
            assert_eq!(parse(source), Ok(expected), "{source}");
        }
    }

    #[test]
    fn numbers_are_those_of_yaml_1_1() {
        let cases = [
            ("1234e56", text("1234e56")),
            ("1E5", text("1E5")),
            ("1.5e3", text("1.5e3")),
            ("1.5e+3", Value::Float(1500.0)),
            ("0o17", text("0o17")),
            ("0x10", Value::Int(16)),
            ("08", text("08")),
            ("-5", Value::Int(-5)),
            ("2.50", Value::Float(2.5)),
            (".inf", Value::Float(f64::INFINITY)),
            ("'1.5'", text("1.5")),
        ];
        for (number, expected) in cases {
            assert_eq!(parse(&format!("a: {number}")), Ok(map([("a", expected.clone())])), "{number}");
            let nested = format!("- &x {{p: [1, {number}], 5: {number}}}\n- {{<<: *x, q: ~}}\n- true\n");
            let list = Value::List(vec![Value::Int(1), expected.clone()]);
            let first = map([("p", list.clone()), ("5", expected.clone())]);
            let second = map([("p", list), ("5", expected), ("q", Value::Null)]);
            assert_eq!(parse(&nested), Ok(Value::List(vec![first, second, Value::Bool(true)])), "{number}");
        }
    }

    /// Secrets may be digits alone, and were shown in errors.
    #[test]
    fn a_number_that_is_too_large_is_text() {
        for digits in [
            "9223372036854775808",
            "18446744073709551615",
            "18446744073709551616",
            "340282366920938463463374607431768211455",
            "340282366920938463463374607431768211456",
            "-9223372036854775809",
            "-170141183460469231731687303715884105729",
        ] {
            let source = format!("a: {digits}\nb: [{{c: {digits}}}]\n");
            let item = Value::List(vec![map([("c", text(digits))])]);
            assert_eq!(parse(&source), Ok(map([("a", text(digits)), ("b", item)])));
            assert_eq!(places(&source).of("b[0].c").unwrap().to_string(), "2:6");
            assert!(repeated_keys(&source).is_empty());
        }
        assert_eq!(parse("18446744073709551616: a"), Ok(map([("18446744073709551616", text("a"))])));
        let (most, least) = (i64::MAX, i64::MIN);
        assert_eq!(
            parse(&format!("[{most}, {least}]")),
            Ok(Value::List(vec![Value::Int(most), Value::Int(least)]))
        );
    }

    #[test]
    fn errors_say_where_and_what() {
        let cases = [
            (
                "a: 1\nb: [1, 2\n",
                "3:1: not valid YAML: did not find expected ',' or ']', while parsing a flow sequence at line 2 column 4",
            ),
            (
                "a:\n\t- b\n",
                "2:1: not valid YAML: found character that cannot start any token, while scanning for the next token",
            ),
            ("a: *nowhere\n", "1:4: not valid YAML: unknown anchor"),
            (
                "a: !thing x\n",
                "not valid YAML: a: invalid type: enum, expected a value without a special tag",
            ),
            (
                "a: 1\n---\nb: 2\n",
                "expected one YAML document, found several (a line '---' begins a new one)",
            ),
            ("a: {<<: 5}", "the merge key '<<' needs a mapping or a list of mappings, found a whole number"),
            (
                "a: {<<: [{b: 1}, 5]}",
                "the merge key '<<' needs a mapping or a list of mappings, found a list",
            ),
            ("[1]: 2", "not valid YAML: a key must be a string, this one is a list"),
        ];
        for (source, expected) in cases {
            let found = parse(source).unwrap_err();
            let shown = found.at.map_or(String::new(), |at| format!("{at}: ")) + &found.message;
            assert!(shown.ends_with(expected), "{source:?}: {shown}");
        }
    }

    #[test]
    fn hostile_files_are_refused_and_do_not_crash() {
        let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let below = format!("*a{},", level - 1).repeat(10);
            laughs.push_str(&format!("a{level}: &a{level} [{below}]\n"));
        }
        let wide = format!("a: &a [{}]\nb: [{}]\n", "x, ".repeat(20_000), "*a, ".repeat(20_000));
        let text = format!("a: &a {}\nb: [{}]\n", "x".repeat(1 << 20), "*a, ".repeat(1000));
        let deep = "[".repeat(10_000);
        let closed = format!("{}{}", "[".repeat(1000), "]".repeat(1000));
        for hostile in [laughs, wide, text, deep, closed, "a: &a [*a]\n".to_owned(), "&a {<<: *a}".to_owned()]
        {
            assert!(parse(&hostile).is_err(), "{}", &hostile[..20.min(hostile.len())]);
        }
    }

    #[test]
    fn a_mark_of_utf_8_at_the_begin_is_no_document() {
        assert_eq!(parse("\u{feff}a: 1\n"), parse("a: 1\n"));
        assert_eq!(places("\u{feff}a: 1\nb: 2\n").of("b").unwrap().to_string(), "2:1");
        assert_eq!(parse("\u{feff}"), Ok(Value::Null));
    }

    #[test]
    fn keys_that_stand_more_than_once_are_found() {
        let text = "a: 1\nb:\n- {c: 1, c: 2, c: 3}\n- &x {d: {e: 1, e: 2}}\n- {<<: *x, d: 3}\na: 2\n";
        assert_eq!(repeated_keys(text), ["b[0].c", "b[1].d.e", "b[2].<<.d.e", "a"]);
        assert!(repeated_keys("a: 1\nb: [{a: 1}, {a: 1}]\n").is_empty());
    }
}
