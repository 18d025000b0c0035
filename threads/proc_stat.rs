//! The `stat` file of a process or a thread (proc_pid_stat(5)), which is one line of fields.
//!
//! The second field is the command's name, in parentheses, and may hold any character, spaces and parentheses
//! among them: what comes after it is found from the last closing one.

/// The fields after the name: the state first, then the parent, the process group, the session. None if the
/// text is no such line.
pub(crate) fn after_name(stat: &str) -> Option<impl Iterator<Item = &str>> {
    Some(stat.rsplit_once(')')?.1.split_ascii_whitespace())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_may_look_like_the_fields_after_it() {
        let fields = |stat| after_name(stat).map(|fields| fields.collect::<Vec<_>>());
        assert_eq!(fields("7 (x) R 1 (y) S 2 3 4\n"), Some(vec!["S", "2", "3", "4"]));
        assert_eq!(fields(""), None);
    }
}
