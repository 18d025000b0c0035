//! The plans of all images, kept so that an event costs in proportion to what there is to do: most images have
//! nothing to do, and wait for nothing but a time.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use super::failures::Attempt;
use super::plan::Plan;

/// A plan that something is to be done by.
#[derive(Debug)]
pub(super) struct Planned {
    pub(super) plan: Plan,
    /// What has failed if the build fails.
    pub(super) attempt: Attempt,
    /// Since when the image has been as it is: its request, or its newest ready build.
    pub(super) waits_since: f64,
}

/// What is to be done, by image, and when to look again.
#[derive(Debug, Default)]
pub(super) struct Agenda {
    work: BTreeMap<String, Planned>,
    /// When time alone will change an image's plan.
    moments: BTreeMap<String, Moment>,
    /// The same, the earliest first.
    by_time: BTreeSet<(Moment, String)>,
}

/// UNIX seconds, in order.
#[derive(Debug, Clone, Copy)]
struct Moment(f64);

impl Ord for Moment {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.total_cmp(&other.0)
    }
}

impl PartialOrd for Moment {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Moment {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Moment {}

impl Agenda {
    /// Puts the plan of an image in the place of its last one.
    pub(super) fn set(&mut self, image: String, planned: Planned) {
        self.forget_moment(&image);
        if let Some(time) = planned.plan.look_again {
            self.moments.insert(image.clone(), Moment(time));
            self.by_time.insert((Moment(time), image.clone()));
        }
        if planned.plan.is_work() {
            self.work.insert(image, planned);
        } else {
            self.work.remove(&image);
        }
    }

    fn forget_moment(&mut self, image: &str) {
        if let Some(moment) = self.moments.remove(image) {
            self.by_time.remove(&(moment, image.to_owned()));
        }
    }

    /// The images with something to do, by name.
    pub(super) fn work(&self) -> impl Iterator<Item = (&String, &Planned)> {
        self.work.iter()
    }

    /// What is to be done for an image.
    pub(super) fn of(&self, image: &str) -> Option<&Planned> {
        self.work.get(image)
    }

    /// All images that have a plan.
    pub(super) fn images(&self) -> impl Iterator<Item = &String> {
        self.work.keys().chain(self.moments.keys())
    }

    /// When the next plan depends on the time, UNIX seconds.
    pub(super) fn next_moment(&self) -> Option<f64> {
        self.by_time.first().map(|(moment, _)| moment.0)
    }

    /// The images whose time has come; each is named once.
    pub(super) fn take_due(&mut self, now: f64) -> Vec<String> {
        let mut due = Vec::new();
        while self.next_moment().is_some_and(|moment| moment <= now) {
            if let Some((_, image)) = self.by_time.pop_first() {
                self.moments.remove(&image);
                due.push(image);
            }
        }
        due
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::builder::plan::Reason;

    fn planned(build: Option<Reason>, look_again: Option<f64>) -> Planned {
        let plan = Plan { build, look_again, ..Plan::default() };
        Planned { plan, attempt: Attempt::build("a", None, 0), waits_since: 0.0 }
    }

    #[test]
    fn the_last_plan_of_an_image_counts() {
        let mut agenda = Agenda::default();
        agenda.set("a".to_owned(), planned(Some(Reason::Missing), Some(5.0)));
        agenda.set("b".to_owned(), planned(None, Some(3.0)));
        assert_eq!(agenda.work().map(|(image, _)| image.as_str()).collect::<Vec<_>>(), ["a"]);
        assert_eq!(agenda.next_moment(), Some(3.0));
        agenda.set("b".to_owned(), planned(None, Some(7.0)));
        assert_eq!(agenda.next_moment(), Some(5.0));
        agenda.set("a".to_owned(), planned(None, None));
        assert!(agenda.of("a").is_none());
        assert_eq!(agenda.images().collect::<Vec<_>>(), ["b"]);
        agenda.set("b".to_owned(), planned(None, None));
        assert_eq!((agenda.images().count(), agenda.next_moment()), (0, None));
    }

    #[test]
    fn images_are_due_at_their_time_and_once() {
        let mut agenda = Agenda::default();
        for (image, time) in [("a", 4.0), ("b", 2.0), ("c", f64::INFINITY), ("d", 2.0)] {
            agenda.set(image.to_owned(), planned(None, Some(time)));
        }
        assert!(agenda.take_due(1.9).is_empty());
        assert_eq!(agenda.take_due(2.0), ["b", "d"]);
        assert!(agenda.take_due(2.0).is_empty());
        assert_eq!(agenda.take_due(1e12), ["a"]);
        assert_eq!(agenda.next_moment(), Some(f64::INFINITY));
    }
}
