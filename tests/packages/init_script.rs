//! The init script, verb by verb, as the LSB wants it.

use super::*;

/// One image that is built once `go` exists in the sandbox, and says where the build's processes are.
pub(super) fn waiting_image(sandbox: &Sandbox<'_>) -> String {
    format!(
        "diskimages:\n  - {{name: debian, dib-cmd: '{dib}', elements: [vm], formats: [raw], env-vars: \
         {{FAKE_DIB_IGNORE_TERM: '1', FAKE_DIB_CHILD: '{run}/child', FAKE_DIB_WAIT_FOR: '{run}/go'}}}}\n",
        dib = sandbox.fake_dib().display(),
        run = sandbox.path("run").display(),
    )
}

/// The process that a build says it has started.
#[track_caller]
pub(super) fn child_of_a_build(sandbox: &Sandbox<'_>) -> u32 {
    let file = sandbox.path("run/child");
    eventually(SOON, "a build", || std::fs::read_to_string(&file).ok()?.trim().parse().ok())
}

pub(super) fn builds(sandbox: &Sandbox<'_>, state: &str) -> usize {
    let zk = sandbox.zk();
    let parent = "/nodepool/images/debian/builds";
    let records = zk.children(parent).into_iter().filter_map(|id| zk.get(&format!("{parent}/{id}"))?.json());
    records.filter(|record| record["state"] == state).count()
}

#[test]
fn each_verb_does_what_it_says_and_can_be_repeated() {
    let sandbox = Sandbox::new("init-verbs");
    let machine = installed(&sandbox, &DAEMONS);
    configure(&sandbox, &machine, "diskimages: []\n");
    let [builder, launcher] = DAEMONS.map(|daemon| daemon.on(&machine));
    for (service, other) in [(&builder, &launcher), (&launcher, &builder)] {
        other.expect("start", 0);
        let pid = other.pid();
        verbs(service);
        assert!(other.pid() == pid && is_alive(&machine, pid), "the other one is not touched");
        other.expect("stop", 0);
    }
}

fn verbs(service: &Service<'_>) {
    let machine = service.machine;
    service.expect("stop", 0);
    service.expect("force-stop", 0);
    service.expect("status", 3);
    service.expect("reload", 7);
    service.expect("dump", 7);
    service.expect("try-restart", 0);
    service.expect("status", 3);
    service.expect("juggle", 2);

    service.expect("start", 0);
    let first = service.pid();
    let said = service.expect("start", 0);
    assert!(said.contains(&format!("already running as process {first}")), "{said}");
    assert!(service.expect("status", 0).contains(&format!("process {first}")));
    let asked_by_nobody = format!("runuser -u nobody {} status", service.script);
    assert_eq!(machine.sh(&asked_by_nobody).code(), 0, "anybody may ask");
    assert_eq!(service.pid(), first);
    for verb in ["reload", "force-reload"] {
        service.expect(verb, 0);
    }
    service.wait_for_line("SIGHUP");
    let dump = service.expect("dump", 0);
    assert!(dump.contains(service.thread), "{dump}");
    service.expect("try-restart", 0);
    let second = service.pid();
    service.expect("restart", 0);
    let third = service.pid();
    assert!(first != second && second != third && is_alive(machine, third));

    service.expect("stop", 0);
    assert!(!is_alive(machine, third) && !machine.has(&service.pid_file));
    service.expect("stop", 0);
    service.expect("status", 3);
    // What the administrator sets reaches the daemon.
    let args = "-l /usr/share/doc/nodepool/examples/logging.yaml";
    machine.ok(&format!("echo 'DAEMON_ARGS=\"{args}\"\nOWN=yes' >>/etc/default/{}", service.name));
    service.expect("start", 0);
    let process = format!("/proc/{}", service.pid());
    assert!(machine.ok(&format!("tr '\\0' ' ' <{process}/cmdline")).contains(args));
    assert!(machine.ok(&format!("tr '\\0' '\\n' <{process}/environ")).contains("OWN=yes"));
    service.expect("stop", 0);
}

/// A `stat` that loses every race: from its second look on it finds a new plain file, and right after the look
/// a link or a FIFO is in its place, by turns.
const EXCHANGES: &str = r#"#!/bin/sh
file=/run/nodepool/nodepool-builder.stacks
echo >>/run/looks
looks=$(wc -l </run/looks)
[ "$looks" = 1 ] || { rm $file; echo >$file; }
/usr/bin/stat "$@"
[ "$looks" != 1 ] || exit 0
rm $file
echo 'a secret, where a stack dump ends' >/run/linked
if [ $((looks % 2)) = 0 ]; then ln -s /run/linked $file; else mkfifo $file; fi
"#;

#[test]
fn dump_shows_what_the_threads_do_now() {
    let sandbox = Sandbox::new("init-dump");
    let machine = installed(&sandbox, &[BUILDER]);
    let builder = BUILDER.on(&machine);
    configure(&sandbox, &machine, "diskimages: []\n");
    builder.expect("start", 0);
    for _ in 0..2 {
        let dump = builder.expect("dump", 0);
        assert_eq!(dump.matches("stack dump begins").count(), 1, "the last one only: {dump}");
        assert_eq!(dump.matches("stack dump ends").count(), 1, "{dump}");
        assert!(dump.contains("build-worker-0"), "{dump}");
    }
    let (pid, stacks, script) = (builder.pid(), &builder.stacks, &builder.script);
    machine.ok(&format!("kill -STOP {pid}"));
    eventually(SOON, "a daemon whose threads have all stopped", || {
        machine.sh(&format!("grep -L '^State:.*T' /proc/{pid}/task/*/status")).stdout.is_empty().then_some(())
    });
    // The script has looked at the file that was there once its signal, the twelfth, is pending.
    let appears = format!(
        "(until grep -q '^ShdPnd:.*[89a-f]..$' /proc/{pid}/status; do sleep 0.1; done; \
         printf 'x stack dump begins\n frame\\033[7m\nx stack dump ends\n' >{stacks}) & {script} dump"
    );
    assert!(machine.ok(&appears).contains(" frame^[[7m\n"), "nothing that a terminal acts upon");
    let nothing = builder.expect("dump", 1);
    assert!(nothing.contains(&format!("no complete dump in {stacks} within 20 seconds")), "{nothing}");
    // Neither followed nor waited for.
    sandbox.replace("stat", EXCHANGES);
    let wrapper = "/usr/local/sbin/stat";
    machine.ok(&format!("install -m 755 {} {wrapper}", sandbox.path("stat").display()));
    let exchanged = builder.run("dump");
    assert_eq!((exchanged.status.code(), exchanged.stdout.as_str()), (Some(1), ""), "{exchanged:?}");
    assert!(machine.ok("wc -l </run/looks").trim().parse::<u32>().unwrap() > 2, "both had their turn");
    machine.ok(&format!("rm {wrapper} {stacks}; kill -CONT {pid}"));
    builder.expect("stop", 0);
}

/// Found in use: where the log was JSON, so was the dump.
#[test]
fn dump_shows_text_whatever_the_log_is_like() {
    let sandbox = Sandbox::new("init-dump-json");
    let machine = installed(&sandbox, &[BUILDER]);
    let builder = BUILDER.on(&machine);
    configure(&sandbox, &machine, "diskimages: []\n");
    let log = "/var/log/nodepool/all.log";
    machine.ok(&format!(
        "echo 'outputs: [{{file: {log}, format: json, level: debug}}]' >/etc/nodepool/logging.yaml; \
         echo 'DAEMON_ARGS=\"-l /etc/nodepool/logging.yaml\"' >>/etc/default/nodepool-builder"
    ));
    builder.expect("start", 0);
    let dump = builder.expect("dump", 0);
    let lines: Vec<&str> = dump.lines().collect();
    assert!(lines[0].starts_with("stack dump begins") && lines.len() > 50, "{dump}");
    assert!(lines.iter().all(|line| !line.contains("{\"")), "{dump}");
    eventually(SOON, "the same in the log", || {
        machine.ok(&format!("cat {log}")).contains("stack dump ends").then_some(())
    });
    builder.expect("stop", 0);
}

#[test]
fn a_stale_pid_file_is_replaced_and_a_stranger_is_never_touched() {
    let sandbox = Sandbox::new("init-stale");
    let machine = installed(&sandbox, &DAEMONS);
    configure(&sandbox, &machine, "diskimages: []\n");
    DAEMONS.iter().for_each(|daemon| stale_pid_file(&daemon.on(&machine)));
}

fn stale_pid_file(service: &Service<'_>) {
    let machine = service.machine;
    let Service { name, pid_file, .. } = service;
    service.expect("start", 0);
    let killed = service.pid();
    machine.ok(&format!("kill -KILL {killed}"));
    wait_gone(machine, killed);
    assert!(service.expect("status", 1).contains(pid_file));
    service.expect("start", 0);
    assert_ne!(service.pid(), killed);
    let killed = service.pid();
    machine.ok(&format!("kill -KILL {killed}"));
    wait_gone(machine, killed);
    // What is stopped is not dead with a pid file any more.
    service.expect("stop", 0);
    service.expect("status", 3);

    // A process that has got the number since; the second one even bears the daemon's name.
    let namesake = format!("/run/{name}");
    machine.ok(&format!("cp /bin/sleep {namesake}"));
    for program in ["/bin/sleep", &namesake] {
        let start = format!("{program} 600 >/dev/null 2>&1 & echo $! | tee {pid_file}");
        let stranger = machine.ok(&start).trim().parse().unwrap();
        service.expect("status", 1);
        for (verb, code) in [("stop", 0), ("force-stop", 0), ("reload", 7), ("dump", 7)] {
            machine.ok(&format!("echo {stranger} >{pid_file}"));
            service.expect(verb, code);
            assert!(is_alive(machine, stranger), "{verb} has ended {program}");
        }
        if program == "/bin/sleep" {
            service.expect("start", 0);
            assert_ne!(service.pid(), stranger);
            service.expect("stop", 0);
        }
        assert!(is_alive(machine, stranger));
        machine.ok(&format!("kill -KILL {stranger}; rm -f {pid_file}"));
    }
    for content in ["", "garbage", "-1", "1 2"] {
        machine.ok(&format!("echo '{content}' >{pid_file}"));
        assert_ne!(service.run("status").code(), 0, "{content:?}");
        service.expect("stop", 0);
    }
    // Its user can put there what it likes.
    for made in ["mkfifo", "ln -s /run/another", "mkdir"] {
        machine.ok(&format!("rm -f {pid_file}; {made} {pid_file}"));
        service.expect("status", 3);
        service.expect("stop", 0);
    }
}

/// A `stat` by whose first call what holds the builder up goes out of its way.
const LOOKS: &str = "#!/bin/sh\necho >/run/looked\nexec /usr/bin/stat \"$@\"\n";

/// There was no number yet, so nothing was stopped, and the daemon was there a moment later.
#[test]
fn stop_waits_for_a_daemon_that_is_about_to_start() {
    let sandbox = Sandbox::new("init-starting");
    let machine = installed(&sandbox, &[BUILDER]);
    let builder = BUILDER.on(&machine);
    configure(&sandbox, &machine, "diskimages: []\n");
    let Service { script, pid_file, .. } = &builder;
    let hold = |file: &str, until: &str| {
        let held = format!("flock {file} sh -c 'echo >/run/held; until [ -e {until} ]; do sleep 0.05; done'");
        machine.ok(&format!(
            "rm -f /run/held; ({held}) >/run/holder 2>&1 & until [ -e /run/held ]; do sleep 0.05; done"
        ));
    };
    sandbox.replace("stat", LOOKS);
    machine.ok(&format!("install -m 755 {} /usr/local/sbin/stat", sandbox.path("stat").display()));
    // Held up between the lock and the number, by what looks like another builder on the same directory.
    hold(&sandbox.images().display().to_string(), "/run/looked");
    let locked = format!("grep -q \" FLOCK .*:$(/usr/bin/stat -c %i {pid_file}) \" /proc/locks");
    let said = machine.ok(&format!(
        "{script} start >/run/started 2>&1 & until [ -e {pid_file} ] && {locked}; do sleep 0.05; done; {script} stop"
    ));
    assert!(said.ends_with("stopped\n"), "{said}");
    builder.expect("status", 3);
    assert_eq!(processes(&machine, "nodepool-builder"), [0; 0]);

    // For longer than it is waited for.
    machine.ok(&format!(": >{pid_file}"));
    hold(pid_file, "/run/over");
    for verb in ["stop", "force-stop"] {
        let said = builder.expect(verb, 1);
        assert!(said.contains("about to start"), "{said}");
    }
    machine.ok("echo >/run/over");
}

#[test]
fn a_restart_during_a_build_leaves_no_process_and_the_build_is_made_again() {
    let sandbox = Sandbox::new("init-restart");
    let machine = installed(&sandbox, &[BUILDER]);
    let builder = BUILDER.on(&machine);
    configure(&sandbox, &machine, &waiting_image(&sandbox));
    builder.expect("start", 0);
    let child = child_of_a_build(&sandbox);
    assert!(is_alive(&machine, child));
    let of_a_build = || processes(&machine, "fake-dib");
    let before = of_a_build();
    assert!(!before.is_empty());
    std::fs::remove_file(sandbox.path("run/child")).unwrap();

    builder.expect("restart", 0);
    assert!(!is_alive(&machine, child));
    assert!(before.iter().all(|pid| !is_alive(&machine, *pid)), "{before:?}");
    let again = child_of_a_build(&sandbox);
    assert_ne!(again, child);
    std::fs::write(sandbox.path("run/go"), "").unwrap();
    eventually(SOON, "a ready build", || (builds(&sandbox, "ready") == 1).then_some(()));
    assert_eq!(builds(&sandbox, "building"), 0);
    builder.expect("stop", 0);
    assert_eq!(of_a_build(), [0; 0]);
    assert_eq!(processes(&machine, "nodepool-builder"), [0; 0]);
}

#[test]
fn force_stop_kills_a_daemon_that_hangs_and_a_builder_with_its_builds() {
    let sandbox = Sandbox::new("init-force-stop");
    let machine = installed(&sandbox, &DAEMONS);
    let [builder, launcher] = DAEMONS.map(|daemon| daemon.on(&machine));
    configure(&sandbox, &machine, &waiting_image(&sandbox));
    builder.expect("start", 0);
    let (pid, child) = (builder.pid(), child_of_a_build(&sandbox));
    launcher.expect("start", 0);
    let of_launcher = launcher.pid();
    machine.ok(&format!("kill -STOP {pid} {of_launcher}"));
    // Meanwhile, because both take their time.
    machine.ok(&format!("{} force-stop >/run/said 2>&1 &", launcher.script));
    assert!(builder.expect("stop", 1).contains("force-stop"));
    assert!(is_alive(&machine, pid) && is_alive(&machine, child));
    assert!(builder.expect("force-stop", 0).contains("killed, with its builds"));
    assert!(!is_alive(&machine, pid) && !is_alive(&machine, child));
    assert_eq!(processes(&machine, "fake-dib"), [0; 0]);
    eventually(SOON, "the end of the launcher", || (launcher.run("status").code() == 3).then_some(()));
    assert!(machine.ok("cat /run/said").contains("killed\n") && !is_alive(&machine, of_launcher));
    builder.expect("status", 3);
    // The daemon that comes next makes up for it.
    std::fs::write(sandbox.path("run/go"), "").unwrap();
    builder.expect("start", 0);
    eventually(SOON, "a ready build", || (builds(&sandbox, "ready") == 1).then_some(()));
    builder.expect("stop", 0);
}
