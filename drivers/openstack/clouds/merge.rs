//! Trees of values: how several become one, and how values are taken out of one.
//!
//! The rules are openstacksdk's (`openstack/config/loader.py` and `_util.py`): secrets lie deep over clouds;
//! a cloud lies over its profile with `auth` as the one key that is merged and not replaced.

use crate::api::Value;

pub(super) type Entries = Vec<(String, Value)>;

/// The entries of a mapping, each key once and with `_` for `-`; none of anything else.
pub(super) fn entries(value: &Value) -> Entries {
    let mut all = Entries::new();
    if let Value::Map(map) = value {
        for (key, value) in map {
            let value = match value {
                Value::Map(_) => Value::Map(entries(value)),
                other => other.clone(),
            };
            put(&mut all, key.replace('-', "_"), value);
        }
    }
    all
}

/// Sets a key.
pub(super) fn put(entries: &mut Entries, key: String, value: Value) {
    match entries.iter_mut().find(|(name, _)| *name == key) {
        Some((_, old)) => *old = value,
        None => entries.push((key, value)),
    }
}

/// The value of a key, if it has one.
pub(super) fn get<'v>(entries: &'v Entries, key: &str) -> Option<&'v Value> {
    let found = entries.iter().find(|(name, _)| name == key).map(|(_, value)| value);
    found.filter(|value| !matches!(value, Value::Null))
}

/// Lays `upper` over `lower`, mappings within mappings.
pub(super) fn over(lower: &Value, upper: &Value) -> Value {
    let (Value::Map(lower), Value::Map(upper)) = (lower, upper) else { return upper.clone() };
    let mut merged = lower.clone();
    for (key, value) in upper {
        let below = merged.iter().rev().find(|(name, _)| name == key).map(|(_, below)| below.clone());
        let value = match below {
            Some(below) => over(&below, value),
            None => value.clone(),
        };
        put(&mut merged, key.clone(), value);
    }
    Value::Map(merged)
}

/// Lays a cloud over its profile, or a region's values over a cloud: only `auth` is merged.
pub(super) fn update(cloud: &mut Entries, upper: Entries) {
    for (key, value) in upper {
        let below = get(cloud, &key).filter(|_| key == "auth").cloned();
        let value = match below {
            Some(below) => over(&below, &value),
            None => value,
        };
        put(cloud, key, value);
    }
}

/// The texts of a list, or of a single scalar.
pub(super) fn texts(value: &Value) -> Option<Vec<String>> {
    match value {
        Value::List(items) => items.iter().map(Value::scalar_text).collect(),
        other => other.scalar_text().map(|text| vec![text]),
    }
}
