//! What the builder tells statsd (spec/statsd.md): gauges when they change, and all of them again in each round, for
//! statsd forgets what it does not hear of; and what came of builds and uploads.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use super::build_worker::BuildReport;
use super::plan::Busy;
use crate::config::Config;
use crate::model::Image;
use crate::stats::{HOSTNAME, Metric, Stats, part};

/// How often all gauges are sent again.
const REPEAT: Duration = Duration::from_secs(60);

/// The states of an image that has nothing to do, and what stands for the other states in the original.
const IDLE: i64 = 0;
const BUILDING: i64 = 1;
const UPLOADING: i64 = 2;
const PAUSED: i64 = 3;

/// What has been told, and what is to be told.
#[derive(Debug)]
pub(super) struct Metrics {
    stats: Stats,
    /// The gauges of each image, and those of all under "".
    gauges: BTreeMap<String, BTreeMap<String, i64>>,
    /// The images whose requests are pending.
    pending: BTreeSet<String>,
    news: Vec<Metric>,
    repeat: Instant,
}

impl Metrics {
    /// Nothing is told yet.
    pub(super) fn new(stats: Stats) -> Self {
        let (gauges, pending, news) = Default::default();
        Self { stats, gauges, pending, news, repeat: Instant::now() + REPEAT }
    }

    /// Notes how an image stands, which has changed.
    pub(super) fn image(&mut self, image: &Image, config: &Config, busy: &Busy) {
        if !self.stats.is_on() {
            return;
        }
        let name = image.name.as_str();
        let disk_image = config.diskimages.get(name);
        if disk_image.is_none() && image.builds.is_empty() && image.request.is_none() {
            self.gauges.remove(name);
            self.pending.remove(name);
            return;
        }
        let pending = image.request_pending();
        match pending {
            true => self.pending.insert(name.to_owned()),
            false => self.pending.remove(name),
        };
        let shown = part(name);
        let of_builder = format!("nodepool.builder.{HOSTNAME}.image.{shown}");
        let paused = image.paused || disk_image.is_some_and(|disk_image| disk_image.pause);
        let mut gauges = vec![
            (format!("nodepool.image.{shown}.image_build_requests"), i64::from(pending)),
            (format!("{of_builder}.build.state"), state(busy.build, BUILDING, paused)),
        ];
        for (provider, provider_config) in &config.providers {
            let listed = provider_config.images().and_then(|images| images.diskimages.get(name));
            let Some(listed) = listed else { continue };
            let uploading = busy.uploads.iter().any(|(_, to)| to == provider);
            let key = format!("{of_builder}.provider.{}.upload.state", part(provider));
            gauges.push((key, state(uploading, UPLOADING, listed.pause)));
        }
        self.set(name, gauges);
    }

    /// Notes what is going on altogether.
    pub(super) fn totals(&mut self, current: [usize; 2], workers: [usize; 2]) {
        if !self.stats.is_on() {
            return;
        }
        let of_builder = |name: &str| format!("nodepool.builder.{HOSTNAME}.{name}");
        let gauges = vec![
            ("nodepool.image_build_requests".to_owned(), self.pending.len() as i64),
            (of_builder("current_builds"), current[0] as i64),
            (of_builder("current_uploads"), current[1] as i64),
            (of_builder("build_workers"), workers[0] as i64),
            (of_builder("upload_workers"), workers[1] as i64),
        ];
        self.set("", gauges);
    }

    fn set(&mut self, image: &str, gauges: Vec<(String, i64)>) {
        let known = self.gauges.entry(image.to_owned()).or_default();
        for (key, value) in &gauges {
            if known.get(key) != Some(value) {
                self.news.push(Metric::Gauge(key.clone(), *value));
            }
        }
        *known = gauges.into_iter().collect();
    }

    /// Notes what came of a build command.
    pub(super) fn built(&mut self, image: &str, report: &BuildReport) {
        let key = format!("nodepool.dib_image_build.{}", part(image));
        for (format, size) in &report.sizes {
            self.gauge(format!("{key}.{format}.size"), i64::try_from(*size).unwrap_or(i64::MAX));
        }
        self.gauge(format!("{key}.status.rc"), report.code.into());
        self.gauge(format!("{key}.status.last_build"), report.ended as i64);
        self.news.push(Metric::Timer(format!("{key}.status.duration"), report.duration));
    }

    /// Notes that a provider has got a build.
    pub(super) fn uploaded(&mut self, image: &str, provider: &str, time: Duration) {
        let key = format!("nodepool.image_update.{}.{}", part(image), part(provider));
        self.news.extend([Metric::Timer(key.clone(), time), Metric::Count(key, 1)]);
    }

    fn gauge(&mut self, key: String, value: i64) {
        self.news.push(Metric::Gauge(key, value));
    }

    /// Sends what is new, and now and then everything.
    pub(super) fn send(&mut self) {
        let mut news = std::mem::take(&mut self.news);
        if Instant::now() >= self.repeat {
            self.repeat = Instant::now() + REPEAT;
            let all = self.gauges.values().flatten();
            news.extend(all.map(|(key, value)| Metric::Gauge(key.clone(), *value)));
        }
        self.stats.send(news);
    }
}

fn state(busy: bool, busy_state: i64, paused: bool) -> i64 {
    match (busy, paused) {
        (true, _) => busy_state,
        (false, true) => PAUSED,
        (false, false) => IDLE,
    }
}
