//! Running the build command: diskimage-builder's `disk-image-create`, or whatever `dib-cmd` names
//! (spec/config.md, The build command).

use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Duration;

use nodepool_threads::{ChildGroup, Interrupted, Mark, StopToken, crash_point};

use crate::config::DiskImage;

/// How long a build command that is told to end may take to clean up after itself: it has loop devices and
/// mounts. Well below the ten seconds that a stopping daemon has.
const GRACE: Duration = Duration::from_secs(5);

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

    /// Runs the command to its end, at most until `stop` ends it.
    pub fn run(&self, stop: &StopToken) -> Ended {
        let log = match self.open_log() {
            Ok(log) => log,
            Err(error) => return Ended::NotStarted(format!("cannot write {}: {error}", self.log.display())),
        };
        let arguments = self.arguments();
        let Some((program, rest)) = arguments.split_first() else {
            return Ended::NotStarted("dib-cmd is empty".to_owned());
        };
        let started = log.try_clone().and_then(|errors| {
            let mut command = Command::new(program);
            command.args(rest).stdin(Stdio::null()).stdout(log).stderr(errors);
            command.env("DIB_RELEASE", &self.image.release).env("DIB_IMAGE_NAME", &self.image.name);
            command.env("DIB_IMAGE_FILENAME", &self.base);
            if let Some(elements) = self.elements_dir {
                command.env("ELEMENTS_PATH", elements);
            }
            // Last, because an operator's own variables are meant to win.
            command.envs(&self.image.env_vars);
            self.mark.put_on(&mut command);
            ChildGroup::spawn(&mut command, "build")
        });
        let mut child = match started {
            Ok(child) => child,
            Err(error) => {
                let why = format!("cannot run {}: {error}", Path::new(program).display());
                // The number that a shell would give.
                let code = if error.kind() == io::ErrorKind::NotFound { 127 } else { 126 };
                self.note(&format!("{why}\nExit code: {code}"));
                return Ended::NotStarted(why);
            }
        };
        crash_point("build-started");
        let limit = self.image.build_timeout;
        match child.wait(&stop.deadline_in(limit)) {
            Ok(Ok(status)) => {
                let missing = self.missing_format().filter(|_| status.success());
                if let Some(format) = &missing {
                    self.note(&format!("The build command left no file of the format {format}"));
                }
                self.note(&describe(status));
                match missing {
                    Some(format) => Ended::Incomplete(format),
                    None if status.success() => Ended::Complete,
                    None => Ended::Failed(status),
                }
            }
            Ok(Err(error)) => {
                let why = format!("cannot wait for the build command: {error}");
                self.note(&why);
                Ended::NotStarted(why)
            }
            Err(why) => {
                let ended = child.terminate(GRACE);
                self.note(&match why {
                    Interrupted::DeadlinePassed => {
                        format!("Build timeout: ended after {} s", limit.as_secs())
                    }
                    Interrupted::Stopped => "Build cancelled".to_owned(),
                });
                self.note(&ended.map_or_else(|error| error.to_string(), describe));
                Ended::Interrupted(why)
            }
        }
    }

    /// How long [`Invocation::run`] takes at most.
    pub fn limit(&self) -> Duration {
        self.image.build_timeout.saturating_add(GRACE)
    }

    fn open_log(&self) -> io::Result<File> {
        if let Some(dir) = self.log.parent() {
            std::fs::create_dir_all(dir)?;
        }
        // Appending, so that the command's own output and what is noted after it cannot overwrite each other.
        OpenOptions::new().create(true).append(true).open(&self.log)
    }

    fn missing_format(&self) -> Option<String> {
        let file = |format: &str| {
            let mut path = self.base.clone().into_os_string();
            path.push(".");
            path.push(format);
            PathBuf::from(path)
        };
        self.image.formats.iter().find(|format| !file(format).is_file()).cloned()
    }

    /// Adds a line to the build's log.
    fn note(&self, line: &str) {
        // The outcome is in the daemon's log too: a full disk must not change it.
        let _ = self.open_log().and_then(|mut log| writeln!(log, "{line}"));
    }
}

/// The last line of a build's log. As the original prints it, a signal is its negative number.
fn describe(status: ExitStatus) -> String {
    let code = status.code().or_else(|| status.signal().map(|signal| -signal)).unwrap_or(-1);
    format!("Exit code: {code}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use nodepool_threads::StopSource;

    fn invocation<'a>(image: &'a DiskImage, mark: &'a Mark, dir: &Path) -> Invocation<'a> {
        Invocation {
            image,
            base: dir.join("debian-1"),
            elements_dir: Some("/elements"),
            log: dir.join("logs/x.log"),
            mark,
        }
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

    fn run(name: &str, command: &[&str], change: impl FnOnce(&mut DiskImage)) -> (Ended, String) {
        let dir = std::env::temp_dir().join(format!("dib-{name}-{}", std::process::id()));
        let mut image = image(command);
        change(&mut image);
        let source = StopSource::new();
        let mark = Mark::new("NODEPOOL_DIB_TEST", "test");
        let ended = invocation(&image, &mark, &dir).run(&source.token());
        let log = std::fs::read_to_string(dir.join("logs/x.log")).unwrap();
        std::fs::remove_dir_all(dir).unwrap();
        (ended, log)
    }

    #[test]
    fn the_command_line_is_that_of_the_contract() {
        let image = image(&["sudo", "disk-image-create"]);
        let mark = Mark::new("NODEPOOL_DIB_TEST", "test");
        let arguments = invocation(&image, &mark, Path::new("/images")).arguments();
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
