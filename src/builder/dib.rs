//! Running the build command: diskimage-builder's `disk-image-create`, or whatever `dib-cmd` names
//! (spec/config.md, The build command).

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use nodepool_threads::{ChildGroup, Interrupted, Mark, StopToken, activity, activity_within, crash_point};
use slog::{Logger, warn};

use super::local_builds::with_suffix;
use crate::config::DiskImage;

/// How long a build command that is told to end may take to clean up after itself: it has loop devices and
/// mounts. Well below the ten seconds that a stopping daemon has.
const GRACE: Duration = Duration::from_secs(5);
/// How long it may take to open the log of a build, unless its disk hangs.
const LOG_LIMIT: Duration = Duration::from_secs(10);

/// The exit codes of a shell for a program that it cannot run.
const CANNOT_RUN: i32 = 126;
const NOT_FOUND: i32 = 127;
/// The exit code of a command that has none.
const UNKNOWN: i32 = -1;

/// What the command needs besides the image's configuration.
#[derive(Debug)]
pub struct Invocation<'a> {
    /// What is built.
    pub image: &'a DiskImage,
    /// Where the files go: their path without a suffix.
    pub base: PathBuf,
    /// Where the elements are.
    pub elements_dir: Option<&'a str>,
    /// Where the output goes.
    pub log: PathBuf,
    /// What its processes are known by.
    pub mark: &'a Mark,
    /// The daemon's log, for what an operator has to see to.
    pub daemon_log: &'a Logger,
}

/// How the command ended.
#[derive(Debug)]
pub enum Ended {
    /// By itself, with a file for every format.
    Complete,
    /// By itself and without an error, but without a file for this format.
    Incomplete(String),
    /// By itself, with an error.
    Failed(ExitStatus),
    /// By itself and with all files, but the `validate-hook` did not approve of them.
    Refused(ExitStatus),
    /// It did not end in time, or was told to stop.
    Interrupted(Interrupted),
    /// It could not be started, or its log could not be written.
    NotStarted(String),
}

impl Invocation<'_> {
    /// The arguments, the program first.
    fn arguments(&self) -> Vec<OsString> {
        let formats: Vec<&str> = self.image.formats.iter().map(String::as_str).collect();
        let mut arguments: Vec<OsString> = self.image.dib_cmd.iter().map(OsString::from).collect();
        arguments.extend(["-x", "-t", &formats.join(","), "--checksum", "--no-tmpfs"].map(OsString::from));
        if formats.contains(&"qcow2") {
            // Readable by the oldest hypervisors that an operator's clouds still run.
            arguments.extend(["--qemu-img-options", "compat=0.10"].map(OsString::from));
        }
        arguments.push("-o".into());
        arguments.push(self.base.clone().into_os_string());
        arguments.extend(self.image.elements.iter().map(OsString::from));
        arguments
    }

    /// Runs the command to its end, and then the `validate-hook`, at most until `stop` ends it or `build-timeout` has
    /// passed. With the exit code, as the last line of the log has it: a signal is its negative number, as in the
    /// original.
    pub fn run(&self, stop: &StopToken) -> (Ended, i32) {
        let stop = stop.deadline_in(self.image.build_timeout);
        let (ended, code) = match self.build(&stop).and_then(|()| self.validate(&stop)) {
            Ok(()) => (Ended::Complete, 0),
            Err(ended) => ended,
        };
        self.note(&format!("Exit code: {code}"));
        (ended, code)
    }

    fn build(&self, stop: &StopToken) -> Result<(), (Ended, i32)> {
        self.step("build", &self.arguments(), stop)?;
        let Some(format) = self.image.formats.iter().find(|format| !self.file(format).is_file()) else {
            return Ok(());
        };
        self.note(&format!("The build command left no file of the format {format}"));
        Err((Ended::Incomplete(format.clone()), 0))
    }

    /// Runs the `validate-hook`, if there is one, with the files as its last arguments.
    fn validate(&self, stop: &StopToken) -> Result<(), (Ended, i32)> {
        let hook = &self.image.validate_hook;
        if hook.is_empty() {
            return Ok(());
        }
        self.note(&format!("Running the validate-hook: {}", hook.join(" ")));
        let _doing = activity(format!("running the validate-hook of {}", self.image.name));
        let files = self.image.formats.iter().map(|format| self.file(format).into_os_string());
        let arguments: Vec<OsString> = hook.iter().map(OsString::from).chain(files).collect();
        self.step("validate", &arguments, stop).map_err(|(ended, code)| match ended {
            Ended::Failed(status) => {
                self.note("The validate-hook does not approve of the build");
                (Ended::Refused(status), code)
            }
            other => (other, code),
        })
    }

    /// Runs one program to its end, with its output in the log.
    fn step(&self, name: &str, arguments: &[OsString], stop: &StopToken) -> Result<(), (Ended, i32)> {
        let log = self.open_log().map_err(|error| {
            (Ended::NotStarted(format!("cannot write {}: {error}", self.log.display())), CANNOT_RUN)
        })?;
        let mut child = self.spawn(name, arguments, log).map_err(|error| {
            let program = arguments.first().cloned().unwrap_or_default();
            let why = format!("cannot run {}: {error}", Path::new(&program).display());
            self.note(&why);
            let missing = error.kind() == io::ErrorKind::NotFound;
            (Ended::NotStarted(why), if missing { NOT_FOUND } else { CANNOT_RUN })
        })?;
        crash_point(&format!("{name}-started"));
        let ended = match child.wait(stop) {
            Ok(Ok(status)) if status.success() => Ok(()),
            Ok(Ok(status)) => Err((Ended::Failed(status), exit_code(status))),
            Ok(Err(error)) => {
                let why = format!("cannot wait for the {name} command: {error}");
                self.note(&why);
                Err((Ended::NotStarted(why), UNKNOWN))
            }
            Err(why) => {
                let ended = child.terminate(GRACE);
                self.note(&match why {
                    Interrupted::DeadlinePassed => {
                        format!("Build timeout: ended after {} s", self.image.build_timeout.as_secs())
                    }
                    Interrupted::Stopped => "Build cancelled".to_owned(),
                });
                Err((Ended::Interrupted(why), ended.map_or(UNKNOWN, exit_code)))
            }
        };
        if let Some(what) = child.survivors() {
            self.note(what);
            // Under the name that all the rest of the build is logged under.
            warn!(self.daemon_log, # "nodepool.builder.build_worker",
                "a command of the build has left processes behind"; "reason" => what);
        }
        ended
    }

    fn spawn(&self, name: &str, arguments: &[OsString], log: File) -> io::Result<ChildGroup> {
        let Some((program, rest)) = arguments.split_first() else {
            return Err(io::Error::other("the command is empty"));
        };
        let mut command = Command::new(program);
        command.args(rest).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        command.env("DIB_RELEASE", &self.image.release).env("DIB_IMAGE_NAME", &self.image.name);
        command.env("DIB_IMAGE_FILENAME", &self.base);
        if let Some(elements) = self.elements_dir {
            command.env("ELEMENTS_PATH", elements);
        }
        // Last, because an operator's own variables are meant to win.
        command.envs(&self.image.env_vars);
        self.mark.put_on(&mut command);
        ChildGroup::spawn(&mut command, name)
    }

    /// How long [`Invocation::run`] takes at most.
    pub fn limit(&self) -> Duration {
        self.image.build_timeout.saturating_add(GRACE)
    }

    fn open_log(&self) -> io::Result<File> {
        let _doing = activity_within(LOG_LIMIT, "opening the build's log");
        if let Some(dir) = self.log.parent() {
            std::fs::create_dir_all(dir)?;
        }
        // Appending, so that the command's own output and what is noted after it cannot overwrite each other.
        OpenOptions::new().create(true).append(true).open(&self.log)
    }

    /// The file of a format.
    fn file(&self, format: &str) -> PathBuf {
        with_suffix(&self.base, format)
    }

    /// Adds a line to the build's log.
    fn note(&self, line: &str) {
        // The outcome is in the daemon's log too: a full disk must not change it.
        let _ = self.open_log().and_then(|mut log| writeln!(log, "{line}"));
    }
}

fn exit_code(status: ExitStatus) -> i32 {
    status.code().or_else(|| status.signal().map(|signal| -signal)).unwrap_or(UNKNOWN)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nodepool_threads::StopSource;

    fn invocation<'a>(
        image: &'a DiskImage,
        mark: &'a Mark,
        daemon_log: &'a Logger,
        dir: &Path,
    ) -> Invocation<'a> {
        Invocation {
            image,
            base: dir.join("debian-1"),
            elements_dir: Some("/elements"),
            log: dir.join("logs/x.log"),
            mark,
            daemon_log,
        }
    }

    fn no_log() -> Logger {
        Logger::root(slog::Discard, slog::o!())
    }

    fn image(command: &[&str]) -> DiskImage {
        DiskImage {
            dib_cmd: command.iter().map(|word| (*word).to_owned()).collect(),
            formats: ["raw", "qcow2"].map(str::to_owned).into(),
            elements: ["vm", "simple-init"].map(str::to_owned).into(),
            release: "bookworm".to_owned(),
            ..DiskImage::new("debian")
        }
    }

    /// How it ended, and the log, of which the last line has the code.
    fn run(name: &str, command: &[&str], change: impl FnOnce(&mut DiskImage)) -> (Ended, String) {
        let dir = std::env::temp_dir().join(format!("dib-{name}-{}", std::process::id()));
        let mut image = image(command);
        change(&mut image);
        let source = StopSource::new();
        let mark = Mark::new("NODEPOOL_DIB_TEST", "test");
        let (ended, code) = invocation(&image, &mark, &no_log(), &dir).run(&source.token());
        let log = std::fs::read_to_string(dir.join("logs/x.log")).unwrap();
        assert!(log.ends_with(&format!("Exit code: {code}\n")), "{code}: {log}");
        std::fs::remove_dir_all(dir).unwrap();
        (ended, log)
    }

    #[test]
    fn the_command_line_is_that_of_the_contract() {
        let image = image(&["sudo", "disk-image-create"]);
        let mark = Mark::new("NODEPOOL_DIB_TEST", "test");
        let arguments = invocation(&image, &mark, &no_log(), Path::new("/images")).arguments();
        let line: Vec<_> = arguments.iter().map(|word| word.to_str().unwrap()).collect();
        assert_eq!(
            line.join(" "),
            "sudo disk-image-create -x -t qcow2,raw --checksum --no-tmpfs --qemu-img-options compat=0.10 \
             -o /images/debian-1 vm simple-init"
        );
    }

    #[test]
    fn the_environment_and_the_output_arrive() {
        let script =
            "echo $DIB_RELEASE $DIB_IMAGE_NAME $DIB_IMAGE_FILENAME $ELEMENTS_PATH $EXTRA; echo err >&2
            touch $DIB_IMAGE_FILENAME.raw $DIB_IMAGE_FILENAME.qcow2";
        let (ended, log) = run("env", &["sh", "-c", script], |image| {
            image.env_vars.insert("EXTRA".to_owned(), "more".to_owned());
        });
        assert!(matches!(ended, Ended::Complete), "{ended:?}");
        assert!(log.starts_with("bookworm debian "), "{log}");
        assert!(log.ends_with("debian-1 /elements more\nerr\nExit code: 0\n"), "{log}");
    }

    #[test]
    fn failures_stand_in_the_log() {
        let (ended, log) = run("exit", &["sh", "-c", "exit 3"], |_| ());
        assert!(matches!(ended, Ended::Failed(status) if status.code() == Some(3)));
        assert_eq!(log, "Exit code: 3\n");
        let (_, log) = run("signal", &["sh", "-c", "kill -9 $$"], |_| ());
        assert_eq!(log, "Exit code: -9\n");
        let (ended, log) = run("lacking", &["sh", "-c", "touch $DIB_IMAGE_FILENAME.raw"], |_| ());
        assert!(matches!(ended, Ended::Incomplete(format) if format == "qcow2"));
        assert_eq!(log, "The build command left no file of the format qcow2\nExit code: 0\n");
        let (ended, log) = run("missing", &["/no/such/command"], |_| ());
        assert!(matches!(ended, Ended::NotStarted(_)));
        assert!(log.contains("cannot run /no/such/command: No such file"), "{log}");
        assert!(log.ends_with("\nExit code: 127\n"), "{log}");
        // Never executable, not even for root, whatever the machine has in /etc.
        let (ended, log) = run("denied", &["/proc/self/status"], |_| ());
        assert!(matches!(ended, Ended::NotStarted(_)));
        assert!(log.contains("Permission denied"), "{log}");
    }

    #[test]
    fn the_validate_hook_has_the_last_word() {
        let build = ["sh", "-c", "touch $DIB_IMAGE_FILENAME.raw $DIB_IMAGE_FILENAME.qcow2"];
        let hook = |script: &str| ["sh", "-c", script, "hook"].map(str::to_owned).into();
        let (ended, log) = run("approved", &build, |image| {
            image.validate_hook =
                hook("test -f $1 && test -f $2 && basename -a \"$@\" && echo $DIB_IMAGE_NAME");
        });
        assert!(matches!(ended, Ended::Complete), "{ended:?}");
        assert!(log.ends_with("hook\ndebian-1.qcow2\ndebian-1.raw\ndebian\nExit code: 0\n"), "{log}");
        let (ended, log) = run("refused", &build, |image| image.validate_hook = hook("echo no boot; exit 7"));
        assert!(matches!(ended, Ended::Refused(status) if status.code() == Some(7)), "{ended:?}");
        assert!(
            log.ends_with("no boot\nThe validate-hook does not approve of the build\nExit code: 7\n"),
            "{log}"
        );
        let (ended, _) =
            run("no-hook", &build, |image| image.validate_hook = vec!["/no/such/hook".to_owned()]);
        assert!(matches!(ended, Ended::NotStarted(why) if why.starts_with("cannot run /no/such/hook: ")));
        let (ended, _) = run("slow-hook", &build, |image| {
            image.validate_hook = hook("sleep 600");
            image.build_timeout = Duration::from_millis(300);
        });
        assert!(matches!(ended, Ended::Interrupted(Interrupted::DeadlinePassed)), "{ended:?}");
        // A build that has failed is not validated.
        let (_, log) = run("failed", &["false"], |image| image.validate_hook = hook("echo hooked"));
        assert_eq!(log, "Exit code: 1\n");
    }

    #[test]
    fn a_build_that_takes_too_long_is_ended() {
        let (ended, log) = run("timeout", &["sleep", "600"], |image| {
            image.dib_cmd = ["sh", "-c", "sleep 600"].map(str::to_owned).into();
            image.build_timeout = Duration::from_millis(50);
        });
        assert!(matches!(ended, Ended::Interrupted(Interrupted::DeadlinePassed)), "{ended:?}");
        assert!(log.starts_with("Build timeout"), "{log}");
        assert!(log.ends_with("Exit code: -15\n"), "{log}");
    }
}
