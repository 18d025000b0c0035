//! The command line: the original's names and short options (spec/cli.md).

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

/// Ask and order: the images, builds and uploads of Zuul's Nodepool.
#[derive(Debug, Parser)]
#[command(name = "nodepool", version, disable_help_subcommand = true)]
pub(super) struct Arguments {
    /// The configuration file
    #[arg(short = 'c', value_name = "FILE", default_value = "/etc/nodepool/nodepool.yaml")]
    pub(super) config: PathBuf,

    /// The secure file, which may hold the ZooKeeper servers and the variables of images
    #[arg(short = 's', value_name = "FILE")]
    pub(super) secure: Option<PathBuf>,

    /// The logging configuration, as nodepool-builder has it; checked by config-validate
    #[arg(short = 'l', value_name = "FILE")]
    pub(super) log_config: Option<PathBuf>,

    /// Log to standard error what the program does
    #[arg(long)]
    pub(super) debug: bool,

    #[command(subcommand)]
    pub(super) command: Command,
}

#[derive(Debug, Subcommand)]
pub(super) enum Command {
    /// Ask the builders to build an image
    ///
    /// Some builder builds the image as soon as no other build of it is running. An image that is not
    /// configured, or paused in the configuration file, is refused.
    ImageBuild {
        /// The name of the image
        image: String,
        /// Follow the build until all its providers have it
        ///
        /// Follows the first build that begins after the request, then its upload to each provider that
        /// lists the image and is not paused. Ends with exit code 1 if the build fails, or if each upload
        /// is either done or has failed; builders try failed uploads again later. The request stays when
        /// this command is interrupted.
        #[arg(long)]
        wait: bool,
    },

    /// List the builds: their IDs, builders, formats and states
    DibImageList(Listing),

    /// List the uploads of builds to providers
    ImageList(Listing),

    /// List the images: whether they are paused, and requests for builds
    ImageStatus(Listing),

    /// Delete a build, its files, and its uploads
    ///
    /// Marks the build; the builders then delete it. A build that is running is refused.
    DibImageDelete {
        /// The build as `dib-image-list` shows it: IMAGE-BUILD_ID
        id: String,
    },

    /// Delete one upload of a build from its provider
    ///
    /// Marks the upload; a builder then deletes it. An upload that is running is refused.
    ImageDelete(UploadId),

    /// Pause an image: it is not built until it is unpaused
    ImagePause {
        /// The name of the image
        image: String,
    },

    /// Let a paused image be built again
    ImageUnpause {
        /// The name of the image
        image: String,
    },

    /// Check the configuration files
    ///
    /// Shows every problem with its place in the file; keys that nothing reads are problems too. Needs no
    /// ZooKeeper.
    ConfigValidate,
}

/// The options of a listing.
#[derive(Debug, Args)]
pub(super) struct Listing {
    /// How the list is written
    #[arg(long, value_enum, default_value_t = Format::Table, value_name = "FORMAT")]
    pub(super) output: Format,
}

/// How a list is written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// A table, for people
    Table,
    /// A list of objects in JSON, for programs
    Json,
}

/// Which upload, in the words of `image-list`.
#[derive(Debug, Args)]
pub(super) struct UploadId {
    /// The name of the provider
    #[arg(long)]
    pub(super) provider: String,
    /// The name of the image
    #[arg(long)]
    pub(super) image: String,
    /// The ID of the build
    #[arg(long)]
    pub(super) build_id: String,
    /// The ID of the upload
    #[arg(long)]
    pub(super) upload_id: String,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_defaults_are_the_originals() {
        let arguments = Arguments::try_parse_from(["nodepool", "image-list"]).unwrap();
        assert_eq!(arguments.config, PathBuf::from("/etc/nodepool/nodepool.yaml"));
        assert!(arguments.secure.is_none() && arguments.log_config.is_none() && !arguments.debug);
        assert!(matches!(arguments.command, Command::ImageList(Listing { output: Format::Table })));
    }

    #[test]
    fn an_upload_is_named_by_four_options_and_all_are_needed() {
        let all = ["--provider", "p", "--image", "i", "--build-id", "b", "--upload-id", "u"];
        for left_out in [None, Some(0), Some(2), Some(4), Some(6)] {
            let given =
                all.iter().enumerate().filter(|(at, _)| left_out.is_none_or(|from| at / 2 * 2 != from));
            let line = ["nodepool", "image-delete"].into_iter().chain(given.map(|(_, word)| *word));
            assert_eq!(Arguments::try_parse_from(line).is_ok(), left_out.is_none(), "{left_out:?}");
        }
    }
}
