//! A real ZooKeeper from Debian's packages, on free loopback ports, plain and TLS.
//!
//! It needs `libzookeeper-java` (which brings `libnetty-java` and `libslf4j-java`) and a Java runtime. One server
//! serves all tests of the process, see [`shared`]; a test that kills, stops or misconfigures a server starts its
//! own, which takes about a second.

use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

use super::Signal;
use super::leash::{self, Leashed};
use super::tls::{CertFiles, Flaw, Pki};
use super::{scratch_dir, within};

const JARS: &str = "/usr/share/java";
/// The manifest of zookeeper.jar names most of what it needs, but not the half of netty that TLS takes.
const NEEDED: [&str; 5] =
    ["zookeeper.jar", "netty-handler.jar", "netty-codec.jar", "netty-resolver.jar", "slf4j-simple.jar"];
const INSTALL: &str =
    "the integration tests need Debian's ZooKeeper: apt-get install libzookeeper-java default-jre-headless";

/// How long a JVM may take to serve; about 1 s on an idle machine.
const START_LIMIT: Duration = Duration::from_secs(60);
const ANSWER_LIMIT: Duration = Duration::from_secs(5);

/// How a server is set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// ZooKeeper's clock: sessions expire in steps of it, and it is the shortest session timeout allowed.
    pub tick_ms: u32,
    /// Whether the transaction log is flushed to disk for each write; off, because a test's data may be lost.
    pub force_sync: bool,
    /// What is wrong with the server's certificate.
    pub server_flaw: Flaw,
    /// The JVM's heap.
    pub heap_mb: u32,
}

impl Default for Options {
    fn default() -> Options {
        Options { tick_ms: 500, force_sync: false, server_flaw: Flaw::None, heap_mb: 128 }
    }
}

/// A server; it ends, and its data is removed, on drop or with the test process.
pub struct ZooKeeper {
    dir: PathBuf,
    ports: [u16; 2],
    options: Options,
    pki: Pki,
    /// Serves all tests, so that none may disturb it.
    shared: bool,
    jvm: Mutex<Option<Leashed>>,
}

/// The server of all tests of this process, started by the first that asks.
pub fn shared() -> &'static ZooKeeper {
    static SERVER: OnceLock<ZooKeeper> = OnceLock::new();
    SERVER.get_or_init(|| {
        let mut server = ZooKeeper::start();
        server.shared = true;
        server
    })
}

impl ZooKeeper {
    /// A server of the test's own; it is ready when this returns.
    pub fn start() -> ZooKeeper {
        ZooKeeper::start_with(Options::default())
    }

    pub fn start_with(options: Options) -> ZooKeeper {
        for _ in 0..10 {
            if let Some(server) = ZooKeeper::start_on(free_ports(), options.clone()) {
                return server;
            }
        }
        panic!("ten times another process took the ports chosen for ZooKeeper");
    }

    /// `None` when another process has one of the ports.
    pub fn start_on(ports: [u16; 2], options: Options) -> Option<ZooKeeper> {
        let dir = scratch_dir("zookeeper");
        let pki = Pki::create(&dir.join("tls"));
        pki.issue("server", options.server_flaw);
        let server = ZooKeeper { dir, ports, options, pki, shared: false, jvm: Mutex::new(None) };
        server.write_config();
        server.launch().then_some(server)
    }

    /// The port without TLS, on 127.0.0.1.
    pub fn plain_port(&self) -> u16 {
        self.ports[0]
    }

    /// The port with TLS, on 127.0.0.1; the certificate is made out to `localhost` too.
    pub fn tls_port(&self) -> u16 {
        self.ports[1]
    }

    /// The certificates that go with the server.
    pub fn pki(&self) -> &Pki {
        &self.pki
    }

    /// The JVM's process id.
    pub fn pid(&self) -> u32 {
        self.jvm.lock().as_ref().expect("ZooKeeper was killed").pid()
    }

    /// Where certificates, data and the log are.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn log_file(&self) -> PathBuf {
        self.dir.join("zookeeper.log")
    }

    /// Ends the server by SIGKILL; data and ports stay for [`ZooKeeper::restart`].
    pub fn kill(&self) {
        self.refuse_if_shared();
        self.jvm.lock().take();
    }

    /// Starts the server again (killing it first if it runs) with the same ports and data.
    pub fn restart(&self) {
        self.kill();
        assert!(self.launch(), "another process took a port of the killed ZooKeeper {:?}", self.ports);
    }

    /// Stops the server's process: its sockets stay open and silent.
    pub fn stop_signal(&self) {
        self.signal(Signal::STOP);
    }

    /// Lets a stopped server go on.
    pub fn cont_signal(&self) {
        self.signal(Signal::CONT);
    }

    /// Asks by a four-letter command (`mntr`, `cons`, `dump` …), without TLS.
    pub fn four_letter(&self, command: &str) -> String {
        self.try_four_letter(command)
            .unwrap_or_else(|error| panic!("ZooKeeper does not answer `{command}`: {error}"))
    }

    pub fn try_four_letter(&self, command: &str) -> std::io::Result<String> {
        let mut socket = self.dial(self.plain_port())?;
        socket.write_all(command.as_bytes())?;
        let mut answer = String::new();
        socket.read_to_string(&mut answer)?;
        Ok(answer)
    }

    /// Asks by a four-letter command on the TLS port as `client`, checking that the server is `name`.
    pub fn four_letter_tls(&self, command: &str, client: &CertFiles, name: &str) -> std::io::Result<String> {
        let name = name.to_owned().try_into().expect("a host name or an address");
        let session = rustls::ClientConnection::new(client.client_config(), name);
        let session = session.map_err(std::io::Error::other)?;
        let mut stream = rustls::StreamOwned::new(session, self.dial(self.tls_port())?);
        stream.write_all(command.as_bytes())?;
        let mut answer = Vec::new();
        match stream.read_to_end(&mut answer) {
            // ZooKeeper closes the socket without TLS' own goodbye.
            Err(error) if error.kind() == ErrorKind::UnexpectedEof && !answer.is_empty() => {}
            result => drop(result?),
        }
        String::from_utf8(answer).map_err(std::io::Error::other)
    }

    fn dial(&self, port: u16) -> std::io::Result<TcpStream> {
        let socket = TcpStream::connect_timeout(&(Ipv4Addr::LOCALHOST, port).into(), ANSWER_LIMIT)?;
        socket.set_read_timeout(Some(ANSWER_LIMIT))?;
        socket.set_write_timeout(Some(ANSWER_LIMIT))?;
        Ok(socket)
    }

    fn signal(&self, signal: Signal) {
        self.refuse_if_shared();
        self.jvm.lock().as_mut().expect("ZooKeeper was killed").signal(signal);
    }

    fn refuse_if_shared(&self) {
        assert!(
            !self.shared,
            "this ZooKeeper serves all tests: start one with ZooKeeper::start() to disturb it"
        );
    }

    fn write_config(&self) {
        let Options { tick_ms, force_sync, .. } = self.options;
        let [plain, tls] = self.ports;
        let text = format!(
            "tickTime={tick_ms}\n\
             minSessionTimeout={tick_ms}\n\
             maxSessionTimeout=600000\n\
             dataDir={data}\n\
             clientPortAddress=127.0.0.1\n\
             clientPort={plain}\n\
             secureClientPortAddress=127.0.0.1\n\
             secureClientPort={tls}\n\
             serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\n\
             ssl.keyStore.location={key_store}\n\
             ssl.trustStore.location={trust_store}\n\
             ssl.clientAuth=need\n\
             admin.enableServer=false\n\
             4lw.commands.whitelist=*\n\
             autopurge.purgeInterval=0\n\
             maxClientCnxns=0\n\
             forceSync={force_sync}\n",
            data = self.data().display(),
            key_store = self.pki.store("server").display(),
            trust_store = self.pki.ca().display(),
            force_sync = if force_sync { "yes" } else { "no" },
        );
        std::fs::write(self.dir.join("zoo.cfg"), text).expect("write zoo.cfg");
    }

    fn data(&self) -> PathBuf {
        self.dir.join("data")
    }

    /// Starts the JVM and waits until it serves; `false` when a port is taken.
    fn launch(&self) -> bool {
        let mut java =
            Command::new(leash::find_program("java").unwrap_or_else(|| panic!("no java: {INSTALL}")));
        java.arg(format!("-Xmx{}m", self.options.heap_mb));
        // A short life: no second compiler, no helper threads, no files in /tmp.
        java.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-XX:-UsePerfData"]);
        java.arg("-Dorg.slf4j.simpleLogger.showDateTime=true");
        java.arg("-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS");
        java.arg("-cp").arg(class_path());
        java.arg("org.apache.zookeeper.server.ZooKeeperServerMain").arg(self.dir.join("zoo.cfg"));
        java.current_dir(&self.dir);

        // Only what this start adds to the log says why it failed.
        let logged = self.log().len();
        let mut jvm = Leashed::start(&java, &self.log_file(), Some(&self.dir));
        let ready = within(START_LIMIT, || match jvm.exited() {
            Some(_) => Some(false),
            None => self.serves().then_some(true),
        });
        if ready == Some(true) {
            *self.jvm.lock() = Some(jvm);
            return true;
        }
        let log = self.log();
        let taken = log.get(logged..).is_some_and(|added| added.contains("Address already in use"));
        if ready == Some(false) && taken {
            return false;
        }
        let reason = if ready.is_none() { "is not ready in time" } else { "ended" };
        panic!("ZooKeeper {reason}\n{}", leash::tail(&self.log_file(), 40));
    }

    /// Whether this server, and not a stranger on its port, serves both ports.
    fn serves(&self) -> bool {
        // `conf` is answered with the directories once the server serves.
        let ours = format!("dataDir={}", self.data().display());
        if !self.try_four_letter("conf").is_ok_and(|answer| answer.contains(&ours)) {
            return false;
        }
        if self.options.server_flaw != Flaw::None {
            return self.dial(self.tls_port()).is_ok();
        }
        // The first handshakes of a JVM take long: they are had here, not in a test's time limits.
        self.four_letter_tls("ruok", self.pki.client(), "localhost").is_ok_and(|answer| answer == "imok")
    }

    fn log(&self) -> String {
        let bytes = std::fs::read(self.log_file()).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

impl Drop for ZooKeeper {
    fn drop(&mut self) {
        self.jvm.get_mut().take();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn class_path() -> String {
    let mut jars: Vec<PathBuf> = NEEDED.iter().map(|jar| Path::new(JARS).join(jar)).collect();
    if let Some(missing) = jars.iter().find(|jar| !jar.is_file()) {
        panic!("no {}: {INSTALL}", missing.display());
    }
    // Newer netty is cut into more pieces.
    for extra in ["netty-codec-base", "netty-transport-classes-epoll", "netty-transport-native-unix-common"] {
        jars.push(Path::new(JARS).join(format!("{extra}.jar")));
    }
    let jars: Vec<String> = jars.iter().map(|jar| jar.display().to_string()).collect();
    jars.join(":")
}

/// Two ports that nobody listens on at this moment.
///
/// Below the kernel's range for outgoing connections: a port of a killed server must neither be taken by one
/// before the restart, nor be dialled by a client that then, by chance, connects to itself.
fn free_ports() -> [u16; 2] {
    let mut found = Vec::new();
    let ports = within(Duration::from_secs(10), || {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, fastrand::u16(15_000..32_000))).ok()?;
        found.push(listener);
        let [first, second] = found.as_slice() else { return None };
        Some([first.local_addr().ok()?.port(), second.local_addr().ok()?.port()])
    });
    ports.expect("find two free loopback ports")
}
