//! `/threads`: every registered thread, what it is there for, and what it is doing for how long.

use nodepool_threads::{Ongoing, ThreadInfo, threads};
use serde::Serialize;

use super::units::span;
use crate::listing::{Keyed, Row};

/// A thread. Times are seconds.
#[derive(Serialize)]
pub(in crate::web) struct ThreadRow {
    name: String,
    role: &'static str,
    id: u32,
    age: f64,
    /// From the outermost to the innermost.
    activities: Vec<Doing>,
}

#[derive(Serialize)]
struct Doing {
    activity: String,
    elapsed: f64,
    /// How long it may be expected to take at most.
    limit: Option<f64>,
    #[serde(skip)]
    shown: String,
}

impl Row for ThreadRow {
    const HEADER: &'static [&'static str] = &["Name", "Role", "ID", "Age", "Activity"];

    fn cells(&self, _now: f64) -> Vec<String> {
        let activities: Vec<_> = self.activities.iter().map(|doing| doing.shown.as_str()).collect();
        let role = self.role.to_owned();
        vec![self.name.clone(), role, self.id.to_string(), span(self.age), activities.join("; ")]
    }
}

impl Keyed for ThreadRow {
    const KEYS: &'static [&'static str] = &["name", "role", "id", "age", "activities"];
}

/// The threads as they are now.
pub(in crate::web) fn thread_rows() -> Vec<ThreadRow> {
    let doing = |doing: Ongoing| Doing {
        // As in the dump of all stacks.
        shown: doing.to_string(),
        activity: doing.what,
        elapsed: doing.since.as_secs_f64(),
        limit: doing.limit.map(|limit| limit.as_secs_f64()),
    };
    let row = |thread: ThreadInfo| ThreadRow {
        name: thread.name,
        role: thread.role,
        id: thread.id,
        age: thread.age.as_secs_f64(),
        activities: thread.activities.into_iter().map(doing).collect(),
    };
    threads().into_iter().map(row).collect()
}
