//! A client for the status pages that shows all that was sent.

use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// An answer. The names of header fields are in lower case.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    pub fields: BTreeMap<String, String>,
    pub body: String,
}

impl Answer {
    pub fn field(&self, name: &str) -> &str {
        self.fields.get(name).map_or("", String::as_str)
    }

    #[track_caller]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.body))
    }
}

/// GETs a page.
#[track_caller]
pub fn get(server: SocketAddr, path: &str) -> Answer {
    request(server, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n"))
}

/// GETs a page as JSON.
#[track_caller]
pub fn get_json(server: SocketAddr, path: &str) -> Answer {
    request(server, &format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nAccept: application/json\r\n\r\n"))
}

/// Sends these bytes and reads to the end.
#[track_caller]
pub fn request(server: SocketAddr, bytes: &str) -> Answer {
    let mut stream = connect(server);
    stream.write_all(bytes.as_bytes()).expect("send the request");
    read(&mut stream)
}

/// A connection on which every read and write has a limit.
#[track_caller]
pub fn connect(server: SocketAddr) -> TcpStream {
    let limit = Duration::from_secs(40);
    let stream = TcpStream::connect_timeout(&server, limit).expect("connect to the status pages");
    stream.set_read_timeout(Some(limit)).expect("set a limit");
    stream.set_write_timeout(Some(limit)).expect("set a limit");
    stream
}

/// Reads an answer to its end, and checks that it is as long as it says.
#[track_caller]
pub fn read(stream: &mut TcpStream) -> Answer {
    let mut bytes = Vec::new();
    stream.read_to_end(&mut bytes).expect("read the answer");
    let text = String::from_utf8(bytes).expect("an answer in UTF-8");
    let (head, body) = text.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no head: {text}"));
    let mut lines = head.lines();
    let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).expect("a status");
    let field = |line: &str| {
        let (name, value) = line.split_once(':').expect("a header field");
        (name.to_ascii_lowercase(), value.trim().to_owned())
    };
    let answer = Answer { status, fields: lines.map(field).collect(), body: body.to_owned() };
    let length = answer.field("content-length");
    assert!(body.is_empty() || length == body.len().to_string(), "{length} is not {}", body.len());
    answer
}
