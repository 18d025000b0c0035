//! A real ZooKeeper server, on free ports of its own, plain and TLS.
//!
//! One server serves all tests of the process, see [`shared`]; a test that kills, stops or misconfigures a server
//! starts its own, which takes about a second. Three of them make an [`Ensemble`](super::Ensemble).

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use parking_lot::Mutex;

use super::leash::{self, Leashed};
use super::tls::{CertFiles, Flaw, Pki};
use super::{Network, Signal, history, jvm, scratch_dir, within};

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
    /// Where the server listens.
    pub address: IpAddr,
    /// The network at whose far end the server runs, instead of beside the tests.
    pub network: Option<Arc<Network>>,
    /// Further lines of `zoo.cfg`; they win over those that are written anyway.
    pub more: String,
}

impl Default for Options {
    fn default() -> Options {
        Options {
            tick_ms: 500,
            force_sync: false,
            server_flaw: Flaw::None,
            heap_mb: 128,
            address: Ipv4Addr::LOCALHOST.into(),
            network: None,
            more: String::new(),
        }
    }
}

impl Options {
    /// A server at the far end of a network.
    pub fn behind(network: &Arc<Network>) -> Options {
        let address = network.far().into();
        Options { address, network: Some(Arc::clone(network)), ..Options::default() }
    }
}

/// A server; it ends, and its data is removed, on drop or with the test process.
pub struct ZooKeeper {
    dir: PathBuf,
    ports: [u16; 2],
    options: Options,
    pki: Arc<Pki>,
    /// Serves all tests, so that none may disturb it.
    shared: bool,
    /// Was sent SIGSTOP: whoever asks it for anything waits in vain.
    stopped: AtomicBool,
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
            if let Some(server) = ZooKeeper::start_on(jvm::free_ports(), options.clone()) {
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
        let server = ZooKeeper::prepare(dir, ports, options, Arc::new(pki));
        server.launch().then_some(server)
    }

    /// A server in `dir` that does not run yet; its certificate is the `server` of `pki`.
    pub(super) fn prepare(dir: PathBuf, ports: [u16; 2], options: Options, pki: Arc<Pki>) -> ZooKeeper {
        let (stopped, jvm) = (AtomicBool::new(false), Mutex::new(None));
        let server = ZooKeeper { dir, ports, options, pki, shared: false, stopped, jvm };
        server.write_config();
        server
    }

    /// Where it listens: 127.0.0.1 if the test has not chosen otherwise.
    pub fn address(&self) -> IpAddr {
        self.options.address
    }

    /// The port without TLS.
    pub fn plain_port(&self) -> u16 {
        self.ports[0]
    }

    /// The port with TLS; the certificate is made out to `localhost` too.
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
        self.stopped.store(false, Ordering::SeqCst);
    }

    /// Starts the server again (killing it first if it runs) with the same ports and data.
    pub fn restart(&self) {
        self.kill();
        assert!(self.launch(), "another process took a port of the killed ZooKeeper {:?}", self.ports);
    }

    /// Stops the server's process: its sockets stay open and silent.
    pub fn stop_signal(&self) {
        self.stopped.store(true, Ordering::SeqCst);
        self.refuse_if_shared();
        self.jvm.lock().as_mut().expect("ZooKeeper was killed").freeze();
    }

    /// Lets a stopped server go on.
    pub fn cont_signal(&self) {
        self.signal(Signal::CONT);
        self.stopped.store(false, Ordering::SeqCst);
    }

    /// Whether it serves now: alone, or as part of an ensemble that has a leader.
    pub fn is_serving(&self) -> bool {
        self.is_awake() && self.try_four_letter("conf").is_ok_and(|answer| answer.contains("dataDir="))
    }

    /// Whether it could answer: it was neither killed nor stopped.
    pub fn is_awake(&self) -> bool {
        self.jvm.lock().is_some() && !self.stopped.load(Ordering::SeqCst)
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

    /// All that was ever written, in order.
    pub fn history(&self) -> Vec<history::Entry> {
        history::read(&self.data())
    }

    fn dial(&self, port: u16) -> std::io::Result<TcpStream> {
        let socket = TcpStream::connect_timeout(&(self.address(), port).into(), ANSWER_LIMIT)?;
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
             clientPortAddress={address}\n\
             clientPort={plain}\n\
             secureClientPortAddress={address}\n\
             secureClientPort={tls}\n\
             serverCnxnFactory=org.apache.zookeeper.server.NettyServerCnxnFactory\n\
             ssl.keyStore.location={key_store}\n\
             ssl.trustStore.location={trust_store}\n\
             ssl.clientAuth=need\n\
             admin.enableServer=false\n\
             4lw.commands.whitelist=*\n\
             autopurge.purgeInterval=0\n\
             maxClientCnxns=0\n\
             forceSync={force_sync}\n\
             {more}",
            address = self.address(),
            more = self.options.more,
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
        let logged = self.begin();
        self.wait_ready(logged)
    }

    /// Starts the JVM. Answers how long its log was before.
    pub(super) fn begin(&self) -> usize {
        let mut java = jvm::command(self.options.heap_mb, self.options.network.as_deref());
        java.arg(self.dir.join("zoo.cfg")).current_dir(&self.dir);
        let logged = self.log().len();
        *self.jvm.lock() = Some(Leashed::start(&java, &self.log_file(), Some(&self.dir)));
        logged
    }

    /// Waits until it serves; `false` when a port is taken. Only what this start has added to the log, which was
    /// `logged` long, says why it failed.
    pub(super) fn wait_ready(&self, logged: usize) -> bool {
        let ready = within(START_LIMIT, || {
            let ended = self.jvm.lock().as_mut().is_none_or(|jvm| jvm.exited().is_some());
            if ended { Some(false) } else { self.serves().then_some(true) }
        });
        if ready == Some(true) {
            return true;
        }
        self.jvm.lock().take();
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
