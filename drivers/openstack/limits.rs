//! `/limits` of Nova and Cinder.

use serde_json::Value as Json;

use crate::api::Resources;

/// Nova's names, and ours.
pub(super) const COMPUTE: [(&str, &str); 3] =
    [("maxTotalInstances", Resources::INSTANCES), ("maxTotalCores", "cores"), ("maxTotalRAMSize", "ram")];
/// Cinder's names, and ours.
pub(super) const VOLUME: [(&str, &str); 2] =
    [("maxTotalVolumes", "volumes"), ("maxTotalVolumeGigabytes", "volume-gb")];

/// The limits in an answer. What is -1 there is none.
pub(super) fn read(answer: &Json, names: &[(&str, &'static str)]) -> Resources {
    let limit = |theirs: &str| answer.pointer(&format!("/limits/absolute/{theirs}")).and_then(Json::as_i64);
    let limits = names.iter().filter_map(|(theirs, ours)| Some((*ours, limit(theirs)?)));
    limits.filter(|(_, limit)| *limit >= 0).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_is_unlimited_is_no_limit() {
        let answer = json!({"limits": {"absolute": {"maxTotalInstances": 10, "maxTotalCores": -1, "maxTotalRAMSize": 0}}});
        assert_eq!(read(&answer, &COMPUTE), [("instances", 10), ("ram", 0)].into_iter().collect());
        assert_eq!(read(&answer, &VOLUME), Resources::default());
    }
}
