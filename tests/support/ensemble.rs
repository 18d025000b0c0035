//! Three ZooKeeper servers that agree on everything, each of which can be killed, stopped and started again.

use std::ops::Range;
use std::sync::Arc;
use std::time::{Duration, Instant};

use super::tls::Pki;
use super::{Options, ZkClient, ZooKeeper, eventually, jvm, scratch_dir, within};

const SERVERS: usize = 3;
/// Plain, TLS, quorum and election.
const PORTS: usize = 4;
/// How long three JVMs may take to find a leader.
const QUORUM_LIMIT: Duration = Duration::from_secs(60);

/// What a server says about its part in the ensemble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    /// Leads so many others that are up to date.
    Leader {
        followers: u32,
    },
    Follower,
}

/// The servers, numbered from 0. Each ends, and its data are removed, on drop or with the test process.
pub struct Ensemble {
    servers: Vec<ZooKeeper>,
}

impl Ensemble {
    /// An ensemble of the test's own; it has a leader and two followers when this returns.
    pub fn start() -> Ensemble {
        for _ in 0..10 {
            if let Some(ensemble) = Ensemble::try_start() {
                return ensemble;
            }
        }
        panic!("ten times another process took a port chosen for ZooKeeper");
    }

    /// `None` when another process has one of the ports.
    fn try_start() -> Option<Ensemble> {
        let ports: [u16; SERVERS * PORTS] = jvm::free_ports();
        let of = |server: usize| &ports[server * PORTS..(server + 1) * PORTS];
        let mut more = "initLimit=20\nsyncLimit=4\n".to_owned();
        for server in 0..SERVERS {
            more += &format!("server.{}=127.0.0.1:{}:{}\n", server + 1, of(server)[2], of(server)[3]);
        }
        let dirs = [(); SERVERS].map(|()| scratch_dir("ensemble"));
        let pki = Pki::create(&dirs[0].join("tls"));
        pki.issue("server", Options::default().server_flaw);
        let pki = Arc::new(pki);
        let servers = dirs.into_iter().enumerate().map(|(server, dir)| {
            let data = dir.join("data");
            std::fs::create_dir(&data).expect("create a server's data directory");
            std::fs::write(data.join("myid"), format!("{}\n", server + 1)).expect("write myid");
            let options = Options { heap_mb: 96, more: more.clone(), ..Options::default() };
            ZooKeeper::prepare(dir, [of(server)[0], of(server)[1]], options, Arc::clone(&pki))
        });
        let ensemble = Ensemble { servers: servers.collect() };
        // None serves before most of them run.
        let logged: Vec<usize> = ensemble.servers.iter().map(ZooKeeper::begin).collect();
        let ready = ensemble.servers.iter().zip(logged).all(|(server, logged)| server.wait_ready(logged));
        ready.then(|| ensemble.wait_complete()).is_some().then_some(ensemble)
    }

    /// The servers; a test that disturbs one of them does so through the ensemble.
    pub fn servers(&self) -> &[ZooKeeper] {
        &self.servers
    }

    /// The numbers of the servers.
    pub fn numbers(&self) -> Range<usize> {
        0..self.servers.len()
    }

    /// Ends a server by SIGKILL; its data and ports stay for [`Ensemble::restart`].
    pub fn kill(&self, server: usize) {
        self.servers[server].kill();
    }

    /// Starts a server again, without waiting for it: it serves once most of them run.
    pub fn restart(&self, server: usize) {
        self.kill(server);
        self.servers[server].begin();
    }

    /// Stops a server's process: its sockets stay open and silent.
    pub fn stop_signal(&self, server: usize) {
        self.servers[server].stop_signal();
    }

    /// Lets a stopped server go on.
    pub fn cont_signal(&self, server: usize) {
        self.servers[server].cont_signal();
    }

    /// The server that leads, once there is one that most of them follow.
    #[track_caller]
    pub fn leader(&self) -> usize {
        eventually(QUORUM_LIMIT, "a leader", || self.try_leader())
    }

    /// The servers that follow a leader at this moment.
    pub fn followers(&self) -> Vec<usize> {
        self.numbers().filter(|&server| self.part(server) == Some(Part::Follower)).collect()
    }

    /// Waits until the ensemble is able to serve by its own account, and answers when that was first seen.
    #[track_caller]
    pub fn wait_quorum(&self) -> Instant {
        self.leader();
        Instant::now()
    }

    /// Waits until all servers take part.
    #[track_caller]
    pub fn wait_complete(&self) {
        eventually(QUORUM_LIMIT, "a leader that all follow", || {
            let followers = self.followers().len();
            (self.try_leader().is_some() && followers + 1 == self.servers.len()).then_some(())
        });
    }

    /// The server that a session is connected to at this moment; `session` is its id.
    pub fn server_of(&self, session: i64) -> Option<usize> {
        let mark = format!("sid={session:#x},");
        let mut awake = self.numbers().filter(|&server| self.servers[server].is_awake());
        awake
            .find(|&server| self.servers[server].try_four_letter("cons").is_ok_and(|all| all.contains(&mark)))
    }

    /// A session of the test's own at any server that serves, to be let go before that is disturbed.
    #[track_caller]
    pub fn zk(&self, chroot: &str) -> ZkClient {
        ZkClient::connect(&self.servers[self.leader()], chroot)
    }

    fn try_leader(&self) -> Option<usize> {
        let leads = |server: &usize| matches!(self.part(*server), Some(Part::Leader { followers: 1.. }));
        // One that was just woken up may take itself for the leader, but has no followers any more.
        self.numbers().find(leads).filter(|_| !self.followers().is_empty())
    }

    /// `None` for a server that takes no part.
    fn part(&self, server: usize) -> Option<Part> {
        let server = &self.servers[server];
        let said = server.is_awake().then(|| server.try_four_letter("mntr").ok()).flatten()?;
        let value = |key: &str| said.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix('\t'));
        match value("zk_server_state")? {
            "leader" => {
                // Printed as a number of either kind, depending on the version.
                let followers = value("zk_synced_followers")?.split('.').next()?.parse().ok()?;
                Some(Part::Leader { followers })
            }
            "follower" => Some(Part::Follower),
            _ => None,
        }
    }
}
