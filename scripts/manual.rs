//! What the manual pages say besides the command lines. `DAEMON` stands for the name of the page's program.

/// A section of a page: its title, and what it consists of.
pub type Section = (&'static str, &'static [&'static [Piece]]);

/// What a section consists of.
pub enum Piece {
    /// A term, and what is said about it.
    Term(&'static str, &'static str),
    Paragraph(&'static str),
    /// Lines that stay as they are.
    Example(&'static str),
}

use Piece::{Example, Paragraph, Term};

/// Of nodepool-builder(8).
pub const BUILDER: &[Section] = &[
    (
        "SIGNALS",
        &[
            &[Term(
                "SIGTERM, SIGINT",
                "Stop within ten seconds: running builds and uploads are cancelled and cleaned up. A second one ends the \
                 daemon and its builds at once.",
            )],
            SIGNALS,
        ],
    ),
    (
        "SERVICE",
        &[
            VERBS,
            &[
                Term(
                    "force-stop",
                    "Stop it, and kill it with its builds if it has not stopped in time. With systemd, systemctl stop does \
                     that, too.",
                ),
                Paragraph(
                    "With systemd a dump is asked for by systemctl kill --kill-whom=main --signal=USR2 DAEMON; without \
                     --kill-whom=main the builds would get the signal, too, and end.",
                ),
                Paragraph(
                    "An upgrade of the package restarts a builder that runs, which cancels its builds and uploads and makes \
                     them again, unless RESTART_ON_UPGRADE=no is in /etc/default/DAEMON.",
                ),
            ],
        ],
    ),
    LOGGING,
    (
        "STATUS PAGES",
        &[&[
            Paragraph(
                "At http://127.0.0.1:8006/ there is a page for people: what fails, what runs with the end of its log, and \
                 all images. Besides, there are /image-list, /dib-image-list and /image-status (tables, or JSON for whoever \
                 accepts that), /ready (200 or 503), /metrics (Prometheus) and /threads.",
            ),
            Paragraph(
                "In the configuration builder-webapp says where: port, listen_address, enabled. / and /threads are shown \
                 under an address or the host name of the machine only; allowed-hosts lists other names, as those of \
                 proxies.",
            ),
        ]],
    ),
    ("ENVIRONMENT", &[&[Paragraph("Builds have the variables that the daemon has.")], ENVIRONMENT]),
    FILES,
    EXIT,
    (
        "SEE ALSO",
        &[&[
            Paragraph("nodepool(1), nodepool-launcher(8), disk-image-create(1), logrotate(8), systemctl(1)"),
            Paragraph(README),
        ]],
    ),
];

/// Of nodepool-launcher(8).
pub const LAUNCHER: &[Section] = &[
    (
        "SIGNALS",
        &[
            &[Term(
                "SIGTERM, SIGINT, SIGUSR1",
                "Stop within ten seconds: running launches are cancelled, their instances deleted and their requests given \
                 back. A second one ends the daemon at once; the next start cleans up then.",
            )],
            SIGNALS,
        ],
    ),
    (
        "SERVICE",
        &[
            VERBS,
            &[
                Term(
                    "force-stop",
                    "Stop it, and kill it if it has not stopped in time. With systemd, systemctl stop does that, too.",
                ),
                Paragraph("With systemd a dump is asked for by systemctl kill --signal=USR2 DAEMON."),
                Paragraph(
                    "An upgrade of the package restarts a launcher that runs, which gives its requests back and makes their \
                     launches again, unless RESTART_ON_UPGRADE=no is in /etc/default/DAEMON.",
                ),
            ],
        ],
    ),
    LOGGING,
    (
        "STATUS PAGES",
        &[&[
            Paragraph(
                "At port 8005 of all addresses there is a page for people: what fails, what is being launched, the \
                 requests and who serves them, what providers, pools and tenants use and may use, and all nodes. \
                 Besides, there are /node-list, /request-list, /label-list, /image-list, /dib-image-list and \
                 /image-status (tables, or JSON for whoever accepts that), /ready (200 or 503), /metrics (Prometheus) \
                 and /threads.",
            ),
            Paragraph(
                "In the configuration webapp says where: port, listen_address; with --no-webapp there are none. / and \
                 /threads are shown under an address or the host name of the machine only; allowed-hosts lists other \
                 names, as those of proxies.",
            ),
        ]],
    ),
    ("ENVIRONMENT", &[ENVIRONMENT]),
    FILES,
    EXIT,
    (
        "SEE ALSO",
        &[&[Paragraph("nodepool(1), nodepool-builder(8), logrotate(8), systemctl(1)"), Paragraph(README)]],
    ),
];

/// Of nodepool(1).
pub const CLIENT: &[Section] = &[
    (
        "FILES",
        &[&[
            Term("/etc/nodepool/nodepool.yaml", "The configuration, the same as the daemons'."),
            Term("/usr/share/doc/nodepool/examples", EXAMPLES),
        ]],
    ),
    CLIENT_EXIT,
];

/// Of each command of the client.
pub const CLIENT_EXIT: Section = (
    "EXIT STATUS",
    &[&[
        Term("0", "Done."),
        Term("1", "It could not be done, and standard error says why."),
        Term("2", "Wrong arguments."),
    ]],
);

const SIGNALS: &[Piece] = &[
    Term("SIGHUP", "Open the log files again. The configuration is watched and needs no signal."),
    Term(
        "SIGUSR2",
        "Log the stack of every thread, what it is doing, and the locks between them, at debug level under \
                 nodepool.stack_dump. A daemon also writes it as text to the file beside the pid file that ends in .stacks, \
         whatever the log is like, and which stays until the next one. In the foreground it goes to standard error if \
         the log is stuck or takes no debug lines, as with -f alone.",
    ),
];

const VERBS: &[Piece] = &[
    Paragraph(
        "service DAEMON VERB, or /etc/init.d/DAEMON VERB, where a VERB is start, stop, restart, try-restart, reload or \
         force-reload (SIGHUP), status, and:",
    ),
    Term("dump", "Ask for a dump by SIGUSR2, and print it."),
];

const LOGGING: Section = (
    "LOGGING",
    &[&[
        Paragraph("The file that -l names says what is logged where. All of it can be left out:"),
        Example(
            "outputs:\n  - file: /var/log/nodepool/DAEMON.log\n    level: info\n    format: json\n  \
                 - console: stderr\n  - syslog: /dev/log\n    facility: daemon\n    level: error\nlevels:\n  \
                 root: info\n  nodepool.zk: debug",
        ),
        Term(
            "outputs",
            "Each is a file, the console (stdout or stderr) or syslog (the path of its socket). level is the least \
                 grave level that it takes: trace, debug, info, warning, error, critical or off. format is text or json.",
        ),
        Term(
            "levels",
            "The least grave level that is logged at all, by logger: the longest prefix of dotted words counts, root \
                 is all.",
        ),
        Paragraph(
            "The original's own files, YAML and ini, are understood, too; their formats are ignored with a warning. \
                 nodepool -l FILE config-validate checks a file. logging.yaml among the examples explains all of it.",
        ),
    ]],
);

const ENVIRONMENT: &[Piece] = &[
    Paragraph(
        "A daemon removes the variables of the session that has started it (SSH_*, SUDO_*, XDG_* without \
                 XDG_CACHE_HOME and XDG_CONFIG_HOME, DBUS_*, TERM, DISPLAY, LD_PRELOAD and the like), sets HOME, USER, \
                 LOGNAME and SHELL for the user that it runs as, and keeps all others.",
    ),
    Paragraph(
        "No core dump is written, because private keys are in memory. prlimit --pid PID --core=unlimited \
                 changes that for a running daemon.",
    ),
    Term(
        "STATSD_HOST, STATSD_PORT",
        "Where metrics are sent to, by UDP; nowhere without a host. The port is 8125 if it is left out.",
    ),
    Term("NODEPOOL_*", "Stand for %(NODEPOOL_*) in the configuration."),
    Term(
        "OS_CLIENT_CONFIG_FILE, OS_CLIENT_SECURE_FILE",
        "The clouds.yaml of OpenStack and its secure.yaml. Otherwise they are looked for in the directory that the \
         daemon was started in, in $XDG_CONFIG_HOME/openstack, ~/.config/openstack, /etc/xdg/openstack and /etc/openstack.",
    ),
    Term(
        "https_proxy, http_proxy, all_proxy, no_proxy",
        "The proxies on the way to OpenStack, and the names and domains that are reached without one.",
    ),
];

const FILES: Section = (
    "FILES",
    &[&[
        Term(
            "/etc/nodepool/nodepool.yaml",
            "The configuration. The user that the daemon runs as must be able to read it, and the secure file, \
                 which others should not.",
        ),
        Term(
            "/etc/default/DAEMON",
            "Arguments and environment of the service; /etc/sysconfig/DAEMON on RPM systems.",
        ),
        Term("/var/log/nodepool/DAEMON.log", "The log of a daemon; DAEMON-debug.log has everything."),
        Term(
            "/run/nodepool/DAEMON.pid",
            "The pid file; locked for as long as the daemon lives. Of all directories for it only this one is made \
                 where it is missing.",
        ),
        Term("/run/nodepool/DAEMON.stacks", "The last dump of the daemon's threads."),
        Term("/usr/share/doc/nodepool/examples", EXAMPLES),
    ]],
);

const EXIT: Section = (
    "EXIT STATUS",
    &[&[
        Term("0", "Stopped by a signal; or, of the process that starts a daemon: the daemon is up."),
        Term("1", "The start has failed, and standard error says why; or the stop was not clean."),
        Term("2", "Wrong arguments."),
    ]],
);

const EXAMPLES: &str = "Configurations with comments, and logging.yaml.";
const README: &str = "/usr/share/doc/nodepool/README.md";
