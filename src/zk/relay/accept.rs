//! The client's way into its link: one loopback connection of this process, with ZooKeeper's handshake.

use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use nodepool_threads::poll_until;
use rustix::event::{PollFd, PollFlags};

use super::frames::{self, FrameBuffer, Identity};
use super::{Control, peer};

/// How long a connection may take for its part of the handshake. The client's is there at once.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(1);

/// Waits for the client's first request; returns its connection and what it has sent after the handshake.
/// `None` when the link was given up first.
///
/// The client connects again by itself when this thread was too slow for it, and is sure to be at peace only
/// once it has had its answer to the handshake and asks for something.
pub(super) fn accept(
    listener: &TcpListener,
    control: &Control,
    identity: &Identity,
) -> io::Result<Option<(TcpStream, FrameBuffer)>> {
    let address = listener.local_addr()?;
    let deadline = Instant::now() + identity.timeout;
    while Instant::now() < deadline {
        let woken = PollFd::new(&control.waker, PollFlags::IN);
        poll_until(&mut [woken.clone(), PollFd::new(listener, PollFlags::IN)], Some(deadline))?;
        control.waker.drain();
        if control.end.load(Ordering::SeqCst) {
            return Ok(None);
        }
        match listener.accept() {
            Ok((socket, peer)) if peer::is_this_process(address, peer) => {
                if let Ok(requests) = shake_hands(&socket, identity) {
                    return Ok(Some((socket, requests)));
                }
            }
            Ok(_stranger) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            // No descriptor is left, say. Trying again at once would only burn the processor.
            Err(_) => _ = poll_until(&mut [woken], Some(Instant::now() + Duration::from_millis(100)))?,
        }
    }
    Err(io::Error::new(io::ErrorKind::TimedOut, "the client did not connect"))
}

/// Answers the client's handshake. What it asks for does not matter: the server has confirmed the session.
fn shake_hands(mut socket: &TcpStream, identity: &Identity) -> io::Result<FrameBuffer> {
    socket.set_nodelay(true)?;
    socket.set_read_timeout(Some(HANDSHAKE_LIMIT))?;
    socket.set_write_timeout(Some(HANDSHAKE_LIMIT))?;
    let mut requests = FrameBuffer::default();
    read_frame(socket, &mut requests)?;
    requests.next()?;
    socket.write_all(&frames::connect_response(identity))?;
    read_frame(socket, &mut requests)?;
    socket.set_nonblocking(true)?;
    Ok(requests)
}

/// Reads until `into` has a complete frame.
fn read_frame(mut socket: &TcpStream, into: &mut FrameBuffer) -> io::Result<()> {
    let mut chunk = [0; 1024];
    while !into.has_frame()? {
        match socket.read(&mut chunk)? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            length => into.push(&chunk[..length]),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nodepool_threads::spawn;
    use std::sync::Arc;

    #[test]
    fn another_process_is_refused_and_the_client_is_served_after_it() {
        let identity = Identity::new_for_tests(Duration::from_secs(10));
        let control = Arc::new(Control::new(identity.clone()).unwrap());
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let address = listener.local_addr().unwrap();
        let accepting = {
            let (control, identity) = (Arc::clone(&control), identity.clone());
            spawn("accept-test", "tester", move || accept(&listener, &control, &identity)).unwrap()
        };

        // Says hello as a client does and shows what it gets.
        let script =
            format!("exec 3<>/dev/tcp/127.0.0.1/{}; printf '\\0\\0\\0\\4abcd' >&3; cat <&3", address.port());
        let foreign = std::process::Command::new("bash").args(["-c", &script]).output().unwrap();
        assert_eq!(foreign.stdout, b"");

        let mut client = TcpStream::connect(address).unwrap();
        client.write_all(&frames::connect_request(None, identity.timeout)).unwrap();
        let mut answer = FrameBuffer::default();
        read_frame(&client, &mut answer).unwrap();
        client.write_all(&frames::ping()).unwrap();
        let (_, mut requests) = accepting.join().unwrap().unwrap().unwrap();
        assert_eq!(requests.next().unwrap().unwrap(), frames::ping());
        assert!(TcpStream::connect(address).is_err(), "the port is closed once the listener is gone");
    }
}
