//! The state of a fake cloud, shared by its provider and the handlers of its node requests.

use std::collections::{BTreeMap, BTreeSet};

use nodepool_threads::Mutex;

use super::config::{Behaviour, Failures};
use crate::api::{CallContext, Error, ErrorKind, StoredImage};

/// A cloud in memory. No lock of it is held while anything waits.
pub(super) struct Cloud {
    pub(super) behaviour: Behaviour,
    pub(super) images: Mutex<BTreeMap<String, StoredImage>>,
    pub(super) nodes: Mutex<BTreeSet<String>>,
    pub(super) upload_failures: Countdown,
    pub(super) delete_failures: Countdown,
    pub(super) launch_failures: Countdown,
}

impl Cloud {
    pub(super) fn new(behaviour: Behaviour) -> Self {
        Self {
            behaviour,
            images: Mutex::new("fake cloud images", BTreeMap::new()),
            nodes: Mutex::new("fake cloud nodes", BTreeSet::new()),
            upload_failures: Countdown::new(behaviour.upload_failures),
            delete_failures: Countdown::new(behaviour.delete_failures),
            launch_failures: Countdown::new(behaviour.launch_failures),
        }
    }

    /// The slow and possibly failing part of every deletion, of images and of nodes.
    pub(super) fn take_time_to_delete(&self, call: &CallContext, what: &str) -> Result<(), Error> {
        call.stop.wait(self.behaviour.delete_delay)?;
        self.delete_failures.strike(|| format!("the fake cloud did not delete {what}"))
    }
}

/// The failures that are still to come.
pub(super) struct Countdown(Mutex<Failures>);

impl Countdown {
    fn new(failures: Failures) -> Self {
        Self(Mutex::new("fake cloud failures", failures))
    }

    /// An error while failures are due, and one of them used up.
    pub(super) fn strike(&self, what: impl FnOnce() -> String) -> Result<(), Error> {
        match &mut *self.0.lock() {
            Failures::First(0) => return Ok(()),
            Failures::First(left) => *left -= 1,
            Failures::All => {}
        }
        Err(Error::new(ErrorKind::Transient, format!("{}, as it was configured to", what())))
    }
}
