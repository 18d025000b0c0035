//! The relay: what stands between the `zookeeper` crate's client and a real server.
//!
//! The crate speaks plain TCP to one address, never notices a silent server, and reconnects in ways that lose
//! watches. So it gets a loopback port of this process instead, and a [`Link`] behind it that carries its
//! frames to a server which has already been dialled, over TLS where configured. The link keeps the session
//! alive with pings of its own, and cuts the connection when the server has owed an answer for a third of the
//! session timeout, or when a call is over its deadline. A link serves one client and one connection: when
//! that has ended, whatever the client still asks is answered with "connection loss" until the client closes,
//! so that no call of the crate can hang, and the crate never sees anything that it would reconnect for. The
//! [supervisor](super::supervisor) then dials again and makes a new client and link.
//!
//! The port is open until the client has made its first request, and refuses every other process.

mod accept;
mod carry;
mod frames;
mod peer;
mod stream;
mod tls;
mod upstream;

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use crossbeam_channel::Sender;
use nodepool_threads::{Mutex, Thread, Waker, activity, spawn};

use carry::Carrier;
pub(super) use frames::{Identity, NUMBER_ONLY};
pub(super) use upstream::{Dialled, Dialler, Upstream};

/// A running link. Dropping it ends its thread; the client must be gone before.
#[derive(Debug)]
pub(super) struct Link {
    address: SocketAddr,
    control: Arc<Control>,
    _thread: Thread<()>,
}

/// What the link's owner and its thread share.
#[derive(Debug)]
struct Control {
    waker: Waker,
    /// The owner is gone: end.
    end: AtomicBool,
    /// Cut the connection to the server.
    cut: AtomicBool,
    /// The client's closing is meant: the server may end the session.
    close_session: AtomicBool,
    identity: Mutex<Identity>,
    /// When the calls in progress must be over.
    deadlines: Mutex<Vec<Instant>>,
}

impl Control {
    fn new(identity: Identity) -> io::Result<Self> {
        Ok(Self {
            waker: Waker::new()?,
            end: AtomicBool::new(false),
            cut: AtomicBool::new(false),
            close_session: AtomicBool::new(false),
            identity: Mutex::new("zk link identity", identity),
            deadlines: Mutex::new("zk link deadlines", Vec::new()),
        })
    }
}

/// A call in progress, until dropped: when its deadline passes, the connection is cut, which ends the call.
///
/// The link's patience with a silent server is not enough: one that answers slowly, and many callers before
/// this one, would never try it.
pub(super) struct CallLimit<'a> {
    control: &'a Control,
    deadline: Instant,
}

impl Link {
    /// Starts a link over `upstream`. When the connection ends, the reason is sent to `down`; when the client
    /// ends first, `down` only loses its sender.
    pub(super) fn start(upstream: Upstream, down: Sender<String>) -> io::Result<Self> {
        peer::can_be_told()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        listener.set_nonblocking(true)?;
        let address = listener.local_addr()?;
        let control = Arc::new(Control::new(upstream.identity.clone())?);
        let shared = Arc::clone(&control);
        let thread = spawn("zk-relay", "ZooKeeper relay", move || {
            let _doing = activity(format!("connected to {}", upstream.server));
            // What is wrong with the client's end is nobody's news: the end of `down` says that it is over.
            if let Ok(Some((client, requests))) = accept::accept(&listener, &shared, &upstream.identity) {
                drop(listener);
                let _ = Carrier::new(&shared, client, requests, upstream).run(&down);
            }
        })?;
        Ok(Self { address, control, _thread: thread })
    }

    /// The address that the client must connect to.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// The session with the newest transaction that its client has seen.
    pub(super) fn identity(&self) -> Identity {
        self.control.identity.lock().clone()
    }

    /// From now on the client's closing ends the session at the server too.
    pub(super) fn let_session_close(&self) {
        self.control.close_session.store(true, Ordering::SeqCst);
    }

    /// Begins a call that must be over at `deadline`. To be called before the request is made: it is the
    /// request that makes the link look at the deadline.
    pub(super) fn limit_call(&self, deadline: Instant) -> CallLimit<'_> {
        self.control.deadlines.lock().push(deadline);
        CallLimit { control: &self.control, deadline }
    }

    /// Cuts the connection to the server, which frees every call that hangs in the client.
    pub(super) fn cut(&self) {
        self.control.cut.store(true, Ordering::SeqCst);
        self.control.waker.wake();
    }
}

impl Drop for CallLimit<'_> {
    fn drop(&mut self) {
        let mut deadlines = self.control.deadlines.lock();
        if let Some(at) = deadlines.iter().position(|deadline| *deadline == self.deadline) {
            deadlines.swap_remove(at);
        }
    }
}

impl Drop for Link {
    fn drop(&mut self) {
        self.control.end.store(true, Ordering::SeqCst);
        self.control.waker.wake();
    }
}
