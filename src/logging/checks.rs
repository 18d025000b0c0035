//! What every form of a logging configuration is checked for, although it could be used: paths that depend on
//! where the program is started, names of loggers that log nothing, and files that several outputs write.

use std::path::{Component, Path, PathBuf};

use nodepool_drivers::api::Problems;

use super::names::{is_known, meant};
use super::settings::{Output, Target};

/// The path of a file or socket that `at` names, as it is meant now: a daemon changes its directory later.
pub(super) fn path_at(path: &str, at: &str, problems: &Problems) -> Option<PathBuf> {
    if path.is_empty() {
        problems.error(at, "the path must not be empty");
        return None;
    }
    if path.contains('\0') {
        problems.error(at, "the path must not contain a NUL character");
        return None;
    }
    let absolute = std::path::absolute(path).unwrap_or_else(|_| path.into());
    if Path::new(path).is_relative() {
        let where_to = absolute.display();
        problems.warning(
            at,
            format!("'{path}' depends on where the program is started, here it is {where_to}; write an absolute path"),
        );
    }
    Some(absolute)
}

/// Warns of a name that no logger has, for then what is said of it has no effect.
pub(super) fn warn_of_unknown(logger: &str, at: &str, problems: &Problems) {
    if !is_known(logger) {
        let hint = meant(logger).map(|name| format!("; did you mean '{name}'?")).unwrap_or_default();
        problems.warning(at, format!("no logger is named '{logger}', so this has no effect{hint}"));
    }
}

/// The path without `..`. A symbolic link before one may lead elsewhere in truth, so this is for comparing only.
fn without_parents(path: &Path) -> PathBuf {
    let mut plain = PathBuf::new();
    for part in path.components() {
        match part {
            Component::ParentDir => _ = plain.pop(),
            part => plain.push(part),
        }
    }
    plain
}

/// The target with its path without detours.
fn plain(target: &Target) -> Target {
    match target {
        Target::File(path) => Target::File(without_parents(path)),
        Target::Console(stream) => Target::Console(*stream),
        Target::Syslog { socket, facility } => {
            Target::Syslog { socket: without_parents(socket), facility: *facility }
        }
    }
}

/// An output, and where it is named.
pub(super) type Placed = (String, Output);

/// The outputs whose target an earlier one has: their place, the target, and the place of the earlier one.
pub(super) fn repeated(outputs: &[Placed]) -> impl Iterator<Item = (&str, &Target, &str)> {
    outputs.iter().enumerate().filter_map(|(index, (at, output))| {
        let target = plain(&output.target);
        let (first, _) = outputs[..index].iter().find(|(_, other)| plain(&other.target) == target)?;
        Some((at.as_str(), &output.target, first.as_str()))
    })
}
