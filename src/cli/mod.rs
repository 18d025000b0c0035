//! The `nodepool` client: what an operator asks and orders from a shell.
//!
//! A run is short: read the configuration, open a session, do one thing, end. What a command finds goes to
//! standard output, everything else to standard error; `Failure` is the only way to end unhappily. Only
//! `dib-image-log --follow` and `image-build --wait` live longer. Of the latter `follow` decides what the
//! state of its build means, `wait` listens to ZooKeeper and shows it.

mod aliens;
mod args;
mod backup;
mod build_files;
mod build_log;
mod connection;
mod failure;
mod follow;
mod listing;
mod marks;
mod nodes;
mod output;
mod progress;
mod provider_data;
mod request;
mod screen;
mod wait;

use std::path::Path;
use std::process::ExitCode;

use clap::CommandFactory as _;
use nodepool_drivers::api::Severity;
use nodepool_threads::register_main;

use crate::config::ConfigFiles;
use crate::logging::LogSettings;
use crate::model::NodeState;
use args::{Arguments, Command};
use connection::Connection;
use failure::Failure;

/// The definition of the command line, for manual pages and completions.
pub fn command() -> clap::Command {
    Arguments::command()
}

/// Runs the client with the arguments of this process.
pub fn main() -> ExitCode {
    let _registered = register_main();
    match Arguments::read() {
        Ok(arguments) => match run(&arguments) {
            Ok(()) => ExitCode::SUCCESS,
            Err(failure) => failure.report(),
        },
        Err(usage) => {
            // Help and version come this way too. Whoever has closed the stream does not want them.
            let _ = usage.print();
            ExitCode::from(u8::try_from(usage.exit_code()).unwrap_or(2))
        }
    }
}

fn run(arguments: &Arguments) -> Result<(), Failure> {
    let files = arguments.files.config_files();
    let log_config = arguments.files.logging.as_deref();
    if let Command::ConfigValidate = &arguments.command {
        return validate(&files, log_config);
    }
    let config = files.load()?.config;
    let (log, _writers) = output::logger(arguments.debug, log_config)?;
    let connect = || Connection::open(&config, &log);
    match &arguments.command {
        Command::ConfigValidate => Ok(()),
        Command::ImageBuild { image, wait } => request::image_build(&config, image, *wait, &log),
        Command::DibImageList(listing) => listing::dib_image_list(&connect()?.images, listing.output),
        Command::ImageList(listing) => listing::image_list(&connect()?.images, listing.output),
        Command::ImageStatus(listing) => listing::image_status(&connect()?.images, listing.output),
        Command::AlienImageList { provider, listing } => {
            aliens::list(&config, &connect()?.images, provider.as_deref(), listing.output, &log)
        }
        Command::DibImageLog { id, follow: false } => build_log::print(&config, connect, id),
        Command::DibImageLog { id, follow: true } => build_log::follow(&config, &connect()?, id, &log),
        Command::Info { provider, listing } => {
            provider_data::show(&config, &connect()?, provider, listing.output)
        }
        Command::Erase { provider, force } => provider_data::erase(&config, &connect()?, provider, *force),
        Command::ExportImageData { path } => backup::export(&connect()?.images, path),
        Command::ImportImageData { path } => backup::import(connect, path),
        Command::DibImageDelete { id } => marks::delete_build(&connect()?.images, id),
        Command::ImageDelete(upload) => marks::delete_upload(&connect()?.images, upload),
        Command::ImagePause { image } => marks::set_paused(&config, connect, image, true),
        Command::ImageUnpause { image } => marks::set_paused(&config, connect, image, false),
        Command::List { detail, listing } => nodes::list(&connect()?, *detail, listing.output),
        Command::RequestList(listing) => nodes::request_list(&connect()?, listing.output),
        Command::Delete { id, now: false } => nodes::mark(&connect()?, id, NodeState::Deleting),
        Command::Delete { id, now: true } => nodes::delete_now(&config, &connect()?, id, &log),
        Command::Hold { id } => nodes::mark(&connect()?, id, NodeState::Hold),
    }
}

/// Shows everything that is wrong with the configuration, unknown keys included, and with that of the log.
/// Warnings are no failure.
fn validate(files: &ConfigFiles, logging: Option<&Path>) -> Result<(), Failure> {
    let logging = logging.map(|file| std::path::absolute(file).unwrap_or_else(|_| file.to_owned()));
    let mut problems = files.validate();
    problems.extend(logging.iter().flat_map(|file| LogSettings::validate(file)));
    problems.iter().for_each(|problem| output::complain(&problem.to_string()));
    if problems.iter().any(|found| found.problem.severity != Severity::Warning) {
        return Err(Failure::Told);
    }
    let verdict = |file: &Path| {
        let warned = problems.iter().any(|found| found.file == file);
        format!("{}: no {} found\n", file.display(), if warned { "errors" } else { "problems" })
    };
    let files = std::iter::once(files.main()).chain(logging.as_deref());
    output::print(&files.map(verdict).collect::<String>())
}
