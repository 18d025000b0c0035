//! The init script, verb by verb, as the LSB wants it.

use super::*;

/// One image that is built once `go` exists in the sandbox, and says where the build's processes are.
fn waiting_image(sandbox: &Sandbox<'_>) -> String {
    format!(
        "diskimages:\n  - {{name: debian, dib-cmd: '{dib}', elements: [vm], formats: [raw], env-vars: \
         {{FAKE_DIB_IGNORE_TERM: '1', FAKE_DIB_CHILD: '{run}/child', FAKE_DIB_WAIT_FOR: '{run}/go'}}}}\n",
        dib = sandbox.fake_dib().display(),
        run = sandbox.path("run").display(),
    )
}

/// The process that a build says it has started.
#[track_caller]
fn child_of_a_build(sandbox: &Sandbox<'_>) -> u32 {
    let file = sandbox.path("run/child");
    eventually(SOON, "a build", || std::fs::read_to_string(&file).ok()?.trim().parse().ok())
}

fn builds(sandbox: &Sandbox<'_>, state: &str) -> usize {
    let zk = sandbox.zk();
    let parent = "/nodepool/images/debian/builds";
    let records = zk.children(parent).into_iter().filter_map(|id| zk.get(&format!("{parent}/{id}"))?.json());
    records.filter(|record| record["state"] == state).count()
}

#[test]
fn each_verb_does_what_it_says_and_can_be_repeated() {
    let sandbox = Sandbox::new("init-verbs");
    let machine = installed(&sandbox);
    configure(&sandbox, &machine, "diskimages: []\n");
    expect(&machine, "stop", 0);
    expect(&machine, "force-stop", 0);
    expect(&machine, "status", 3);
    expect(&machine, "reload", 7);
    expect(&machine, "dump", 7);
    expect(&machine, "try-restart", 0);
    expect(&machine, "status", 3);
    expect(&machine, "juggle", 2);

    expect(&machine, "start", 0);
    let first = daemon(&machine);
    let said = expect(&machine, "start", 0);
    assert!(said.contains(&format!("already running as process {first}")), "{said}");
    assert!(expect(&machine, "status", 0).contains(&format!("process {first}")));
    assert_eq!(machine.sh(&format!("runuser -u nobody {SERVICE} status")).code(), 0, "anybody may ask");
    assert_eq!(daemon(&machine), first);
    for verb in ["reload", "force-reload"] {
        expect(&machine, verb, 0);
    }
    eventually(SOON, "the signal in the log", || {
        machine.ok(&format!("cat {DEBUG_LOG}")).contains("SIGHUP").then_some(())
    });
    expect(&machine, "try-restart", 0);
    let second = daemon(&machine);
    expect(&machine, "restart", 0);
    let third = daemon(&machine);
    assert!(first != second && second != third && is_alive(&machine, third));

    expect(&machine, "stop", 0);
    assert!(!is_alive(&machine, third) && !machine.has(PID_FILE));
    expect(&machine, "stop", 0);
    expect(&machine, "status", 3);
    // What the administrator sets reaches the daemon.
    machine.ok("echo 'DAEMON_ARGS=\"--build-workers 0\"\nOWN=yes' >>/etc/default/nodepool-builder");
    expect(&machine, "start", 0);
    let process = format!("/proc/{}", daemon(&machine));
    assert!(machine.ok(&format!("tr '\\0' ' ' <{process}/cmdline")).contains("--build-workers 0"));
    assert!(machine.ok(&format!("tr '\\0' '\\n' <{process}/environ")).contains("OWN=yes"));
    expect(&machine, "stop", 0);
}

#[test]
fn dump_shows_what_the_threads_do_now() {
    let sandbox = Sandbox::new("init-dump");
    let machine = installed(&sandbox);
    configure(&sandbox, &machine, "diskimages: []\n");
    expect(&machine, "start", 0);
    for _ in 0..2 {
        let dump = expect(&machine, "dump", 0);
        assert_eq!(dump.matches("stack dump begins").count(), 1, "the last one only: {dump}");
        assert_eq!(dump.matches("stack dump ends").count(), 1, "{dump}");
        assert!(dump.contains("build-worker-0"), "{dump}");
    }
    // A daemon that cannot log writes it beside its pid file; and when there is none at all, that is said.
    let pid = daemon(&machine);
    machine.ok(&format!("kill -STOP {pid}"));
    let fallback = "/run/nodepool/nodepool-builder.stacks";
    let appears = format!(
        "(sleep 1; printf 'x stack dump begins\n frame\\033[7m\nx stack dump ends\n' >{fallback}) & {SERVICE} dump"
    );
    assert!(machine.ok(&appears).contains(" frame^[[7m\n"), "nothing that a terminal acts upon");
    let nothing = expect(&machine, "dump", 1);
    assert!(nothing.contains("no complete dump within 10 seconds"), "{nothing}");
    // Neither waited for nor followed.
    machine.ok(&format!(
        "mv {DEBUG_LOG} {DEBUG_LOG}.kept; mkfifo {DEBUG_LOG}; mv {fallback} /run/stacks; ln -s /run/new {fallback}"
    ));
    let appears =
        format!("(sleep 1; echo 'stack dump begins\nlinked\nstack dump ends' >/run/new) & {SERVICE} dump");
    let linked = machine.sh(&appears);
    assert_eq!((linked.status.code(), linked.stdout.as_str()), (Some(1), ""), "{linked:?}");
    machine.ok(&format!("mv {DEBUG_LOG}.kept {DEBUG_LOG}; rm {fallback}; mkfifo {fallback}"));
    expect(&machine, "dump", 1);
    machine.ok(&format!("kill -CONT {pid}"));
    expect(&machine, "stop", 0);
}

#[test]
fn a_stale_pid_file_is_replaced_and_a_stranger_is_never_touched() {
    let sandbox = Sandbox::new("init-stale");
    let machine = installed(&sandbox);
    configure(&sandbox, &machine, "diskimages: []\n");
    expect(&machine, "start", 0);
    let killed = daemon(&machine);
    machine.ok(&format!("kill -KILL {killed}"));
    wait_gone(&machine, killed);
    assert!(expect(&machine, "status", 1).contains(PID_FILE));
    expect(&machine, "stop", 0);
    expect(&machine, "start", 0);
    assert_ne!(daemon(&machine), killed);
    expect(&machine, "stop", 0);

    // A process that has got the number since; the second one even bears the daemon's name.
    for program in ["/bin/sleep", "/run/nodepool-builder"] {
        machine.ok("test -e /run/nodepool-builder || cp /bin/sleep /run/nodepool-builder");
        let start = format!("{program} 600 >/dev/null 2>&1 & echo $! | tee {PID_FILE}");
        let stranger = machine.ok(&start).trim().parse().unwrap();
        expect(&machine, "status", 1);
        for (verb, code) in [("stop", 0), ("force-stop", 0), ("reload", 7), ("dump", 7)] {
            expect(&machine, verb, code);
            assert!(is_alive(&machine, stranger), "{verb} has ended {program}");
        }
        if program == "/bin/sleep" {
            expect(&machine, "start", 0);
            assert_ne!(daemon(&machine), stranger);
            expect(&machine, "stop", 0);
        }
        assert!(is_alive(&machine, stranger));
        machine.ok(&format!("kill -KILL {stranger}; rm -f {PID_FILE}"));
    }
    for content in ["", "garbage", "-1", "1 2"] {
        machine.ok(&format!("echo '{content}' >{PID_FILE}"));
        assert_ne!(service(&machine, "status").code(), 0, "{content:?}");
        expect(&machine, "stop", 0);
    }
    // Its user can put there what it likes.
    for made in ["mkfifo", "ln -s /run/another", "mkdir"] {
        machine.ok(&format!("rm -f {PID_FILE}; {made} {PID_FILE}"));
        expect(&machine, "status", 3);
        expect(&machine, "stop", 0);
    }
}

/// Only systemd knows that it shall not start the daemon again. It does not run on a machine for tests.
#[test]
fn force_stop_leaves_to_systemd_what_systemd_has_started() {
    let sandbox = Sandbox::new("init-systemd");
    let machine = installed(&sandbox);
    configure(&sandbox, &machine, "diskimages: []\n");
    machine.ok(&format!(
        "printf '%s\\n' '#!/bin/sh' 'case $1 in' 'show) echo MainPID=$(cat /run/main) ;;' \
         'stop) echo \"$@\" >/run/asked; kill -TERM $(cat {PID_FILE}) ;;' esac >/usr/local/sbin/systemctl; \
         chmod 755 /usr/local/sbin/systemctl; echo 0 >/run/main"
    ));
    for own in [false, true] {
        expect(&machine, "start", 0);
        let pid = daemon(&machine);
        if own {
            machine.ok(&format!("echo {pid} >/run/main"));
        }
        expect(&machine, "force-stop", 0);
        wait_gone(&machine, pid);
        assert_eq!(machine.has("/run/asked"), own);
    }
    assert_eq!(machine.ok("cat /run/asked").trim(), "stop nodepool-builder.service");
}

#[test]
fn a_restart_during_a_build_leaves_no_process_and_the_build_is_made_again() {
    let sandbox = Sandbox::new("init-restart");
    let machine = installed(&sandbox);
    configure(&sandbox, &machine, &waiting_image(&sandbox));
    expect(&machine, "start", 0);
    let child = child_of_a_build(&sandbox);
    assert!(is_alive(&machine, child));
    let of_a_build = || processes(&machine, "fake-dib");
    let before = of_a_build();
    assert!(!before.is_empty());
    std::fs::remove_file(sandbox.path("run/child")).unwrap();

    expect(&machine, "restart", 0);
    assert!(!is_alive(&machine, child));
    assert!(before.iter().all(|pid| !is_alive(&machine, *pid)), "{before:?}");
    let again = child_of_a_build(&sandbox);
    assert_ne!(again, child);
    std::fs::write(sandbox.path("run/go"), "").unwrap();
    eventually(SOON, "a ready build", || (builds(&sandbox, "ready") == 1).then_some(()));
    assert_eq!(builds(&sandbox, "building"), 0);
    expect(&machine, "stop", 0);
    assert_eq!(of_a_build(), [0; 0]);
    assert_eq!(processes(&machine, "nodepool-builder"), [0; 0]);
}

#[test]
fn force_stop_kills_a_daemon_that_hangs_with_its_builds() {
    let sandbox = Sandbox::new("init-force-stop");
    let machine = installed(&sandbox);
    configure(&sandbox, &machine, &waiting_image(&sandbox));
    expect(&machine, "start", 0);
    let (pid, child) = (daemon(&machine), child_of_a_build(&sandbox));
    machine.ok(&format!("kill -STOP {pid}"));
    assert!(expect(&machine, "stop", 1).contains("force-stop"));
    assert!(is_alive(&machine, pid) && is_alive(&machine, child));
    assert!(expect(&machine, "force-stop", 0).contains("killed, with its builds"));
    assert!(!is_alive(&machine, pid) && !is_alive(&machine, child));
    assert_eq!(processes(&machine, "fake-dib"), [0; 0]);
    expect(&machine, "status", 3);
    // The daemon that comes next makes up for it.
    std::fs::write(sandbox.path("run/go"), "").unwrap();
    expect(&machine, "start", 0);
    eventually(SOON, "a ready build", || (builds(&sandbox, "ready") == 1).then_some(()));
    expect(&machine, "stop", 0);
}
