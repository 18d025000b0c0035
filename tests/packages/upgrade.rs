//! What an upgrade of the packages does to daemons that run, and to those that were stopped: under the init script
//! and under systemd, with and without a restart. The RPM package does the same in the other system's way.

use super::*;

/// Upgrades daemons that run twice: first with the default, which restarts, then with RESTART_ON_UPGRADE=no. Then those
/// that were stopped, with both settings. `settings` is the folder of the services' settings.
#[track_caller]
pub(super) fn upgrades(sandbox: &Sandbox<'_>, machine: &Machine<'_>, settings: &str, upgrade: &str) {
    configure(sandbox, machine, "diskimages: []\n");
    let services = DAEMONS.map(|daemon| daemon.on(machine));
    let all = |verb: &str, code| services.each_ref().map(|service| service.expect(verb, code));
    let pids = || services.each_ref().map(Service::pid);
    let set = |value: &str| {
        services.iter().for_each(|service| {
            machine.ok(&format!("echo RESTART_ON_UPGRADE={value} >>{settings}/{}", service.name));
        });
    };
    all("start", 0);
    let first = pids();
    let said = machine.ok(&format!("{upgrade} 2>&1"));
    for Service { name, again, .. } in &services {
        assert!(said.contains(&format!("{name}: restarts; {again} are made again")), "{said}");
    }
    let second = pids();
    for (first, second) in first.into_iter().zip(second) {
        assert!(second != first && !is_alive(machine, first) && is_alive(machine, second));
    }

    set("no");
    let said = machine.ok(&format!("{upgrade} 2>&1"));
    assert_eq!(pids(), second);
    for (service, pid) in services.iter().zip(second) {
        let Service { name, thread, .. } = service;
        assert!(said.contains(&format!("{name}: goes on with the old program until")), "{said}");
        let program = machine.ok(&format!("readlink /proc/{pid}/exe"));
        assert!(program.trim().ends_with("(deleted)"), "the file is a new one: {program}");
        // It is known again although its program was replaced, and hands over when that is wanted.
        service.expect("status", 0);
        assert!(service.expect("dump", 0).contains(thread));
        service.expect("restart", 0);
        assert!(!is_alive(machine, pid) && is_alive(machine, service.pid()));
    }
    all("stop", 0);

    for wanted in ["no", "yes"] {
        set(wanted);
        machine.ok("rm -f /var/log/nodepool/*");
        let said = machine.ok(&format!("{upgrade} 2>&1"));
        for service in &services {
            let Service { name, debug_log, .. } = service;
            assert!(!said.contains(&format!("{name}: ")), "nothing becomes of what does not run: {said}");
            service.expect("status", 3);
            assert!(!machine.has(debug_log), "it was not even started and stopped again");
        }
    }
}

#[test]
fn an_upgrade_restarts_the_daemons_of_the_init_scripts_unless_that_is_not_wanted() {
    let sandbox = Sandbox::new("upgrade-scripts");
    let machine = installed(&sandbox, &DAEMONS);
    let upgrade = format!("dpkg --install {}", words(&debs(&sandbox, &DAEMONS)));
    upgrades(&sandbox, &machine, "/etc/default", &upgrade);
}

#[test]
fn an_upgrade_restarts_the_daemons_of_systemd_unless_that_is_not_wanted() {
    let sandbox = Sandbox::new("upgrade-systemd");
    let machine = systemd::booted(&sandbox, &DAEMONS);
    let upgrade = format!("dpkg --install {}", words(&debs(&sandbox, &DAEMONS)));
    upgrades(&sandbox, &machine, "/etc/default", &upgrade);
}
