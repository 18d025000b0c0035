//! Writes the manual pages and the shell completions of both programs: `generate-docs DIR`.
//!
//! Everything that the command lines define comes from them. What else a page needs (files, signals, exit codes)
//! stands here. The packaging scripts run it; no program contains it.
#![allow(clippy::print_stdout)]

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Roff, bold, roman};

/// A section of a page: terms, and what is said about each.
type Section = (&'static str, &'static [(&'static str, &'static str)]);

const BUILDER: &[Section] = &[
    (
        "SIGNALS",
        &[
            (
                "SIGTERM, SIGINT",
                "Stop within ten seconds: running builds and uploads are cancelled and cleaned up. A second one ends the \
                 daemon and its builds at once.",
            ),
            ("SIGHUP", "Open the log files again. The configuration is watched and needs no signal."),
            (
                "SIGUSR2",
                "Log the stack of every thread, what it is doing, and the locks between them, at debug level under \
                 nodepool.stack_dump. Where the log is stuck or takes no such lines, the dump goes to standard error in \
                 the foreground, else to the file beside the pid file that ends in .stacks.",
            ),
        ],
    ),
    (
        "ENVIRONMENT",
        &[
            (
                "",
                "A daemon removes the variables of the session that has started it (SSH_*, SUDO_*, XDG_* without \
                 XDG_CACHE_HOME and XDG_CONFIG_HOME, DBUS_*, TERM, DISPLAY, LD_PRELOAD and the like), sets HOME, USER, \
                 LOGNAME and SHELL for the user that it runs as, and hands all others on to builds.",
            ),
            (
                "",
                "No core dump is written, because private keys are in memory. prlimit --pid PID --core=unlimited \
                 changes that for a running daemon.",
            ),
        ],
    ),
    (
        "FILES",
        &[
            ("/etc/nodepool/nodepool.yaml", "The configuration."),
            (
                "/etc/default/nodepool-builder",
                "Arguments and environment of the service; /etc/sysconfig on RPM systems.",
            ),
            (
                "/var/log/nodepool/nodepool-builder.log",
                "The log of a daemon; nodepool-builder-debug.log has everything.",
            ),
            ("/run/nodepool/nodepool-builder.pid", "The pid file; locked for as long as the daemon lives."),
        ],
    ),
    (
        "EXIT STATUS",
        &[
            ("0", "Stopped by a signal; or, of the process that starts a daemon: the daemon is up."),
            ("1", "The start has failed, and standard error says why; or the stop was not clean."),
            ("2", "Wrong arguments."),
        ],
    ),
    ("SEE ALSO", &[("", "nodepool(1)")]),
];

const CLIENT: &[Section] = &[
    ("FILES", &[("/etc/nodepool/nodepool.yaml", "The configuration, the same as the builder's.")]),
    (
        "EXIT STATUS",
        &[
            ("0", "Done."),
            ("1", "It could not be done, and standard error says why."),
            ("2", "Wrong arguments."),
        ],
    ),
    ("SEE ALSO", &[("", "nodepool-builder(8)")]),
];

fn main() -> ExitCode {
    let Some(dir) = std::env::args_os().nth(1) else {
        eprintln!("usage: generate-docs DIR");
        return ExitCode::from(2);
    };
    match generate(Path::new(&dir)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("generate-docs: {}: {error}", Path::new(&dir).display());
            ExitCode::FAILURE
        }
    }
}

fn generate(dir: &Path) -> io::Result<()> {
    let (client, builder) = (nodepool::cli::command(), nodepool::daemon::builder_command());
    let man = dir.join("man");
    fs::create_dir_all(&man)?;
    // With a page for each command; the main one is then replaced by ours.
    clap_mangen::generate_to(client.clone(), &man)?;
    fs::write(man.join("nodepool.1"), page(client.clone(), "1", CLIENT)?)?;
    fs::write(man.join("nodepool-builder.8"), page(builder.clone(), "8", BUILDER)?)?;
    let completions = dir.join("completions");
    fs::create_dir_all(&completions)?;
    for mut command in [client, builder] {
        let name = command.get_name().to_owned();
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            clap_complete::generate_to(shell, &mut command, &name, &completions)?;
        }
    }
    Ok(())
}

fn page(command: clap::Command, section: &str, more: &[Section]) -> io::Result<Vec<u8>> {
    let has_commands = command.has_subcommands();
    let man = Man::new(command).section(section);
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    man.render_synopsis_section(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    if has_commands {
        man.render_subcommands_section(&mut page)?;
    }
    let mut roff = Roff::default();
    for (title, entries) in more {
        roff.control("SH", [*title]);
        for (term, text) in *entries {
            if term.is_empty() {
                roff.control("PP", []);
            } else {
                roff.control("TP", []);
                roff.text([bold(*term)]);
            }
            roff.text([roman(*text)]);
        }
    }
    roff.to_writer(&mut page)?;
    Ok(page)
}
