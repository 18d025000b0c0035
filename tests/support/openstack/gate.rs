//! A gate in front of a server: each connection may bring it so many bytes, and then stands still.
//!
//! So an upload is in its middle for as long as a test wants, whatever the speed of the machine. A connection whose
//! client goes is closed towards the server too, and the other way round.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How soon a connection that stands still notices that it may go on, or that its client is gone.
const STEP: Timespec = Timespec { tv_sec: 0, tv_nsec: 20_000_000 };

/// An open gate lets everything through.
pub struct Gate {
    port: u16,
    state: Arc<State>,
}

struct State {
    target: u16,
    /// How many bytes towards the server each connection may carry.
    limit: AtomicU64,
    /// The connections that stand still.
    standing: AtomicUsize,
    closed: AtomicBool,
}

impl Gate {
    /// An open gate on a free port, to a port of this machine.
    pub fn start(target: u16) -> Gate {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port for the gate");
        let port = listener.local_addr().expect("the gate's port").port();
        let state = Arc::new(State {
            target,
            limit: AtomicU64::new(u64::MAX),
            standing: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
        });
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                if shared.closed.load(Ordering::SeqCst) {
                    break;
                }
                // Without a server the client's connection is closed.
                if let Ok(server) = TcpStream::connect((Ipv4Addr::LOCALHOST, shared.target)) {
                    connection(&shared, client, server);
                }
            }
        });
        Gate { port, state }
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// From now on each connection, those that stand still too, may bring so many bytes in all.
    pub fn limit(&self, bytes: u64) {
        self.state.limit.store(bytes, Ordering::SeqCst);
    }

    pub fn open(&self) {
        self.limit(u64::MAX);
    }

    /// How many connections have brought all that they may.
    pub fn standing(&self) -> usize {
        self.state.standing.load(Ordering::SeqCst)
    }
}

impl Drop for Gate {
    fn drop(&mut self) {
        self.state.closed.store(true, Ordering::SeqCst);
        // Wakes the listener. If it is gone, that is all that is wanted.
        let _ = TcpStream::connect((Ipv4Addr::LOCALHOST, self.port));
    }
}

fn connection(state: &Arc<State>, client: TcpStream, server: TcpStream) {
    let (Ok(client_too), Ok(server_too)) = (client.try_clone(), server.try_clone()) else { return };
    let shared = Arc::clone(state);
    std::thread::spawn(move || {
        // Whatever ends it: both sides hear of it below.
        let _ = carry_limited(&shared, &client, &server);
    });
    std::thread::spawn(move || {
        let _ = std::io::copy(&mut &server_too, &mut &client_too);
        let _ = client_too.shutdown(Shutdown::Both);
        let _ = server_too.shutdown(Shutdown::Both);
    });
}

fn carry_limited(state: &State, mut client: &TcpStream, mut server: &TcpStream) -> std::io::Result<()> {
    let mut carried = 0;
    let mut buffer = vec![0; 64 << 10];
    loop {
        let room = state.limit.load(Ordering::SeqCst).saturating_sub(carried);
        if room == 0 {
            if !stand_still(state, carried, client)? {
                // In the middle of a request: the server must not take what it has for the whole.
                return server.shutdown(Shutdown::Both);
            }
            continue;
        }
        let length = buffer.len().min(usize::try_from(room).unwrap_or(usize::MAX));
        let count = client.read(&mut buffer[..length])?;
        if count == 0 {
            return server.shutdown(Shutdown::Write);
        }
        server.write_all(&buffer[..count])?;
        carried += count as u64;
    }
}

/// Waits until the limit is higher: then true, and false when the client has gone.
fn stand_still(state: &State, carried: u64, client: &TcpStream) -> std::io::Result<bool> {
    state.standing.fetch_add(1, Ordering::SeqCst);
    let result = loop {
        if state.limit.load(Ordering::SeqCst) > carried {
            break Ok(true);
        }
        // Hang-up and error are always told; data that waits must not be.
        let mut sockets = [PollFd::from_borrowed_fd(client.as_fd(), PollFlags::RDHUP)];
        match poll(&mut sockets, Some(&STEP)) {
            Ok(0) => {}
            Ok(_) => break Ok(false),
            Err(error) => break Err(error.into()),
        }
    };
    state.standing.fetch_sub(1, Ordering::SeqCst);
    result
}
