//! What all status pages have in common.

use std::collections::BTreeSet;

use serde_json::Value;

/// The value of a sample, which is written with its labels.
pub fn sample(metrics: &str, name: &str) -> Option<f64> {
    metrics.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// A table without what changes from second to second.
pub fn without_ages(table: &str) -> Vec<String> {
    let cells = |line: &str| -> String {
        let cells = line.split('|').map(str::trim);
        cells.filter(|cell| cell.matches(':').count() != 3).collect::<Vec<_>>().join("|")
    };
    table.lines().filter(|line| line.starts_with('|')).map(cells).collect()
}

/// The same of a list in JSON.
pub fn without_seconds(mut list: Value) -> Value {
    for row in list.as_array_mut().expect("a list") {
        row.as_object_mut().expect("an object").retain(|key, _| !key.ends_with("age_seconds"));
    }
    list
}

/// Each sample stands below the HELP and TYPE of its metric, each metric once.
#[track_caller]
pub fn assert_exposition(metrics: &str) {
    let mut seen = BTreeSet::new();
    let mut current = "";
    let mut lines = metrics.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            current = help.split(' ').next().unwrap();
            assert!(seen.insert(current), "{current} twice");
            let kind = lines.next().and_then(|line| line.strip_prefix(&format!("# TYPE {current} ")[..]));
            assert!(matches!(kind, Some("gauge" | "counter")), "{current}: {kind:?}");
            continue;
        }
        let (name, value) = line.rsplit_once(' ').unwrap();
        assert_eq!(name.split('{').next(), Some(current), "{line}");
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
    assert!(metrics.ends_with('\n') && seen.len() > 15, "{metrics}");
}
