//! A network between client and server that can be cut, fall silent, be slow, or lose answers.

use std::io::{Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mode {
    Pass,
    /// Connections are closed at once.
    Refuse,
    /// The next connection passes, all others are refused.
    Once,
    /// Connections are accepted, and everything is lost in both directions.
    Silent,
    /// Everything that the server says is lost.
    LoseAnswers,
    /// Everything arrives late, in both directions.
    Late(Duration),
}

/// Ends with the test; connections that it carries are cut.
pub struct Proxy {
    address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    server: u16,
    mode: Mutex<Mode>,
    connections: Mutex<Vec<TcpStream>>,
    accepted: AtomicUsize,
    /// The first bytes that a server has said on the newest connection.
    greeting: Mutex<Vec<u8>>,
    ended: AtomicBool,
}

impl Proxy {
    pub fn before(server: u16) -> Proxy {
        Proxy::at((Ipv4Addr::LOCALHOST, 0).into(), server)
    }

    /// One that listens at an address of the test's choice.
    pub fn at(address: SocketAddr, server: u16) -> Proxy {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            server,
            mode: Mutex::new(Mode::Pass),
            connections: Mutex::default(),
            accepted: AtomicUsize::new(0),
            greeting: Mutex::default(),
            ended: AtomicBool::new(false),
        });
        let acceptor = Arc::clone(&shared);
        std::thread::spawn(move || {
            for client in listener.incoming() {
                if acceptor.ended.load(Ordering::SeqCst) {
                    return;
                }
                acceptor.accepted.fetch_add(1, Ordering::SeqCst);
                acceptor.take(client.unwrap());
            }
        });
        Proxy { address, shared }
    }

    pub fn port(&self) -> u16 {
        self.address.port()
    }

    pub fn set(&self, mode: Mode) {
        *self.shared.mode.lock() = mode;
    }

    /// Ends all connections; new ones are treated as the mode says.
    pub fn cut(&self) {
        for socket in self.shared.connections.lock().drain(..) {
            let _ = socket.shutdown(Shutdown::Both);
        }
    }

    /// How many connections were tried.
    pub fn accepted(&self) -> usize {
        self.shared.accepted.load(Ordering::SeqCst)
    }

    /// Ends the newest session at the server, as an administrator could.
    pub fn close_session(&self) {
        let greeting = self.shared.greeting.lock().clone();
        let (id, password) = (&greeting[12..20], &greeting[20..40]);
        // ConnectRequest: version, last zxid, timeout, session, password with its length, read-only.
        let body = [&[0; 12], &20_000i32.to_be_bytes()[..], id, password, &[0]].concat();
        let mut socket = TcpStream::connect(("127.0.0.1", self.shared.server)).unwrap();
        send(&mut socket, &body);
        let mut answer = [0; 41];
        socket.read_exact(&mut answer).unwrap();
        assert_ne!(answer[8..12], [0; 4], "the session is known to the server");
        // RequestHeader: xid, closeSession.
        send(&mut socket, &[1i32.to_be_bytes(), (-11i32).to_be_bytes()].concat());
        let _ = socket.read_to_end(&mut Vec::new());
    }
}

fn send(socket: &mut TcpStream, body: &[u8]) {
    let length = i32::try_from(body.len()).unwrap();
    socket.write_all(&[&length.to_be_bytes()[..], body].concat()).unwrap();
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        self.cut();
        let _ = TcpStream::connect(self.address);
    }
}

impl Shared {
    fn take(self: &Arc<Self>, client: TcpStream) {
        {
            let mut mode = self.mode.lock();
            match *mode {
                Mode::Refuse => return,
                Mode::Once => *mode = Mode::Refuse,
                _ => {}
            }
        }
        let Ok(server) = TcpStream::connect(("127.0.0.1", self.server)) else { return };
        for socket in [&client, &server] {
            socket.set_nodelay(true).unwrap();
            self.connections.lock().push(socket.try_clone().unwrap());
        }
        self.greeting.lock().clear();
        self.pump(client.try_clone().unwrap(), server.try_clone().unwrap(), false);
        self.pump(server, client, true);
    }

    fn pump(self: &Arc<Self>, mut from: TcpStream, mut to: TcpStream, answers: bool) {
        let shared = Arc::clone(self);
        std::thread::spawn(move || {
            let mut chunk = vec![0; 64 << 10];
            while let Ok(length @ 1..) = from.read(&mut chunk) {
                let mode = *shared.mode.lock();
                if answers {
                    let mut greeting = shared.greeting.lock();
                    let missing = 41usize.saturating_sub(greeting.len()).min(length);
                    greeting.extend_from_slice(&chunk[..missing]);
                }
                if let Mode::Late(by) = mode {
                    std::thread::sleep(by);
                }
                let lost = mode == Mode::Silent || (answers && mode == Mode::LoseAnswers);
                if !lost && to.write_all(&chunk[..length]).is_err() {
                    break;
                }
            }
            let _ = to.shutdown(Shutdown::Both);
        });
    }
}
