//! The RPM package: what it contains and needs, and that its service runs.

use super::*;

#[test]
fn the_rpm_package_installs_runs_and_goes() {
    let sandbox = Sandbox::new("package-rpm");
    let built = build("package-rpm").unwrap_or_else(|why| panic!("{why}"));
    let package = sandbox.path("nodepool.rpm");
    std::fs::copy(&built, &package).unwrap();
    std::fs::remove_dir_all(built.parent().unwrap()).unwrap();
    let package = package.display();
    let machine = Machine::start(&sandbox);
    let files = machine.ok(&format!("rpm --query --list --package {package}"));
    for file in [
        "/etc/init.d/nodepool-builder",
        "/etc/sysconfig/nodepool-builder",
        "/usr/lib/systemd/system/nodepool-builder.service",
        "/usr/share/man/man8/nodepool-builder.8.gz",
        "/usr/share/licenses/nodepool/LICENSE",
    ] {
        assert!(files.lines().any(|line| line == file), "{file} in:\n{files}");
    }
    let needed = machine.ok(&format!("rpm --query --requires --package {package}"));
    let libraries: Vec<&str> = needed.lines().filter(|line| line.contains(".so")).collect();
    let known = ["libc.so.6", "libm.so.6", "libgcc_s.so.1", "ld-linux"];
    assert!(libraries.iter().all(|line| known.iter().any(|name| line.starts_with(name))), "{libraries:?}");

    // The database of this machine's packages is another one.
    machine.ok(&format!("rpm --install --nodeps {package}"));
    machine.ok("rpm --verify --nodeps nodepool");
    configure(&sandbox, &machine, "diskimages: []\n");
    expect(&machine, "status", 3);
    expect(&machine, "start", 0);
    let pid = daemon(&machine);
    assert_eq!(machine.ok(&format!("stat -c %U /proc/{pid}")).trim(), "nodepool");
    machine.ok("rpm --erase nodepool");
    assert!(!is_alive(&machine, pid));
    assert!(!machine.has("/usr/sbin/nodepool-builder") && !machine.has(SERVICE));
    assert!(machine.has("/etc/nodepool/nodepool.yaml"), "the operator's own");
}
