//! The options that all programs share (spec/cli.md): which files they read.

use std::path::PathBuf;

use clap::Args;

use crate::config::{ConfigFiles, Env};

/// The files that a program reads.
#[derive(Debug, Args)]
pub(crate) struct FileArguments {
    /// The configuration file
    #[arg(short = 'c', value_name = "FILE", global = true, default_value = "/etc/nodepool/nodepool.yaml")]
    pub(crate) config: PathBuf,

    /// The secure file, with what must not be world-readable: ZooKeeper's servers, variables of images
    #[arg(short = 's', value_name = "FILE", global = true)]
    pub(crate) secure: Option<PathBuf>,

    /// The logging configuration: a YAML file of ours, or a file of the original's in YAML or ini form
    #[arg(short = 'l', value_name = "FILE", global = true)]
    pub(crate) logging: Option<PathBuf>,
}

impl FileArguments {
    /// The files of the configuration, with the variables of this process.
    pub(crate) fn config_files(&self) -> ConfigFiles {
        ConfigFiles::new(&self.config, self.secure.as_deref(), Env::of_process())
    }
}
