//! Nodepool's provider drivers.
//!
//! [`api`] has the interfaces, each other module one driver. A driver is added by writing it against the
//! contract suite in [`api::contract`], and by one line in [`drivers`].

pub mod api;

/// Every driver of this program.
pub fn drivers() -> &'static [&'static dyn api::Driver] {
    &[]
}
