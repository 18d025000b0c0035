//! Our builder and the Python original in one fleet: six images, two providers, both clients.
//!
//! FLEET_SECONDS makes the random life longer than three minutes, FLEET_SEED makes another one.

mod fleet;
mod judged;
mod laws;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{builds, in_state};
use crate::support::original::rows;
use crate::support::{Original, Sandbox, ZooKeeper, within};
use fleet::{Fleet, IMAGES};
use laws::Judge;

const SEED: u64 = 11;
/// Builds that each side must have finished.
const SHARE: usize = 8;
/// The original looks for garbage once a minute, and for builds and uploads every ten seconds.
const SETTLED: Duration = Duration::from_secs(300);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Ours,
    Original,
}

impl Who {
    const BOTH: [Who; 2] = [Who::Ours, Who::Original];
}

/// What happened how often, by whom.
#[derive(Clone, Debug, Default)]
struct Counts(BTreeMap<(String, Who), usize>);

impl Counts {
    fn add(&mut self, what: &str, who: Who) {
        *self.0.entry((what.to_owned(), who)).or_default() += 1;
    }

    fn print(&self) {
        for ((what, who), count) in &self.0 {
            eprintln!("{count:6} {what} ({who:?})");
        }
    }
}

#[test]
fn the_original_and_ours_share_a_fleet_and_respect_each_other() {
    let seed = std::env::var("FLEET_SEED").map_or(SEED, |text| text.parse().expect("FLEET_SEED"));
    eprintln!("FLEET_SEED={seed}");
    let server = ZooKeeper::start();
    let sandbox = Sandbox::on(&server, "builder-original");
    let mut fleet = Fleet::start(&sandbox, seed);
    let begun = Instant::now();
    let mut away = false;
    let short = |fleet: &Fleet<'_>| Who::BOTH.iter().any(|who| fleet.finished_builds(*who) < SHARE);
    while begun.elapsed() < fleet::duration() || (short(&fleet) && Instant::now() < fleet::last_moment(begun))
    {
        fleet.act();
        if !away && begun.elapsed() > fleet::duration() / 2 {
            away = true;
            fleet.leave_it_to_the_original();
        }
    }
    assert!(!short(&fleet), "one has hardly built anything:\n{}", fleet.notes());
    fleet.unpause();
    let lived = begun.elapsed();
    let mut why = None;
    let settled = within(SETTLED, || {
        why = fleet.unsettled();
        why.is_none().then_some(())
    });
    assert!(
        settled.is_some(),
        "the fleet does not settle: {why:?}\n{:#?}",
        fleet.zk.dump("/nodepool/images")
    );
    eprintln!("lived for {lived:?}, settled after {:?}", begun.elapsed());

    fleet.assert_unharmed();
    every_ready_build_is_on_its_builders_disk(&fleet);
    both_clients_list_the_same(&fleet);
    fleet.stop();
    both_clients_list_the_same_of_an_unfinished_world(&fleet);

    let mut judge = Judge::new(sandbox.chroot());
    server.history().iter().for_each(|entry| judge.judge(entry));
    fleet.counts.print();
    judge.counts.print();
    the_logs_complain_of_nothing_of_the_others(&fleet, &judge);
    assert!(judge.breaches.is_empty(), "{:#?}", judge.breaches);
    assert!(judge.contenders().is_empty(), "{:?}", judge.contenders());
    assert!(judge.ghosts().is_empty(), "{:?}", judge.ghosts());
}

fn every_ready_build_is_on_its_builders_disk(fleet: &Fleet<'_>) {
    for image in IMAGES {
        for (id, record) in in_state(builds(&fleet.zk, image), "ready") {
            let who = Who::BOTH
                .into_iter()
                .find(|who| record["builder_id"] == Value::String(fleet.builder_id(*who)));
            let who = who.unwrap_or_else(|| panic!("{image}-{id} is nobody's: {record}"));
            let file = fleet.images_of(who).join(format!("{image}-{id}.qcow2"));
            assert!(file.exists(), "{}", file.display());
        }
    }
}

/// The rows without the ages, which pass between two looks.
fn list(fleet: &Fleet<'_>, who: Who, command: &str) -> Vec<Vec<String>> {
    let mut rows = rows(&fleet.client(who, &[command]).ok());
    let age = rows[0].iter().position(|title| title.ends_with("Age")).expect("a column with the age");
    rows.iter_mut().for_each(|row| {
        row.remove(age);
    });
    rows
}

#[track_caller]
fn both_clients_list_the_same(fleet: &Fleet<'_>) {
    for command in ["dib-image-list", "image-list", "image-status"] {
        let [ours, theirs] = Who::BOTH.map(|who| list(fleet, who, command));
        assert!(ours.len() > IMAGES.len(), "{command}: {ours:?}");
        assert_eq!(ours, theirs, "{command}");
    }
}

/// No builder runs: paused, requested, and on its way out.
fn both_clients_list_the_same_of_an_unfinished_world(fleet: &Fleet<'_>) {
    let [paused, requested, deleted, ..] = IMAGES;
    fleet.client(Who::Ours, &["image-pause", paused]).ok();
    // The program itself, for once.
    Original::get()
        .nodepool(fleet.sandbox, &fleet.sandbox.path("original.yaml"), &["image-build", requested])
        .ok();
    let (id, _) = builds(&fleet.zk, deleted).remove(0);
    fleet.client(Who::Original, &["dib-image-delete", &format!("{deleted}-{id}")]).ok();
    both_clients_list_the_same(fleet);
    let rows = list(fleet, Who::Ours, "dib-image-list");
    assert!(
        ["paused", "deleting"]
            .iter()
            .all(|state| rows.iter().any(|row| row.iter().any(|cell| cell == state)))
    );
}

/// No complaint names a build, or the builder, of the other.
fn the_logs_complain_of_nothing_of_the_others(fleet: &Fleet<'_>, judge: &Judge<'_>) {
    let mut bad = Vec::new();
    for who in Who::BOTH {
        let (other, marks) = match who {
            Who::Ours => (Who::Original, ["ERRO", "CRIT", "panicked"]),
            Who::Original => (Who::Ours, [" ERROR ", " CRITICAL ", "Traceback"]),
        };
        let log = fleet.log(who);
        // Otherwise these are not the logs, or the ids are not in them.
        let named = |id: &String| log.contains(id.as_str());
        assert!(judge.builds_of(who).iter().all(named), "{who:?} does not log its builds");
        let names = judge.builds_of(other).into_iter().chain([fleet.builder_id(other)]).collect::<Vec<_>>();
        let complaints = entries(&log).into_iter();
        for entry in complaints.filter(|entry| marks.iter().any(|mark| entry.contains(mark))) {
            eprintln!("{who:?}: {entry}");
            if names.iter().any(|name| entry.contains(name.as_str())) && !is_a_lost_race(&entry) {
                bad.push(format!("{who:?}: {entry}"));
            }
        }
    }
    assert!(bad.is_empty(), "{bad:#?}");
}

/// The entries of a log. The original gives each further line of an entry, as of a traceback, the head of the
/// first one (`date time LEVEL logger: `) and indents it by two; ours are one line each.
fn entries(log: &str) -> Vec<String> {
    let mut entries: Vec<String> = Vec::new();
    for line in log.lines() {
        let goes_on = line.splitn(5, ' ').nth(4).is_some_and(|text| text.starts_with("  "));
        match entries.last_mut().filter(|_| goes_on) {
            Some(last) => {
                last.push('\n');
                last.push_str(line);
            }
            None => entries.push(line.to_owned()),
        }
    }
    entries
}

/// Two cleaners have met at the same garbage, and the original was second: two originals tell the same of each
/// other.
fn is_a_lost_race(entry: &str) -> bool {
    let met = ["NoNodeError", "ZKLockException: Did not get lock"].iter().any(|error| entry.contains(error));
    entry.contains("Exception cleaning up") && met
}
