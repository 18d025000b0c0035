//! What is wrong with a configuration, file by file.
//!
//! Readers note a [`Problem`] with its path inside one file; here it gets the file's name, and its place
//! among the others: an operator works through a file from top to bottom, so problems are listed in that
//! order and not in the order in which the checks happen to run.

use std::collections::BTreeSet;
use std::fmt;
use std::path::{Path, PathBuf};

use nodepool_drivers::api::yaml::{self, Position, SyntaxError};
use nodepool_drivers::api::{Problem, Severity};

use super::source::Source;

/// A problem and the file that it is in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileProblem {
    /// The file's name as it was given, made absolute.
    pub file: PathBuf,
    /// Where in the text of the file, if it is known.
    pub at: Option<Position>,
    /// What is wrong and where in the file.
    pub problem: Problem,
}

impl FileProblem {
    /// An error with the file as a whole.
    pub(crate) fn of_file(file: &Path, message: impl Into<String>) -> Self {
        Self::at(file, None, Severity::Error, message)
    }

    /// A warning of the file as a whole.
    pub(crate) fn warning(file: &Path, message: impl Into<String>) -> Self {
        Self::at(file, None, Severity::Warning, message)
    }

    /// The text of the file cannot be read.
    pub(crate) fn of_syntax(file: &Path, source: &Source<'_>, error: SyntaxError) -> Self {
        Self::at(file, error.at.map(|at| source.place(at)), Severity::Error, error.message)
    }

    fn at(file: &Path, at: Option<Position>, severity: Severity, message: impl Into<String>) -> Self {
        let problem = Problem { severity, path: String::new(), message: message.into() };
        Self { file: file.to_owned(), at, problem }
    }
}

/// `FILE:LINE:COLUMN: PATH: what is wrong`, as far as there is a place and a path.
impl fmt::Display for FileProblem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:", self.file.display())?;
        if let Some(at) = self.at {
            write!(f, "{at}:")?;
        }
        write!(f, " {}", self.problem)
    }
}

/// Why a configuration cannot be used: at least one error, and whatever else was found on the way.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    problems: Vec<FileProblem>,
    /// Files of drivers that were looked into, whether they were there or not.
    others: BTreeSet<PathBuf>,
}

impl ConfigError {
    pub(crate) fn new(problems: Vec<FileProblem>) -> Self {
        debug_assert!(problems.iter().any(|found| found.problem.severity == Severity::Error));
        Self { problems, others: BTreeSet::new() }
    }

    /// The same, with the files of drivers that were looked into: another content of theirs may mend it.
    pub(super) fn beside(self, others: BTreeSet<PathBuf>) -> Self {
        Self { others, ..self }
    }

    pub(super) fn others(&self) -> &BTreeSet<PathBuf> {
        &self.others
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
        Self { problems: vec![problem], others: BTreeSet::new() }
    }
}

/// One line for each problem.
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

/// The problems that were found in the YAML text of a file, with their places and in the order of these.
pub(crate) fn in_file_order(file: &Path, source: &Source<'_>, problems: Vec<Problem>) -> Vec<FileProblem> {
    if problems.is_empty() {
        return Vec::new();
    }
    let (places, placer) = (yaml::places(&source.text), source.placer());
    let with_place = |problem: Problem| {
        let at = Some(&problem.path).filter(|path| !path.is_empty()).and_then(|path| places.of(path));
        let at = at.map(|at| placer.place(at));
        FileProblem { file: file.to_owned(), at, problem }
    };
    let mut found: Vec<_> = problems.into_iter().map(with_place).collect();
    found.sort_by_key(|problem| problem.at);
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(path: &str) -> Problem {
        Problem { severity: Severity::Error, path: path.to_owned(), message: "wrong".to_owned() }
    }

    #[test]
    fn problems_have_their_place_and_come_in_the_order_of_the_file_and_not_of_the_checks() {
        let text = "providers: [{name: a}]\nimages:\n- x: 1\n- {b: 1, a: {q.r: 1, q: 2}}\n";
        let found =
            ["images[1].a.q", "images[1].a.q.r", "images[0].missing", "images[1].b", "providers[0].name", ""];
        let sorted = in_file_order(Path::new("n.yaml"), &Source::unchanged(text), found.map(problem).into());
        let expected = [
            "n.yaml: wrong",
            "n.yaml:1:14: providers[0].name: wrong",
            "n.yaml:3:3: images[0].missing: wrong",
            "n.yaml:4:4: images[1].b: wrong",
            "n.yaml:4:14: images[1].a.q.r: wrong",
            "n.yaml:4:22: images[1].a.q: wrong",
        ];
        assert_eq!(sorted.iter().map(ToString::to_string).collect::<Vec<_>>(), expected);
    }

    #[test]
    fn an_error_is_one_line_per_problem_with_file_place_and_cause() {
        let file = Path::new("/etc/nodepool/nodepool.yaml");
        let syntax =
            SyntaxError { at: Some(Position { line: 3, column: 1 }), message: "not valid".to_owned() };
        let error = ConfigError::new(vec![
            FileProblem::of_syntax(file, &Source::unchanged("a: 1\n\n- b\n"), syntax),
            FileProblem::of_file(file, "is empty"),
        ]);
        assert_eq!(
            error.to_string(),
            "/etc/nodepool/nodepool.yaml:3:1: not valid\n/etc/nodepool/nodepool.yaml: is empty"
        );
    }
}
