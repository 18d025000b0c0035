//! Hides the values of an image's variables in what a build has printed: each is replaced by its variable's
//! name, however usual programs write it.
//!
//! A value is followed through the text letter by letter, and each may be written in any of its ways: as it
//! is, behind a backslash, in percent codes, as JSON or a shell would quote it. Its base64 is a text of its
//! own, for each of the three places at which it may begin in a longer one (`user:password`). What has been
//! encrypted, hashed, packed or cut to pieces is not known again.

use std::collections::{BTreeMap, BTreeSet};

use crate::config::DiskImage;

/// Values that are shorter are no secrets, and stand everywhere: `1`, `yes`. They are hidden where they are
/// assigned to their variable.
const SHORTEST_SECRET: usize = 4;

/// What must not be seen of an image.
#[derive(Default)]
pub(super) struct Secrets {
    secrets: Vec<Secret>,
    /// By the bytes that they may begin with: most of a text begins none.
    by_begin: BTreeMap<u8, Vec<usize>>,
}

struct Secret {
    /// What is looked for.
    letters: Vec<char>,
    writing: Writing,
    /// What is shown in its place.
    shown: String,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Writing {
    /// In any of the ways of a text.
    Text,
    /// Base64 of either alphabet, in lines of any length.
    Base64,
}

/// What a secret and a place of the text have in common.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    Nothing,
    /// The begin of it, as far as the text goes.
    Begin,
    /// All of it, in so many bytes.
    Whole(usize),
}

impl Secrets {
    pub(super) fn of(image: &DiskImage) -> Self {
        let mut secrets = Self::default();
        for (name, value) in &image.env_vars {
            let shown = format!("[{name}]");
            let value = value.as_str();
            // A value of several lines, such as a key, may be printed with other things between.
            let mut pieces: Vec<&str> = value.lines().chain([value]).map(str::trim).collect();
            pieces.sort_unstable();
            pieces.dedup();
            for piece in pieces.into_iter().filter(|piece| !piece.is_empty()) {
                if piece.len() >= SHORTEST_SECRET {
                    secrets.add(piece, Writing::Text, &shown);
                    for before in 0..3 {
                        secrets.add(&base64(piece.as_bytes(), before), Writing::Base64, &shown);
                    }
                } else {
                    secrets.add(&format!("{name}={piece}"), Writing::Text, &format!("{name}={shown}"));
                }
            }
        }
        secrets
    }

    fn add(&mut self, text: &str, writing: Writing, shown: &str) {
        let Some(first) = text.chars().next() else { return };
        for begin in writing.begins(first) {
            self.by_begin.entry(begin).or_default().push(self.secrets.len());
        }
        self.secrets.push(Secret { letters: text.chars().collect(), writing, shown: shown.to_owned() });
    }

    /// The text with each secret replaced, the longest that begins at a place, and without the begin of one at
    /// its end: the rest of that may come with the next look.
    pub(super) fn hide(&self, text: &[u8]) -> Vec<u8> {
        let mut shown = Vec::with_capacity(text.len());
        let mut rest = text;
        let (mut places, mut next) = (Vec::new(), Vec::new());
        while let Some((&first, behind)) = rest.split_first() {
            let mut longest: Option<(usize, &str)> = None;
            for index in self.by_begin.get(&first).into_iter().flatten() {
                let secret = &self.secrets[*index];
                match secret.at_begin_of(rest, &mut places, &mut next) {
                    Found::Nothing => {}
                    Found::Begin => return shown,
                    Found::Whole(length) if longest.is_some_and(|(most, _)| most >= length) => {}
                    Found::Whole(length) => longest = Some((length, &secret.shown)),
                }
            }
            match longest {
                Some((length, name)) => {
                    shown.extend_from_slice(name.as_bytes());
                    rest = &rest[length..];
                }
                None => {
                    shown.push(first);
                    rest = behind;
                }
            }
        }
        shown
    }
}

impl Secret {
    /// Follows all ways to write it at the same time, each at its place: a backslash may be one of the value, or
    /// stand before the next letter. `places` and `next` are only there to be used again.
    fn at_begin_of(&self, text: &[u8], places: &mut Vec<usize>, next: &mut Vec<usize>) -> Found {
        places.clear();
        places.push(0);
        let mut begun = false;
        // Two letters of base64 say little, and many a text ends with some.
        let least = if self.writing == Writing::Base64 { 2 } else { 0 };
        for (index, letter) in self.letters.iter().enumerate() {
            next.clear();
            for place in places.iter() {
                let rest = &text[*place..];
                self.writing.ways(*letter, index == 0, rest, &mut |way| {
                    let end = place + way.len();
                    if rest.starts_with(way) && !next.contains(&end) {
                        next.push(end);
                    } else if index >= least && rest.len() < way.len() && way.starts_with(rest) {
                        begun = true;
                    }
                });
            }
            std::mem::swap(places, next);
            if places.is_empty() {
                break;
            }
        }
        match places.iter().max() {
            // What is only begun may become longer, and then hides more.
            _ if begun => Found::Begin,
            Some(end) => Found::Whole(*end),
            None => Found::Nothing,
        }
    }
}

impl Writing {
    /// The bytes that a secret may begin with whose first letter is this.
    fn begins(self, letter: char) -> BTreeSet<u8> {
        let mut begins = BTreeSet::new();
        for rest in [&b""[..], b"%", b"\\"] {
            self.ways(letter, true, rest, &mut |way| begins.extend(way.first()));
        }
        begins
    }

    /// Calls `each` with the ways to write a letter that `rest` may begin with; `first` is the first one of a
    /// secret.
    fn ways(self, letter: char, first: bool, rest: &[u8], each: &mut dyn FnMut(&[u8])) {
        let mut own = [0; 4];
        let own = letter.encode_utf8(&mut own);
        each(own.as_bytes());
        let others: &[&str] = match (self, letter) {
            (Self::Base64, '+') => &["-"],
            (Self::Base64, '/') => &["_"],
            (Self::Text, '\n') => &["\r\n", " "],
            (Self::Text, ' ') => &["+"],
            (Self::Text, '\'') => &[r"'\''", r#"'"'"'"#],
            _ => &[],
        };
        for other in others {
            each(other.as_bytes());
        }
        match rest.first() {
            Some(b'%') if rest[1..].iter().take(2).all(u8::is_ascii_hexdigit) => {
                for digits in HEX {
                    let codes =
                        own.bytes().flat_map(|byte| [b'%', hex(digits, byte >> 4), hex(digits, byte)]);
                    each_of(codes, each);
                }
            }
            Some(b'\\') if self == Self::Text => behind_backslash(letter, each),
            // The next line.
            Some(b'\n') if self == Self::Base64 && !first => {
                each_of(b"\n".iter().copied().chain(own.bytes()), each)
            }
            Some(b'\r') if self == Self::Base64 && !first => {
                each_of(b"\r\n".iter().copied().chain(own.bytes()), each)
            }
            _ => {}
        }
    }
}

/// As shells and JSON write it.
fn behind_backslash(letter: char, each: &mut dyn FnMut(&[u8])) {
    match letter {
        '\n' => each(br"\n"),
        '\r' => each(br"\r"),
        '\t' => each(br"\t"),
        _ => {}
    }
    if letter.is_ascii() && !letter.is_ascii_alphanumeric() {
        each(&[b'\\', letter as u8]);
    }
    let mut units = [0; 2];
    let units = letter.encode_utf16(&mut units);
    for digits in HEX {
        let code = |unit: &u16| {
            let [high, low] = unit.to_be_bytes();
            [b'\\', b'u', hex(digits, high >> 4), hex(digits, high), hex(digits, low >> 4), hex(digits, low)]
        };
        each_of(units.iter().flat_map(code), each);
    }
}

const HEX: [&[u8; 16]; 2] = [b"0123456789ABCDEF", b"0123456789abcdef"];

/// The digit of the lower half of a byte.
fn hex(digits: &[u8; 16], byte: u8) -> u8 {
    digits[usize::from(byte & 15)]
}

/// Calls `each` with bytes, of which there are few: the codes of one letter.
fn each_of(bytes: impl Iterator<Item = u8>, each: &mut dyn FnMut(&[u8])) {
    let mut way = [0; 12];
    let mut length = 0;
    for (place, byte) in way.iter_mut().zip(bytes) {
        *place = byte;
        length += 1;
    }
    each(&way[..length]);
}

/// The letters of base64 that depend on `bytes` alone, where `before` other bytes, and any number of three, stand
/// before them.
fn base64(bytes: &[u8], before: usize) -> String {
    const LETTERS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    // The first of these letters has some bits of the other bytes, and is left out.
    let foreign = (6 - 8 * before % 6) % 6;
    let bit = |at: usize| bytes[at / 8] >> (7 - at % 8) & 1;
    let letters = (foreign..bytes.len() * 8).collect::<Vec<_>>();
    let letters = letters.chunks_exact(6).map(|bits| bits.iter().fold(0, |all, at| all << 1 | bit(*at)));
    letters.map(|letter| char::from(LETTERS[usize::from(letter)])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hidden(text: &str, variables: &[(&str, &str)]) -> String {
        let mut image = DiskImage::new("debian");
        let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
        image.env_vars = variables.iter().map(owned).collect();
        String::from_utf8(Secrets::of(&image).hide(text.as_bytes())).unwrap()
    }

    #[test]
    fn values_of_variables_are_replaced_by_their_names() {
        let key = "-----BEGIN KEY-----\nMIIEvQIBADANBg\n-----END KEY-----\n";
        let variables = [
            ("PASSWORD", "hunter2"),
            ("LONGER", "hunter2-and-more"),
            ("QUOTE", "it's mine"),
            ("KEY", key),
            ("DEBUG", "1"),
            ("EMPTY", ""),
            ("SPACED", "  s3cret  "),
        ];
        for (text, expected) in [
            ("password=hunter2;", "password=[PASSWORD];"),
            ("hunter2-and-more hunter2-and-mo.", "[LONGER] [PASSWORD]-and-mo."),
            (r"+ export QUOTE='it'\''s mine' it's mine!", "+ export QUOTE='[QUOTE]' [QUOTE]!"),
            (&format!("a\n{key}b"), "a\n[KEY]\nb"),
            ("> MIIEvQIBADANBg <", "> [KEY] <"),
            ("1 of 1, DEBUG=1, DEBUG=[", "1 of 1, DEBUG=[DEBUG], DEBUG=["),
            ("x s3cret x.", "x [SPACED] x."),
        ] {
            assert_eq!(hidden(text, &variables), expected, "{text}");
        }
    }

    #[test]
    fn a_value_is_known_however_programs_write_it() {
        let variables = [("PASSWORD", "p@ss \"w\\rd'/é")];
        for written in [
            // As JSON, in two ways.
            r#"p@ss \"w\\rd'/é"#,
            r#"p@ss \"w\\rd'\/\u00e9"#,
            // In a URL, in a form, by others.
            "p%40ss%20%22w%5Crd%27%2F%C3%A9",
            "p%40ss+%22w%5Crd%27%2F%C3%A9",
            "p@ss%20%22w%5crd'/%c3%a9",
            // As shells quote it: in double quotes, in single ones, by backslashes.
            r#"p@ss \"w\\rd'/é"#,
            r#"p@ss "w\rd'\''/é"#,
            r#"p@ss "w\rd'"'"'/é"#,
            r#"p@ss\ \"w\\rd\'/é"#,
        ] {
            assert_eq!(hidden(&format!("<{written}>"), &variables), "<[PASSWORD]>", "{written}");
        }
        let key = [("KEY", "-----BEGIN-----\nsome\twhere\n-----END-----\n")];
        assert_eq!(hidden(r"<-----BEGIN-----\nsome\twhere\n-----END-----\n>", &key), r"<[KEY]\n>");
        assert_eq!(hidden("<-----BEGIN----- some\twhere -----END----->", &key), "<[KEY]>");
        assert_eq!(hidden("<-----BEGIN-----\r\nsome\twhere\r\n-----END----->", &key), "<[KEY]>");
    }

    /// What is left beside the name has some bits of the value only.
    #[test]
    fn a_value_is_known_in_base64_wherever_it_stands() {
        let variables = [("TOKEN", "s3cr\u{fb}\u{ff}t-token-of-some-length")];
        for (encoded, expected) in [
            // Alone, after one letter, after two, in the middle.
            ("czNjcsO7w790LXRva2VuLW9mLXNvbWUtbGVuZ3Ro", "[TOKEN]"),
            ("OnMzY3LDu8O/dC10b2tlbi1vZi1zb21lLWxlbmd0aA==", "On[TOKEN]A=="),
            ("dTpzM2Nyw7vDv3QtdG9rZW4tb2Ytc29tZS1sZW5ndGg=", "dTp[TOKEN]g="),
            ("dXNlcjpzM2Nyw7vDv3QtdG9rZW4tb2Ytc29tZS1sZW5ndGg6Og==", "dXNlcjp[TOKEN]g6Og=="),
            // The other alphabet, in a URL, in lines.
            ("OnMzY3LDu8O_dC10b2tlbi1vZi1zb21lLWxlbmd0aA", "On[TOKEN]A"),
            ("OnMzY3LDu8O%2FdC10b2tlbi1vZi1zb21lLWxlbmd0aA%3D%3D", "On[TOKEN]A%3D%3D"),
            ("OnMzY3LDu8\nO/dC10b2\r\ntlbi1vZi1zb21lLWxlbmd0aA==", "On[TOKEN]A=="),
        ] {
            assert_eq!(hidden(&format!("<{encoded}>"), &variables), format!("<{expected}>"), "{encoded}");
        }
    }

    #[test]
    fn the_begin_of_a_value_at_the_end_is_left_out() {
        let variables = [("PASSWORD", "hunt@2"), ("DEBUG", "1")];
        for (text, expected) in [
            ("login hunt", "login "),
            ("login hunted", "login hunted"),
            ("login hunt%4", "login "),
            (r"login hunt\u00", "login "),
            ("login aHVudE", "login "),
            ("login hunt@2-and-mo", "login [PASSWORD]-and-mo"),
        ] {
            assert_eq!(hidden(text, &variables), expected, "{text}");
        }
        // Not as the shorter one and some more.
        let variables = [("PASSWORD", "hunter2"), ("LONGER", "hunter2-and-more")];
        assert_eq!(hidden("login hunter2-and-mo", &variables), "login ");
    }
}
