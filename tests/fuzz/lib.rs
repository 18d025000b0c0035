//! What the targets share. Each of them feeds a public reading function with bytes that the fuzzer makes up, and
//! asserts what must hold for all bytes; that nothing panics, overflows, hangs or eats up the memory is watched by the
//! fuzzer itself.

use nodepool::config::FileProblem;

/// A problem's place must be one in the file, where an editor can go to; and it must say something.
pub fn check_place(problem: &FileProblem, text: &str) {
    assert!(!problem.problem.message.is_empty(), "{problem}");
    let Some(at) = problem.at else { return };
    let line = at.line.checked_sub(1).and_then(|index| text.split('\n').nth(index));
    let line = line.unwrap_or_else(|| panic!("there is no such line: {problem}"));
    assert!((1..=line.chars().count() + 1).contains(&at.column), "there is no such column: {problem}");
}
