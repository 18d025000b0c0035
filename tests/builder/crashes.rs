//! A builder that is killed between two effects of a build, an upload or a clean-up, and what the one that is
//! started after it makes of that: everything that was left is cleaned up, and a fresh build is uploaded.
//!
//! The debug build stops at the step that `NODEPOOL_STOP_AT` names, and is killed there.

use std::collections::BTreeSet;

use super::*;
use crate::support::leash::is_alive;
use crate::support::{Daemon, Header};

/// A dead builder's locks are kept for as long by the server.
const SESSION: f64 = 2.0;
/// A clean-up that is refused at first, because the dead builder's session still holds the lock, is put off.
const SETTLED: Duration = Duration::from_secs(90);

struct World {
    sandbox: Sandbox<'static>,
    zk: ZkClient,
    body: String,
}

impl World {
    /// One image with a build command that needs the file `go`, one provider with a hook that needs `pass`.
    fn new(test: &str) -> World {
        let sandbox = Sandbox::new(&format!("crash-{test}"));
        let dir = sandbox.dir().display().to_string();
        let hook = script(
            &sandbox,
            "hook",
            &format!("cd {dir}; echo $$ >hook.new; mv hook.new hook.pid; [ -e pass ] || exec sleep 300"),
        );
        for file in ["go", "pass"] {
            std::fs::write(sandbox.path(file), "").unwrap();
        }
        let keys = format!(
            "formats: [qcow2], env-vars: {{FAKE_DIB_CHILD: '{dir}/child', FAKE_DIB_WAIT_FOR: '{dir}/go'}}"
        );
        let shelf = local(&sandbox, "shelf", &["debian"], &format!("post-upload-hook: '{}'", hook.display()));
        let body = body(&[image(&sandbox, "debian", &keys)], &[shelf]);
        let header = sandbox.header(&Header { timeout: SESSION, ..Header::default() });
        sandbox.write_config(&format!("{header}{body}"));
        let zk = sandbox.zk();
        World { sandbox, zk, body }
    }

    /// Has a builder build until it stops at `step`, and kills it there. By the third build, the first one is
    /// cleaned up.
    fn crash(&self, step: &str) {
        let mut command = self.sandbox.builder_command(&[]);
        command.env("NODEPOOL_STOP_AT", step);
        let builder = self.sandbox.spawn(&command);
        let mut requests = 0;
        builder.wait_until(&format!("its stop at {step}"), SETTLED, || {
            if builder.is_stopped() {
                return Some(());
            }
            if requests < 3
                && !self.zk.exists(&request_path("debian"))
                && self.uploaded().len() > requests.min(1)
            {
                request(&self.zk, "debian");
                requests += 1;
            }
            None
        });
        builder.kill();
    }

    /// The ready builds that are at the provider.
    fn uploaded(&self) -> BTreeSet<String> {
        let ready = in_state(builds(&self.zk, "debian"), "ready").into_iter().map(|(id, _)| id);
        ready.filter(|id| !in_state(uploads(&self.zk, "debian", id, "shelf"), "ready").is_empty()).collect()
    }

    /// Starts a builder after the crash, asks for a build, and waits until all is well.
    fn assert_recovers(&self) -> Daemon {
        let before: BTreeSet<String> = builds(&self.zk, "debian").into_iter().map(|(id, _)| id).collect();
        let builder = self.sandbox.builder(&[]);
        if !self.zk.exists(&request_path("debian")) {
            request(&self.zk, "debian");
        }
        builder.wait_until("a fresh build at the provider", SETTLED, || {
            self.uploaded().difference(&before).next().map(|_| ())
        });
        let mut disorder = Vec::new();
        let settled = crate::support::within(SETTLED, || {
            disorder = self.disorder();
            disorder.is_empty().then_some(())
        });
        assert!(settled.is_some(), "{disorder:#?}\n{:#?}\n{}", self.zk.dump("/nodepool"), builder.log());
        assert!(!builder.log().contains("panicked"), "{}", builder.log());
        builder
    }

    /// Everything that must not be once the fleet has come to rest.
    fn disorder(&self) -> Vec<String> {
        let mut wrong = Vec::new();
        let (mut known, mut external_ids) = (BTreeSet::new(), BTreeSet::new());
        for (id, record) in builds(&self.zk, "debian") {
            if record["state"] != "ready" {
                wrong.push(format!("the build {id} is {}", record["state"]));
            }
            for (upload, record) in uploads(&self.zk, "debian", &id, "shelf") {
                let external_id = record["external_id"].as_str().unwrap_or_default().to_owned();
                if record["state"] != "ready" || external_id.is_empty() {
                    wrong.push(format!("the upload {upload} of {id} is {record}"));
                }
                external_ids.insert(external_id);
            }
            known.insert(id);
        }
        // Two ready builds are kept, and two uploads, which may belong to an older one.
        if known.len() > 3 {
            wrong.push(format!("too many builds: {known:?}"));
        }
        let files = files(&self.sandbox, "debian");
        wrong.extend(files.iter().filter(|file| !known.iter().any(|id| file.contains(id))).cloned());
        let lost = known.iter().filter(|id| !files.contains(&format!("debian-{id}.qcow2")));
        wrong.extend(lost.map(|id| format!("the files of {id} are gone")));
        let stored = stored(&self.sandbox, "shelf");
        wrong.extend(stored.iter().filter(|file| !external_ids.iter().any(|id| file.contains(id))).cloned());
        let missing = external_ids.iter().filter(|id| !stored.iter().any(|file| file.contains(*id)));
        wrong.extend(missing.map(|id| format!("the image {id} is not at the provider")));
        let dump = self.zk.dump("/nodepool");
        wrong.extend(dump.into_iter().map(|(path, _)| path).filter(|path| path.contains("__lock__")));
        if self.zk.exists(&request_path("debian")) {
            wrong.push("the request is still there".to_owned());
        }
        wrong.extend(self.processes().into_iter().map(|pid| format!("the process {pid} is running")));
        wrong
    }

    /// The processes of builds, by what the contract puts into their environment.
    fn processes(&self) -> Vec<u32> {
        let mark = format!("DIB_IMAGE_FILENAME={}/", self.sandbox.images().display());
        let pids = names("/proc".into()).into_iter().filter_map(|name| name.parse().ok());
        let is_ours = |pid: &u32| {
            let environment = std::fs::read(format!("/proc/{pid}/environ")).unwrap_or_default();
            environment.split(|byte| *byte == 0).any(|entry| entry.starts_with(mark.as_bytes()))
        };
        pids.filter(is_ours).collect()
    }

    fn remove(&self, file: &str) {
        std::fs::remove_file(self.sandbox.path(file)).unwrap();
    }
}

/// A test for each step, named for what had just been done.
macro_rules! crashes_after {
    ($($what:ident: $step:literal,)*) => {
        $(
            #[test]
            fn $what() {
                let world = World::new($step);
                world.crash($step);
                world.assert_recovers();
            }
        )*
    };
}

mod a_crash_after {
    use super::*;

    crashes_after! {
        the_build_lock_was_taken: "build-locked",
        the_build_record_was_made: "build-recorded",
        the_files_were_written: "build-written",
        the_build_became_ready: "build-recorded-ready",
        the_request_was_removed: "request-removed",
        the_upload_lock_was_taken: "upload-locked",
        the_upload_record_was_made: "upload-recorded",
        the_image_was_copied: "image-copied",
        the_copied_image_got_its_name: "image-named",
        the_image_was_at_the_provider: "image-stored",
        the_upload_became_ready: "upload-recorded-ready",
        the_upload_was_marked: "upload-marked",
        the_image_began_to_go_at_the_provider: "image-retracted",
        the_image_was_gone_at_the_provider: "image-deleted",
        the_upload_record_was_removed: "upload-removed",
        the_build_was_marked: "build-marked",
        the_files_were_removed: "build-files-removed",
        the_build_record_was_removed: "build-removed",
    }
}

#[test]
fn a_build_command_that_outlived_its_builder_is_ended_with_its_children() {
    let world = World::new("build-started");
    world.remove("go");
    world.crash("build-started");
    let child = wait_pid(&world.sandbox, "child");
    assert!(is_alive(child), "the crash has not ended it");
    world.remove("child");
    let pids = world.processes();
    assert!(!pids.is_empty());
    let builder = world.sandbox.builder(&[]);
    builder.wait_log("an earlier run had left", SOON);
    assert!(!is_alive(child) && !pids.iter().any(|pid| is_alive(*pid)));
    std::fs::write(world.sandbox.path("go"), "").unwrap();
    builder.kill();
    world.assert_recovers();
}

#[test]
fn a_hook_that_outlived_its_builder_is_ended() {
    let world = World::new("hook-started");
    world.remove("pass");
    world.crash("hook-started");
    let hook = wait_pid(&world.sandbox, "hook.pid");
    assert!(is_alive(hook), "the crash has not ended it");
    std::fs::write(world.sandbox.path("pass"), "").unwrap();
    let _builder = world.assert_recovers();
    assert!(!is_alive(hook));
}

#[test]
fn another_builder_ends_the_records_of_a_dead_one_whose_files_go_when_it_returns() {
    let world = World::new("foreign");
    world.crash("build-written");
    let dead = builds(&world.zk, "debian").remove(0).0;
    assert!(!files(&world.sandbox, "debian").is_empty());
    let other = super::fleet::start(&world.sandbox, "other", &world.body);
    other.wait_until("a build in the place of the dead builder's", SETTLED, || {
        let left = builds(&world.zk, "debian");
        (!left.iter().any(|(id, _)| *id == dead) && world.uploaded().len() == 1).then_some(())
    });
    assert!(other.log().contains("its builder has died"), "{}", other.log());
    let builder = world.sandbox.builder(&[]);
    builder
        .wait_until("its old files to go", SOON, || files(&world.sandbox, "debian").is_empty().then_some(()));
    assert_eq!(world.uploaded().len(), 1, "nothing of the other's was touched");
}

/// The original removes the record of an upload that nobody finishes, and does not ask the provider.
#[test]
fn an_image_whose_record_the_original_has_removed_goes_with_the_next_upload() {
    let world = World::new("unrecorded");
    world.crash("image-stored");
    let (build, _) = builds(&world.zk, "debian").remove(0);
    let (upload, record) = uploads(&world.zk, "debian", &build, "shelf").remove(0);
    assert_eq!(record["state"], "uploading");
    assert_eq!(stored(&world.sandbox, "shelf").len(), 2);
    world.zk.delete(&format!("{}/{upload}", uploads_path("debian", &build, "shelf")));
    let builder = world.sandbox.builder(&[]);
    let (_, record) = builder.wait_until("the next upload", SETTLED, || {
        in_state(uploads(&world.zk, "debian", &build, "shelf"), "ready").pop()
    });
    let left = stored(&world.sandbox, "shelf");
    assert_eq!(left.len(), 2, "{left:?}");
    assert!(left[0].contains(record["external_id"].as_str().unwrap()), "{left:?} {record}");
}

#[test]
fn a_second_builder_on_the_same_directory_is_refused() {
    let world = World::new("second");
    let _builder = world.sandbox.builder(&[]);
    let second = world.sandbox.spawn(&world.sandbox.builder_command(&[]));
    assert!(!second.wait_exit(SOON).success());
    assert!(second.log().contains("another builder is running"), "{}", second.log());
}
