//! Python literals, as the `args` of an ini file have them: strings, whole numbers, dotted names and tuples.

/// A literal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Literal {
    Str(String),
    Int(i64),
    /// `sys.stdout`, `handlers.SysLogHandler.LOG_USER`, `None`, `True`.
    Name(String),
    /// A tuple or a list.
    Tuple(Vec<Literal>),
}

/// How deep tuples may lie in each other.
const DEEPEST: usize = 8;

/// The tuple that the text is. The error says what is not understood.
pub(super) fn tuple(text: &str) -> Result<Vec<Literal>, String> {
    let mut reader = Reader { rest: text.trim_start() };
    let found = reader.literal(0)?;
    match (found, reader.rest) {
        (Literal::Tuple(items), "") => Ok(items),
        (_, "") => Err("expected a tuple: (…,)".to_owned()),
        (_, rest) => Err(unexpected(rest)),
    }
}

struct Reader<'t> {
    rest: &'t str,
}

fn unexpected(rest: &str) -> String {
    if rest.is_empty() {
        return "ends too early".to_owned();
    }
    let shown: String = rest.chars().take(20).collect();
    format!("only strings, numbers, names and tuples of these are understood, found '{shown}'")
}

impl Reader<'_> {
    fn eat(&mut self, what: char) -> bool {
        let after = self.rest.strip_prefix(what);
        self.rest = after.unwrap_or(self.rest).trim_start();
        after.is_some()
    }

    fn literal(&mut self, depth: usize) -> Result<Literal, String> {
        let first = self.rest.chars().next().ok_or_else(|| unexpected(""))?;
        match first {
            '(' | '[' if depth < DEEPEST => {
                self.eat(first);
                self.items(if first == '(' { ')' } else { ']' }, depth)
            }
            '\'' | '"' => self.string(first).map(Literal::Str),
            _ => self.word(),
        }
    }

    fn items(&mut self, close: char, depth: usize) -> Result<Literal, String> {
        let mut items = Vec::new();
        let mut comma = false;
        loop {
            if self.eat(close) {
                // Parentheses around one thing do not make a tuple.
                let grouped = close == ')' && items.len() == 1 && !comma;
                return Ok(if grouped { items.remove(0) } else { Literal::Tuple(items) });
            }
            if !items.is_empty() && !comma {
                return Err(unexpected(self.rest));
            }
            items.push(self.literal(depth + 1)?);
            comma = self.eat(',');
        }
    }

    fn string(&mut self, quote: char) -> Result<String, String> {
        let mut text = String::new();
        let mut letters = self.rest.char_indices().skip(1);
        while let Some((at, letter)) = letters.next() {
            match letter {
                end if end == quote => {
                    self.rest = self.rest[at + 1..].trim_start();
                    return Ok(text);
                }
                '\\' => match letters.next() {
                    Some((_, escaped @ ('\\' | '\'' | '"'))) => text.push(escaped),
                    _ => {
                        return Err(format!(
                            "in a string, only \\\\, \\' and \\\" are understood: {}",
                            self.rest
                        ));
                    }
                },
                other => text.push(other),
            }
        }
        Err("a string has no end".to_owned())
    }

    fn word(&mut self) -> Result<Literal, String> {
        let belongs = |letter: char| letter.is_alphanumeric() || matches!(letter, '_' | '.' | '-' | '+');
        let end = self.rest.find(|letter| !belongs(letter)).unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        let literal = match word.parse() {
            Ok(number) => Literal::Int(number),
            Err(_) if word.starts_with(|letter: char| letter.is_alphabetic()) => {
                Literal::Name(word.to_owned())
            }
            Err(_) => return Err(unexpected(self.rest)),
        };
        self.rest = rest.trim_start();
        Ok(literal)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(text: &str) -> Literal {
        Literal::Str(text.to_owned())
    }

    #[test]
    fn reads_the_usual_arguments() {
        let name = |name: &str| Literal::Name(name.to_owned());
        let address = Literal::Tuple(vec![text("localhost"), Literal::Int(514)]);
        for (source, expected) in [
            ("()", vec![]),
            ("(sys.stdout,)", vec![name("sys.stdout")]),
            (" ( '/var/log/a b.log' , \"a\" ) ", vec![text("/var/log/a b.log"), text("a")]),
            (
                "('x', 'midnight', 1, -30)",
                vec![text("x"), text("midnight"), Literal::Int(1), Literal::Int(-30)],
            ),
            ("(('localhost', 514), handlers.X.LOG_USER)", vec![address, name("handlers.X.LOG_USER")]),
            (r"('it\'s \\ here',)", vec![text(r"it's \ here")]),
            ("['a', 'b',]", vec![text("a"), text("b")]),
            ("(('x'),)", vec![text("x")]),
        ] {
            assert_eq!(tuple(source), Ok(expected), "{source}");
        }
    }

    #[test]
    fn anything_else_is_refused_and_does_not_crash() {
        let deep = "(".repeat(10_000);
        for source in [
            "",
            "(",
            "('x'",
            "('x",
            "('x' 'y')",
            "(,)",
            "'x'",
            "('x')",
            "(os.path.join('a', 'b'),)",
            "('x',) + y",
            "(%)",
            "(1.2.3,)",
            r"('\n',)",
            "({},)",
            "('x',)]",
            &deep,
        ] {
            assert!(tuple(source).is_err(), "{source}");
        }
    }
}
