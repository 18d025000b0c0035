//! A fleet of two: our builder and the original's on one TLS ZooKeeper, with files of their own, and the random
//! life that both and their clients lead.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use fastrand::Rng;
use serde_json::Value;

use super::{Counts, Who};
use crate::builder::{builds, in_state, records, script, uploads};
use crate::support::original::{Client, wait_stopped};
use crate::support::{
    Daemon, Header, Original, Outcome, Sandbox, Signal, Transport, ZkClient, eventually, within,
};

pub const IMAGES: [&str; 6] = ["alma", "buster", "centos", "debian", "euler", "fedora"];
pub const PROVIDERS: [&str; 2] = ["east", "west"];
/// Ours ends a stop within 10 s.
const STOP: Duration = Duration::from_secs(60);
/// The original looks for garbage once a minute, and before that finishes what it does.
const CLEANUP: Duration = Duration::from_secs(240);

pub struct Fleet<'a> {
    pub sandbox: &'a Sandbox<'a>,
    pub zk: ZkClient,
    pub counts: Counts,
    rng: Rng,
    their_client: Client<'a>,
    ours: Option<Daemon>,
    theirs: Option<Daemon>,
    /// A file for each run of a builder.
    logs: Vec<(Who, PathBuf)>,
    paused: Vec<&'static str>,
}

impl<'a> Fleet<'a> {
    /// Writes both configurations and starts both builders.
    pub fn start(sandbox: &'a Sandbox<'a>, seed: u64) -> Fleet<'a> {
        for folder in ["original-images", "original-logs"] {
            std::fs::create_dir(sandbox.path(folder)).unwrap();
        }
        let body = body(sandbox);
        let header = sandbox.header(&Header { transport: Transport::Tls, timeout: 10.0 });
        sandbox.write_config(&format!("{header}{body}"));
        let theirs = ["images", "logs"].into_iter().fold(header, |header, folder| {
            let (own, other) = (sandbox.path(folder), sandbox.path(&format!("original-{folder}")));
            header.replace(&format!("-dir: {}\n", own.display()), &format!("-dir: {}\n", other.display()))
        });
        sandbox.replace("original.yaml", &format!("{theirs}{body}"));
        let mut fleet = Fleet {
            sandbox,
            zk: sandbox.zk(),
            counts: Counts::default(),
            rng: Rng::with_seed(seed),
            their_client: Client::start(sandbox, &sandbox.path("original.yaml")),
            ours: None,
            theirs: None,
            logs: Vec::new(),
            paused: Vec::new(),
        };
        // The original is slower in everything, so it begins.
        fleet.start_theirs();
        fleet.start_ours();
        fleet
    }

    /// `images-dir` of a builder.
    pub fn images_of(&self, who: Who) -> PathBuf {
        match who {
            Who::Ours => self.sandbox.images(),
            Who::Original => self.sandbox.path("original-images"),
        }
    }

    pub fn builder_id(&self, who: Who) -> String {
        std::fs::read_to_string(self.images_of(who).join("builder_id.txt")).unwrap().trim().to_owned()
    }

    /// What the build commands have noted: `begin` or `end`, who, which image.
    pub fn notes(&self) -> String {
        std::fs::read_to_string(self.sandbox.path("notes")).unwrap_or_default()
    }

    pub fn finished_builds(&self, who: Who) -> usize {
        let wanted = format!("end {who:?} ");
        self.notes().lines().filter(|line| line.starts_with(&wanted)).count()
    }

    /// Does something random.
    pub fn act(&mut self) {
        match self.rng.u32(0..100) {
            0..32 => self.request(),
            32..52 => self.delete_build(),
            52..72 => self.delete_upload(),
            72..90 => self.pause_or_not(),
            90..96 => self.restart_ours(),
            _ => self.restart_theirs(),
        }
        let pause = self.rng.u64(0..2000);
        self.pass(Duration::from_millis(pause));
    }

    /// What builds and uploads have noted of each other's interference: nothing.
    pub fn assert_unharmed(&self) {
        for file in ["overlaps", "lost-files"] {
            let text = std::fs::read_to_string(self.sandbox.path(file)).unwrap_or_default();
            assert!(text.is_empty(), "{file}:\n{text}");
        }
    }

    /// Lets time pass; both builders must live.
    fn pass(&self, time: Duration) {
        let ended = within(time, || {
            let mut daemons = [&self.ours, &self.theirs].into_iter().flatten();
            daemons.find_map(|daemon| daemon.exited().map(|status| (status, daemon.log())))
        });
        assert!(ended.is_none(), "a builder has ended: {ended:?}");
        self.assert_unharmed();
    }

    /// Lets go of all that holds work up.
    pub fn unpause(&mut self) {
        for image in std::mem::take(&mut self.paused) {
            self.ask(&["image-unpause", image]).ok();
        }
    }

    /// Stops both as their service managers would, and waits for their ends.
    pub fn stop(&mut self) {
        self.stop_ours();
        self.stop_theirs(Signal::INT);
    }

    /// A run of a client, of ours or the original's.
    pub fn client(&self, who: Who, args: &[&str]) -> Outcome {
        match who {
            Who::Ours => self.sandbox.nodepool(args),
            Who::Original => self.their_client.run(args),
        }
    }

    fn ask(&mut self, args: &[&str]) -> Outcome {
        let who = if self.rng.bool() { Who::Ours } else { Who::Original };
        self.counts.add(args[0], who);
        self.client(who, args)
    }

    fn request(&mut self) {
        for _ in 0..self.rng.u32(1..=4) {
            let image = self.any(&IMAGES);
            self.ask(&["image-build", image]).ok();
        }
    }

    fn delete_build(&mut self) {
        let image = self.any(&IMAGES);
        let ready = in_state(builds(&self.zk, image), "ready");
        let Some((id, _)) = self.rng.choice(ready) else { return };
        let outcome = self.ask(&["dib-image-delete", &format!("{image}-{id}")]);
        self.deleted(outcome, &format!("{}/{image}/builds/{id}", crate::builder::IMAGES));
    }

    fn delete_upload(&mut self) {
        let (image, provider) = (self.any(&IMAGES), self.any(&PROVIDERS));
        let builds = in_state(builds(&self.zk, image), "ready");
        let Some((build, _)) = self.rng.choice(builds) else { return };
        let ready = in_state(uploads(&self.zk, image, &build, provider), "ready");
        let Some((id, _)) = self.rng.choice(ready) else { return };
        let which = ["--provider", provider, "--image", image, "--build-id", &build, "--upload-id", &id];
        let outcome = self.ask(&[&["image-delete"], which.as_slice()].concat());
        let uploads = crate::builder::uploads_path(image, &build, provider);
        self.deleted(outcome, &format!("{uploads}/{id}"));
    }

    /// A client may fail to delete what has begun to go meanwhile, and nothing else.
    fn deleted(&mut self, outcome: Outcome, path: &str) {
        let record = self.zk.get(path).and_then(|znode| znode.json());
        let stays = record.is_some_and(|record| record["state"] == "ready");
        assert!(!stays, "{path} is ready after its deletion: {outcome:?}");
        if !outcome.status.success() {
            self.counts.add("deletions too late", Who::Ours);
        }
    }

    fn pause_or_not(&mut self) {
        if self.paused.len() < 2 && self.rng.bool() {
            let image = self.any(&IMAGES);
            self.ask(&["image-pause", image]).ok();
            if !self.paused.contains(&image) {
                self.paused.push(image);
            }
        } else if let Some(image) = self.paused.pop() {
            self.ask(&["image-unpause", image]).ok();
        }
    }

    fn restart_ours(&mut self) {
        self.counts.add("restarts", Who::Ours);
        self.stop_ours();
        // What is asked for now is the original's.
        self.request();
        let pause = self.rng.u64(0..8000);
        self.pass(Duration::from_millis(pause));
        self.start_ours();
    }

    fn ready_build_of_ours(&self) -> Option<(&'static str, String)> {
        let own = Value::String(self.builder_id(Who::Ours));
        IMAGES.into_iter().find_map(|image| {
            let mut ready = in_state(builds(&self.zk, image), "ready").into_iter();
            ready.find(|(_, record)| record["builder_id"] == own).map(|(id, _)| (image, id))
        })
    }

    /// Ours is away for so long that the original cleans up: a build of ours that is deleted loses its
    /// record, and its files stay behind for ours. Then the original builds what the clients ask for.
    pub fn leave_it_to_the_original(&mut self) {
        self.counts.add("restarts", Who::Ours);
        self.unpause();
        let (image, id) = loop {
            self.stop_ours();
            if let Some(found) = self.ready_build_of_ours() {
                break found;
            }
            self.start_ours();
            eventually(CLEANUP, "a ready build of ours", || self.ready_build_of_ours());
        };
        self.ask(&["dib-image-delete", &format!("{image}-{id}")]).ok();
        eventually(CLEANUP, "the original to remove the record of a build of ours", || {
            (!builds(&self.zk, image).iter().any(|(build, _)| *build == id)).then_some(())
        });
        assert!(self.builds_on_disk(Who::Ours, image).contains(&id), "the files are ours to remove");
        let before = self.finished_builds(Who::Original);
        for image in &IMAGES[..2] {
            self.ask(&["image-build", image]).ok();
        }
        eventually(CLEANUP, "a build by the original alone", || {
            (self.finished_builds(Who::Original) > before).then_some(())
        });
        self.start_ours();
    }

    fn restart_theirs(&mut self) {
        self.counts.add("restarts", Who::Original);
        let signal = if self.rng.bool() { Signal::INT } else { Signal::TERM };
        self.stop_theirs(signal);
        self.start_theirs();
    }

    fn start_ours(&mut self) {
        let daemon = self.sandbox.builder(&["--build-workers", "1"]);
        self.logs.push((Who::Ours, daemon.log_file().to_owned()));
        self.ours = Some(daemon);
    }

    fn start_theirs(&mut self) {
        let config = self.sandbox.path("original.yaml");
        let daemon = Original::get().builder(self.sandbox, &config, &[]);
        self.logs.push((Who::Original, daemon.log_file().to_owned()));
        self.theirs = Some(daemon);
    }

    fn stop_ours(&mut self) {
        let daemon = self.ours.take().unwrap();
        daemon.signal(Signal::TERM);
        let status = daemon.wait_exit(STOP);
        assert!(status.success(), "{status}\n{}", daemon.log());
    }

    /// SIGINT is its clean stop, which waits for a build. SIGTERM ends it at once, with its build and without
    /// any clean-up; its session stays until it expires.
    fn stop_theirs(&mut self, signal: Signal) {
        let daemon = self.theirs.take().unwrap();
        match signal {
            Signal::INT => daemon.signal(signal),
            _ => daemon.signal_group(signal),
        }
        wait_stopped(&daemon);
    }

    fn any(&mut self, names: &[&'static str]) -> &'static str {
        names[self.rng.usize(0..names.len())]
    }

    /// Why the fleet has not settled, if it has not: every image is built and uploaded, and nothing is on its
    /// way.
    pub fn unsettled(&self) -> Option<String> {
        for image in IMAGES {
            let all = builds(&self.zk, image);
            let mut ready = in_state(all.clone(), "ready");
            let time = |record: &Value| record["state_time"].as_f64().unwrap();
            ready.sort_by(|one, two| time(&two.1).total_cmp(&time(&one.1)));
            // Beyond the two newest, only what some provider has nothing newer of in the place of.
            let is_of_use = |(build, _): &(String, Value)| {
                PROVIDERS.iter().any(|provider| !uploads(&self.zk, image, build, provider).is_empty())
            };
            if ready.is_empty() || ready.len() != all.len() || !ready.iter().skip(2).all(is_of_use) {
                return Some(format!("the builds of {image} are {all:?}"));
            }
            if self.zk.exists(&crate::builder::request_path(image)) {
                return Some(format!("{image} is requested still"));
            }
            let newest = ready.first();
            for (build, _) in &ready {
                for provider in PROVIDERS {
                    let all = records(&self.zk, &crate::builder::uploads_path(image, build, provider));
                    let ready = in_state(all.clone(), "ready").len();
                    let wanted = usize::from(newest.is_some_and(|(id, _)| id == build));
                    if ready != all.len() || ready > 1 || ready < wanted {
                        return Some(format!("the uploads of {image}-{build} to {provider} are {all:?}"));
                    }
                }
            }
            for who in Who::BOTH {
                for id in self.builds_on_disk(who, image) {
                    if !ready.iter().any(|(build, _)| *build == id) {
                        return Some(format!("{who:?} has files of {image}-{id}, which has no record"));
                    }
                }
            }
        }
        None
    }

    /// The builds of an image of which a builder has any file.
    pub fn builds_on_disk(&self, who: Who, image: &str) -> Vec<String> {
        let prefix = format!("{image}-");
        let names = crate::builder::names(self.images_of(who)).into_iter();
        names.filter_map(|name| Some(name.strip_prefix(&prefix)?.split('.').next()?.to_owned())).collect()
    }

    /// All output of a builder, of its runs one after the other.
    pub fn log(&self, who: Who) -> String {
        self.logs.iter().filter(|(whose, _)| *whose == who).map(|(_, log)| read(log)).collect()
    }
}

fn read(log: &Path) -> String {
    String::from_utf8_lossy(&std::fs::read(log).unwrap()).into_owned()
}

/// Images and providers, the same for both.
fn body(sandbox: &Sandbox<'_>) -> String {
    sandbox.fake_dib();
    // The kernel lets go of the file's lock when the build ends, however it ends.
    let dib = script(
        sandbox,
        "dib",
        &format!(
            "cd {dir} || exit 1\n\
             case \"$*\" in *'-o {dir}/original-images/'*) who=Original ;; *) who=Ours ;; esac\n\
             exec 9>>busy-$DIB_IMAGE_NAME\n\
             flock --nonblock 9 || echo \"$who builds $DIB_IMAGE_NAME while another does\" >>overlaps\n\
             echo begin $who $DIB_IMAGE_NAME >>notes\n\
             ./fake-dib \"$@\" || exit\n\
             echo end $who $DIB_IMAGE_NAME >>notes",
            dir = sandbox.dir().display()
        ),
    );
    // An upload whose file has gone before its end is noted.
    let hook = script(
        sandbox,
        "hook",
        &format!("test -s \"$3\" || echo \"$1 $3\" >>{}/lost-files", sandbox.dir().display()),
    );
    let mut body = String::from("labels: []\ndiskimages:\n");
    for (image, tenths) in IMAGES.into_iter().zip((20..).step_by(4)) {
        let sleep = f64::from(tenths) / 10.0;
        body += &format!(
            "  - {{name: {image}, dib-cmd: '{}', formats: [qcow2], elements: [vm], \
             env-vars: {{FAKE_DIB_SLEEP: '{sleep}'}}}}\n",
            dib.display()
        );
    }
    body += "providers:\n";
    for provider in PROVIDERS {
        let images = crate::builder::listed(&IMAGES);
        body += &format!(
            "  - {{name: {provider}, driver: fake, cloud: fake, post-upload-hook: '{}', diskimages: [{images}]}}\n",
            hook.display()
        );
    }
    body
}

/// How long the random life lasts at least.
pub fn duration() -> Duration {
    let seconds = std::env::var("FLEET_SECONDS").map_or(180, |text| text.parse().expect("FLEET_SECONDS"));
    Duration::from_secs(seconds)
}

/// Until when both must have had their share, at the latest.
pub fn last_moment(begun: Instant) -> Instant {
    begun + duration() * 2 + Duration::from_secs(180)
}
