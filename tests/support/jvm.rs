//! How a ZooKeeper server is started: Debian's jars, a JVM for a short life, ports that are free.
//!
//! It needs `libzookeeper-java` (which brings `libnetty-java` and `libslf4j-java`) and a Java runtime.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::{Network, leash, within};

const JARS: &str = "/usr/share/java";
/// The manifest of zookeeper.jar names most of what it needs, but not the half of netty that TLS takes.
const NEEDED: [&str; 5] =
    ["zookeeper.jar", "netty-handler.jar", "netty-codec.jar", "netty-resolver.jar", "slf4j-simple.jar"];
const INSTALL: &str =
    "the integration tests need Debian's ZooKeeper: apt-get install libzookeeper-java default-jre-headless";

/// The server's command line but for its last argument, the configuration's path.
pub(super) fn command(heap_mb: u32, network: Option<&Network>) -> Command {
    let java = leash::find_program("java").unwrap_or_else(|| panic!("no java: {INSTALL}"));
    let mut command = match network {
        Some(network) => network.command(&java),
        None => Command::new(java),
    };
    command.arg(format!("-Xmx{heap_mb}m"));
    // A short life: no second compiler, no helper threads, no files in /tmp.
    command.args(["-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-Xshare:auto", "-XX:-UsePerfData"]);
    command.arg("-Dorg.slf4j.simpleLogger.showDateTime=true");
    command.arg("-Dorg.slf4j.simpleLogger.dateTimeFormat=HH:mm:ss.SSS");
    command.arg("-cp").arg(class_path());
    // Without other servers in its configuration it is a single one.
    command.arg("org.apache.zookeeper.server.quorum.QuorumPeerMain");
    command
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

/// Ports that nobody listens on at this moment.
///
/// Below the kernel's range for outgoing connections: a port of a killed server must neither be taken by one
/// before the restart, nor be dialled by a client that then, by chance, connects to itself.
pub(super) fn free_ports<const COUNT: usize>() -> [u16; COUNT] {
    let mut found = Vec::new();
    let ports = within(Duration::from_secs(10), || {
        while found.len() < COUNT {
            found.push(TcpListener::bind((Ipv4Addr::LOCALHOST, fastrand::u16(15_000..32_000))).ok()?);
        }
        let ports: Option<Vec<u16>> =
            found.iter().map(|listener| Some(listener.local_addr().ok()?.port())).collect();
        ports?.try_into().ok()
    });
    ports.expect("find free loopback ports")
}
