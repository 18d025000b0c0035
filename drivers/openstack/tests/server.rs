//! A scripted HTTP server over real sockets: each test says what it answers, and sees what it was asked.

use std::io::{self, BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use nodepool_threads::{Condvar, Mutex};

/// How long a test waits for what must happen.
const PATIENCE: Duration = Duration::from_secs(30);

/// A request as the server has heard it.
#[derive(Debug, Clone)]
pub(super) struct Heard {
    pub(super) method: String,
    /// With the query.
    pub(super) path: String,
    pub(super) headers: Vec<(String, String)>,
    /// The body, but of a file only what the script has read.
    pub(super) body: Vec<u8>,
    /// The number of the request, from 1, among those of its method and path.
    pub(super) nth: usize,
}

impl Heard {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value.as_str())
    }

    pub(super) fn is(&self, method: &str, path: &str) -> bool {
        self.method == method && self.path == path
    }
}

/// What the server does.
pub(super) enum Answer {
    /// Answers.
    Reply(u16, Vec<(&'static str, String)>, String),
    /// Sends these bytes and closes the connection.
    Raw(Vec<u8>),
    /// Sends one byte after the other, for ever.
    Trickle,
    /// Sends these bytes, and then nothing more until the test is over.
    SaidThenSilence(Vec<u8>),
    /// Does nothing until the test is over.
    Silence,
}

impl Answer {
    pub(super) fn json(status: u16, body: serde_json::Value) -> Self {
        Self::Reply(status, Vec::new(), body.to_string())
    }

    pub(super) fn empty(status: u16) -> Self {
        Self::Reply(status, Vec::new(), String::new())
    }
}

/// How much of a request's body the server reads before it answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Hears {
    All,
    /// At most so many bytes.
    Only(usize),
}

type Script = dyn Fn(&Heard) -> Answer + Send + Sync;
type Patience = dyn Fn(&str, &str) -> Hears + Send + Sync;

struct Shared {
    script: Box<Script>,
    hears: Box<Patience>,
    tls: Option<Arc<rustls::ServerConfig>>,
    heard: Mutex<Vec<Heard>>,
    changed: Condvar,
    streams: Mutex<Vec<TcpStream>>,
    ended: AtomicBool,
}

/// The running server. Dropping it closes everything.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<std::thread::JoinHandle<()>>,
}

impl Server {
    pub(super) fn start(script: impl Fn(&Heard) -> Answer + Send + Sync + 'static) -> Self {
        Self::with(script, |_, _| Hears::All, None)
    }

    pub(super) fn with(
        script: impl Fn(&Heard) -> Answer + Send + Sync + 'static,
        hears: impl Fn(&str, &str) -> Hears + Send + Sync + 'static,
        tls: Option<Arc<rustls::ServerConfig>>,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let shared = Arc::new(Shared {
            script: Box::new(script),
            hears: Box::new(hears),
            tls,
            heard: Mutex::new("requests heard", Vec::new()),
            changed: Condvar::new(),
            streams: Mutex::new("streams of the server", Vec::new()),
            ended: AtomicBool::new(false),
        });
        let of_thread = Arc::clone(&shared);
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if of_thread.ended.load(Ordering::SeqCst) {
                    break;
                }
                let stream = stream.unwrap();
                of_thread.streams.lock().push(stream.try_clone().unwrap());
                let shared = Arc::clone(&of_thread);
                std::thread::spawn(move || drop(shared.serve(stream)));
            }
        });
        Self { address, shared, thread: Some(thread) }
    }

    pub(super) fn heard(&self) -> Vec<Heard> {
        self.shared.heard.lock().clone()
    }

    /// How many requests of a method and a path were heard.
    pub(super) fn count(&self, method: &str, path: &str) -> usize {
        self.heard().iter().filter(|heard| heard.is(method, path)).count()
    }

    /// Waits until such a request was heard.
    pub(super) fn wait_for(&self, wanted: impl Fn(&Heard) -> bool) -> Heard {
        let limit = Instant::now() + PATIENCE;
        let mut heard = self.shared.heard.lock();
        loop {
            if let Some(found) = heard.iter().find(|heard| wanted(heard)) {
                return found.clone();
            }
            assert!(!self.shared.changed.wait_until(&mut heard, limit), "not heard: {:#?}", *heard);
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        let _ = self.thread.take().unwrap().join();
        for stream in self.shared.streams.lock().drain(..) {
            let _ = stream.shutdown(Shutdown::Both);
        }
    }
}

/// A connection, with TLS or without.
trait Connection: io::Read + io::Write {}
impl<T: io::Read + io::Write> Connection for T {}

impl Shared {
    fn serve(&self, stream: TcpStream) -> io::Result<()> {
        let socket = stream.try_clone()?;
        let stream: Box<dyn Connection> = match &self.tls {
            None => Box::new(stream),
            Some(config) => {
                let connection = rustls::ServerConnection::new(Arc::clone(config)).unwrap();
                Box::new(rustls::StreamOwned::new(connection, stream))
            }
        };
        let mut stream = BufReader::new(stream);
        let served = self.answer_all(&mut stream);
        // Not by dropping: the other clone would keep it open.
        let _ = socket.shutdown(Shutdown::Both);
        served
    }

    fn answer_all(&self, stream: &mut BufReader<Box<dyn Connection>>) -> io::Result<()> {
        while let Some(heard) = self.hear(stream)? {
            let answer = (self.script)(&heard);
            match answer {
                Answer::Reply(status, headers, body) => {
                    let mut head = format!("HTTP/1.1 {status} Said\r\nContent-Length: {}\r\n", body.len());
                    for (name, value) in headers {
                        head.push_str(&format!("{name}: {value}\r\n"));
                    }
                    stream.get_mut().write_all(format!("{head}\r\n{body}").as_bytes())?;
                    stream.get_mut().flush()?;
                    if (self.hears)(&heard.method, &heard.path) != Hears::All {
                        return Ok(());
                    }
                }
                Answer::Raw(bytes) => {
                    stream.get_mut().write_all(&bytes)?;
                    return stream.get_mut().flush();
                }
                Answer::Trickle => {
                    stream.get_mut().write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n")?;
                    loop {
                        stream.get_mut().write_all(b" ")?;
                        stream.get_mut().flush()?;
                        self.idle(Duration::from_millis(20))?;
                    }
                }
                Answer::SaidThenSilence(bytes) => {
                    stream.get_mut().write_all(&bytes)?;
                    stream.get_mut().flush()?;
                    loop {
                        self.idle(Duration::from_millis(50))?;
                    }
                }
                Answer::Silence => loop {
                    self.idle(Duration::from_millis(50))?;
                },
            }
        }
        Ok(())
    }

    /// Waits, and fails when the test is over.
    fn idle(&self, time: Duration) -> io::Result<()> {
        std::thread::park_timeout(time);
        if self.ended.load(Ordering::SeqCst) { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    }

    fn hear(&self, stream: &mut BufReader<Box<dyn Connection>>) -> io::Result<Option<Heard>> {
        let mut line = Vec::new();
        if stream.read_until(b'\n', &mut line)? == 0 {
            return Ok(None);
        }
        let Some(line) = String::from_utf8(line).ok().filter(|line| line.contains(" HTTP/1.1")) else {
            stream.get_mut().write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n")?;
            return Ok(None);
        };
        let mut words = line.split_whitespace().map(str::to_owned);
        let (method, path) = (words.next().unwrap(), words.next().unwrap());
        let mut headers = Vec::new();
        loop {
            let mut line = String::new();
            stream.read_line(&mut line)?;
            match line.trim_end().split_once(": ") {
                Some((name, value)) => headers.push((name.to_owned(), value.to_owned())),
                None => break,
            }
        }
        let mut heard = Heard { method, path, headers, body: Vec::new(), nth: 0 };
        let length = heard.header("content-length").map_or(0, |length| length.parse().unwrap());
        let wanted = match (self.hears)(&heard.method, &heard.path) {
            Hears::All => length,
            Hears::Only(most) => length.min(most),
        };
        heard.body = vec![0; wanted];
        stream.read_exact(&mut heard.body)?;
        let mut all = self.heard.lock();
        heard.nth = 1 + all.iter().filter(|other| other.is(&heard.method, &heard.path)).count();
        all.push(heard.clone());
        drop(all);
        self.changed.notify_all();
        Ok(Some(heard))
    }
}
