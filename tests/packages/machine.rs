//! A copy of this machine for a test that installs things: the same files by an overlay, which takes all changes, with
//! mounts and processes of its own, and the network of the tests. Its first process is a shell, for tests that drive
//! the init script, or a real systemd. Wants root, as packages do.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::leash::Leashed;
use crate::support::{Outcome, Sandbox, eventually};

/// For what dpkg and its triggers do on a machine that is busy with other tests.
const LIMIT: Duration = Duration::from_secs(180);

/// The copy. It goes when it is dropped, and when the test process ends.
pub struct Machine<'a> {
    sandbox: &'a Sandbox<'a>,
    init: u32,
    // Dropped in this order: only without processes can it be removed.
    _process: Leashed,
    _group: Option<ControlGroup>,
}

impl<'a> Machine<'a> {
    /// Starts a copy that shares the sandbox's directory with this machine, and runs no init.
    #[track_caller]
    pub fn start(sandbox: &'a Sandbox<'a>) -> Machine<'a> {
        Self::with_init(sandbox, "scripts")
    }

    /// The same with systemd as its init, which is up, and whose journal is.
    #[track_caller]
    pub fn boot(sandbox: &'a Sandbox<'a>) -> Machine<'a> {
        Self::with_init(sandbox, "systemd")
    }

    #[track_caller]
    fn with_init(sandbox: &'a Sandbox<'a>, init: &str) -> Machine<'a> {
        sandbox.replace("machine.sh", include_str!("machine.sh"));
        // Everybody's: the service has a user of its own.
        std::fs::set_permissions(sandbox.dir(), PermissionsExt::from_mode(0o755)).unwrap();
        let mut command = Command::new("unshare");
        command.args(["--mount", "--pid", "--uts", "--fork", "--kill-child=KILL", "/bin/sh"]);
        command.arg(sandbox.path("machine.sh")).arg(sandbox.dir()).arg(init);
        let log = sandbox.path("machine.log");
        let mut process = Leashed::start(&command, &log, None);
        let ready = sandbox.path("machine-is-ready");
        eventually(LIMIT, "a copy of this machine", || {
            let said = || std::fs::read_to_string(&log).unwrap_or_default();
            assert!(process.exited().is_none(), "cannot make a copy of this machine: {}", said());
            ready.exists().then_some(())
        });
        let pid = process.pid();
        let children = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let init = children.trim().parse().expect("the first process of the copy");
        let group = std::fs::read_to_string(sandbox.path("group")).ok();
        let group = group.map(|name| ControlGroup { name: name.trim().to_owned() });
        Machine { sandbox, init, _process: process, _group: group }
    }

    /// Runs a shell command in the copy to its end, with an environment like that of a root shell.
    #[track_caller]
    pub fn sh(&self, script: &str) -> Outcome {
        let mut command = Command::new("nsenter");
        command.env_clear();
        command.env("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin");
        command.env("DEBIAN_FRONTEND", "noninteractive");
        command.args(["--target", &self.init.to_string(), "--mount", "--pid", "--uts", "--root", "--wd"]);
        command.args(["/bin/sh", "-c", script]);
        self.sandbox.run_client(command, "", LIMIT)
    }

    /// Runs a shell command that must succeed, and returns what it has printed.
    #[track_caller]
    pub fn ok(&self, script: &str) -> String {
        self.sh(script).ok()
    }

    /// Whether a file exists in the copy.
    pub fn has(&self, path: &str) -> bool {
        self.sh(&format!("test -e '{path}' || test -L '{path}'")).status.success()
    }

    /// What of the packages the copy still has: what has this word in its path, and is not the test's own.
    pub fn left(&self, word: &str) -> Vec<String> {
        let own = self.sandbox.dir().display().to_string();
        let of_packages = |path: &String| path.contains(word) && !path.starts_with(&own) && self.has(path);
        self.changed().into_iter().filter(of_packages).collect()
    }

    /// What the copy has and the machine has not, or has otherwise, since the copy was made. What was removed counts.
    fn changed(&self) -> Vec<String> {
        let root = format!("/proc/{}/root", self.init);
        assert!(Path::new(&root).exists());
        let mut command = Command::new("nsenter");
        let upper = self.sandbox.path("machine/upper");
        // The overlay's own folder can be seen from its mount namespace only, outside of the changed root.
        command.args(["--target", &self.init.to_string(), "--mount", "find"]).arg(&upper);
        command.args(["-mindepth", "1"]);
        let found = self.sandbox.run_client(command, "", LIMIT).ok();
        let first = std::fs::read_to_string(self.sandbox.path("changed-at-first")).unwrap();
        let first: Vec<&str> = first.lines().map(|path| path.trim_start_matches("upper")).collect();
        let all = found.lines().map(|path| path.trim_start_matches(upper.to_str().unwrap()));
        all.filter(|path| !first.contains(path)).map(str::to_owned).collect()
    }
}

/// The control group of a copy with systemd: the one thing of it that the kernel does not remove by itself.
struct ControlGroup {
    name: String,
}

/// Its last processes are ending; wherever the groups are mounted, if they are.
const REMOVE_GROUP: &str = r#"
mount --make-rprivate / && mount -t cgroup2 cgroup2 /mnt && cd /mnt || exit
tries=0
while [ -d "$1" ] && [ $tries -lt 100 ]; do
  find "$1" -depth -type d -exec rmdir {} + 2>/dev/null || sleep 0.1
  tries=$((tries + 1))
done
"#;

impl Drop for ControlGroup {
    fn drop(&mut self) {
        let mut command = Command::new("unshare");
        command.args(["--mount", "/bin/sh", "-c", REMOVE_GROUP, "remove", &self.name]);
        // An empty group that stays harms nobody.
        let _ = command.status();
    }
}
