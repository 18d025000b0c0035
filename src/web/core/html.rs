//! HTML that cannot be broken by what it shows: markup is part of the program, and all else is escaped.

/// A piece of HTML that is being written.
#[derive(Default)]
pub(in crate::web) struct Html(String);

impl Html {
    /// Adds markup, which only the program itself can have.
    pub(in crate::web) fn raw(&mut self, markup: &'static str) -> &mut Self {
        self.0.push_str(markup);
        self
    }

    /// Adds a text, as content or within a quoted attribute.
    pub(in crate::web) fn text(&mut self, text: impl AsRef<str>) -> &mut Self {
        for letter in text.as_ref().chars() {
            match letter {
                '&' => self.0.push_str("&amp;"),
                '<' => self.0.push_str("&lt;"),
                '>' => self.0.push_str("&gt;"),
                '"' => self.0.push_str("&quot;"),
                '\'' => self.0.push_str("&#39;"),
                '\n' | '\t' => self.0.push(letter),
                // They can be sent, but HTML has no place for them.
                control if control.is_control() => self.0.extend(control.escape_default()),
                // They would turn around what stands beside them.
                '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => self.0.extend(letter.escape_default()),
                other => self.0.push(other),
            }
        }
        self
    }

    /// Adds a piece that is finished.
    pub(in crate::web) fn html(&mut self, piece: Self) -> &mut Self {
        self.0.push_str(&piece.0);
        self
    }

    /// The whole.
    pub(in crate::web) fn into_bytes(self) -> Vec<u8> {
        self.0.into_bytes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_text_becomes_markup() {
        let mut html = Html::default();
        html.raw("<b title=\"").text("\" onclick='x'").raw("\">").text("</b>&amp;\n\0\u{1b}\u{202e}é");
        let expected = "<b title=\"&quot; onclick=&#39;x&#39;\">&lt;/b&gt;&amp;amp;\n\\u{0}\\u{1b}\\u{202e}é";
        assert_eq!(String::from_utf8(html.into_bytes()).unwrap(), expected);
    }
}
