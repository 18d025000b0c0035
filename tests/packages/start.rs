//! What a daemon keeps of whoever starts it, and what it says when it cannot start.

use std::net::TcpListener;

use super::*;
use crate::support::http;

const PID_FILE: &str = "/run/nodepool/nodepool-builder.pid";

/// Starts the installed daemon as root would from a shell: `env` before it, `args` behind.
#[track_caller]
fn start(sandbox: &Sandbox<'_>, machine: &Machine<'_>, env: &str, args: &str) -> Outcome {
    let config =
        if args.contains("-c ") { String::new() } else { format!("-c {}", sandbox.config_file().display()) };
    machine.sh(&format!("{env} /usr/sbin/nodepool-builder {config} {args}"))
}

fn field(machine: &Machine<'_>, pid: u32, name: &str) -> String {
    let status = machine.ok(&format!("cat /proc/{pid}/status"));
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_else(|| panic!("no {name}"));
    line.trim_start_matches(':').split_whitespace().collect::<Vec<_>>().join(" ")
}

#[test]
fn the_daemon_is_its_user_for_good_and_lets_go_of_the_session_that_started_it() {
    let sandbox = Sandbox::new("start-user");
    let machine = installed(&sandbox, &[BUILDER]);
    let builder = BUILDER.on(&machine);
    let dib = sandbox.fake_dib();
    let marker = sandbox.path("run/started");
    configure(
        &sandbox,
        &machine,
        &format!(
            "diskimages:\n  - {{name: debian, dib-cmd: '{}', elements: [vm], formats: [raw], env-vars: \
             {{FAKE_DIB_STARTED: '{}', FAKE_DIB_SLEEP: '300'}}}}\n",
            dib.display(),
            marker.display()
        ),
    );
    machine.ok("usermod --append --groups disk nodepool");
    let session = "SSH_AUTH_SOCK=/x SUDO_USER=x XDG_RUNTIME_DIR=/x DISPLAY=:0 TERM=xterm LD_PRELOAD= HOME=/root \
                   USER=root \
                   http_proxy=http://proxy OS_CLOUD=x XDG_CACHE_HOME=/cache TMPDIR=/var/tmp LC_ALL=C";
    // Started by somebody who ignores signals, blocks some, has a lock open and an odd umask.
    let starter = format!(
        "umask 0; trap '' HUP INT QUIT TERM USR2; ulimit -c unlimited; exec 7>/run/lock-of-the-starter; \
         env -u PATH {session} setsid --wait"
    );
    let started = start(&sandbox, &machine, &starter, &format!("-p {PID_FILE} --user nodepool"));
    assert_eq!(started.code(), 0, "{started:?}");
    assert_eq!(started.stdout + &started.stderr, "");
    let pid = builder.pid();
    let build: u32 =
        eventually(SOON, "a build", || std::fs::read_to_string(&marker).ok()?.trim().parse().ok());

    let number = |what: &str| machine.ok(&format!("id -{what} nodepool")).trim().to_owned();
    for process in [pid, build] {
        assert_eq!(field(&machine, process, "Uid"), [number("u").as_str(); 4].join(" "));
        assert_eq!(field(&machine, process, "Gid"), [number("g").as_str(); 4].join(" "));
        let sorted = |text: &str| {
            let mut all: Vec<u32> = text.split(' ').map(|one| one.parse().unwrap()).collect();
            all.sort_unstable();
            all
        };
        assert_eq!(sorted(&field(&machine, process, "Groups")), sorted(&number("G")), "disk is one of them");
        assert_eq!(field(&machine, process, "CapEff"), "0000000000000000");
        assert_eq!(field(&machine, process, "Umask"), "0022");
        // The daemon's main thread leaves SIGHUP, SIGINT, SIGUSR2 and SIGTERM to another one.
        let blocked = if process == pid { "0000000000004803" } else { "0000000000000000" };
        assert_eq!(field(&machine, process, "SigBlk"), blocked);
        let limits = machine.ok(&format!("cat /proc/{process}/limits"));
        let core = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap();
        assert!(core.contains(" 0 "), "{core}");

        let environment = machine.ok(&format!("tr '\\0' '\\n' <$(readlink -f /proc/{process})/environ"));
        // The kernel shows what the daemon was started with, and of a build what it has got.
        if process == build {
            let has = |line: &str| environment.lines().any(|one| one == line);
            for line in [
                "HOME=/var/lib/nodepool",
                "USER=nodepool",
                "LOGNAME=nodepool",
                "SHELL=/bin/sh",
                "http_proxy=http://proxy",
                "OS_CLOUD=x",
                "XDG_CACHE_HOME=/cache",
                "TMPDIR=/var/tmp",
                "LC_ALL=C",
                "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            ] {
                assert!(has(line), "{line} in:\n{environment}");
            }
            for name in ["SSH_AUTH_SOCK", "SUDO_USER", "XDG_RUNTIME_DIR", "DISPLAY", "TERM", "LD_PRELOAD"] {
                assert!(!environment.contains(&format!("\n{name}=")), "{name} in:\n{environment}");
            }
        }
    }
    // Of a build all signals have their default; SIGPIPE is ignored by the daemon alone.
    let ignored = u64::from_str_radix(&field(&machine, build, "SigIgn"), 16).unwrap();
    let of_the_c_library = 0b11 << 31;
    assert_eq!(ignored & !of_the_c_library, 0, "{ignored:b}");
    assert!(!machine.ok(&format!("ls -l /proc/{pid}/fd")).contains("lock-of-the-starter"));
    // For dumps of its own stacks it must be able to read what is said about itself.
    assert_eq!(machine.ok(&format!("stat -c %U /proc/{pid}/mem")).trim(), "nodepool");
    assert_eq!(machine.ok(&format!("stat -c %U {PID_FILE}")).trim(), "nodepool");
    builder.expect("stop", 0);
    assert!(!is_alive(&machine, build));
}

#[test]
fn where_only_root_can_make_files_the_user_gets_a_pid_file() {
    let sandbox = Sandbox::new("start-pid-file");
    let machine = installed(&sandbox, &[BUILDER]);
    let builder = BUILDER.on(&machine);
    configure(&sandbox, &machine, "diskimages: []\n");
    let pid_file = "/run/builder.pid";
    machine.ok(&format!("ln -s /etc/shadow {pid_file}"));
    let refused = start(&sandbox, &machine, "", &format!("-p {pid_file} --user nodepool"));
    assert_eq!(refused.code(), 1);
    assert!(refused.stderr.contains("cannot write the pid file"), "{refused:?}");
    assert_eq!(machine.ok("stat -c %U /etc/shadow").trim(), "root");
    machine.ok(&format!("rm {pid_file}"));
    let stacks = "/run/builder.stacks";
    machine.ok(&format!("touch /run/victim; ln /run/victim {stacks}"));
    let refused = start(&sandbox, &machine, "", &format!("-p {pid_file} --user nodepool"));
    assert!(refused.code() == 1 && refused.stderr.contains("file for stack dumps"), "{refused:?}");
    assert_eq!(machine.ok("stat -c %U /run/victim").trim(), "root");
    machine.ok(&format!("rm {stacks}"));

    let args = format!("-p {pid_file} --user nodepool:daemon");
    assert_eq!(start(&sandbox, &machine, "umask 077;", &args).code(), 0);
    assert_eq!(
        machine.ok(&format!("stat -c '%U:%G %a' {pid_file} {stacks}")).trim(),
        "nodepool:daemon 644\nnodepool:daemon 600"
    );
    let pid: u32 = machine.ok(&format!("cat {pid_file}")).trim().parse().unwrap();
    assert_eq!(
        machine.ok(&format!("stat -c %U:%G /proc/{pid} {pid_file}")).trim(),
        "nodepool:daemon\nnodepool:daemon"
    );
    machine.ok(&format!("kill -TERM {pid}"));
    wait_gone(&machine, pid);
    // It cannot be removed by that user, but it says no more that somebody runs.
    assert_eq!(machine.ok(&format!("cat {pid_file}")), "");

    // There it also writes the dumps that no log takes, and the init script finds them.
    machine.ok(&format!(
        "echo 'PIDFILE={pid_file}\nDAEMON_ARGS=\"-l /etc/nodepool/logging.yaml\"' >>/etc/default/nodepool-builder; \
         echo '{{version: 1, handlers: {{out: {{class: logging.StreamHandler}}}}, root: {{level: INFO, handlers: \
         [out]}}}}' >/etc/nodepool/logging.yaml"
    ));
    builder.expect("start", 0);
    let dump = builder.expect("dump", 0);
    assert!(dump.contains("build-worker-0"), "{dump}");
    assert_eq!(machine.ok(&format!("stat -c '%U %a' {stacks}")).trim(), "nodepool 600");
    builder.expect("stop", 0);
}

#[test]
fn a_port_that_is_roots_is_taken_before_the_daemon_becomes_its_user() {
    let sandbox = Sandbox::new("start-port");
    let machine = installed(&sandbox, &[BUILDER]);
    let builder = BUILDER.on(&machine);
    let is_free = |port: &u16| TcpListener::bind(("127.0.0.1", *port)).is_ok();
    let port = (600..1024).rev().find(is_free).unwrap();
    configure(&sandbox, &machine, "diskimages: []\n");
    let config = std::fs::read_to_string(sandbox.config_file()).unwrap();
    let elsewhere = config.replace("builder-webapp: {port: 0}", &format!("builder-webapp: {{port: {port}}}"));
    assert_ne!(config, elsewhere);
    sandbox.write_config(&elsewhere);
    assert_eq!(start(&sandbox, &machine, "", &format!("-p {PID_FILE} --user nodepool")).code(), 0);
    let pid = builder.pid();
    assert_ne!(field(&machine, pid, "Uid"), "0 0 0 0");
    // It listens since before the start has succeeded.
    assert!(http::get(([127, 0, 0, 1], port).into(), "/threads").body.contains("build-worker-0"));
    builder.expect("stop", 0);
}

#[test]
fn directories_that_root_makes_can_be_read_by_all_whatever_the_umask_of_the_starter() {
    let sandbox = Sandbox::new("start-umask");
    let machine = installed(&sandbox, &[BUILDER]);
    let builder = BUILDER.on(&machine);
    configure(&sandbox, &machine, "diskimages: []\n");
    for args in ["", "-p /run/nodepool/nodepool-builder.pid"] {
        machine.ok("rm -rf /run/nodepool /var/log/nodepool");
        assert_eq!(start(&sandbox, &machine, "umask 077;", &format!("{args} --user nodepool")).code(), 0);
        assert_eq!(
            machine.ok(&format!("stat -c '%U %a' /run/nodepool {PID_FILE} /var/log/nodepool")).trim(),
            "nodepool 755\nnodepool 644\nnodepool 755"
        );
        builder.expect("stop", 0);
    }
}

/// Found in use: a directory that nobody had meant came of a mistyped `-p`.
#[test]
fn the_directory_of_a_mistyped_pid_file_is_not_made() {
    let sandbox = Sandbox::new("start-mistyped");
    let machine = installed(&sandbox, &[BUILDER]);
    let builder = BUILDER.on(&machine);
    configure(&sandbox, &machine, "diskimages: []\n");
    for user in ["", "--user nodepool"] {
        let refused = start(&sandbox, &machine, "", &format!("-p /ect/nodepool/x.pid {user}"));
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        let says = "nodepool-builder: -p: there is no directory /ect/nodepool for the pid file";
        assert!(refused.stderr.starts_with(says), "{refused:?}");
        assert!(!machine.has("/ect"), "{user}");
    }
    // Without another user, too, the default's is made: it is gone after each boot.
    machine.ok("rm -rf /run/nodepool");
    assert_eq!(start(&sandbox, &machine, "", "").code(), 0);
    assert_eq!(machine.ok("stat -c '%U %a' /run/nodepool").trim(), "root 755");
    builder.expect("stop", 0);
}

#[test]
fn whatever_keeps_a_daemon_from_starting_is_told_to_whoever_starts_it() {
    let sandbox = Sandbox::new("start-errors");
    let machine = installed(&sandbox, &[BUILDER]);
    configure(&sandbox, &machine, "diskimages: []\n");
    machine
        .ok("cp /etc/nodepool/nodepool.yaml /run/secret.yaml; chmod 600 /run/secret.yaml; touch /run/file");
    let as_nobody = "setpriv --reuid=nobody --regid=nogroup --clear-groups";
    for (before, env, args, says) in [
        ("", "", "--user nosuchuser", "--user: there is no user nosuchuser"),
        ("", "", "--user nodepool:nosuchgroup", "--user: there is no group nosuchgroup"),
        ("", as_nobody, "-p /tmp/x.pid --user nodepool", "--user: only root can become nodepool"),
        ("", as_nobody, "-p /run/x.pid", "cannot write the pid file /run/x.pid: Permission denied"),
        (
            "",
            as_nobody,
            "-p /tmp/x.pid",
            "nodepool-builder.log: Permission denied (os error 13), as the user nobody; let that user write it",
        ),
        ("", "", "-p /run/file/x.pid", "-p: /run/file is no directory"),
        ("", "", "-p /run/file/x/y.pid --user nodepool", "-p: cannot look for the directory /run/file/x"),
        ("", "", "-c /run/none.yaml", "/run/none.yaml"),
        (
            "",
            "",
            "-c /run/secret.yaml --user nodepool",
            "/run/secret.yaml: cannot be read: Permission denied",
        ),
        (
            "chown root: /var/log/nodepool",
            "",
            "--user nodepool",
            "cannot write the log /var/log/nodepool/nodepool-builder.log: Permission denied (os error 13), as the user nodepool",
        ),
        (
            "chown nodepool: /var/log/nodepool; mv DIR/images DIR/away",
            "",
            "--user nodepool",
            "images does not exist",
        ),
        (
            "mv DIR/away DIR/images; chmod 500 DIR/images; chown root DIR/images",
            "",
            "--user nodepool",
            "images",
        ),
    ] {
        let dir = sandbox.dir().display().to_string();
        machine.ok(&format!(": ; {}", before.replace("DIR", &dir)));
        let failed = start(&sandbox, &machine, env, args);
        assert_eq!(failed.status.code(), Some(1), "{args}: {failed:?}");
        assert!(failed.stderr.contains(says), "{args}: {failed:?}");
        assert!(failed.stderr.starts_with("nodepool-builder: "), "{args}: {failed:?}");
        assert_eq!(processes(&machine, "sbin/nodepool-builder"), [0; 0], "{args}");
    }
    // Wrong arguments are told apart.
    assert_eq!(start(&sandbox, &machine, "", "--user :x").code(), 2);
    // The same user is fine, without root and in the foreground too.
    let same = "setpriv --reuid=nodepool --regid=nodepool --init-groups";
    machine.ok(&format!("chown nodepool: {0}/images; chmod 755 {0}/images", sandbox.dir().display()));
    let mut script = format!("{same} /usr/sbin/nodepool-builder -f -c {} ", sandbox.config_file().display());
    script.push_str("--user nodepool >/run/out 2>&1 & p=$!; ");
    // Once it catches SIGTERM; a program that has ended has no such line.
    script.push_str(
        "until [ ! -e /proc/$p ] || grep -q '^SigCgt:.*[4-7c-f]...$' /proc/$p/status; do sleep 0.1; done; ",
    );
    script.push_str("kill -TERM $p; wait $p");
    assert_eq!(machine.sh(&script).code(), 0);
}
