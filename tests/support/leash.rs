//! Child processes that cannot outlive the test process.
//!
//! A child is started through a small shell script that first leaves a watcher behind and then becomes the
//! program by `exec`, so that the pid of the [`Child`] is the program's own. The watcher holds the read end of a
//! pipe whose write end only the test process has. When the kernel closes that pipe, however the test process
//! ended, the watcher sends SIGKILL to the program (which also ends a stopped one). The watcher is nobody's
//! child: the program has no children that it did not start itself.

use std::fs::File;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal};

use super::within;

/// `$1` is a directory to remove once the program was killed, or empty; the rest is the program.
const SCRIPT: &str = r#"
exec 3<&0 </dev/null
litter=$1
shift
(
  (
    trap '' HUP INT TERM
    if ! read -r released <&3; then
      kill -KILL $$
      tries=0
      while [ -n "$litter" ] && [ -e "$litter" ] && [ $tries -lt 20 ]; do
        rm -rf -- "$litter" || sleep 0.1
        tries=$((tries + 1))
      done
    fi
  ) &
)
# A test process in the background of a script has signals ignored, and so would the program.
exec 3<&- env --default-signal=HUP,INT,QUIT,TERM "$@"
"#;

/// A running child, killed and reaped on drop.
#[derive(Debug)]
pub struct Leashed {
    child: Child,
    /// `None` once the watcher was told that the child has been reaped.
    pipe: Option<ChildStdin>,
    name: String,
}

impl Leashed {
    /// Starts `program` with `/dev/null` as input, in a process group of its own, its output appended to `log`.
    ///
    /// `litter` is removed by the watcher when the test process ends before the child does.
    pub fn start(program: &Command, log: &Path, litter: Option<&Path>) -> Leashed {
        let name = program.get_program().to_string_lossy().into_owned();
        let output = File::options().create(true).append(true).open(log);
        let output = output.unwrap_or_else(|error| panic!("cannot write {}: {error}", log.display()));
        let errors = output.try_clone().expect("duplicate the log's descriptor");

        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(SCRIPT).arg("leash").arg(litter.unwrap_or(Path::new("")));
        shell.arg(program.get_program()).args(program.get_args());
        for (key, value) in program.get_envs() {
            match value {
                Some(value) => shell.env(key, value),
                None => shell.env_remove(key),
            };
        }
        if let Some(directory) = program.get_current_dir() {
            shell.current_dir(directory);
        }
        shell.stdin(Stdio::piped()).stdout(output).stderr(errors).process_group(0);
        let mut child = shell.spawn().unwrap_or_else(|error| panic!("cannot start {name}: {error}"));
        let pipe = child.stdin.take();
        Leashed { child, pipe, name }
    }

    /// The program's process id.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal to the program alone, not to its children.
    ///
    /// A program that has been reaped is left alone: its number may be another's by now.
    pub fn signal(&mut self, signal: Signal) {
        if self.exited().is_some() {
            return;
        }
        let pid = Pid::from_child(&self.child);
        rustix::process::kill_process(pid, signal)
            .unwrap_or_else(|error| panic!("cannot send {signal:?} to {} ({pid:?}): {error}", self.name));
    }

    /// Stops the program by SIGSTOP, and returns once each of its threads stands still: the kernel stops them one
    /// after the other, and on a busy machine a server has time for an answer until then.
    pub fn freeze(&mut self) {
        self.signal(Signal::STOP);
        let pid = self.pid();
        within(Duration::from_secs(10), || stands_still(pid).then_some(()))
            .unwrap_or_else(|| panic!("{} ({pid}) does not stop", self.name));
    }

    /// Sends a signal to the program and to its children, unless they have a process group of their own. The
    /// watcher, which is in the same group, ignores what asks for an end.
    pub fn signal_group(&mut self, signal: Signal) {
        if self.exited().is_some() {
            return;
        }
        let pid = Pid::from_child(&self.child);
        rustix::process::kill_process_group(pid, signal)
            .unwrap_or_else(|error| panic!("cannot send {signal:?} to the group of {}: {error}", self.name));
    }

    /// The exit status if the program has ended.
    pub fn exited(&mut self) -> Option<ExitStatus> {
        let status = self.child.try_wait().expect("wait for a child");
        if status.is_some() {
            self.release();
        }
        status
    }

    /// Waits for the program's end; `None` when it still runs at the deadline.
    pub fn wait_exit(&mut self, deadline: Duration) -> Option<ExitStatus> {
        within(deadline, || self.exited())
    }

    /// Ends the program by SIGKILL and reaps it.
    pub fn kill(&mut self) -> ExitStatus {
        // Fails only for a child that has been reaped, whose status `wait` remembers.
        let _ = self.child.kill();
        let status = self.child.wait().expect("wait for a killed child");
        self.release();
        status
    }

    /// Tells the watcher that the pid is not ours any more.
    fn release(&mut self) {
        if let Some(mut pipe) = self.pipe.take() {
            // A watcher that is gone already cannot do harm.
            let _ = pipe.write_all(b"released\n");
        }
    }
}

impl Drop for Leashed {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Whether every thread of a process is stopped, or has ended.
fn stands_still(pid: u32) -> bool {
    let Ok(threads) = std::fs::read_dir(format!("/proc/{pid}/task")) else { return true };
    threads.flatten().filter_map(|thread| thread.file_name().to_str()?.parse().ok()).all(|thread: u32| {
        // The number of a thread is a name in /proc as that of a process is, only not listed.
        matches!(state(thread), None | Some('T' | 'Z' | 'X'))
    })
}

/// A process that is not our child, such as a daemon that has gone to the background by a double fork: killed on
/// drop and when the test process ends, unless its number belongs to a later process by then.
pub struct Adopted {
    pid: u32,
    born: String,
    watcher: Child,
}

/// `$1` is the process, `$2` the time at which it began, as in the 22nd field of its `stat`.
const ADOPTED_SCRIPT: &str = r#"
trap '' HUP INT TERM
if ! read -r released; then
  pid=$1 born=$2
  read -r stat </proc/$pid/stat || exit 0
  set -- ${stat##*) }
  [ "${20}" != "$born" ] || kill -KILL $pid
fi
"#;

impl Adopted {
    pub fn new(pid: u32) -> Adopted {
        let born = birth(pid).unwrap_or_else(|| panic!("there is no process {pid} to adopt"));
        let mut shell = Command::new("/bin/sh");
        shell.arg("-c").arg(ADOPTED_SCRIPT).arg("leash").arg(pid.to_string()).arg(&born);
        shell.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null()).process_group(0);
        Adopted { pid, born, watcher: shell.spawn().expect("start the watcher of an adopted process") }
    }

    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The pipe that the watcher reads: for a test of the watcher.
    pub fn let_go_of_the_pipe(&mut self) -> Option<ChildStdin> {
        self.watcher.stdin.take()
    }

    /// Whether it runs still; a zombie does not.
    pub fn is_alive(&self) -> bool {
        is_alive(self.pid) && birth(self.pid).as_ref() == Some(&self.born)
    }

    /// Sends a signal; nothing happens when the process has ended.
    pub fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).expect("a process id");
        if self.is_alive() {
            // It may end at this moment.
            let _ = rustix::process::kill_process(pid, signal);
        }
    }
}

impl Drop for Adopted {
    fn drop(&mut self) {
        self.signal(Signal::KILL);
        let _ = self.watcher.stdin.take().map(|mut pipe| pipe.write_all(b"released\n"));
        let _ = self.watcher.wait();
    }
}

/// When a process began, in clock ticks since the machine did.
fn birth(pid: u32) -> Option<String> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    stat.rsplit_once(") ")?.1.split_whitespace().nth(19).map(str::to_owned)
}

/// Whether a process of this number exists and is not a zombie.
pub fn is_alive(pid: u32) -> bool {
    state(pid).is_some_and(|state| !['Z', 'X'].contains(&state))
}

/// The state of a process, as `ps` shows it.
pub fn state(pid: u32) -> Option<char> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // It follows the command's name, which stands in parentheses and may hold any character.
    stat.rsplit(')').next()?.trim_start().chars().next()
}

/// The last lines of a log, for the message of a failed test.
pub fn tail(log: &Path, lines: usize) -> String {
    let text = String::from_utf8_lossy(&std::fs::read(log).unwrap_or_default()).into_owned();
    let all: Vec<&str> = text.lines().collect();
    let from = all.len().saturating_sub(lines);
    format!("--- end of {}:\n{}\n---", log.display(), all[from..].join("\n"))
}

/// Where a program is found: by `PATH`, as a shell would.
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|directory| directory.join(name)).find(|file| file.is_file())
}
