//! Who is at the other end of a loopback connection: only this process may be.
//!
//! The kernel lists the peer's socket with its inode, and this process's descriptors say which sockets are
//! its own. A socket of another user, or of another process of the same user, is not among them.

use std::fs;
use std::net::SocketAddr;

/// Whether the client end of the loopback connection `server` ← `client` belongs to this process.
pub(super) fn is_this_process(server: SocketAddr, client: SocketAddr) -> bool {
    let Some(inode) = socket_inode(server, client) else { return false };
    let wanted = format!("socket:[{inode}]");
    let Ok(descriptors) = fs::read_dir("/proc/self/fd") else { return false };
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
    let table = fs::read_to_string("/proc/self/net/tcp").ok()?;
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
    fn a_socket_of_another_process_is_not() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        let script = format!("exec 3<>/dev/tcp/127.0.0.1/{port}; read -r _ <&3");
        let mut other = Command::new("bash").args(["-c", &script]).spawn().unwrap();
        let (server, address) = listener.accept().unwrap();
        assert!(!is_this_process(server.local_addr().unwrap(), address));
        drop(server);
        other.wait().unwrap();
    }
}
