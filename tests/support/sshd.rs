//! A real SSH server (OpenSSH), without privileges on a free port of this machine, with host keys of its own.

use std::net::IpAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::leash::{Leashed, find_program, tail};
use super::{jvm, scratch_dir};

/// Where Debian has it, which is not in everybody's `PATH`.
const PROGRAM: &str = "/usr/sbin/sshd";
const INSTALL: &str = "scripts/install-deps test";
/// The user `nobody`: as root, sshd wants a directory in /run and an account of its own.
const NOBODY: u32 = 65534;

/// A type of host key and its size: what `ssh-keygen -t` and `-b` are told.
pub type KeyKind = (&'static str, u32);

/// All types that there are.
pub const ALL_KEYS: [KeyKind; 5] =
    [("rsa", 2048), ("ecdsa", 521), ("ecdsa", 384), ("ed25519", 256), ("ecdsa", 256)];

/// Keys and configuration of a server, and the server while it runs.
pub struct Sshd {
    dir: PathBuf,
    address: IpAddr,
    port: u16,
    server: Option<Leashed>,
}

impl Sshd {
    /// Makes keys of these kinds, and starts nothing. `more` are further lines of `sshd_config`.
    pub fn prepare(address: IpAddr, keys: &[KeyKind], more: &str) -> Sshd {
        let dir = scratch_dir("sshd");
        let [port] = jvm::free_ports();
        let mut config = format!(
            "ListenAddress {address}\nPort {port}\nPidFile none\nUsePAM no\nStrictModes no\nLogLevel DEBUG1\n{more}\n"
        );
        for (kind, bits) in keys {
            let file = dir.join(format!("{kind}-{bits}"));
            let mut keygen = Command::new("ssh-keygen");
            keygen.args(["-q", "-N", "", "-C", "a comment", "-t", kind, "-b"]).arg(bits.to_string());
            let made = keygen.arg("-f").arg(&file).output();
            let made = made.unwrap_or_else(|error| panic!("no ssh-keygen ({error}): {INSTALL}"));
            assert!(made.status.success(), "{made:?}");
            config += &format!("HostKey {}\n", file.display());
        }
        std::fs::write(dir.join("sshd_config"), config).unwrap();
        if rustix::process::getuid().is_root() {
            std::fs::set_permissions(&dir, PermissionsExt::from_mode(0o755)).unwrap();
            for entry in std::fs::read_dir(&dir).unwrap() {
                std::os::unix::fs::chown(entry.unwrap().path(), Some(NOBODY), Some(NOBODY)).unwrap();
            }
        }
        Sshd { dir, address, port, server: None }
    }

    /// Makes keys and starts the server; it need not answer yet.
    pub fn start(address: IpAddr, keys: &[KeyKind], more: &str) -> Sshd {
        let mut sshd = Sshd::prepare(address, keys, more);
        sshd.run();
        sshd
    }

    /// Starts the server.
    pub fn run(&mut self) {
        assert!(Path::new(PROGRAM).is_file(), "no {PROGRAM}: {INSTALL}");
        let mut command = if rustix::process::getuid().is_root() {
            let mut setpriv = Command::new(find_program("setpriv").expect("setpriv"));
            let user = NOBODY.to_string();
            setpriv.args(["--reuid", &user, "--regid", &user, "--clear-groups", PROGRAM]);
            setpriv
        } else {
            Command::new(PROGRAM)
        };
        command.args(["-D", "-e", "-f"]).arg(self.dir.join("sshd_config"));
        self.server = Some(Leashed::start(&command, &self.log(), Some(&self.dir)));
    }

    /// The running server.
    pub fn server(&mut self) -> &mut Leashed {
        self.server.as_mut().expect("the server was started")
    }

    pub fn address(&self) -> IpAddr {
        self.address
    }

    pub fn port(&self) -> u16 {
        self.port
    }

    /// The host keys as they are in the files, without comments, sorted.
    pub fn keys(&self) -> Vec<String> {
        let files = std::fs::read_dir(&self.dir).unwrap().map(|entry| entry.unwrap().path());
        let public = files.filter(|file| file.extension().is_some_and(|extension| extension == "pub"));
        let mut keys: Vec<String> = public
            .map(|file| {
                let text = std::fs::read_to_string(file).unwrap();
                text.split_whitespace().take(2).collect::<Vec<_>>().join(" ")
            })
            .collect();
        keys.sort();
        keys
    }

    /// What `ssh-keyscan` finds, sorted. The server must answer.
    pub fn keyscan(&self) -> Vec<String> {
        let mut command = Command::new("ssh-keyscan");
        command.args(["-T", "60", "-t", "rsa,ecdsa,ed25519", "-p"]).arg(self.port.to_string());
        let scan = command.arg(self.address.to_string()).output();
        let scan = scan.unwrap_or_else(|error| panic!("no ssh-keyscan ({error}): {INSTALL}"));
        let text = String::from_utf8(scan.stdout).unwrap();
        let lines = text.lines().filter_map(|line| line.split_once(' '));
        let mut keys: Vec<String> = lines.map(|(_, key)| key.to_owned()).collect();
        keys.sort();
        keys
    }

    /// The end of the server's log.
    pub fn said(&self) -> String {
        tail(&self.log(), 40)
    }

    /// How many clients of this name the server has seen.
    pub fn clients(&self, name: &str) -> usize {
        let text = String::from_utf8_lossy(&std::fs::read(self.log()).unwrap_or_default()).into_owned();
        text.matches(&format!("remote software version {name}")).count()
    }

    fn log(&self) -> PathBuf {
        self.dir.join("sshd.log")
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        drop(self.server.take());
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}
