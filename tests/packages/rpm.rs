//! The RPM packages: what they contain and need, and that their services run.

use super::*;

#[test]
fn the_rpm_packages_install_run_and_go() {
    let sandbox = Sandbox::new("package-rpm");
    let packages = rpms(&sandbox, &DAEMONS);
    let machine = Machine::start(&sandbox);
    let of_daemons = |package: &PathBuf, name: &str| {
        let expected = [
            format!("/etc/init.d/{name}"),
            format!("/etc/sysconfig/{name}"),
            format!("/usr/lib/systemd/system/{name}.service"),
            format!("/usr/share/man/man8/{name}.8.gz"),
        ];
        let needed = machine.ok(&format!("rpm --query --requires --package {}", package.display()));
        assert!(needed.lines().any(|line| line.starts_with("nodepool = 0.")), "{needed}");
        expected.into()
    };
    let expected = [
        ["/usr/bin/nodepool", "/usr/share/licenses/nodepool/LICENSE", "/usr/share/doc/nodepool/CHANGELOG.md"]
            .map(str::to_owned)
            .to_vec(),
        of_daemons(&packages[1], BUILDER.name),
        of_daemons(&packages[2], LAUNCHER.name),
    ];
    for (package, expected) in packages.iter().zip(&expected) {
        let package = package.display();
        let files = machine.ok(&format!("rpm --query --list --package {package}"));
        for file in expected {
            assert!(files.lines().any(|line| line == file), "{file} in:\n{files}");
        }
        let needed = machine.ok(&format!("rpm --query --requires --package {package}"));
        let libraries: Vec<&str> = needed.lines().filter(|line| line.contains(".so")).collect();
        let known = ["libc.so.6", "libm.so.6", "libgcc_s.so.1", "ld-linux"];
        assert!(
            libraries.iter().all(|line| known.iter().any(|name| line.starts_with(name))),
            "{libraries:?}"
        );
    }

    // The database of this machine's packages is another one.
    let all = words(&packages);
    machine.ok(&format!("rpm --install --nodeps {all}"));
    machine.ok("rpm --verify --nodeps nodepool nodepool-builder nodepool-launcher");
    configure(&sandbox, &machine, "diskimages: []\n");
    let [builder, launcher] = DAEMONS.map(|daemon| daemon.on(&machine));
    for service in [&builder, &launcher] {
        service.expect("status", 3);
        service.expect("start", 0);
        assert_eq!(machine.ok(&format!("stat -c %U /proc/{}", service.pid())).trim(), "nodepool");
        service.expect("stop", 0);
    }
    // The same version again stands for the next one.
    upgrade::upgrades(&sandbox, &machine, "/etc/sysconfig", &format!("rpm --upgrade --force --nodeps {all}"));
    builder.expect("start", 0);
    launcher.expect("start", 0);
    let [of_builder, of_launcher] = [builder.pid(), launcher.pid()];
    machine.ok("rpm --erase nodepool-builder");
    assert!(!is_alive(&machine, of_builder));
    assert!(!machine.has(&builder.program) && !machine.has(&builder.script));
    assert!(is_alive(&machine, of_launcher) && launcher.pid() == of_launcher);
    machine.ok("rpm --erase nodepool-launcher nodepool");
    assert!(!is_alive(&machine, of_launcher) && !machine.has(&launcher.program));
    assert!(machine.has("/etc/nodepool/nodepool.yaml"), "the operator's own");
}

#[test]
fn the_rpm_packages_enable_the_units_as_the_presets_say_and_an_upgrade_leaves_a_stopped_one_alone() {
    let sandbox = Sandbox::new("package-rpm-systemd");
    let packages = rpms(&sandbox, &DAEMONS);
    let all = words(&packages);
    let machine = systemd::boot(&sandbox);
    let services = DAEMONS.map(|daemon| daemon.on(&machine));
    let enabled = |service: &Service<'_>| {
        machine.sh(&format!("systemctl is-enabled {}", service.name)).stdout.trim().to_owned()
    };
    let erase = "rpm --erase nodepool-builder nodepool-launcher nodepool";
    machine.ok("mkdir --parents /etc/systemd/system-preset");
    for (preset, state) in [("disable", "disabled"), ("enable", "enabled")] {
        machine.ok(&format!(
            "echo '{preset} nodepool-*.service' >/etc/systemd/system-preset/00-test.preset; \
             rpm --install --nodeps {all}"
        ));
        for service in &services {
            assert_eq!(enabled(service), state);
            service.expect("status", 3);
        }
        if state == "disabled" {
            machine.ok(erase);
        }
    }
    // What the administrator has chosen since then stays.
    machine.ok("systemctl disable nodepool-builder nodepool-launcher");
    upgrade::upgrades(&sandbox, &machine, "/etc/sysconfig", &format!("rpm --upgrade --force --nodeps {all}"));
    assert!(services.iter().all(|service| enabled(service) == "disabled"));
    machine.ok("systemctl enable --now nodepool-builder nodepool-launcher");
    let pids = services.each_ref().map(Service::pid);
    machine.ok(erase);
    assert!(pids.iter().all(|pid| !is_alive(&machine, *pid)));
    let links = machine.ok("find /etc/systemd/system -name 'nodepool-*.service' -type l");
    assert_eq!(links, "", "nothing is enabled any more");
}
