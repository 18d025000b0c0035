//! What becomes of the session when a thread of the crate dies, with a server that the test plays: a real one
//! does not make it happen.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use nodepool_threads::spawn;
use slog::{Discard, Logger, o};
use zookeeper::{AddWatchMode, WatchedEvent};

use super::Client;
use crate::config::{Server, ZooKeeperConfig};
use crate::zk::{Session, SessionThread, TreeCache};

/// A dead thread is noticed and replaced within a second, as is printed; a machine under load gets more time.
const NOTICED: Duration = Duration::from_secs(5);
const SOON: Duration = Duration::from_secs(10);
const SESSION: i64 = 0x7007;

/// Keeps one session for whoever connects, knows only empty znodes, and never answers questions for `/mute` on
/// its first connection.
struct PlayedServer {
    port: u16,
    /// The session that each connection asked for, as they come.
    connections: Receiver<i64>,
    /// Paths whose watchers are told of a change.
    changes: Sender<&'static str>,
}

impl PlayedServer {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let (tell, connections) = unbounded();
        let (changes, changed) = bounded(0);
        let thread = spawn("played-server", "tester", move || {
            for (number, socket) in listener.incoming().enumerate() {
                let (tell, changed) = (tell.clone(), changed.clone());
                let serve = move || serve(socket.unwrap(), number == 0, &tell, &changed);
                // Ends with its connection, which ends with the session.
                std::mem::forget(spawn("played-connection", "tester", serve).unwrap());
            }
        });
        // Waits for connections until the process ends.
        std::mem::forget(thread.unwrap());
        Self { port, connections, changes }
    }

    fn session(&self) -> (Session, SessionThread) {
        let config = ZooKeeperConfig {
            servers: vec![Server { host: "127.0.0.1".to_owned(), port: self.port }],
            chroot: String::new(),
            tls: None,
            timeout: Duration::from_secs(8),
        };
        let (session, owner) = Session::start(&config, &Logger::root(Discard, o!())).unwrap();
        session.wait_connected(SOON).unwrap();
        assert_eq!(self.connections.recv_timeout(SOON), Ok(0), "a new session is asked for");
        (session, owner)
    }

    /// Waits for the connection that replaces another one.
    fn assert_connected_again(&self) {
        let begin = Instant::now();
        assert_eq!(self.connections.recv_timeout(NOTICED), Ok(SESSION), "the session goes on");
        eprintln!("replaced after {:?}", begin.elapsed());
    }
}

fn serve(mut socket: TcpStream, first: bool, tell: &Sender<i64>, changed: &Receiver<&'static str>) {
    let greeting = read_frame(&mut socket).unwrap();
    let password = [&16i32.to_be_bytes()[..], &[5; 16]].concat();
    let granted = [&[0; 4], &8000i32.to_be_bytes()[..], &SESSION.to_be_bytes(), &password, &[0]].concat();
    write_frame(&mut socket, &granted);
    tell.send(i64::from_be_bytes(greeting[16..24].try_into().unwrap())).unwrap();

    let mut events = socket.try_clone().unwrap();
    let changed = changed.clone();
    let told = spawn("played-events", "tester", move || {
        for path in changed {
            let text = [&i32::try_from(path.len()).unwrap().to_be_bytes()[..], path.as_bytes()].concat();
            // NodeDataChanged, while connected.
            let event = [&3i32.to_be_bytes()[..], &3i32.to_be_bytes(), &text].concat();
            write_frame(&mut events, &reply(-1, 0, &event));
            if !first {
                break;
            }
        }
    });
    std::mem::forget(told.unwrap());

    while let Some(frame) = read_frame(&mut socket) {
        let word = |at: usize| i32::from_be_bytes(frame[at..at + 4].try_into().unwrap());
        let (xid, operation) = (word(0), word(4));
        if first && frame.windows(5).any(|part| part == b"/mute") {
            continue;
        }
        let (stat, nothing) = (&[0; 68][..], &[0; 4][..]);
        // createNode finds it there; exists, getData, getChildren; ping, addWatch and closeSession have no
        // body.
        let answer = match operation {
            1 => reply(xid, -110, &[]),
            3 => reply(xid, 0, stat),
            4 => reply(xid, 0, &[nothing, stat].concat()),
            8 => reply(xid, 0, nothing),
            _ => reply(xid, 0, &[]),
        };
        write_frame(&mut socket, &answer);
    }
}

fn reply(xid: i32, error: i32, body: &[u8]) -> Vec<u8> {
    [&xid.to_be_bytes()[..], &1i64.to_be_bytes(), &error.to_be_bytes(), body].concat()
}

fn read_frame(socket: &mut TcpStream) -> Option<Vec<u8>> {
    let mut length = [0; 4];
    socket.read_exact(&mut length).ok()?;
    let mut frame = vec![0; usize::try_from(i32::from_be_bytes(length)).unwrap()];
    socket.read_exact(&mut frame).ok()?;
    Some(frame)
}

fn write_frame(socket: &mut TcpStream, body: &[u8]) {
    // The client may have gone.
    let _ = socket.write_all(&[&i32::try_from(body.len()).unwrap().to_be_bytes()[..], body].concat());
}

/// Makes the crate's thread for events panic with the next change of `/poison`.
fn poison(session: &Session) {
    let broken = |_: WatchedEvent| panic!("meant: this ends the crate's thread for events");
    let mode = AddWatchMode::PersistentRecursive;
    let add = |client: &Client| client.crate_client.add_watch("/poison", mode, broken).unwrap();
    session.with_client(add);
}

#[test]
fn a_dead_io_thread_is_replaced_and_the_call_in_flight_is_made_again() {
    let server = PlayedServer::start();
    let (session, _owner) = server.session();
    poison(&session);
    let waiting = session.clone();
    let asking = spawn("asking", "tester", move || waiting.stat("/mute")).unwrap();
    // The first event ends the crate's thread for events, and one that comes after its end the I/O thread,
    // which cannot pass it on.
    let begin = Instant::now();
    while server.connections.is_empty() {
        assert!(begin.elapsed() < NOTICED, "nothing was noticed");
        let _ = server.changes.send_timeout("/poison", NOTICED / 250);
    }
    server.assert_connected_again();
    assert!(asking.join().unwrap().unwrap().is_some());
}

#[test]
fn a_dead_event_thread_does_not_leave_the_copy_of_the_tree_deaf() {
    let server = PlayedServer::start();
    let (session, _owner) = server.session();
    let (_tree, changes) = TreeCache::start(&session, "/tree", &Logger::root(Discard, o!())).unwrap();
    changes.recv_timeout(SOON).unwrap();
    poison(&session);
    server.changes.send_timeout("/poison", SOON).unwrap();
    server.assert_connected_again();
    changes.recv_timeout(SOON).unwrap();
}
