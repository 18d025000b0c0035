//! The unit under a real systemd: the verbs, a crash, a daemon that hangs, and what its hardening forbids and allows.

use std::os::unix::fs::PermissionsExt;

use super::init_script::{child_of_a_build, waiting_image};
use super::*;

/// A machine that systemd has booted, without the packages.
#[track_caller]
pub(super) fn boot<'a>(sandbox: &'a Sandbox<'a>) -> Machine<'a> {
    let machine = Machine::boot(sandbox);
    for Daemon { name, .. } in DAEMONS {
        // A service has a `/tmp` of its own, where only a test wants to find the machine's.
        drop_in(
            &machine,
            name,
            "sandbox",
            &format!("BindPaths={0}\nReadWritePaths={0}", sandbox.dir().display()),
        );
    }
    machine
}

#[track_caller]
fn drop_in(machine: &Machine<'_>, service: &str, name: &str, settings: &str) {
    let dir = format!("/run/systemd/system/{service}.service.d");
    machine.ok(&format!(
        "mkdir -p {dir}; printf '[Service]\n%s\n' '{settings}' >{dir}/{name}.conf; systemctl daemon-reload"
    ));
}

/// The same with the packages, and nothing configured.
#[track_caller]
pub(super) fn booted<'a>(sandbox: &'a Sandbox<'a>, daemons: &[&Daemon]) -> Machine<'a> {
    install(sandbox, boot(sandbox), daemons)
}

impl Service<'_> {
    fn shown(&self, property: &str) -> String {
        let asked = format!("systemctl show --value --property {property} {}", self.unit);
        self.machine.ok(&asked).trim().to_owned()
    }
}

#[test]
fn systemd_starts_reloads_dumps_restarts_and_stops_the_services() {
    let sandbox = Sandbox::new("systemd-verbs");
    let machine = booted(&sandbox, &DAEMONS);
    let services = DAEMONS.map(|daemon| daemon.on(&machine));
    for service in &services {
        assert_eq!(machine.ok(&format!("systemctl is-enabled {}", service.unit)).trim(), "enabled");
        let state = [service.shown("ActiveState"), service.shown("Result")];
        assert_eq!(state, ["inactive", "success"], "it waits for its configuration");
    }
    configure(&sandbox, &machine, "diskimages: []\n");
    services.iter().for_each(verbs);
}

fn verbs(service: &Service<'_>) {
    let Service { machine, name, unit, stacks, .. } = service;
    machine.ok(&format!("systemctl start {unit}"));
    let first = service.pid();
    assert_eq!(service.shown("MainPID"), first.to_string());
    assert_eq!(machine.ok(&format!("stat -c %U /proc/{first}")).trim(), "nodepool");
    let status = machine.ok(&format!("systemctl status {name}"));
    assert!(
        status.contains("active (running)") && status.contains(&format!("Main PID: {first}")),
        "{status}"
    );
    machine.ok(&format!("systemctl reload {name}"));
    service.wait_for_line("SIGHUP");
    machine.ok(&format!("systemctl kill --kill-whom=main --signal=USR2 {name}"));
    service.wait_for_line("stack dump ends");
    // The init script hands the common verbs on, and does the others itself.
    assert!(service.expect("start", 0).contains("via systemctl"));
    assert!(service.expect("status", 0).contains("active (running)"));
    assert!(machine.ok(&format!("service {name} dump")).contains(service.thread));
    assert_eq!(service.pid(), first);
    let dump = machine.ok(&format!("cat {stacks}"));
    machine.ok(&format!("service {name} restart"));
    let second = service.pid();
    assert!(second != first && !is_alive(machine, first) && is_alive(machine, second));
    assert_eq!(machine.ok(&format!("cat {stacks}")), dump, "why it hung is still known after the restart");

    machine.ok(&format!("kill -KILL {second}"));
    let third = eventually(SOON, "a daemon after the crash", || {
        let pid = service.shown("MainPID").parse().ok().filter(|pid| ![0, second].contains(pid))?;
        (service.shown("ActiveState") == "active").then_some(pid)
    });
    assert_eq!(service.pid(), third);
    machine.ok(&format!("systemctl stop {unit}"));
    assert!(!is_alive(machine, third) && !machine.has(&service.pid_file));
    assert_eq!(machine.ok(&format!("cat {stacks}")), dump);
    assert_eq!([service.shown("ActiveState"), service.shown("Result")], ["inactive", "success"]);
    service.expect("status", 3);
}

/// Whoever starts it in vain is told where the reason is, and it is there; it is tried some times more, and not for
/// ever.
#[test]
fn a_mistake_in_the_configuration_ends_in_failed_and_a_zookeeper_that_is_not_there_does_not() {
    let sandbox = Sandbox::new("systemd-failed");
    let machine = booted(&sandbox, &DAEMONS);
    configure(&sandbox, &machine, "diskimages: []\n");
    let config = "/etc/nodepool/nodepool.yaml";
    machine.ok(&format!("cp {config} /run/good.yaml; echo 'diskimages: 5' >>{config}"));
    for service in DAEMONS.map(|daemon| daemon.on(&machine)) {
        let Service { name, unit, .. } = &service;
        let [start, reset] = ["start", "reset-failed"].map(|verb| format!("systemctl {verb} {unit}"));
        drop_in(&machine, name, "impatient", "RestartSec=100ms");
        let failed = machine.sh(&start);
        assert_eq!(failed.status.code(), Some(1), "{failed:?}");
        eventually(SOON, "the end of all attempts", || {
            (service.shown("ActiveState") == "failed").then_some(())
        });
        eventually(SOON, "the reason in the journal", || {
            let journal = machine.sh(&format!("journalctl --no-pager --unit {unit}")).stdout;
            let why = format!("{name}: {config}:");
            let told = journal
                .lines()
                .filter(|line| line.contains(&why) && line.contains(": diskimages: expected a list"));
            (told.count() == 5 && journal.contains("Start request repeated too quickly")).then_some(())
        });
        // Where nobody listens.
        machine.ok(&format!("{reset}; sed 's/^    port: .*/    port: 1/' /run/good.yaml >{config}; {start}"));
        service.wait_for_line("Connection refused");
        assert_eq!([service.shown("ActiveState"), service.shown("NRestarts")], ["active", "0"]);
        machine.ok(&format!(
            "systemctl stop {unit}; cp /run/good.yaml {config}; echo 'diskimages: 5' >>{config}"
        ));
    }
}

#[test]
fn what_hangs_under_systemd_is_killed_with_its_builds_and_not_started_again() {
    let sandbox = Sandbox::new("systemd-force-stop");
    let machine = booted(&sandbox, &[BUILDER]);
    let builder = BUILDER.on(&machine);
    configure(&sandbox, &machine, &waiting_image(&sandbox));
    machine.ok("systemctl start nodepool-builder");
    let (pid, child) = (builder.pid(), child_of_a_build(&sandbox));
    machine.ok(&format!("kill -STOP {pid}"));
    builder.expect("force-stop", 0);
    assert!(!is_alive(&machine, pid) && !is_alive(&machine, child));
    assert_eq!(processes(&machine, "fake-dib"), [0; 0]);
    assert_ne!(builder.shown("ActiveState"), "activating", "it is not to be started again");
}

/// What diskimage-builder does must work, and what a build has no business with must not.
#[test]
fn the_unit_lets_builds_become_root_and_mount_but_not_change_the_system() {
    let sandbox = Sandbox::new("systemd-hardening");
    let said = sandbox.path("run/said");
    let build = sandbox.path("run/build");
    let mounted = sandbox.path("run/mounted");
    let machine = booted(&sandbox, &[BUILDER]);
    configure(
        &sandbox,
        &machine,
        &format!(
            "diskimages:\n  - {{name: debian, dib-cmd: '{}', elements: [vm], formats: [raw]}}\n",
            build.display()
        ),
    );
    let script = format!(
        "#!/bin/sh\n{{\necho user $(id -un)\necho root $(sudo -n id -u)\nmkdir {mounted}\n\
         sudo -n mount -t tmpfs tmpfs {mounted} && echo has mounted\nsudo -n umount {mounted} && echo and unmounted\n\
         for file in /usr/x /etc/x /boot/x /home/x /root/x; do sudo -n touch $file || echo cannot write $file; done\n\
         touch /tmp/of-the-build && echo has a /tmp\nulimit -c\n}} >{said} 2>&1\nexec {dib} \"$@\"\n",
        mounted = mounted.display(),
        said = said.display(),
        dib = sandbox.fake_dib().display(),
    );
    std::fs::write(&build, script).unwrap();
    std::fs::set_permissions(&build, PermissionsExt::from_mode(0o755)).unwrap();
    machine.ok("echo 'nodepool ALL=(ALL) NOPASSWD: ALL' >/etc/sudoers.d/nodepool");
    machine.ok("systemctl start nodepool-builder");
    eventually(SOON, "a ready build", || (init_script::builds(&sandbox, "ready") == 1).then_some(()));
    let said = std::fs::read_to_string(&said).unwrap();
    for line in [
        "user nodepool",
        "root 0",
        "has mounted",
        "and unmounted",
        "cannot write /usr/x",
        "cannot write /etc/x",
        "cannot write /boot/x",
        "cannot write /home/x",
        "cannot write /root/x",
        "has a /tmp",
        "0",
    ] {
        assert!(said.lines().any(|one| one == line), "{line} in:\n{said}");
    }
    assert!(!machine.has("/tmp/of-the-build"), "it has a /tmp of its own");
}
