//! A network with two ends: the tests at the near one, a server at the far one, and a kernel in between that
//! can be told to lose every packet.
//!
//! The far end is a network namespace that belongs to nobody but a sleeping process, so that there is no name to
//! be left behind: when that process has ended, as it does with the test process however that ends (see
//! [`leash`](super::leash)), the kernel removes the namespace with all that is in it, and the near end's interface
//! goes with its other half. It needs root, and `ip` from iproute2.
//!
//! Packets are lost by sending them to a hardware address that nobody has: the link stays up, nobody is told
//! anything, and nothing is answered, which is what a broken switch in the middle looks like.

use std::ffi::OsStr;
use std::fs::File;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::Duration;

use parking_lot::Mutex;
use rustix::thread::{LinkNameSpaceType, move_into_link_name_space};

use super::leash::Leashed;
use super::{eventually, scratch_dir, within};

/// The name of the far end's interface, in its namespace.
const FAR: &str = "far";
const NEAR_MAC: &str = "02:00:00:00:00:01";
const FAR_MAC: &str = "02:00:00:00:00:02";
/// The hardware address that nobody has.
const NOWHERE: &str = "02:00:00:00:00:99";
/// Sockets that nobody has any more would keep the namespace for as long as they try to reach the near end.
const HOLD: &str = "echo 1 >/proc/sys/net/ipv4/tcp_orphan_retries && exec sleep infinity";
const LIMIT: Duration = Duration::from_secs(20);

/// Ends with the last server that runs in it, or with the test process.
#[derive(Debug)]
pub struct Network {
    holder: Mutex<Leashed>,
    /// The process that the namespace belongs to.
    holder_pid: u32,
    dir: PathBuf,
    interface: String,
    near: Ipv4Addr,
    far: Ipv4Addr,
}

impl Network {
    pub fn create() -> Network {
        let dir = scratch_dir("network");
        let mut sleep = Command::new("unshare");
        sleep.args(["--net", "sh", "-c", HOLD]);
        let holder = Leashed::start(&sleep, &dir.join("holder.log"), Some(&dir));
        let holder_pid = holder.pid();
        let (ours, theirs) = ("/proc/self/ns/net".to_owned(), format!("/proc/{holder_pid}/ns/net"));
        eventually(LIMIT, "a network namespace; is this root?", || {
            let of = |path: &str| std::fs::read_link(path).ok();
            of(&theirs).is_some_and(|theirs| Some(theirs) != of(&ours)).then_some(())
        });
        let interface = near_interface(holder_pid);
        let network = |(near, far)| {
            let (holder, interface) = (Mutex::new(holder), interface.clone());
            Network { holder, holder_pid, dir, interface, near, far }
        };
        let network = network(claim_addresses(&interface));
        network.set_up_far_end();
        network.restore();
        network
    }

    /// The tests' own address in it.
    pub fn near(&self) -> Ipv4Addr {
        self.near
    }

    /// The address of the far end.
    pub fn far(&self) -> Ipv4Addr {
        self.far
    }

    /// The interface of the near end.
    pub fn interface(&self) -> &str {
        &self.interface
    }

    /// How many packets the near end has sent, whether they arrived or not.
    pub fn sent(&self) -> u64 {
        let file = format!("/sys/class/net/{}/statistics/tx_packets", self.interface);
        std::fs::read_to_string(file).expect("read a counter").trim().parse().expect("a number")
    }

    /// From now on every packet is lost, in both directions.
    pub fn lose(&self) {
        self.set_neighbours(NOWHERE, NOWHERE);
    }

    /// Packets arrive again.
    pub fn restore(&self) {
        self.set_neighbours(NEAR_MAC, FAR_MAC);
    }

    /// `program` at the far end; it keeps the process id that it is started under.
    pub fn command(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new("nsenter");
        command.arg(format!("--net=/proc/{}/ns/net", self.holder_pid)).arg(program);
        command
    }

    /// A listener of this process at the far end, on a port of the kernel's choice.
    pub fn far_listener(&self) -> TcpListener {
        let namespace = File::open(format!("/proc/{}/ns/net", self.holder_pid)).expect("open the namespace");
        let far = self.far;
        // A thread of its own, because it does not come back; a socket stays where it was made.
        let there = std::thread::spawn(move || {
            move_into_link_name_space(namespace.as_fd(), Some(LinkNameSpaceType::Network))
                .expect("enter the namespace");
            TcpListener::bind((far, 0)).expect("listen at the far end")
        });
        there.join().expect("a listener at the far end")
    }

    fn set_up_far_end(&self) {
        let (near, far) = (self.near.to_string(), self.far.to_string());
        for arguments in [
            vec!["link", "set", "lo", "up"],
            vec!["address", "add", &far, "dev", FAR],
            vec!["link", "set", FAR, "up"],
            vec!["route", "add", &near, "dev", FAR],
        ] {
            self.far_ip(&arguments);
        }
    }

    /// Permanent, so that nobody ever has to ask for an address and to learn that there is no answer.
    fn set_neighbours(&self, near_mac: &str, far_mac: &str) {
        let (near, far) = (self.near.to_string(), self.far.to_string());
        let to = |address, mac, device| {
            ["neighbour", "replace", address, "lladdr", mac, "dev", device, "nud", "permanent"]
                .map(str::to_owned)
        };
        ip(&to(&far, far_mac, &self.interface));
        self.far_ip(&to(&near, near_mac, FAR));
    }

    fn far_ip(&self, arguments: &[impl AsRef<OsStr>]) {
        run(self.command("ip").args(arguments));
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        self.holder.get_mut().kill();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

/// Makes the pair of interfaces, the near one under a name that no other has.
fn near_interface(holder: u32) -> String {
    let made = within(LIMIT, || {
        let name = format!("np{:08x}", fastrand::u32(..));
        let mut command = Command::new("ip");
        command.args(["link", "add", &name, "address", NEAR_MAC, "type", "veth"]);
        command.args(["peer", "name", FAR, "address", FAR_MAC, "netns", &holder.to_string()]);
        succeeds(&mut command, "File exists").then_some(name)
    });
    made.expect("a free name for a network interface")
}

/// Chooses two neighbouring addresses of the range for tests of networks (RFC 2544), gives the first to the
/// interface and leads the way to the second through it. The kernel takes a route once only, which decides between
/// two processes that choose the same.
fn claim_addresses(interface: &str) -> (Ipv4Addr, Ipv4Addr) {
    let claimed = within(LIMIT, || {
        let near = Ipv4Addr::from_bits(Ipv4Addr::new(198, 18, 0, 0).to_bits() + 2 * fastrand::u32(1..65_535));
        let far = Ipv4Addr::from_bits(near.to_bits() + 1);
        let (near_text, far_text) = (near.to_string(), far.to_string());
        // Whatever is more exact than the default route belongs to somebody.
        let is_free = |address: &str| {
            let routes = run(Command::new("ip").args(["route", "show", "match", address]));
            String::from_utf8_lossy(&routes.stdout).lines().all(|route| route.starts_with("default"))
        };
        if !is_free(&near_text) || !is_free(&far_text) {
            return None;
        }
        ip(&["link", "set", interface, "up"]);
        let mut claim = Command::new("ip");
        claim.args(["route", "add", &far_text, "dev", interface]);
        if !succeeds(&mut claim, "File exists") {
            return None;
        }
        ip(&["address", "add", &near_text, "dev", interface]);
        Some((near, far))
    });
    claimed.expect("free addresses for a network")
}

fn ip(arguments: &[impl AsRef<OsStr>]) {
    run(Command::new("ip").args(arguments));
}

fn run(command: &mut Command) -> Output {
    let output = output(command);
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output
}

/// Whether the command succeeds; it may only fail for the reason `unless`.
fn succeeds(command: &mut Command, unless: &str) -> bool {
    let output = output(command);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() || said.contains(unless), "{command:?}: {said}");
    output.status.success()
}

fn output(command: &mut Command) -> Output {
    command
        .output()
        .unwrap_or_else(|error| panic!("cannot run {command:?} (apt-get install iproute2): {error}"))
}
