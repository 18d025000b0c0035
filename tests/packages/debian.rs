//! The Debian package: what it contains and needs, installation, upgrade, removal, purge.

use super::*;

#[test]
fn the_package_is_as_debian_wants_it() {
    let sandbox = Sandbox::new("package-lintian");
    let package = deb(&sandbox);
    let run = |program: &str, args: &[&str]| {
        let mut command = Command::new(program);
        command.args(args).arg(&package);
        sandbox.run_client(command, "", Duration::from_secs(300))
    };
    let depends = run("dpkg-deb", &["--show", "--showformat=${Depends}"]).ok();
    let names: Vec<&str> = depends.split(", ").filter_map(|one| one.split(' ').next()).collect();
    assert_eq!(names, ["libc6", "libgcc-s1", "adduser"], "{depends}");
    let lintian = run("lintian", &["--allow-root", "--fail-on", "error,warning"]);
    assert!(lintian.status.success() && lintian.stdout.is_empty(), "{lintian:?}");
}

/// The unit, the manual pages and the file for logrotate are read by the programs that they are for.
#[test]
fn what_it_installs_can_be_read_by_those_it_is_for() {
    let sandbox = Sandbox::new("package-parts");
    let machine = installed(&sandbox);
    let unit = machine.sh("systemd-analyze verify --man=no /lib/systemd/system/nodepool-builder.service");
    assert!(unit.status.success() && unit.stderr.is_empty(), "{unit:?}");
    for (section, page, says) in [
        ("8", "nodepool-builder", "--upload-workers"),
        ("1", "nodepool", "nodepool-image-build(1)"),
        ("1", "nodepool-image-build", "--wait"),
    ] {
        let shown = machine.ok(&format!("gunzip -c /usr/share/man/man{section}/{page}.{section}.gz"));
        let plain = shown.replace('\\', "");
        assert!(plain.contains(says), "{page}: {plain}");
    }
    machine.ok("bash -n /usr/share/bash-completion/completions/nodepool-builder");
    let completed = machine.ok(
        "bash -c '. /usr/share/bash-completion/completions/nodepool; COMP_WORDS=(nodepool image-b); COMP_CWORD=1; \
         _nodepool nodepool image-b nodepool; echo ${COMPREPLY[@]}'",
    );
    assert_eq!(completed.trim(), "image-build");
    // The log is moved away, and the line that the daemon writes next is in a new one.
    machine.ok("echo line >/var/log/nodepool/nodepool-builder.log; chown nodepool: /var/log/nodepool/*");
    machine.ok("logrotate --force --state /run/logrotate.state /etc/logrotate.d/nodepool");
    assert_eq!(machine.ok("cat /var/log/nodepool/nodepool-builder.log.1").trim(), "line");
    // A dump of threads finds functions, files and lines in the compressed sections.
    let place = machine.ok(
        "a=$(nm -C /usr/sbin/nodepool-builder | grep 't nodepool::daemon::builder::wait_for_stop$\\|T \
         nodepool::daemon::builder::builder_main$' | cut -d ' ' -f 1 | head -n 1); \
         addr2line -f -C -e /usr/sbin/nodepool-builder $a",
    );
    assert!(place.contains("src/daemon/builder.rs:"), "{place}");
}

#[test]
fn a_new_installation_waits_for_its_configuration_and_a_purge_leaves_nothing_but_the_user() {
    let sandbox = Sandbox::new("package-life");
    let machine = installed(&sandbox);
    assert!(machine.ok("cat /etc/passwd").contains("\nnodepool:x:"));
    assert_eq!(
        machine.ok("stat -c %U:%G /var/log/nodepool /var/lib/nodepool").trim(),
        "nodepool:nodepool\nnodepool:nodepool"
    );
    assert!(expect(&machine, "start", 6).contains("not configured"));
    expect(&machine, "status", 3);

    configure(&sandbox, &machine, "diskimages: []\n");
    expect(&machine, "start", 0);
    let first = daemon(&machine);
    // The same version again: what an upgrade does.
    machine.ok(&format!("dpkg --install {}", sandbox.path("nodepool.deb").display()));
    expect(&machine, "status", 0);
    let second = daemon(&machine);
    assert_ne!(first, second, "the new one runs");
    assert!(!is_alive(&machine, first));

    machine.ok("dpkg --remove nodepool");
    assert!(!is_alive(&machine, second));
    // The init script is there until the purge, though debhelper has made it one that cannot be executed.
    machine.ok(&format!("chmod 755 {SERVICE}"));
    for (verb, code) in [("status", 3), ("stop", 0), ("force-stop", 0), ("try-restart", 0), ("reload", 7)] {
        expect(&machine, verb, code);
    }
    for verb in ["start", "restart"] {
        assert!(expect(&machine, verb, 5).contains("not installed"), "{verb}");
    }
    assert!(
        machine.has("/etc/default/nodepool-builder") && machine.has("/var/log/nodepool/nodepool-builder.log")
    );
    assert!(machine.has("/etc/nodepool/nodepool.yaml"), "the operator's own");

    machine.ok("rm /etc/nodepool/nodepool.yaml; dpkg --purge nodepool");
    let left: Vec<String> =
        machine.changed().into_iter().filter(|path| path.contains("nodepool") && machine.has(path)).collect();
    let own = sandbox.dir().display().to_string();
    let left: Vec<&String> = left.iter().filter(|path| !path.starts_with(&own)).collect();
    assert!(left.is_empty(), "{left:?}");
    assert_eq!(processes(&machine, "nodepool-builder"), [0; 0]);
    assert!(machine.ok("cat /etc/passwd").contains("\nnodepool:x:"), "images may belong to it");
}
