//! Writes the manual pages and the shell completions of all programs: `generate-docs DIR`.
//!
//! Everything that the command lines define comes from them. What else a page needs (files, signals, exit codes)
//! stands in manual.rs. The packaging scripts run it; no program contains it.
#![allow(clippy::print_stdout)]

mod manual;

use std::fs;
use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::{Arg, Command};
use clap_complete::Shell;
use clap_mangen::Man;
use clap_mangen::roff::{Inline, Roff, bold, italic, roman};
use manual::{BUILDER, CLIENT, CLIENT_EXIT, LAUNCHER, Piece, Section};

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
    let mut client = nodepool::cli::command();
    let mut daemons =
        [(nodepool::daemon::builder_command(), BUILDER), (nodepool::daemon::launcher_command(), LAUNCHER)];
    let completions = dir.join("completions");
    fs::create_dir_all(&completions)?;
    // Gives commands the names that they are called by, and --help.
    client.build();
    daemons.iter_mut().for_each(|(daemon, _)| daemon.build());
    let man_of_daemons = daemons.iter().map(|(daemon, _)| format!("{}(8)", daemon.get_name()));
    let man_of_daemons: Vec<String> = man_of_daemons.collect();
    let man = |program: &Command| {
        let man = dir.join("man").join(program.get_name());
        fs::create_dir_all(&man).map(|()| man)
    };
    let of_client = man(&client)?;
    let commands: Vec<String> = client.get_subcommands().map(page_of).collect();
    let others = [&man_of_daemons[..], &commands].concat();
    fs::write(of_client.join("nodepool.1"), page(&client, "1", CLIENT, &others)?)?;
    for command in client.get_subcommands() {
        let others = [&[page_of(&client)], &man_of_daemons[..]].concat();
        let page = page(command, "1", &[CLIENT_EXIT], &others)?;
        fs::write(of_client.join(format!("{}.1", name_of(command))), page)?;
    }
    for (daemon, sections) in &daemons {
        let file = man(daemon)?.join(format!("{}.8", daemon.get_name()));
        fs::write(file, page(daemon, "8", sections, &[])?)?;
    }
    for command in daemons.iter_mut().map(|(daemon, _)| daemon).chain([&mut client]) {
        let name = command.get_name().to_owned();
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            clap_complete::generate_to(shell, command, &name, &completions)?;
        }
    }
    Ok(())
}

/// The name of its page, such as `nodepool-image-build`.
fn name_of(command: &Command) -> &str {
    command.get_display_name().unwrap_or_else(|| command.get_name())
}

fn page_of(command: &Command) -> String {
    format!("{}(1)", name_of(command))
}

/// The date of this version, from the line that signs its entry in the Debian package's changelog.
fn date() -> Option<String> {
    let signed = include_str!("deb/changelog").lines().find(|line| line.starts_with(" -- "))?;
    let (_, date) = signed.split_once(", ")?;
    Some(date.split(' ').take(3).collect::<Vec<_>>().join(" "))
}

fn page(command: &Command, section: &str, more: &[Section], see_also: &[String]) -> io::Result<Vec<u8>> {
    let date = date().ok_or_else(|| io::Error::other("scripts/deb/changelog has no date"))?;
    let man = Man::new(command.clone()).section(section).date(date);
    let man = man.source(concat!("nodepool ", env!("CARGO_PKG_VERSION"))).manual("Nodepool");
    let mut page = Vec::new();
    man.render_title(&mut page)?;
    man.render_name_section(&mut page)?;
    let mut roff = Roff::default();
    roff.control("SH", ["SYNOPSIS"]);
    let called = command.get_bin_name().unwrap_or_else(|| command.get_name());
    roff.text([vec![bold(called)], arguments(command)].concat());
    roff.to_writer(&mut page)?;
    man.render_description_section(&mut page)?;
    man.render_options_section(&mut page)?;
    let mut roff = Roff::default();
    if command.has_subcommands() {
        roff.control("SH", ["COMMANDS"]);
    }
    for one in command.get_subcommands() {
        roff.control("TP", []);
        roff.text([vec![bold(one.get_name())], arguments(one)].concat());
        roff.text([roman(one.get_about().map(ToString::to_string).unwrap_or_default())]);
    }
    for (title, pieces) in more {
        roff.control("SH", [*title]);
        let pieces = pieces.iter().copied().flatten().enumerate();
        pieces.for_each(|(index, piece)| put(piece, command.get_name(), &mut roff, index == 0));
    }
    if !see_also.is_empty() {
        roff.control("SH", ["SEE ALSO"]);
        roff.text([roman(see_also.join(", "))]);
    }
    roff.to_writer(&mut page)?;
    Ok(page)
}

/// What stands behind a command on its command line: options first, with the names of their values, which clap's own
/// synopsis leaves out.
fn arguments(command: &Command) -> Vec<Inline> {
    let is_shown = |arg: &&Arg| !arg.is_hide_set() && !["help", "version"].contains(&arg.get_id().as_str());
    let (positional, options): (Vec<_>, Vec<_>) =
        command.get_arguments().filter(is_shown).partition(|arg| arg.is_positional());
    let mut line = Vec::new();
    for arg in options.into_iter().chain(positional) {
        let (open, close) = if arg.is_required_set() { (" ", "") } else { (" [", "]") };
        line.push(roman(open));
        let long = arg.get_long().map(|name| format!("--{name}"));
        let flag = arg.get_short().map(|name| format!("-{name}")).or(long);
        line.extend(flag.iter().map(bold));
        let values = arg.get_value_names().filter(|_| arg.get_action().takes_values()).unwrap_or_default();
        for (index, value) in values.iter().enumerate() {
            line.extend((index > 0 || flag.is_some()).then(|| roman(" ")));
            line.push(italic(value.as_str()));
        }
        line.push(roman(close));
    }
    if command.has_subcommands() {
        line.extend([roman(" "), italic("COMMAND"), roman(" ...")]);
    }
    line
}

/// Adds a piece to the page of this program. The first of a section needs no paragraph of its own.
fn put(piece: &Piece, program: &str, roff: &mut Roff, first: bool) {
    let named = |text: &str| roman(text.replace("DAEMON", program));
    match piece {
        Piece::Term(term, text) => {
            roff.control("TP", []);
            roff.text([bold(term.replace("DAEMON", program))]);
            roff.text([named(text)]);
        }
        Piece::Paragraph(text) => {
            if !first {
                roff.control("PP", []);
            }
            roff.text([named(text)]);
        }
        Piece::Example(text) => {
            roff.control("PP", []);
            roff.control("nf", []);
            text.lines().for_each(|line| {
                roff.text([named(line)]);
            });
            roff.control("fi", []);
        }
    }
}
