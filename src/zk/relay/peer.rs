//! Who is at the other end of a loopback connection: only this process may be.
//!
//! The kernel lists the peer's socket with its inode, and this process's descriptors say which sockets are
//! its own. A socket of another user, or of another process of the same user, is not among them.

use std::fs;
use std::io;
use std::net::SocketAddr;

const SOCKETS: &str = "/proc/self/net/tcp";
const DESCRIPTORS: &str = "/proc/self/fd";

/// Whether it can be told at all who is at the other end. The error names what is missing: without it
/// everybody would be refused, and the client would try again without a pause.
pub(super) fn can_be_told() -> io::Result<()> {
    let named = |path: &str, error: io::Error| {
        let why =
            format!("cannot read {path}, without which nobody can be let in: {error}; is /proc mounted?");
        io::Error::new(error.kind(), why)
    };
    fs::File::open(SOCKETS).map_err(|error| named(SOCKETS, error))?;
    fs::read_dir(DESCRIPTORS).map_err(|error| named(DESCRIPTORS, error))?;
    Ok(())
}

/// Whether the client end of the loopback connection `server` ← `client` belongs to this process.
pub(super) fn is_this_process(server: SocketAddr, client: SocketAddr) -> bool {
    let Some(inode) = socket_inode(server, client) else { return false };
    let wanted = format!("socket:[{inode}]");
    let Ok(descriptors) = fs::read_dir(DESCRIPTORS) else { return false };
    descriptors
        .filter_map(|entry| fs::read_link(entry.ok()?.path()).ok())
        .any(|target| target.as_os_str() == wanted.as_str())
}

/// The inode of the socket whose own address is `client` and whose peer is `server` (proc_pid_net(5)).
fn socket_inode(server: SocketAddr, client: SocketAddr) -> Option<String> {
    let (SocketAddr::V4(server), SocketAddr::V4(client)) = (server, client) else { return None };
    // The kernel prints the address as the number that its bytes are in memory, and the port as a number.
    let shown = |address: std::net::SocketAddrV4| {
        format!("{:08X}:{:04X}", u32::from_ne_bytes(address.ip().octets()), address.port())
    };
    let (own, peer) = (shown(client), shown(server));
    let table = fs::read_to_string(SOCKETS).ok()?;
    table.lines().skip(1).find_map(|line| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let matches = fields.get(1) == Some(&own.as_str()) && fields.get(2) == Some(&peer.as_str());
        if matches { fields.get(9).map(|inode| (*inode).to_owned()) } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};
    use std::process::Command;

    #[test]
    fn a_socket_of_this_process_is_recognised() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (server, address) = listener.accept().unwrap();
        assert!(is_this_process(server.local_addr().unwrap(), address));
        drop(client);
    }

    #[test]
    fn a_socket_of_another_process_is_not_whoever_runs_it() {
        use std::os::unix::process::CommandExt as _;
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; read -r _ <&3");
        const NOBODY: u32 = 65534;
        let users = [None, Some(NOBODY)];
        for user in users {
            let mut command = Command::new("bash");
            command.args(["-c", &script]).current_dir("/");
            if let Some(user) = user {
                command.uid(user).gid(user);
            }
            let mut other = command.spawn().expect("run a process as another user, which needs root");
            let (server, address) = listener.accept().unwrap();
            assert!(!is_this_process(server.local_addr().unwrap(), address), "user {user:?}");
            drop(server);
            other.wait().unwrap();
        }
    }
}
