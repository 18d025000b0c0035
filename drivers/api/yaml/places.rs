//! Where in a YAML text each of its values stands, so that a mistake is told with its line.
//!
//! The parser names a place in its errors only. This pass goes through the document once more and fails at each
//! key, and at each item of a list that is a scalar: the parser has gone past it by then, so the walk goes on
//! behind it, and its error tells where that was. It is taken only if there is a mistake to tell of.

use std::cell::RefCell;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, SeqAccess, Visitor};

/// A line and a column of a text, both from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Position {
    /// The line.
    pub line: usize,
    /// The column.
    pub column: usize,
}

/// Editors understand this behind a file's name.
impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.line, self.column)
    }
}

/// A value's place and those of what is in it.
#[derive(Debug, Default)]
pub struct Places {
    /// Where its key is, or the first thing of it; unknown for an empty mapping or list.
    at: Option<Position>,
    within: Within,
}

#[derive(Debug, Default)]
enum Within {
    #[default]
    Nothing,
    Items(Vec<Places>),
    /// In the order of the text, with merge keys and repeated ones.
    Entries(Vec<(String, Places)>),
}

impl Places {
    /// Where `path`, such as `diskimages[2].name`, leads to. A path that leads nowhere, such as that of a key that
    /// is missing, has the place of the last thing on it that exists.
    pub fn of(&self, path: &str) -> Option<Position> {
        self.step(path).and_then(|(child, rest)| child.of(rest)).or(self.at)
    }

    fn step<'p>(&self, path: &'p str) -> Option<(&Self, &'p str)> {
        match &self.within {
            Within::Entries(entries) => entry(entries, path.strip_prefix('.').unwrap_or(path)),
            Within::Items(items) => {
                let (number, rest) = path.strip_prefix('[')?.split_once(']')?;
                Some((items.get(number.parse::<usize>().ok()?)?, rest))
            }
            Within::Nothing => None,
        }
    }
}

/// The entry whose key begins `path`: keys may have dots themselves, so the longest one counts, and the last of
/// equal ones; a mapping's own come before those of its merge keys.
fn entry<'v, 'p>(entries: &'v [(String, Places)], path: &'p str) -> Option<(&'v Places, &'p str)> {
    let fits = |(key, places): &'v (String, Places)| {
        let rest = path.strip_prefix(key.as_str())?;
        (rest.is_empty() || rest.starts_with(['.', '['])).then_some((places, rest))
    };
    let own = entries.iter().rev().filter_map(fits).min_by_key(|(_, rest)| rest.len());
    own.or_else(|| {
        let merges = entries.iter().filter(|(key, _)| key == "<<");
        merges.rev().find_map(|(_, merged)| match &merged.within {
            Within::Entries(entries) => entry(entries, path),
            Within::Items(items) => items.iter().find_map(|item| match &item.within {
                Within::Entries(entries) => entry(entries, path),
                _ => None,
            }),
            Within::Nothing => None,
        })
    })
}

/// What the walk fails with.
const HERE: &str = "here";

/// The position in an error of ours; `None` if it is another's.
fn position(error: &impl fmt::Display) -> Option<Position> {
    let text = error.to_string();
    // The parser does not name the very beginning.
    if text == HERE {
        return Some(Position { line: 1, column: 1 });
    }
    let (before, place) = text.rsplit_once(" at line ")?;
    let (line, column) = place.split_once(" column ")?;
    before.ends_with(HERE).then_some(Position { line: line.parse().ok()?, column: column.parse().ok()? })
}

/// A whole document, or a value in it; fails at a scalar.
pub(super) struct Walk;

impl<'de> DeserializeSeed<'de> for Walk {
    type Value = Places;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Places, D::Error> {
        deserializer.deserialize_any(self)
    }
}

impl<'de> Visitor<'de> for Walk {
    type Value = Places;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value without a special tag")
    }

    fn visit_unit<E: Error>(self) -> Result<Places, E> {
        Err(E::custom(HERE))
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Places, E> {
        Err(E::custom(HERE))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<Places, E> {
        Err(E::custom(HERE))
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<Places, E> {
        Err(E::custom(HERE))
    }

    fn visit_i128<E: Error>(self, _: i128) -> Result<Places, E> {
        Err(E::custom(HERE))
    }

    fn visit_u128<E: Error>(self, _: u128) -> Result<Places, E> {
        Err(E::custom(HERE))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<Places, E> {
        Err(E::custom(HERE))
    }

    fn visit_str<E: Error>(self, _: &str) -> Result<Places, E> {
        Err(E::custom(HERE))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Places, A::Error> {
        let mut items = Vec::new();
        loop {
            items.push(match seq.next_element_seed(Walk) {
                Ok(Some(places)) => places,
                Ok(None) => break,
                Err(error) => Places { at: Some(position(&error).ok_or(error)?), within: Within::Nothing },
            });
        }
        Ok(Places { at: items.iter().find_map(|item: &Places| item.at), within: Within::Items(items) })
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Places, A::Error> {
        let mut entries: Vec<(String, Places)> = Vec::new();
        let key = RefCell::new(String::new());
        while let Err(error) = map.next_key_seed(Key(&key)) {
            let at = position(&error).ok_or(error)?;
            let within = match map.next_value_seed(Walk) {
                Ok(places) => places.within,
                Err(error) if position(&error).is_some() => Within::Nothing,
                Err(error) => return Err(error),
            };
            entries.push((key.take(), Places { at: Some(at), within }));
        }
        Ok(Places { at: entries.first().and_then(|(_, first)| first.at), within: Within::Entries(entries) })
    }
}

/// Keeps a key and fails.
struct Key<'a>(&'a RefCell<String>);

impl<'de> DeserializeSeed<'de> for Key<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Key<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<(), E> {
        self.0.replace(text.to_owned());
        Err(E::custom(HERE))
    }
}

#[cfg(test)]
mod tests {
    use crate::api::yaml;

    #[test]
    fn each_path_has_its_place() {
        let text = "# a file\nimages:\n- name: a\n  5: [x,\n   y]\n- &b {name: b, env: {A.B: 1, A: {B: 2}}}\n- <<: *b\n  \
                    format: raw\n- - 1\n  - {}\nx: here at line 9 column 9\nlast: 1\nlast: 2\n";
        let places = yaml::places(text);
        let cases = [
            ("images", "2:1"),
            ("images[0]", "3:3"),
            ("images[0].name", "3:3"),
            ("images[0].5[1]", "5:4"),
            ("images[0].missing", "3:3"),
            ("images[1].env.A.B", "6:22"),
            ("images[1].env.A.C", "6:30"),
            // By the merge key.
            ("images[2].name", "6:7"),
            ("images[2].format", "8:3"),
            ("images[3][0]", "9:5"),
            ("images[3][1].missing", "9:5"),
            ("images[9]", "2:1"),
            ("x", "11:1"),
            ("last", "13:1"),
            ("nothing", "2:1"),
        ];
        for (path, expected) in cases {
            assert_eq!(places.of(path).unwrap().to_string(), expected, "{path}");
        }
        assert_eq!(yaml::places("a: 1").of("a").unwrap().to_string(), "1:1");
        assert_eq!(yaml::places("- 1").of("[0]").unwrap().to_string(), "1:3");
        for text in ["", "5", "[", "a: *b", "{}"] {
            assert!(yaml::places(text).of("a").is_none(), "{text}");
        }
    }
}
