//! Tests with both ends played by the test.

use super::super::Identity;
use super::*;
use crossbeam_channel::bounded;
use nodepool_threads::{Thread, spawn};
use std::net::TcpListener;
use std::sync::Arc;

/// Both ends as the test plays them.
struct Ends {
    client: TcpStream,
    server: TcpStream,
    down: crossbeam_channel::Receiver<String>,
    control: Arc<Control>,
    _thread: Thread<()>,
}

fn carry(timeout: Duration) -> Ends {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let pair = || {
        let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let far = listener.accept().unwrap().0;
        far.set_nonblocking(true).unwrap();
        near.set_read_timeout(Some(Duration::from_secs(5))).unwrap();
        (near, far)
    };
    let ((client, inner_client), (server, inner_server)) = (pair(), pair());
    let identity = Identity::new_for_tests(timeout);
    let control = Arc::new(Control::new(identity.clone()).unwrap());
    let (tell, down) = bounded(1);
    let shared = Arc::clone(&control);
    let thread = spawn("carry-test", "tester", move || {
        let stream = Stream::Plain(inner_server);
        let upstream = Upstream { server: "zk".to_owned(), identity, stream };
        let carrier = Carrier::new(&shared, inner_client, FrameBuffer::default(), upstream);
        carrier.run(&tell).unwrap();
    });
    Ends { client, server, down, control, _thread: thread.unwrap() }
}

fn request(xid: i32, operation: i32) -> Vec<u8> {
    [8i32, xid, operation].iter().flat_map(|word| word.to_be_bytes()).collect()
}

/// Reads the next answer: its xid and its error.
fn answer(from: &mut TcpStream) -> (i32, i32) {
    let mut frame = [0; 20];
    from.read_exact(&mut frame).unwrap();
    let word = |at: usize| i32::from_be_bytes([frame[at], frame[at + 1], frame[at + 2], frame[at + 3]]);
    (word(4), word(16))
}

/// The client takes a ping's answer that comes too early for the answer of the call before it.
#[test]
fn pings_of_the_client_are_answered_in_their_turn() {
    let mut ends = carry(Duration::from_secs(60));
    ends.client.write_all(&[request(5, 4), request(PING_XID, PING), request(6, 4)].concat()).unwrap();
    let mut asked = vec![0; 24];
    ends.server.read_exact(&mut asked).unwrap();
    assert_eq!(asked, [request(5, 4), request(6, 4)].concat());
    ends.server.write_all(&[frames::reply(5, 1, 0), frames::reply(6, 2, -101)].concat()).unwrap();
    for expected in [(5, 0), (PING_XID, 0), (6, -101)] {
        assert_eq!(answer(&mut ends.client), expected);
    }
}

#[test]
fn what_the_server_owes_when_it_closes_is_lost_and_what_it_has_said_is_not() {
    let mut ends = carry(Duration::from_secs(60));
    ends.client.write_all(&[request(5, 4), request(6, 4)].concat()).unwrap();
    ends.server.read_exact(&mut [0; 24]).unwrap();
    ends.server.write_all(&frames::reply(5, 1, 0)).unwrap();
    ends.server.shutdown(std::net::Shutdown::Both).unwrap();
    assert_eq!(ends.down.recv().unwrap(), "zk: the server closed the connection");
    ends.client
        .write_all(&[request(7, 4), request(PING_XID, PING), request(0, CLOSE_SESSION)].concat())
        .unwrap();
    for expected in [(5, 0), (6, CONNECTION_LOSS), (7, CONNECTION_LOSS), (PING_XID, 0), (0, 0)] {
        assert_eq!(answer(&mut ends.client), expected);
    }
}

#[test]
fn a_silent_server_is_pinged_and_then_given_up() {
    // A third of it is more than the test needs for an answer on a machine that has more to do.
    let timeout = Duration::from_secs(6);
    let mut ends = carry(timeout);
    let began = Instant::now();
    let mut ping = [0; 12];
    ends.server.read_exact(&mut ping).unwrap();
    assert_eq!(ping.as_slice(), frames::ping());
    ends.server.write_all(&frames::reply(PING_XID, 0, 0)).unwrap();
    ends.server.read_exact(&mut ping).unwrap();
    assert!(ends.down.recv().unwrap().starts_with("zk: the server has not answered for "));
    assert!(began.elapsed() >= timeout, "{:?}", began.elapsed());
}

/// Silence is not the only way to keep a caller waiting.
#[test]
fn a_call_ends_at_its_deadline_however_much_else_the_server_says() {
    let mut ends = carry(Duration::from_secs(60));
    let limit = Duration::from_millis(200);
    let deadline = Instant::now() + limit;
    ends.control.deadlines.lock().push(deadline);
    ends.client.write_all(&request(5, 4)).unwrap();
    let why = loop {
        // Fails once the connection is cut, and then the reason is there.
        let _ = ends.server.write_all(&frames::reply(EVENT_XID, 1, 0));
        if let Ok(why) = ends.down.recv_timeout(Duration::from_millis(10)) {
            break why;
        }
        assert!(deadline.elapsed() < Duration::from_secs(5), "never cut");
    };
    assert_eq!(why, "zk: the server answers too slowly");
    assert!(Instant::now() >= deadline);
    let mut last = answer(&mut ends.client);
    while last.0 == EVENT_XID {
        last = answer(&mut ends.client);
    }
    assert_eq!(last, (5, CONNECTION_LOSS));
}

#[test]
fn an_answer_that_nobody_asked_for_never_reaches_the_client() {
    let mut ends = carry(Duration::from_secs(60));
    ends.server.write_all(&frames::reply(9, 1, 0)).unwrap();
    assert!(ends.down.recv().unwrap().contains("nobody asked"));
    ends.client.write_all(&request(5, 4)).unwrap();
    assert_eq!(answer(&mut ends.client), (5, CONNECTION_LOSS));
}
