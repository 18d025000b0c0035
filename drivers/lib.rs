//! Nodepool's provider drivers.
//!
//! [`api`] has the interfaces and says how a driver is written; each other module is one driver. A driver is
//! added by writing it against the contract suite in [`api::contract`], and by one line in [`drivers`].

pub mod api;
pub mod fake;
pub mod local;
pub mod openstack;
pub mod r#static;
#[cfg(test)]
mod testing;

/// Every driver of this program.
pub fn drivers() -> &'static [&'static dyn api::Driver] {
    &[&fake::FakeDriver, &local::LocalDriver, &openstack::OpenStackDriver, &r#static::StaticDriver]
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    #[test]
    fn every_driver_has_a_name_of_its_own() {
        let names: BTreeSet<_> = super::drivers().iter().map(|driver| driver.name()).collect();
        assert_eq!(names.len(), super::drivers().len());
    }
}
