//! A test's own world: a directory, a chroot on a ZooKeeper, a configuration, daemons and client runs.

use std::cell::Cell;
use std::collections::BTreeSet;
use std::ffi::OsStr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::client::{self, CLIENT_LIMIT, Outcome};
use super::tls::CertFiles;
use super::{Daemon, Ensemble, ZkClient, ZooKeeper, eventually, scratch_dir, shared};

/// How long a daemon may take until it is registered.
const READY_LIMIT: Duration = Duration::from_secs(30);

const BUILDERS: &str = "/nodepool/components/builder";
const POOLS: &str = "/nodepool/components/pool";

/// How a configuration reaches ZooKeeper.
#[derive(Clone, Debug)]
pub enum Transport {
    Plain,
    /// As `localhost`, with the good client certificate.
    Tls,
    /// As `host`, with certificates of the test's choice.
    TlsAs {
        host: String,
        files: CertFiles,
    },
}

/// The part of a configuration that each test needs and few care about.
#[derive(Clone, Debug)]
pub struct Header {
    pub transport: Transport,
    /// `zookeeper-timeout`, in seconds.
    pub timeout: f64,
}

impl Default for Header {
    fn default() -> Header {
        Header { transport: Transport::Plain, timeout: 4.0 }
    }
}

/// Removed on drop, unless the test panicked: then it stays, and its path is printed.
pub struct Sandbox<'a> {
    dir: PathBuf,
    chroot: String,
    /// One, or all of an ensemble.
    servers: Vec<&'a ZooKeeper>,
    daemons: Cell<u32>,
    runs: Cell<u32>,
}

impl Sandbox<'static> {
    /// A sandbox on the ZooKeeper of all tests.
    pub fn new(test: &str) -> Sandbox<'static> {
        Sandbox::on(shared(), test)
    }
}

impl<'a> Sandbox<'a> {
    /// A sandbox on a ZooKeeper of the test's own.
    pub fn on(server: &'a ZooKeeper, test: &str) -> Sandbox<'a> {
        Sandbox::among(vec![server], test)
    }

    /// A sandbox on an ensemble: its daemons and clients know all of its servers.
    pub fn on_ensemble(ensemble: &'a Ensemble, test: &str) -> Sandbox<'a> {
        Sandbox::among(ensemble.servers().iter().collect(), test)
    }

    fn among(servers: Vec<&'a ZooKeeper>, test: &str) -> Sandbox<'a> {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let name: String = test.chars().map(|c| if c.is_ascii_alphanumeric() { c } else { '-' }).collect();
        let dir = scratch_dir(&name);
        for folder in ["images", "logs", "store", "elements", "runs"] {
            std::fs::create_dir(dir.join(folder)).expect("create a folder of the sandbox");
        }
        let chroot = format!("/{name}-{}", COUNT.fetch_add(1, Ordering::Relaxed));
        let sandbox = Sandbox { dir, chroot, servers, daemons: Cell::new(0), runs: Cell::new(0) };
        // The chroot exists from now on; nobody may demand that a daemon creates it.
        drop(sandbox.zk());
        sandbox
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A path inside the sandbox.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// `images-dir`.
    pub fn images(&self) -> PathBuf {
        self.path("images")
    }

    /// `build-log-dir`.
    pub fn logs(&self) -> PathBuf {
        self.path("logs")
    }

    /// For what a provider keeps: the files of the fake or the local driver.
    pub fn store(&self) -> PathBuf {
        self.path("store")
    }

    /// `/name`, unique on the server.
    pub fn chroot(&self) -> &str {
        &self.chroot
    }

    /// Its ZooKeeper; of an ensemble, the first server.
    pub fn server(&self) -> &'a ZooKeeper {
        self.servers[0]
    }

    /// A session of the test's own in the chroot: a new one each time, to be let go soon (see [`ZkClient`]).
    pub fn zk(&self) -> ZkClient {
        let serving = eventually(READY_LIMIT, "a ZooKeeper server that serves", || {
            self.servers.iter().find(|server| server.is_serving())
        });
        ZkClient::connect(serving, &self.chroot)
    }

    /// The file that daemons and client read.
    pub fn config_file(&self) -> PathBuf {
        self.path("nodepool.yaml")
    }

    /// The top-level keys of a configuration: ZooKeeper and directories; a test appends images and providers.
    pub fn header(&self, header: &Header) -> String {
        let (host, tls) = match &header.transport {
            Transport::Plain => ("127.0.0.1", None),
            Transport::Tls => ("localhost", Some(self.server().pki().client())),
            Transport::TlsAs { host, files } => (host.as_str(), Some(files)),
        };
        let port = |server: &ZooKeeper| if tls.is_some() { server.tls_port() } else { server.plain_port() };
        let chroot = &self.chroot;
        let entry = |server: &&ZooKeeper| {
            format!("  - host: {host}\n    port: {}\n    chroot: {chroot}\n", port(server))
        };
        let mut yaml = format!(
            "zookeeper-servers:\n{servers}\
             zookeeper-timeout: {timeout:?}\n\
             images-dir: {images}\nbuild-log-dir: {logs}\nelements-dir: {elements}\n\
             builder-webapp: {{port: 0}}\nwebapp: {{port: 0, listen_address: 127.0.0.1}}\n",
            servers = self.servers.iter().map(entry).collect::<String>(),
            timeout = header.timeout,
            images = self.images().display(),
            logs = self.logs().display(),
            elements = self.path("elements").display(),
        );
        if let Some(CertFiles { cert, key, ca }) = tls {
            yaml.push_str(&format!(
                "zookeeper-tls:\n  cert: {}\n  key: {}\n  ca: {}\n",
                cert.display(),
                key.display(),
                ca.display()
            ));
        }
        yaml
    }

    /// Replaces `nodepool.yaml` at once, as a careful editor does.
    pub fn write_config(&self, yaml: &str) {
        self.replace("nodepool.yaml", yaml);
    }

    /// The default header (plain ZooKeeper) and the rest of a configuration.
    pub fn write_body(&self, body: &str) {
        self.write_config(&format!("{}{body}", self.header(&Header::default())));
    }

    /// Replaces any file of the sandbox by rename.
    pub fn replace(&self, name: &str, text: &str) {
        let new = self.path(&format!("{name}.new"));
        std::fs::write(&new, text).unwrap_or_else(|error| panic!("cannot write {}: {error}", new.display()));
        std::fs::rename(&new, self.path(name))
            .unwrap_or_else(|error| panic!("cannot replace {name}: {error}"));
    }

    /// The stand-in for `disk-image-create`, for `dib-cmd`; see `fake-dib.sh` for what `env-vars` make it do.
    pub fn fake_dib(&self) -> PathBuf {
        let path = self.path("fake-dib");
        if !path.exists() {
            let new = self.path("fake-dib.new");
            std::fs::write(&new, include_str!("fake-dib.sh")).expect("write fake-dib");
            std::fs::set_permissions(&new, PermissionsExt::from_mode(0o755))
                .expect("make fake-dib executable");
            std::fs::rename(&new, &path).expect("put fake-dib in place");
        }
        path
    }

    /// Starts a builder and waits until it is registered as running.
    #[track_caller]
    pub fn builder(&self, args: &[&str]) -> Daemon {
        let zk = self.zk();
        let before: BTreeSet<String> = zk.children(BUILDERS).into_iter().collect();
        self.builder_when("a component that is running", args, |_| {
            let new = zk.children(BUILDERS).into_iter().filter(|name| !before.contains(name));
            let mut states = new.filter_map(|name| zk.get(&format!("{BUILDERS}/{name}"))?.json());
            states.any(|component| component["state"] == "running")
        })
    }

    /// Starts a builder and waits until `ready` says so: a line of its log, a znode, a file.
    #[track_caller]
    pub fn builder_when(&self, what: &str, args: &[&str], mut ready: impl FnMut(&Daemon) -> bool) -> Daemon {
        let daemon = self.spawn(&self.builder_command(args));
        daemon.wait_until(what, READY_LIMIT, || ready(&daemon).then_some(()));
        daemon
    }

    /// The builder's command line, for a test that adds to its environment before [`Sandbox::spawn`].
    pub fn builder_command(&self, args: &[&str]) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_nodepool-builder"));
        command.args(["-f", "-d", "-c"]).arg(self.config_file()).args(args);
        command
    }

    /// Starts a launcher and waits until a pool of it is registered.
    #[track_caller]
    pub fn launcher(&self, args: &[&str]) -> Daemon {
        let zk = self.zk();
        let before: BTreeSet<String> = zk.children(POOLS).into_iter().collect();
        let daemon = self.spawn(&self.launcher_command(args));
        daemon.wait_until("a pool", READY_LIMIT, || {
            zk.children(POOLS).iter().any(|name| !before.contains(name)).then_some(())
        });
        daemon
    }

    /// The launcher's command line, for a test that adds to its environment before [`Sandbox::spawn`].
    pub fn launcher_command(&self, args: &[&str]) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_nodepool-launcher"));
        command.args(["-f", "-d", "-c"]).arg(self.config_file()).args(args);
        command
    }

    /// Starts a daemon without waiting for anything; each has a log of its own, `daemon-N.log`.
    pub fn spawn(&self, command: &Command) -> Daemon {
        let number = count(&self.daemons);
        Daemon::start(command, &self.path(&format!("daemon-{number}.log")))
    }

    /// Runs `nodepool -c <config> args` to its end.
    #[track_caller]
    pub fn nodepool(&self, args: &[&str]) -> Outcome {
        self.nodepool_with_input("", args)
    }

    /// Runs the client with an answer to its question.
    #[track_caller]
    pub fn nodepool_with_input(&self, input: &str, args: &[&str]) -> Outcome {
        let mut command = self.command(env!("CARGO_BIN_EXE_nodepool"));
        command.arg("-c").arg(self.config_file()).args(args);
        self.run_client(command, input, CLIENT_LIMIT)
    }

    /// Checks any configuration, with variables in the environment.
    #[track_caller]
    pub fn validate(&self, config: &Path, env: &[(&str, &str)]) -> Outcome {
        let mut command = self.command(env!("CARGO_BIN_EXE_nodepool"));
        command.arg("-c").arg(config).arg("config-validate").envs(env.iter().copied());
        self.run_client(command, "", CLIENT_LIMIT)
    }

    /// Runs any client to its end.
    #[track_caller]
    pub fn run_client(&self, command: Command, input: &str, deadline: Duration) -> Outcome {
        client::run(command, input, &self.run_dir(), deadline)
    }

    /// A new directory for what a client's run leaves.
    pub fn run_dir(&self) -> PathBuf {
        let dir = self.path(&format!("runs/{}", count(&self.runs)));
        std::fs::create_dir(&dir).expect("create the directory of a client's run");
        dir
    }

    /// A program without what the developer's shell may have set for Nodepool.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.dir).env("RUST_BACKTRACE", "1");
        let foreign = |key: &str| {
            ["NODEPOOL_", "STATSD_", "FAKE_DIB_", "DIB_"].iter().any(|prefix| key.starts_with(prefix))
        };
        for (key, _) in std::env::vars_os().filter(|(key, _)| key.to_str().is_some_and(foreign)) {
            command.env_remove(key);
        }
        command
    }
}

impl Drop for Sandbox<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the sandbox is kept: {}", self.dir.display());
        } else if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            // A grandchild that is about to end may still write; that is litter, not a failed test.
            eprintln!("cannot remove {}: {error}", self.dir.display());
        }
    }
}

fn count(cell: &Cell<u32>) -> u32 {
    cell.set(cell.get() + 1);
    cell.get()
}
