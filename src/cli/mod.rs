//! The `nodepool` client: what an operator asks and orders from a shell.
//!
//! A run is short: read the configuration, open a session, do one thing, end. What a command finds goes to
//! standard output, everything else to standard error; `Failure` is the only way to end unhappily. Only
//! `image-build --wait` lives longer: `follow` decides what the state of its build means, `wait` listens
//! to ZooKeeper and shows it.

mod args;
mod build_files;
mod connection;
mod failure;
mod follow;
mod listing;
mod marks;
mod output;
mod progress;
mod request;
mod screen;
mod table;
mod wait;

use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory as _, Parser};
use nodepool_threads::register_main;

use crate::config::{ConfigFiles, Env};
use crate::logging::LogSettings;
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
    match Arguments::try_parse() {
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
    let files = ConfigFiles::new(&arguments.config, arguments.secure.as_deref(), Env::of_process());
    if let Command::ConfigValidate = &arguments.command {
        return validate(&files, arguments.log_config.as_deref());
    }
    let config = files.load()?.config;
    let (log, _writers) = output::logger(arguments.debug, arguments.log_config.as_deref())?;
    let connect = || Connection::open(&config, &log);
    match &arguments.command {
        Command::ConfigValidate => Ok(()),
        Command::ImageBuild { image, wait } => request::image_build(&config, image, *wait, &log),
        Command::DibImageList(listing) => listing::dib_image_list(&connect()?.images, listing.output),
        Command::ImageList(listing) => listing::image_list(&connect()?.images, listing.output),
        Command::ImageStatus(listing) => listing::image_status(&connect()?.images, listing.output),
        Command::DibImageDelete { id } => marks::delete_build(&connect()?.images, id),
        Command::ImageDelete(upload) => marks::delete_upload(&connect()?.images, upload),
        Command::ImagePause { image } => marks::set_paused(&config, connect, image, true),
        Command::ImageUnpause { image } => marks::set_paused(&config, connect, image, false),
    }
}

/// Shows everything that is wrong with the configuration, unknown keys included, and with that of the log.
fn validate(files: &ConfigFiles, logging: Option<&Path>) -> Result<(), Failure> {
    let mut problems = files.validate();
    if let Some(Err(error)) = logging.map(LogSettings::read) {
        problems.extend(error.into_problems());
    }
    if problems.is_empty() {
        return output::print(&format!("{}: no problems found\n", files.main().display()));
    }
    for problem in problems {
        output::complain(&problem.to_string());
    }
    Err(Failure::Told)
}
