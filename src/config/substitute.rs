//! `%(NODEPOOL_NAME)` in a configuration file stands for the environment variable `NODEPOOL_NAME`.
//!
//! The text is replaced before it is parsed, in one pass: what a variable's value brings in is not looked
//! at again. Variables whose names do not start with `NODEPOOL_` are never taken, so that a file cannot
//! fetch just anything from the daemon's environment; they, and variables that are not set, stay as they
//! are written.

use std::collections::BTreeMap;
use std::fmt;

use super::source::Source;

const PREFIX: &str = "NODEPOOL_";

/// The environment variables that a configuration may use.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Env(BTreeMap<String, String>);

impl Env {
    /// Those of this process. A variable that is no valid text is left out.
    pub fn of_process() -> Self {
        std::env::vars_os()
            .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
            .collect()
    }

    /// Replaces every `%(NODEPOOL_NAME)` in `text`.
    pub fn substitute<'t>(&self, text: &'t str) -> Source<'t> {
        let mut done = Source::begin(text);
        let mut rest = text;
        while let Some(start) = rest.find("%(") {
            let (before, from) = rest.split_at(start);
            done.text.push_str(before);
            rest = match variable(from) {
                Some((name, after)) => {
                    match self.0.get(name) {
                        Some(value) => {
                            done.push_value(text.len() - from.len()..text.len() - after.len(), value);
                        }
                        None => {
                            done.unset.insert(name.to_owned());
                            done.text.push_str(&from[..from.len() - after.len()]);
                        }
                    }
                    after
                }
                None => {
                    done.text.push_str("%(");
                    &from["%(".len()..]
                }
            };
        }
        done.text.push_str(rest);
        done
    }
}

impl<N: Into<String>, V: Into<String>> FromIterator<(N, V)> for Env {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(variables: I) -> Self {
        let variables = variables.into_iter().map(|(name, value)| (name.into(), value.into()));
        Self(variables.filter(|(name, _)| name.starts_with(PREFIX)).collect())
    }
}

/// Names only: values are often secrets.
impl fmt::Debug for Env {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

/// The name of the variable whose reference begins `text`, and what follows the reference.
fn variable(text: &str) -> Option<(&str, &str)> {
    let (name, after) = text.strip_prefix("%(")?.split_once(')')?;
    let valid =
        name.starts_with(PREFIX) && name.bytes().all(|byte| byte == b'_' || byte.is_ascii_alphanumeric());
    valid.then_some((name, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_variables_with_the_prefix_are_replaced_and_only_once() {
        let env: Env = [
            ("NODEPOOL_HOST", "zk01"),
            ("NODEPOOL_EMPTY", ""),
            ("NODEPOOL_LOOP", "%(NODEPOOL_HOST)"),
            ("HOME", "/root"),
        ]
        .into_iter()
        .collect();
        let cases = [
            ("host: %(NODEPOOL_HOST)", "host: zk01"),
            ("%(NODEPOOL_HOST)%(NODEPOOL_HOST).example", "zk01zk01.example"),
            ("a%(NODEPOOL_EMPTY)b", "ab"),
            ("%(NODEPOOL_LOOP)", "%(NODEPOOL_HOST)"),
            ("%(HOME)", "%(HOME)"),
            ("%(NODEPOOL_UNSET) x", "%(NODEPOOL_UNSET) x"),
            ("%(NODEPOOL_HOST", "%(NODEPOOL_HOST"),
            ("%(%(NODEPOOL_HOST))", "%(zk01)"),
            ("100% (ü) %", "100% (ü) %"),
            ("", ""),
        ];
        for (text, expected) in cases {
            assert_eq!(env.substitute(text).text, expected, "{text}");
        }
    }

    #[test]
    fn a_variable_that_is_not_set_is_named() {
        let done = Env::default().substitute("%(NODEPOOL_A) %(NODEPOOL_B) %(HOME) %(NODEPOOL_A)");
        assert_eq!(done.unset.into_iter().collect::<Vec<_>>(), ["NODEPOOL_A", "NODEPOOL_B"]);
    }

    #[test]
    fn the_debug_form_shows_no_values() {
        let env: Env = [("NODEPOOL_PASSWORD", "hunter2")].into_iter().collect();
        assert_eq!(format!("{env:?}"), r#"{"NODEPOOL_PASSWORD"}"#);
    }
}
