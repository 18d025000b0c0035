//! The suite must find a driver that is wrong.

use std::sync::atomic::{AtomicUsize, Ordering};

use super::*;
use crate::api::{ImageUpload, Images, Nodes, StoredImage};
use crate::testing::{Scratch, logger};

/// Stores nothing and says that it did.
#[derive(Default)]
struct Liar(AtomicUsize);

impl Provider for Liar {
    fn images(&self) -> Option<&dyn Images> {
        Some(self)
    }

    fn nodes(&self) -> Option<&dyn Nodes> {
        None
    }
}

impl Images for Liar {
    fn upload(&self, _: &CallContext, _: &ImageUpload) -> Result<String, Error> {
        Ok(self.0.fetch_add(1, Ordering::Relaxed).to_string())
    }

    fn delete(&self, _: &CallContext, _: &str) -> Result<(), Error> {
        Ok(())
    }

    fn list(&self, _: &CallContext) -> Result<Vec<StoredImage>, Error> {
        Ok(Vec::new())
    }
}

/// Can do nothing.
struct Useless;

impl Provider for Useless {
    fn images(&self) -> Option<&dyn Images> {
        None
    }

    fn nodes(&self) -> Option<&dyn Nodes> {
        None
    }
}

fn check_on(provider: &dyn Provider) {
    let scratch = Scratch::new();
    check(&Subject {
        provider,
        slow: provider,
        slow_size: 1,
        format: "raw",
        label: "any",
        scratch: scratch.path(),
        log: &logger(),
    });
}

#[test]
#[should_panic(expected = "the driver breaks its contract: an uploaded image is listed once")]
fn an_upload_that_stores_nothing_is_found_out() {
    check_on(&Liar::default());
}

#[test]
#[should_panic(expected = "the driver breaks its contract: a provider has at least one ability")]
fn a_provider_without_abilities_is_found_out() {
    check_on(&Useless);
}
