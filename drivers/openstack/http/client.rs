//! One request, made once.

use std::io::{self, Read};
use std::time::Duration;

use nodepool_threads::{Interrupted, StopToken};
use ureq::http::{Request as HttpRequest, Uri};
use ureq::unversioned::transport::{ConnectProxyConnector, Connector};
use ureq::{Agent, Error, SendBody};

use super::early::EarlyConnector;
use super::limits::{self, Ended, Limits};
use super::pacer::Pacer;
use super::tcp::{Names, TcpConnector};
use super::tls::TlsConnector;
use super::{Body, Reply, Request, proxy, text};
use crate::api;
use crate::openstack::clouds::Tls;

/// How long a server may be silent, unless the cloud or the request says otherwise.
const IDLE: Duration = Duration::from_secs(60);
/// How long it may take to find and reach a server.
const CONNECT: Duration = Duration::from_secs(20);
/// How long a kept connection may have been idle: servers close theirs after five seconds or more.
const KEPT: Duration = Duration::from_secs(15);
/// The largest answer that is read: a page of a thousand images has three megabytes.
const MOST_BYTES: u64 = 32 << 20;
/// How much is sent at once.
const BUFFER: usize = 256 << 10;

/// Makes requests to the services of a cloud; shared by the threads of a provider.
#[derive(Debug)]
pub(in crate::openstack) struct Client {
    /// For `https` and for `http`: a proxy may be for one of them only.
    agents: [Agent; 2],
    pub(super) pacer: Pacer,
    idle: Duration,
    /// What errors begin with, such as "cloud 'x'".
    pub(in crate::openstack) whose: String,
}

/// Scheme, host and port: who a token may be sent to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in crate::openstack) struct Origin {
    pub(in crate::openstack) scheme: String,
    pub(in crate::openstack) host: String,
    pub(in crate::openstack) port: u16,
}

impl Origin {
    /// That of an address, if it has one.
    pub(in crate::openstack) fn of(url: &str) -> Option<Self> {
        let uri: Uri = url.parse().ok()?;
        let scheme = uri.scheme_str()?.to_owned();
        let port = uri.port_u16().unwrap_or(if scheme == "https" { 443 } else { 80 });
        Some(Self { scheme, host: uri.host()?.to_ascii_lowercase(), port })
    }
}

/// Why a request got no answer.
#[derive(Debug)]
pub(super) enum Failed {
    /// The caller's token ended it.
    Interrupted(Interrupted),
    /// The server has heard nothing of it.
    Unreached(String),
    /// What was to be sent could not be read.
    Source(io::Error),
    /// The connection ended; what the server has made of the request is not known.
    Broken(String),
}

impl Client {
    /// A client with `rate` seconds between its calls. Checks what can be checked without a call.
    pub(in crate::openstack) fn new(
        whose: String,
        tls: &Tls,
        rate: Duration,
        idle: Option<Duration>,
    ) -> Result<Self, api::Error> {
        let mistake = |why: String| api::Error::new(api::ErrorKind::Permanent, format!("{whose}: {why}"));
        TlsConnector::new(tls.clone()).config().map_err(mistake)?;
        let agent = |scheme: &str| -> Result<Agent, api::Error> {
            let config = Agent::config_builder()
                .http_status_as_error(false)
                .max_redirects(0)
                .max_redirects_will_error(false)
                .max_idle_age(KEPT)
                .input_buffer_size(BUFFER)
                .output_buffer_size(BUFFER)
                .user_agent(concat!("nodepool/", env!("CARGO_PKG_VERSION")))
                .proxy(proxy::of_environment(scheme).map_err(mistake)?)
                .build();
            let connector = ConnectProxyConnector::default()
                .chain(TcpConnector::default())
                .chain(TlsConnector::new(tls.clone()))
                .chain(EarlyConnector::default());
            Ok(Agent::with_parts(config, connector, Names::default()))
        };
        let agents = [agent("https")?, agent("http")?];
        Ok(Self { agents, pacer: Pacer::new(rate), idle: idle.unwrap_or(IDLE), whose })
    }

    /// Makes a request once, within what is left of `stop`.
    pub(super) fn once(&self, stop: &StopToken, request: &mut Request<'_>) -> Result<Reply, Failed> {
        let idle = self.idle;
        let _limits = limits::put_in_force(Limits { stop: stop.clone(), idle, connect: CONNECT });
        let answer = self.ask(request).and_then(read);
        match answer {
            Ok(reply) => Ok(reply),
            Err(error) => {
                let failed = Failed::from(error);
                let early = limits::take_early_answer();
                match (&failed, text::early_reply(&early)) {
                    (Failed::Broken(_), Some(reply)) => Ok(reply),
                    _ => Err(failed),
                }
            }
        }
    }

    fn ask(&self, request: &mut Request<'_>) -> Result<ureq::http::Response<ureq::Body>, Error> {
        let agent = &self.agents[usize::from(!request.url.starts_with("https:"))];
        let mut head = HttpRequest::builder().method(request.method).uri(&request.url);
        if let Some(token) = &request.token {
            head = head.header("X-Auth-Token", token.reveal());
        }
        for (name, value) in &request.headers {
            head = head.header(*name, value);
        }
        match &mut request.body {
            Body::Nothing => agent.run(head.body(())?),
            Body::Json(json) => {
                let body = json.to_string();
                agent.run(head.header("Content-Type", "application/json").body(body)?)
            }
            Body::Stream(reader, length) => {
                let patience = request.patience;
                let mut whole = Whole { reader: *reader, left: *length, patience };
                let head = head.header("Content-Length", *length);
                agent.run(head.body(SendBody::from_reader(&mut whole))?)
            }
        }
    }
}

fn read(mut answer: ureq::http::Response<ureq::Body>) -> Result<Reply, Error> {
    let body = answer.body_mut().with_config().limit(MOST_BYTES).read_to_vec()?;
    let (head, _) = answer.into_parts();
    Ok(Reply { status: head.status.as_u16(), headers: head.headers, body })
}

/// Reads exactly so many bytes: ureq would wait for ever for those that a file has lost.
struct Whole<'a> {
    reader: &'a mut (dyn Read + Send),
    left: u64,
    /// How long the server may be silent when it has heard all.
    patience: Option<Duration>,
}

impl Read for Whole<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let most = usize::try_from(self.left).unwrap_or(usize::MAX).min(buffer.len());
        if most == 0 {
            return Ok(0);
        }
        let source = |why: io::Error| io::Error::from(Ended::Source(why));
        loop {
            match self.reader.read(&mut buffer[..most]) {
                Ok(0) => {
                    return Err(source(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "it has become shorter",
                    )));
                }
                Ok(amount) => {
                    self.left -= amount as u64;
                    if let Some(patience) = self.patience.filter(|_| self.left == 0) {
                        limits::be_patient(patience);
                    }
                    return Ok(amount);
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(source(error)),
            }
        }
    }
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        match error {
            Error::Io(error) => Self::from(error),
            Error::ConnectProxyFailed(why) => Self::Unreached(format!("the proxy does not help: {why}")),
            Error::ConnectionFailed | Error::HostNotFound => Self::Unreached(error.to_string()),
            Error::BodyExceedsLimit(limit) => {
                Self::Broken(format!("the answer is larger than {} MiB", limit >> 20))
            }
            other => Self::Broken(other.to_string()),
        }
    }
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        let text = error.to_string();
        match error.into_inner().map(|inner| inner.downcast::<Ended>()) {
            Some(Ok(ended)) => match *ended {
                Ended::Interrupted(why) => Self::Interrupted(why),
                Ended::Unreached(why) => Self::Unreached(why),
                Ended::Source(why) => Self::Source(why),
                idle @ Ended::Idle(_) => Self::Broken(idle.to_string()),
            },
            _ => Self::Broken(text),
        }
    }
}
