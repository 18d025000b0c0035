//! Which pages there are, how they are sent, and for how long an answer is good.
//!
//! A page is kept for a second, as in the original, and its copies are shared: whoever asks more often, or
//! many at the same time, cost no more than one. `/ready` and `/threads` are always of the moment.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, Instant, SystemTime};

use nodepool_threads::{activity_within, trim_memory};
use slog::{Logger, error};

use super::hosts;
use super::http::{Place, Request, Response, Site, Status, TEXT};
use super::{rows, threads};
use crate::host_name::HostName;
use crate::model::now;
use crate::window::NoAnswer;

/// How long a page is good.
const GOOD: Duration = Duration::from_secs(1);
/// How long making one may take: mostly waiting for the daemon's thread and the disk.
const MAKING: Duration = Duration::from_secs(5);
/// How many pages are kept: parameters make it any number of different ones.
const MOST_KEPT: usize = 16;

/// A daemon, as far as its pages are concerned. `NoAnswer` is its thread's.
pub(in crate::web) trait Daemon {
    /// Its listings.
    type Listing: Copy + Ord + 'static;
    /// Them, by their paths.
    const LISTINGS: &'static [(&'static str, Self::Listing)];
    /// The section of the configuration that says where the pages are.
    const SECTION: &'static str;

    /// Where the pages are served; none for nowhere.
    fn place(&self) -> Option<Place>;

    /// Its machine.
    fn host(&self) -> &HostName;

    /// Other names under which all pages are shown.
    fn allowed_hosts(&self) -> Vec<String>;

    /// The parameters that a listing depends on.
    fn parameters(listing: Self::Listing) -> &'static [&'static str];

    /// A page is going to be made.
    fn begin_page(&mut self);

    /// Why it is not ready; none if it is.
    fn unready(&mut self) -> Result<Option<&'static str>, NoAnswer>;

    /// The page for people.
    fn index(&mut self) -> Result<Response, NoAnswer>;

    /// The numbers in the text format of Prometheus.
    fn metrics(&mut self) -> Result<String, NoAnswer>;

    /// A listing in the form that is wanted. The error is why it would not be complete.
    fn listing(
        &mut self,
        listing: Self::Listing,
        request: &Request,
    ) -> Result<Result<String, &'static str>, NoAnswer>;
}

/// The pages of a daemon.
pub(in crate::web) struct Pages<D: Daemon> {
    daemon: D,
    kept: BTreeMap<Key<D::Listing>, Kept>,
    log: Logger,
}

/// What distinguishes one page from another: the form and the parameters too.
type Key<L> = (Page<L>, bool, Vec<Option<String>>);

struct Kept {
    response: Response,
    made: SystemTime,
    until: Instant,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Page<L> {
    Index,
    Listing(L),
    Ready,
    Metrics,
    Threads,
}

const JSON: &str = "application/json";
const PROMETHEUS: &str = "text/plain; version=0.0.4; charset=utf-8";

impl<D: Daemon> Pages<D> {
    pub(in crate::web) fn new(daemon: D, log: &Logger) -> Self {
        Self { daemon, kept: BTreeMap::new(), log: log.clone() }
    }

    fn all() -> impl Iterator<Item = (&'static str, Page<D::Listing>)> {
        let listings = D::LISTINGS.iter().map(|(path, listing)| (*path, Page::Listing(*listing)));
        let others = [("/ready", Page::Ready), ("/metrics", Page::Metrics), ("/threads", Page::Threads)];
        std::iter::once(("/", Page::Index)).chain(listings).chain(others)
    }

    fn page(&mut self, request: &Request) -> Response {
        let Some((path, page)) = Self::all().find(|(path, _)| *path == request.path) else {
            let paths = Self::all().map(|(path, _)| path).collect::<Vec<_>>().join(" ");
            let text = format!("404 Not Found\n\nThe resource could not be found. There are: {paths}\n");
            return Response::text(Status::NotFound, &text);
        };
        if page.is_for_our_names() && !self.is_ours(request) {
            let text = format!(
                "421 Misdirected Request\n\nThis page is shown by the address or host name of this machine only. \
                 For another name, as that of a proxy, add it to {}.allowed-hosts.\n",
                D::SECTION
            );
            return Response::text(Status::Misdirected, &text);
        }
        // What a page does not depend on must not make another one of it.
        let parameters = match page {
            Page::Listing(listing) => D::parameters(listing),
            _ => &[],
        };
        let parameters = parameters.iter().map(|name| request.parameter(name)).collect();
        let key = (page, page.is_listing() && request.wants_json, parameters);
        if let Some(kept) = self.kept.get(&key).filter(|kept| Instant::now() < kept.until) {
            let since = request.modified_since.as_deref();
            let has_it =
                since.and_then(|since| httpdate::parse_http_date(since).ok()) == Some(seconds(kept.made));
            return match has_it && page.is_listing() {
                true => Response { status: Status::NotModified, body: [].into(), ..kept.response.clone() },
                false => kept.response.clone(),
            };
        }
        let _doing = activity_within(MAKING, format!("making the page {path}"));
        let made = seconds(SystemTime::now());
        let made_page = catch_unwind(AssertUnwindSafe(|| self.make(page, request, made)));
        let response = match made_page {
            Ok(Ok(response)) => response,
            Ok(Err(why)) => return Response::text(Status::Unavailable, &format!("{why}\n")),
            Err(_) => {
                error!(self.log, "a status page panicked; this is a bug"; "page" => path);
                return Response::refusal(Status::InternalError);
            }
        };
        let keep = response.status == Status::Ok && !matches!(page, Page::Ready | Page::Threads);
        if keep && self.kept.len() < MOST_KEPT {
            let until = Instant::now() + GOOD;
            self.kept.insert(key, Kept { response: response.clone(), made, until });
        }
        response
    }

    fn is_ours(&self, request: &Request) -> bool {
        let host = self.daemon.host();
        let names: Vec<&str> = host.full_by_now().into_iter().chain([host.name()]).collect();
        let allowed = self.daemon.allowed_hosts();
        hosts::is_ours(request.host.as_deref(), &names, &allowed)
    }

    fn make(
        &mut self,
        page: Page<D::Listing>,
        request: &Request,
        made: SystemTime,
    ) -> Result<Response, NoAnswer> {
        self.daemon.begin_page();
        Ok(match page {
            Page::Ready => match self.daemon.unready()? {
                None => Response::text(Status::Ok, "OK"),
                Some(why) => Response::text(Status::Unavailable, &format!("{why}\n")),
            },
            Page::Threads => {
                let text = rows::show(&threads::thread_rows(), now(), request);
                let mut response = Response::of_now(Status::Ok, text_or_json(request), &text);
                response.fields.push(("Vary", "Accept".to_owned()));
                response
            }
            Page::Index => self.daemon.index()?,
            Page::Metrics => Response::of_now(Status::Ok, PROMETHEUS, &self.daemon.metrics()?),
            Page::Listing(listing) => match self.daemon.listing(listing, request)? {
                Ok(text) => listed(text, request, made),
                // What is missing would look as if it were gone.
                Err(why) => Response::text(Status::Unavailable, &format!("{why}\n")),
            },
        })
    }
}

fn listed(text: String, request: &Request, made: SystemTime) -> Response {
    let fields = vec![
        ("Content-Type", text_or_json(request).to_owned()),
        // As in the original: dashboards of other sites read it.
        ("Access-Control-Allow-Origin", "*".to_owned()),
        ("Cache-Control", format!("max-age={}, public", GOOD.as_secs())),
        ("Last-Modified", httpdate::fmt_http_date(made)),
        ("Expires", httpdate::fmt_http_date(made + GOOD)),
        ("Vary", "Accept".to_owned()),
    ];
    Response { status: Status::Ok, fields, body: text.into_bytes().into() }
}

impl<L> Page<L> {
    fn is_listing(&self) -> bool {
        matches!(self, Self::Listing(_))
    }

    /// The others have nothing that every site may not read, as the listings say themselves, and monitoring may
    /// know this machine by any name.
    fn is_for_our_names(&self) -> bool {
        matches!(self, Self::Index | Self::Threads)
    }
}

fn text_or_json(request: &Request) -> &'static str {
    if request.wants_json { JSON } else { TEXT }
}

/// Without the fraction, which HTTP does not have.
fn seconds(time: SystemTime) -> SystemTime {
    let since = time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    SystemTime::UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

impl<D: Daemon> Site for Pages<D> {
    fn place(&self) -> Option<Place> {
        self.daemon.place()
    }

    fn answer(&mut self, request: &Request) -> Response {
        self.page(request)
    }

    fn tidy(&mut self) -> Option<Instant> {
        let (now, had) = (Instant::now(), self.kept.len());
        self.kept.retain(|_, kept| now < kept.until);
        if had > 0 && self.kept.is_empty() {
            // Making pages takes megabytes where there are many records, and for a moment only.
            trim_memory();
        }
        self.kept.values().map(|kept| kept.until).min()
    }
}
