//! What is wrong with a configuration, file by file.
//!
//! Readers note a [`Problem`] with its path inside one file; here it gets the file's name, and its place
//! among the others: an operator works through a file from top to bottom, so problems are listed in that
//! order and not in the order in which the checks happen to run.

use std::fmt;
use std::path::{Path, PathBuf};

use nodepool_drivers::api::{Problem, Severity, Value};

/// A problem and the file that it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileProblem {
    /// The file's name as it was given, made absolute.
    pub file: PathBuf,
    /// What is wrong and where in the file.
    pub problem: Problem,
}

impl FileProblem {
    /// An error at `path` of `file`.
    pub(crate) fn error(file: &Path, path: impl Into<String>, message: impl Into<String>) -> Self {
        let problem = Problem { severity: Severity::Error, path: path.into(), message: message.into() };
        Self { file: file.to_owned(), problem }
    }
}

impl fmt::Display for FileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file.display(), self.problem)
    }
}

/// Why a configuration cannot be used: at least one error, and whatever else was found on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<FileProblem>,
}

impl ConfigError {
    pub(crate) fn new(problems: Vec<FileProblem>) -> Self {
        debug_assert!(problems.iter().any(|found| found.problem.severity == Severity::Error));
        Self { problems }
    }

    /// Every problem, the main file's first, each file's in the order of the file. Unknown keys are among
    /// them.
    pub fn problems(&self) -> &[FileProblem] {
        &self.problems
    }

    /// The same, owned.
    pub fn into_problems(self) -> Vec<FileProblem> {
        self.problems
    }
}

impl From<FileProblem> for ConfigError {
    fn from(problem: FileProblem) -> Self {
        Self { problems: vec![problem] }
    }
}

/// One line for each problem: `FILE: PATH: what is wrong`.
impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, problem) in self.problems.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for ConfigError {}

/// Brings the problems of one file into the order in which `root` has the places that they name.
pub(crate) fn in_file_order(file: &Path, root: &Value, mut problems: Vec<Problem>) -> Vec<FileProblem> {
    problems.sort_by_cached_key(|problem| place(root, &problem.path));
    problems.into_iter().map(|problem| FileProblem { file: file.to_owned(), problem }).collect()
}

/// The place of `path` in the tree, as the number of the child at each level. A path that leads nowhere,
/// such as a key that is missing, has the place of the last thing on it that exists.
fn place(root: &Value, path: &str) -> Vec<usize> {
    let mut place = Vec::new();
    let (mut value, mut rest) = (root, path);
    while !rest.is_empty() {
        let step = match value {
            Value::Map(entries) => entry(entries, rest.strip_prefix('.').unwrap_or(rest)),
            Value::List(items) => item(items, rest),
            _ => None,
        };
        let Some((index, child, left)) = step else { break };
        place.push(index);
        (value, rest) = (child, left);
    }
    place
}

/// The entry whose key begins `path`. Keys may have dots themselves, so the longest one counts.
fn entry<'v, 'p>(entries: &'v [(String, Value)], path: &'p str) -> Option<(usize, &'v Value, &'p str)> {
    let fits = |(index, (key, value)): (usize, &'v (String, Value))| {
        let left = path.strip_prefix(key.as_str())?;
        (left.is_empty() || left.starts_with(['.', '['])).then_some((index, value, left))
    };
    entries.iter().enumerate().filter_map(fits).min_by_key(|(_, _, left)| left.len())
}

/// The item that `path`, which begins with `[number]`, stands for.
fn item<'v, 'p>(items: &'v [Value], path: &'p str) -> Option<(usize, &'v Value, &'p str)> {
    let (number, left) = path.strip_prefix('[')?.split_once(']')?;
    let index = number.parse().ok()?;
    items.get(index).map(|value| (index, value, left))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::yaml;

    fn problem(path: &str) -> Problem {
        Problem { severity: Severity::Error, path: path.to_owned(), message: "wrong".to_owned() }
    }

    #[test]
    fn problems_come_in_the_order_of_the_file_and_not_of_the_checks() {
        let root =
            yaml::parse("providers: [{name: a}]\nimages:\n- x: 1\n- {b: 1, a: {q.r: 1, q: 2}}\n").unwrap();
        let found =
            ["images[1].a.q", "images[1].a.q.r", "images[0].missing", "images[1].b", "providers[0].name", ""];
        let sorted = in_file_order(Path::new("n.yaml"), &root, found.map(problem).into());
        let paths: Vec<_> = sorted.iter().map(|found| found.problem.path.as_str()).collect();
        assert_eq!(
            paths,
            ["", "providers[0].name", "images[0].missing", "images[1].b", "images[1].a.q.r", "images[1].a.q"]
        );
    }

    #[test]
    fn an_error_is_one_line_per_problem_with_file_path_and_cause() {
        let file = Path::new("/etc/nodepool/nodepool.yaml");
        let error = ConfigError::new(vec![
            FileProblem::error(file, "diskimages[0].name", "must not be empty"),
            FileProblem::error(file, "", "is empty"),
        ]);
        assert_eq!(
            error.to_string(),
            "/etc/nodepool/nodepool.yaml: diskimages[0].name: must not be empty\n\
             /etc/nodepool/nodepool.yaml: is empty"
        );
    }
}
