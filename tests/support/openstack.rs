//! A real Keystone and a real Glance, on free ports of their own, with databases in files and images in a directory; if
//! asked, real services that run servers, on a hypervisor that only pretends.
//!
//! `scripts/openstack-peers` installs them once per checkout, and prepares what each start begins with: two projects
//! and users, a catalogue of three regions, networks and flavors. One of each serves all tests of the process, see
//! [`shared`] and [`shared_with_servers`]; a test that kills, fills or misconfigures a service starts its own, which
//! takes some seconds, most of them of the processor. A test that needs them fails when they cannot be installed, and
//! says why.

mod api;
mod disturb;
mod gate;
mod project;
mod servers;

use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use std::time::Duration;

use parking_lot::Mutex;

pub use gate::Gate;
pub use project::Project;

use super::leash::{self, Leashed};
use super::tls::{Flaw, Pki};
use super::{jvm, scratch_dir, within};

const CHECKOUT: &str = env!("CARGO_MANIFEST_DIR");
const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/support/openstack");
/// How long both may take to serve; three seconds on an idle machine, ten the first time.
const START_LIMIT: Duration = Duration::from_secs(180);
/// What the gate of the shared services lets through: small images, and requests about them.
const SMALL: u64 = 2 << 20;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Service {
    Keystone,
    Glance,
    Placement,
    Neutron,
    /// All of it: API, scheduler, conductor and a hypervisor, in one process.
    Nova,
    /// Its API only.
    Cinder,
}

impl Service {
    const ALL: [Service; 6] = [
        Service::Keystone,
        Service::Glance,
        Service::Placement,
        Service::Neutron,
        Service::Nova,
        Service::Cinder,
    ];

    fn name(self) -> &'static str {
        match self {
            Service::Keystone => "keystone",
            Service::Glance => "glance",
            Service::Placement => "placement",
            Service::Neutron => "neutron",
            Service::Nova => "nova",
            Service::Cinder => "cinder",
        }
    }
}

/// How the services are set up.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many seconds a token is good for.
    pub token_ttl: u32,
    /// Whether Glance relies for some minutes on what Keystone has said of a token.
    pub token_cache: bool,
    /// The size of the disk for images in megabytes: one of its own, for which the test must be root.
    pub disk_mb: Option<u32>,
    /// Whether there are Placement, Neutron and Nova, too.
    pub servers: bool,
    /// Whether there is the API of Cinder beside them.
    pub volumes: bool,
}

impl Default for Options {
    fn default() -> Options {
        Options { token_ttl: 4 * 3600, token_cache: true, disk_mb: None, servers: false, volumes: false }
    }
}

/// The services; they end, and their data is removed, on drop or with the test process.
pub struct OpenStack {
    dir: PathBuf,
    /// Of Keystone and Glance, then of the same with TLS.
    ports: [u16; 4],
    options: Options,
    shared: bool,
    gate: Gate,
    pki: Pki,
    /// As in [`Service::ALL`].
    processes: [Mutex<Option<Leashed>>; 6],
    /// Of Placement, Neutron, Nova and Cinder, once they have been started.
    server_ports: Mutex<Option<[u16; 4]>>,
    tls_front: Mutex<Option<Leashed>>,
    /// Of whoever asks for the tests.
    admin_token: Mutex<Option<String>>,
}

/// The services of all tests, as one test has them: when it fails, their logs are shown.
pub struct Shared(&'static OpenStack);

impl Deref for Shared {
    type Target = OpenStack;

    fn deref(&self) -> &OpenStack {
        self.0
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        self.0.show_logs_of_a_failure();
    }
}

/// The services of all tests of this process, started by the first that asks. Their gate is half shut: what is sent
/// to RegionGate, the region of the cloud `gate`, stands still after two megabytes.
#[track_caller]
pub fn shared() -> Shared {
    static SERVICES: OnceLock<Result<OpenStack, String>> = OnceLock::new();
    // A panic in here would be repeated to the others as a poisoned lock, without the reason.
    let made = SERVICES.get_or_init(|| {
        let mut services = OpenStack::try_start(Options::default())?;
        services.shared = true;
        services.gate.limit(SMALL);
        Ok(services)
    });
    Shared(made.as_ref().unwrap_or_else(|why| panic!("{why}")))
}

/// The services of all tests of this process with those that run servers, which the first that asks adds. A test takes
/// a [`Project`] of its own there.
#[track_caller]
pub fn shared_with_servers() -> Shared {
    static SERVERS: OnceLock<Result<(), String>> = OnceLock::new();
    let services = shared();
    let added = SERVERS.get_or_init(|| services.add_servers());
    added.as_ref().unwrap_or_else(|why| panic!("{why}"));
    services
}

/// Runs `scripts/openstack-peers`: where venv and template are, or why there are none.
pub fn install(dir: Option<&Path>, env: &[(&str, &str)]) -> Result<PathBuf, String> {
    let mut command = Command::new(Path::new(CHECKOUT).join("scripts/openstack-peers"));
    let output = command.args(dir).envs(env.iter().copied()).output();
    let output = output.map_err(|error| format!("cannot start scripts/openstack-peers: {error}"))?;
    if output.status.success() {
        let path = String::from_utf8(output.stdout).map_err(|error| error.to_string())?;
        return Ok(PathBuf::from(path.trim_end()));
    }
    Err(format!(
        "this test needs services of OpenStack, and scripts/openstack-peers failed ({}):\n{}",
        output.status,
        String::from_utf8_lossy(&output.stderr)
    ))
}

/// The directory of venv and template, made by the first that asks.
fn installed() -> Result<&'static Path, String> {
    static INSTALLED: OnceLock<Result<PathBuf, String>> = OnceLock::new();
    INSTALLED.get_or_init(|| install(None, &[])).as_deref().map_err(Clone::clone)
}

/// A program of the venv, such as the official client `openstack`.
#[track_caller]
pub fn program(name: &str) -> PathBuf {
    installed().unwrap_or_else(|why| panic!("{why}")).join("venv/bin").join(name)
}

impl OpenStack {
    /// Services of the test's own; they serve when this returns. Their gate is open.
    #[track_caller]
    pub fn start() -> OpenStack {
        OpenStack::start_with(Options::default())
    }

    #[track_caller]
    pub fn start_with(options: Options) -> OpenStack {
        OpenStack::try_start(options).unwrap_or_else(|why| panic!("{why}"))
    }

    fn try_start(options: Options) -> Result<OpenStack, String> {
        installed()?;
        for _ in 0..10 {
            let services = OpenStack::place(jvm::free_ports(), options.clone())?;
            services.launch(Service::Keystone);
            services.launch(Service::Glance);
            if services.options.servers {
                services.launch_servers()?;
            }
            if services.wait_ready(&Service::ALL[..2])?
                && (!services.options.servers || services.wait_servers()?)
            {
                return Ok(services);
            }
        }
        Err("ten times another process took the ports chosen for OpenStack's services".to_owned())
    }

    /// A directory from which they can be started.
    fn place(ports: [u16; 4], options: Options) -> Result<OpenStack, String> {
        let dir = scratch_dir("openstack");
        let pki = Pki::create(&dir.join("tls"));
        pki.issue("server", Flaw::None);
        let gate = Gate::start(ports[1]);
        let [.., tls_keystone, tls_glance] = ports;
        let values = [
            format!("TLS_KEYSTONE_PORT={tls_keystone}"),
            format!("TLS_GLANCE_PORT={tls_glance}"),
            format!("GATE_PORT={}", gate.port()),
            format!("TLS_CA={}", pki.ca().display()),
        ];
        let services = OpenStack {
            dir,
            ports,
            options,
            shared: false,
            gate,
            pki,
            processes: Default::default(),
            server_ports: Mutex::default(),
            tls_front: Mutex::default(),
            admin_token: Mutex::default(),
        };
        services.run_place(&[], &values)?;
        Ok(services)
    }

    /// Runs `place.py`, which is told where Keystone and Glance are, and this.
    fn run_place(&self, options: &[&str], values: &[String]) -> Result<(), String> {
        let mut place = Command::new("/usr/bin/python3");
        place.args(["-B", &format!("{SOURCES}/place.py")]).args(options);
        place.arg(&self.dir).arg(installed()?.join("template"));
        let [keystone, glance, ..] = self.ports;
        place.arg(format!("KEYSTONE_PORT={keystone}")).arg(format!("GLANCE_PORT={glance}"));
        place.arg(format!("TOKEN_TTL={}", self.options.token_ttl));
        place.arg(format!("TOKEN_CACHE={}", if self.options.token_cache { 300 } else { -1 }));
        let placed = place.args(values).output().map_err(|error| format!("cannot start python3: {error}"))?;
        if !placed.status.success() {
            return Err(format!("place.py failed: {}", String::from_utf8_lossy(&placed.stderr)));
        }
        Ok(())
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn keystone_port(&self) -> u16 {
        self.ports[0]
    }

    pub fn glance_port(&self) -> u16 {
        self.ports[1]
    }

    /// `demo`, `demo-admin`, `admin`, `appcred`; `wrong` has a wrong password, `nowhere` an unknown region; `import`
    /// brings images to the stage first; `gate` reaches Glance through the gate, `tls` both through TLS, `tls-unknown`
    /// the same without the authority's certificate.
    pub fn clouds(&self) -> PathBuf {
        self.dir.join("clouds.yaml")
    }

    /// What stands between Glance and the cloud `gate`.
    pub fn gate(&self) -> &Gate {
        assert!(
            !self.shared,
            "this gate is for all tests: start services with OpenStack::start() to move it"
        );
        &self.gate
    }

    /// The certificates of the services with TLS.
    pub fn pki(&self) -> &Pki {
        &self.pki
    }

    /// The directory of images, as Glance sees it.
    pub fn store(&self) -> PathBuf {
        let store = self.dir.join("store");
        match self.process(Service::Glance).lock().as_ref() {
            Some(glance) if self.options.disk_mb.is_some() => {
                PathBuf::from(format!("/proc/{}/root{}", glance.pid(), store.display()))
            }
            _ => store,
        }
    }

    /// The process of a service.
    pub fn pid(&self, service: Service) -> u32 {
        self.process(service).lock().as_ref().expect("the service was killed").pid()
    }

    /// A program of the venv that knows the clouds, such as the official client `openstack`.
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(program(name));
        command.env("OS_CLIENT_CONFIG_FILE", self.clouds()).env("PYTHONWARNINGS", "ignore");
        command
    }

    /// Puts TLS in front of both services, for the cloud `tls`, if it is not there yet.
    #[track_caller]
    pub fn serve_tls(&self) {
        let mut front = self.tls_front.lock();
        if front.is_some() {
            return;
        }
        let files = ["server.pem", "server.key"].map(|name| self.dir.join("tls").join(name));
        let [keystone, glance, tls_keystone, tls_glance] = self.ports;
        let mut python = Command::new("/usr/bin/python3");
        python.args(["-B", &format!("{SOURCES}/tls_front.py")]).args(files);
        python.args([format!("{tls_keystone}={keystone}"), format!("{tls_glance}={glance}")]);
        let log = self.log_file("tls_front");
        *front = Some(Leashed::start(&python, &log, Some(&self.dir)));
        let ready = within(START_LIMIT, || {
            std::fs::read_to_string(&log).is_ok_and(|log| log.contains("ready\n")).then_some(())
        });
        assert!(ready.is_some(), "no TLS in front of Keystone and Glance\n{}", leash::tail(&log, 40));
    }

    fn process(&self, service: Service) -> &Mutex<Option<Leashed>> {
        &self.processes[service as usize]
    }

    fn log_file(&self, name: &str) -> PathBuf {
        self.dir.join(format!("{name}.log"))
    }

    fn launch(&self, service: Service) {
        let ini = self.dir.join(format!("{}.ini", service.name()));
        let mut uwsgi = match (service, self.options.disk_mb) {
            (Service::Glance, Some(megabytes)) => {
                let store = self.dir.join("store");
                let mount =
                    format!("mount -t tmpfs -o size={megabytes}m tmpfs {} && exec \"$@\"", store.display());
                let mut command = Command::new("unshare");
                command.args(["--mount", "sh", "-c", &mount, "sh"]).arg(program("uwsgi"));
                command
            }
            _ => Command::new(program("uwsgi")),
        };
        uwsgi.arg("--ini").arg(ini).current_dir(&self.dir).env("PYTHONWARNINGS", "ignore");
        // Otherwise each start would compile all modules again.
        uwsgi.env_remove("PYTHONDONTWRITEBYTECODE");
        let log = self.log_file(service.name());
        *self.process(service).lock() = Some(Leashed::start(&uwsgi, &log, Some(&self.dir)));
    }

    /// Waits until these serve; `false` when a port is taken.
    fn wait_ready(&self, services: &[Service]) -> Result<bool, String> {
        let ended = |service: Service| {
            self.process(service).lock().as_mut().is_none_or(|process| process.exited().is_some())
        };
        let mut left = services.to_vec();
        let ready = within(START_LIMIT, || {
            if let Some(&service) = left.iter().find(|&&one| ended(one)) {
                return Some(Err(service));
            }
            left.retain(|&service| !self.serves(service).is_ok_and(|serves| serves));
            left.is_empty().then_some(Ok(()))
        });
        match ready {
            Some(Ok(())) => Ok(true),
            Some(Err(service)) => {
                let log = leash::tail(&self.log_file(service.name()), 40);
                let taken = log.contains("Address already in use") || log.contains("same address");
                if taken { Ok(false) } else { Err(format!("{} ended\n{log}", service.name())) }
            }
            None => Err(format!("not ready in time: {left:?}\n{}", self.logs())),
        }
    }

    fn logs(&self) -> String {
        let names = Service::ALL.map(Service::name).into_iter().chain(["tls_front"]);
        let logs = names.map(|name| self.log_file(name)).filter(|log| log.exists());
        logs.map(|log| leash::tail(&log, 40) + "\n").collect()
    }

    fn show_logs_of_a_failure(&self) {
        if std::thread::panicking() {
            eprintln!("{}", self.logs());
        }
    }
}

impl Drop for OpenStack {
    fn drop(&mut self) {
        self.show_logs_of_a_failure();
        for process in self.processes.iter_mut().chain([&mut self.tls_front]) {
            process.get_mut().take();
        }
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
