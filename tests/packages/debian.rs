//! The Debian packages: what they contain and need, installation, upgrade, removal, purge.

use super::*;

#[test]
fn the_packages_are_as_debian_wants_them() {
    let sandbox = Sandbox::new("package-lintian");
    let packages = debs(&sandbox, &DAEMONS);
    let run = |program: &str, args: &[&str], packages: &[PathBuf]| {
        let mut command = Command::new(program);
        command.args(args).args(packages);
        sandbox.run_client(command, "", Duration::from_secs(300))
    };
    let needs = [&["libc6", "libgcc-s1", "adduser"][..], &["nodepool", "libc6", "libgcc-s1"]];
    for (package, needs) in packages.iter().zip([needs[0], needs[1], needs[1]]) {
        let package = std::slice::from_ref(package);
        let depends = run("dpkg-deb", &["--show", "--showformat=${Depends}"], package).ok();
        let names: Vec<&str> = depends.split(", ").filter_map(|one| one.split(' ').next()).collect();
        assert_eq!(names, needs, "{depends}");
    }
    let lintian = run("lintian", &["--allow-root", "--fail-on", "error,warning"], &packages);
    assert!(lintian.status.success() && lintian.stdout.is_empty(), "{lintian:?}");
}

/// The units, the manual pages and the file for logrotate are read by the programs that they are for.
#[test]
fn what_it_installs_can_be_read_by_those_it_is_for() {
    let sandbox = Sandbox::new("package-parts");
    let machine = installed(&sandbox, &DAEMONS);
    let unit = machine.sh("systemd-analyze verify --man=no /lib/systemd/system/nodepool-*.service");
    assert!(unit.status.success() && unit.stderr.is_empty(), "{unit:?}");
    let page = |page: &str| {
        let shown = machine.sh(&format!("MANWIDTH=200 man --warnings --local-file /usr/share/man/{page}.gz"));
        assert!(shown.status.success() && shown.stderr.is_empty(), "{page}: {shown:?}");
        shown.stdout
    };
    for (name, says) in [
        ("man8/nodepool-builder.8", "[-c FILE]"),
        ("man8/nodepool-builder.8", "[--user USER[:GROUP]]"),
        ("man8/nodepool-builder.8", "/usr/share/doc/nodepool/examples"),
        ("man8/nodepool-launcher.8", "/etc/default/nodepool-launcher"),
        ("man8/nodepool-launcher.8", "nodepool(1), nodepool-builder(8)"),
        ("man8/nodepool-launcher.8", "port 8005"),
        ("man8/nodepool-builder.8", "OS_CLIENT_CONFIG_FILE"),
        ("man8/nodepool-launcher.8", "OS_CLIENT_CONFIG_FILE"),
        ("man1/nodepool.1", "[--debug] COMMAND ..."),
        ("man1/nodepool.1", "nodepool-image-build(1)"),
        (
            "man1/nodepool-image-build.1",
            "nodepool image-build [--wait] [-c FILE] [-s FILE] [-l FILE] IMAGE\n",
        ),
        (
            "man1/nodepool-image-delete.1",
            "image-delete --provider PROVIDER --image IMAGE --build-id BUILD_ID",
        ),
        ("man1/nodepool-image-delete.1", "nodepool(1), nodepool-builder(8), nodepool-launcher(8)"),
    ] {
        assert!(page(name).contains(says), "{name}: {}", page(name));
    }
    let readme = machine.ok("cat /usr/share/doc/nodepool/README.md");
    let links = readme.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let files: Vec<&str> = links.filter(|link| !link.contains("://") && !link.starts_with('#')).collect();
    assert!(files.contains(&"changelog.gz") && files.contains(&"examples/openstack.yaml"), "{files:?}");
    machine.ok(&format!("cd /usr/share/doc/nodepool && ls -d {}", files.join(" ")));
    // What a page shows as a logging configuration is one.
    let shown = page("man8/nodepool-builder.8");
    let example =
        shown.lines().skip_while(|line| line.trim() != "outputs:").map(|line| line.get(7..).unwrap_or(""));
    let example: Vec<&str> = example.take_while(|line| !line.is_empty()).collect();
    sandbox.replace("logging.yaml", &example.join("\n"));
    configure(&sandbox, &machine, "diskimages: []\n");
    machine.ok(&format!("nodepool -l {} config-validate", sandbox.path("logging.yaml").display()));
    machine.ok("for name in builder launcher; do bash -n /usr/share/bash-completion/completions/nodepool-$name; done");
    let completed = machine.ok(
        "bash -c '. /usr/share/bash-completion/completions/nodepool; COMP_WORDS=(nodepool image-b); COMP_CWORD=1; \
         _nodepool nodepool image-b nodepool; echo ${COMPREPLY[@]}'",
    );
    assert_eq!(completed.trim(), "image-build");
    // The log is moved away, and the line that the daemon writes next is in a new one.
    machine.ok("for name in builder launcher; do echo $name >/var/log/nodepool/nodepool-$name.log; done; \
         chown nodepool: /var/log/nodepool/*; \
         logrotate --force --state /run/logrotate.state /etc/logrotate.d/nodepool");
    assert_eq!(machine.ok("cat /var/log/nodepool/nodepool-*.log.1"), "builder\nlauncher\n");
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
    let machine = installed(&sandbox, &[LAUNCHER]);
    let [builder, launcher] = DAEMONS.map(|daemon| daemon.on(&machine));
    assert!(!machine.has(&builder.program) && !machine.has(&builder.script), "one does without the other");
    assert!(machine.ok("cat /etc/passwd").contains("\nnodepool:x:"));
    assert_eq!(
        machine.ok("stat -c %U:%G /var/log/nodepool /var/lib/nodepool").trim(),
        "nodepool:nodepool\nnodepool:nodepool"
    );
    assert!(launcher.expect("start", 6).contains("not configured"));
    launcher.expect("status", 3);

    configure(&sandbox, &machine, "diskimages: []\n");
    launcher.expect("start", 0);
    // The configuration is there already: then a new one starts.
    let [common, packages @ ..] = &debs(&sandbox, &DAEMONS)[..] else { panic!("there are three") };
    machine.ok(&format!("dpkg --install {}", packages[0].display()));
    builder.expect("status", 0);
    assert!(machine.sh("dpkg --remove nodepool").code() != 0, "the daemons need it");
    for (package, service, other) in
        [(&packages[0], &builder, &launcher), (&packages[1], &launcher, &builder)]
    {
        let pid = other.pid();
        life(&package.display().to_string(), service);
        assert!(is_alive(&machine, pid) && other.pid() == pid, "{} goes on", other.name);
        assert!(machine.has(&other.log) && machine.has(&other.program));
        machine.ok(&format!("dpkg --install {}", package.display()));
        service.expect("status", 0);
    }
    // The same version again: what an upgrade does. The daemons are not concerned.
    let pids = [builder.pid(), launcher.pid()];
    machine.ok(&format!("dpkg --install {}", common.display()));
    assert_eq!([builder.pid(), launcher.pid()], pids);

    machine.ok("rm /etc/nodepool/nodepool.yaml; dpkg --purge nodepool-builder nodepool-launcher nodepool");
    assert!(pids.iter().all(|pid| !is_alive(&machine, *pid)));
    assert_eq!(machine.left("nodepool"), [""; 0]);
    for service in [&builder, &launcher] {
        assert_eq!(processes(&machine, service.name), [0; 0]);
    }
    assert!(machine.ok("cat /etc/passwd").contains("\nnodepool:x:"), "images may belong to it");
}

/// Upgrades one that runs, removes it, has it come back, and purges it.
fn life(package: &str, service: &Service<'_>) {
    let Service { machine, name, script, .. } = service;
    let first = service.pid();
    let install = format!("dpkg --install {package}");
    // The same version again: what an upgrade does.
    machine.ok(&install);
    service.expect("status", 0);
    let second = service.pid();
    assert_ne!(first, second, "the new one runs");
    assert!(!is_alive(machine, first));

    machine.ok(&format!("dpkg --remove {name}"));
    assert!(!is_alive(machine, second));
    // The init script is there until the purge, though debhelper has made it one that cannot be executed.
    machine.ok(&format!("chmod 755 {script}"));
    for (verb, code) in [("status", 3), ("stop", 0), ("force-stop", 0), ("try-restart", 0), ("reload", 7)] {
        service.expect(verb, code);
    }
    for verb in ["start", "restart"] {
        assert!(service.expect(verb, 5).contains("not installed"), "{verb}");
    }
    assert!(machine.has(&format!("/etc/default/{name}")) && machine.has(&service.log));
    assert!(machine.has("/etc/nodepool/nodepool.yaml"), "the operator's own");

    // What comes back is started as a new one is, whatever postinst is told of an older version.
    machine.ok(&install);
    let third = service.pid();
    assert!(is_alive(machine, third));
    machine.ok(&format!("dpkg --remove {name}"));
    assert!(!is_alive(machine, third) && !machine.has(&format!("/run/{name}.start")));
    machine.ok(&format!("dpkg --purge {name}"));
    assert_eq!(machine.left(name), [""; 0]);
}

/// Both kinds of packages, each with systemd's tool alone and with the system's own alone.
#[test]
fn the_user_is_the_same_whatever_makes_it() {
    let sandbox = Sandbox::new("package-user");
    let (deb, rpm) = (debs(&sandbox, &[]), rpms(&sandbox, &[]));
    let machine = Machine::start(&sandbox);
    let packages = [
        (format!("dpkg --install {}", words(&deb)), "dpkg --purge nodepool"),
        (format!("rpm --install --nodeps {}", words(&rpm)), "rpm --erase nodepool"),
    ];
    for hidden in ["adduser useradd", "systemd-sysusers"] {
        machine.ok(&format!("for one in {hidden}; do file=$(command -v $one); mv $file $file.hidden; done"));
        for (install, remove) in &packages {
            machine.ok(install);
            // adduser adds commas to the name.
            assert_eq!(
                machine.ok("getent passwd nodepool | cut -d : -f 5- | tr -d ,; id -gn nodepool"),
                "Nodepool:/var/lib/nodepool:/usr/sbin/nologin\nnodepool\n",
                "{install} without {hidden}"
            );
            assert_eq!(machine.ok("stat -c %U /var/lib/nodepool").trim(), "nodepool");
            machine.ok(&format!("{remove}; userdel nodepool"));
        }
        machine.ok("for file in /usr/*bin/*.hidden; do mv $file ${file%.hidden}; done");
    }
}
