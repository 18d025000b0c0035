//! The state of a fake cloud, shared by its provider and the handlers of its node requests.

use std::collections::BTreeMap;

use nodepool_threads::Mutex;

use super::config::{Behaviour, Failures};
use super::instances::Instances;
use crate::api::{CallContext, Error, ErrorKind, Instance, Resources, StoredImage};

/// A cloud in memory. No lock of it is held while anything waits.
pub(super) struct Cloud {
    pub(super) behaviour: Behaviour,
    pub(super) images: Mutex<BTreeMap<String, StoredImage>>,
    pub(super) instances: Instances,
    /// Held while it is seen whether there is room for one more.
    admission: Mutex<()>,
    /// Ports that the next clean-up removes.
    pub(super) left_ports: Mutex<u64>,
    pub(super) upload_failures: Countdown,
    pub(super) delete_failures: Countdown,
    pub(super) launch_failures: Countdown,
    pub(super) quota_failures: Countdown,
}

impl Cloud {
    pub(super) fn new(behaviour: Behaviour) -> Self {
        Self {
            images: Mutex::new("fake cloud images", BTreeMap::new()),
            instances: Instances::new(behaviour.state_dir.as_deref()),
            admission: Mutex::new("fake cloud admission", ()),
            left_ports: Mutex::new("fake cloud ports", behaviour.left_ports),
            upload_failures: Countdown::new(ErrorKind::Transient, behaviour.upload_failures),
            delete_failures: Countdown::new(ErrorKind::Transient, behaviour.delete_failures),
            launch_failures: Countdown::new(ErrorKind::Transient, behaviour.launch_failures),
            quota_failures: Countdown::new(ErrorKind::Quota, behaviour.quota_failures),
            behaviour,
        }
    }

    /// Each call about nodes begins with this.
    pub(super) fn answer(&self, call: &CallContext) -> Result<(), Error> {
        call.stop.check()?;
        match &self.behaviour.silent_while {
            Some(file) if file.exists() => {
                let message =
                    format!("nobody answers for the fake cloud as long as there is {}", file.display());
                Err(Error::new(ErrorKind::Unavailable, message))
            }
            _ => Ok(()),
        }
    }

    /// Adds an instance, or says that there is no room for it.
    pub(super) fn add_within_limits(&self, instance: Instance) -> Result<(), Error> {
        if self.behaviour.limits == Resources::default() {
            return self.instances.add(instance);
        }
        let _alone = self.admission.lock();
        let mut used = Resources::default();
        for other in self.instances.list()? {
            used.add(&other.resources);
        }
        if let Some(name) = self.behaviour.limits.exceeded_by(&used, &instance.resources) {
            return Err(Error::new(ErrorKind::Quota, format!("the fake cloud has not enough {name} left")));
        }
        self.instances.add(instance)
    }

    /// The slow and possibly failing part of every deletion, of images and of nodes.
    pub(super) fn take_time_to_delete(&self, call: &CallContext, what: &str) -> Result<(), Error> {
        call.stop.wait(self.behaviour.delete_delay)?;
        self.delete_failures.strike(|| format!("the fake cloud did not delete {what}"))
    }
}

/// The failures that are still to come.
pub(super) struct Countdown(ErrorKind, Mutex<Failures>);

impl Countdown {
    fn new(kind: ErrorKind, failures: Failures) -> Self {
        Self(kind, Mutex::new("fake cloud failures", failures))
    }

    /// An error while failures are due, and one of them used up.
    pub(super) fn strike(&self, what: impl FnOnce() -> String) -> Result<(), Error> {
        match &mut *self.1.lock() {
            Failures::First(0) => return Ok(()),
            Failures::First(left) => *left -= 1,
            Failures::All => {}
        }
        Err(Error::new(self.0, format!("{}, as it was configured to", what())))
    }
}
