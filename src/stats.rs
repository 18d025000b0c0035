//! Metrics for statsd (spec/statsd.md): sent by UDP to where `STATSD_HOST` and `STATSD_PORT` say, several in one
//! packet.
//!
//! Whoever measures something gives it away and goes on. A thread of its own asks the system's resolver for the
//! host, again and again, because addresses change, and sends. What it cannot send is lost: nobody is held up, and
//! the next value of a gauge comes anyway.

use std::io;
use std::net::{SocketAddr, ToSocketAddrs as _, UdpSocket};
use std::time::{Duration, Instant};

use cadence::prelude::*;
use cadence::{BufferedUdpMetricSink, MetricError, StatsdClient};
use crossbeam_channel::{Receiver, Sender, bounded};
use nodepool_threads::{activity_within, spawn};
use slog::{Logger, info, warn};

/// statsd's own port.
const DEFAULT_PORT: u16 = 8125;
/// What fits into a packet everywhere.
const PACKET: usize = 1400;
/// How many batches may wait to be sent.
const ROOM: usize = 256;
/// How long an address is taken for the host's.
const ADDRESS_AGE: Duration = Duration::from_secs(300);
/// How long to wait after the host could not be resolved.
const PAUSE: Duration = Duration::from_secs(30);
/// How long the system's resolver may take before it is worth a line in the log.
const RESOLVING: Duration = Duration::from_secs(30);

/// Stands in the name of a metric for the fully qualified name of this host.
pub const HOSTNAME: &str = "<hostname>";

/// One metric with its full name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Metric {
    /// A value that stays until there is a new one.
    Gauge(String, i64),
    /// How long something took.
    Timer(String, Duration),
    /// Something that has happened so often.
    Count(String, u64),
}

/// The way to statsd; to nowhere without `STATSD_HOST`.
#[derive(Debug, Clone, Default)]
pub struct Stats(Option<Sender<Vec<Metric>>>);

/// Where to.
#[derive(Debug, PartialEq, Eq)]
struct Target {
    host: String,
    port: u16,
}

impl Stats {
    /// Sends to where the environment says; `hostname` may wait for the name of this host. The error is one of the
    /// variables, or that no thread can be started.
    pub fn of_environment(
        hostname: impl Fn() -> String + Send + 'static,
        log: &Logger,
    ) -> Result<Self, String> {
        let variable = |name: &str| std::env::var(name).ok();
        let Some(target) = Target::of(variable("STATSD_HOST"), variable("STATSD_PORT"))? else {
            return Ok(Self::default());
        };
        let (sender, batches) = bounded(ROOM);
        let log = log.clone();
        let thread = spawn("statsd", "metrics", move || send_all(&target, &hostname, &batches, &log));
        // It may wait for the system's resolver, which knows no deadline. It holds nothing: nobody waits for its end.
        thread.map_err(|error| format!("cannot start a thread: {error}"))?.detach();
        Ok(Self(Some(sender)))
    }

    /// Whether anything is sent at all.
    pub fn is_on(&self) -> bool {
        self.0.is_some()
    }

    /// Sends these metrics together, as far as they fit into one packet. Never waits.
    pub fn send(&self, metrics: Vec<Metric>) {
        if let Some(sender) = self.0.as_ref().filter(|_| !metrics.is_empty()) {
            // What finds no room is lost.
            let _ = sender.try_send(metrics);
        }
    }
}

impl Target {
    fn of(host: Option<String>, port: Option<String>) -> Result<Option<Self>, String> {
        let Some(host) = host.filter(|host| !host.is_empty()) else { return Ok(None) };
        let port = match port.filter(|port| !port.is_empty()) {
            None => DEFAULT_PORT,
            Some(port) => port.parse().ok().filter(|port| *port > 0).ok_or_else(|| {
                format!("STATSD_PORT: expected a port from 1 to 65535, found '{}'", port.escape_debug())
            })?,
        };
        Ok(Some(Self { host, port }))
    }

    fn resolve(&self) -> io::Result<SocketAddr> {
        let _doing = activity_within(RESOLVING, format!("resolving STATSD_HOST {}", self.host));
        let mut found = (self.host.as_str(), self.port).to_socket_addrs()?;
        found.next().ok_or_else(|| io::Error::other("the name has no address"))
    }
}

fn send_all(target: &Target, hostname: &dyn Fn() -> String, batches: &Receiver<Vec<Metric>>, log: &Logger) {
    let mut way: Option<(SocketAddr, StatsdClient)> = None;
    let mut look_again = Instant::now();
    let mut told = false;
    for batch in batches {
        if Instant::now() >= look_again {
            let reached = target.resolve().and_then(|address| match &way {
                Some((old, _)) if *old == address => Ok(None),
                _ => Ok(Some((address, client(address)?))),
            });
            match reached {
                Ok(new) => {
                    look_again = Instant::now() + ADDRESS_AGE;
                    if let Some(new) = new {
                        info!(log, "metrics go to statsd"; "host" => &target.host, "address" => %new.0);
                        way = Some(new);
                    }
                    told = false;
                }
                Err(error) => {
                    look_again = Instant::now() + PAUSE;
                    if !std::mem::replace(&mut told, true) {
                        warn!(log, "metrics cannot be sent to STATSD_HOST, to be tried again";
                            "host" => &target.host, "reason" => %error);
                    }
                }
            }
        }
        let Some((_, client)) = &way else { continue };
        // The resolver may tell more of it later.
        let hostname = hostname();
        for metric in batch.into_iter().chain(batches.try_iter().take(ROOM).flatten()) {
            // Nobody need be told of a metric that is lost.
            let _ = emit(client, &hostname, metric);
        }
        let _ = client.flush();
    }
}

/// Sends from a socket that never waits.
fn client(address: SocketAddr) -> io::Result<StatsdClient> {
    let socket = UdpSocket::bind(if address.is_ipv6() { "[::]:0" } else { "0.0.0.0:0" })?;
    socket.set_nonblocking(true)?;
    let sink = BufferedUdpMetricSink::with_capacity(address, socket, PACKET).map_err(io::Error::other)?;
    Ok(StatsdClient::from_sink("", sink))
}

fn emit(client: &StatsdClient, hostname: &str, metric: Metric) -> Result<(), MetricError> {
    let full = |name: String| name.replace(HOSTNAME, hostname);
    match metric {
        Metric::Gauge(name, value) => {
            let name = full(name);
            if value < 0 {
                // To statsd a sign means that the gauge is to be changed by so much.
                client.gauge(&name, 0_u64)?;
            }
            client.gauge(&name, value as f64).map(drop)
        }
        Metric::Timer(name, time) => client.time(&full(name), time).map(drop),
        Metric::Count(name, times) => client.count(&full(name), times).map(drop),
    }
}

/// A name of ours as a part of a metric's name: what statsd would take for something else is replaced. Dots stay, as
/// in the original.
pub fn part(name: &str) -> String {
    let special = |c: char| matches!(c, ':' | '|' | '@' | '#') || c.is_whitespace() || c.is_control();
    name.replace(special, "_")
}

#[cfg(test)]
mod tests {
    use slog::{Discard, o};

    use super::*;

    #[test]
    fn the_target_is_where_the_environment_says() {
        let target =
            |host: &str, port: Option<&str>| Target::of(Some(host.to_owned()), port.map(str::to_owned));
        assert_eq!(Target::of(None, Some("9".to_owned())), Ok(None));
        assert_eq!(target("", None), Ok(None));
        assert_eq!(target("h", None), Ok(Some(Target { host: "h".to_owned(), port: 8125 })));
        assert_eq!(target("h", Some("9")), Ok(Some(Target { host: "h".to_owned(), port: 9 })));
        for port in ["x", "0", "65536", "-1"] {
            let why = format!("STATSD_PORT: expected a port from 1 to 65535, found '{port}'");
            assert_eq!(target("h", Some(port)), Err(why));
        }
    }

    #[test]
    fn a_batch_is_one_packet_of_lines() {
        let server = UdpSocket::bind("127.0.0.1:0").unwrap();
        server.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
        let (sender, batches) = bounded(1);
        let target = Target { host: "127.0.0.1".to_owned(), port: server.local_addr().unwrap().port() };
        let batch = vec![
            Metric::Gauge("a.<hostname>.b".to_owned(), 7),
            Metric::Gauge("rc".to_owned(), -9),
            Metric::Timer("t".to_owned(), Duration::from_millis(1500)),
            Metric::Count("t".to_owned(), 1),
        ];
        sender.send(batch).unwrap();
        drop(sender);
        send_all(&target, &|| "h.example".to_owned(), &batches, &Logger::root(Discard, o!()));
        let mut packet = [0; 2000];
        let length = server.recv(&mut packet).unwrap();
        let text = std::str::from_utf8(&packet[..length]).unwrap();
        assert_eq!(text, "a.h.example.b:7|g\nrc:0|g\nrc:-9|g\nt:1500|ms\nt:1|c\n");
    }

    #[test]
    fn a_name_cannot_break_a_line() {
        assert_eq!(part("debian-12.5"), "debian-12.5");
        assert_eq!(part("a:b|c@d e\nf"), "a_b_c_d_e_f");
    }
}
