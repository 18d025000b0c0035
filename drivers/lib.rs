//! Nodepool's provider drivers.
//!
//! [`api`] has the interfaces and says how a driver is written; each other module is one driver. A driver is
//! added by writing it against the contract suite in [`api::contract`], and by one line in [`drivers`].

pub mod api;
pub mod fake;
pub mod local;

#[cfg(test)]
mod testing;

/// Every driver of this program.
pub fn drivers() -> &'static [&'static dyn api::Driver] {
    &[&fake::FakeDriver, &local::LocalDriver]
}

/// The driver that a provider's `driver:` key names.
pub fn driver(name: &str) -> Option<&'static dyn api::Driver> {
    drivers().iter().copied().find(|driver| driver.name() == name)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn drivers_are_found_by_their_distinct_names() {
        let names: BTreeSet<_> = super::drivers().iter().map(|driver| driver.name()).collect();
        assert_eq!(names.len(), super::drivers().len());
        for name in names {
            assert_eq!(super::driver(name).unwrap().name(), name);
        }
        assert!(super::driver("openstacc").is_none());
    }
}
