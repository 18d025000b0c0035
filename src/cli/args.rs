//! The command line: the original's names and short options (spec/cli.md).

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};

use crate::arguments::FileArguments;

/// Ask and order: the images and uploads, nodes and node requests of Zuul's Nodepool.
#[derive(Debug, Parser)]
#[command(name = "nodepool", version, disable_help_subcommand = true)]
pub(super) struct Arguments {
    #[command(flatten)]
    pub(super) files: FileArguments,

    /// Log to standard error what the program does
    #[arg(long)]
    pub(super) debug: bool,

    #[command(subcommand)]
    pub(super) command: Command,
}

impl Arguments {
    /// The command line of this process, or what to tell about it.
    pub(super) fn read() -> Result<Self, clap::Error> {
        Self::try_parse()
    }
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

    /// Print the log of a build
    ///
    /// It is a file on the machine of the builder; on any other, the builder is named.
    DibImageLog {
        /// The build as `dib-image-list` shows it: IMAGE-BUILD_ID
        id: String,
        /// Go on with what is added to it, until the build ends
        #[arg(long)]
        follow: bool,
    },

    /// List images of ours at the providers that no record knows
    ///
    /// Asks the providers for their images. Those that were uploaded by a builder, and are neither known by a
    /// record nor being uploaded, only take up space there: nobody will use or delete them.
    AlienImageList {
        /// The provider to ask; all if it is left out
        provider: Option<String>,
        #[command(flatten)]
        listing: Listing,
    },

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
    ///
    /// An image that is neither configured nor in ZooKeeper is refused.
    ImagePause {
        /// The name of the image
        image: String,
    },

    /// Let a paused image be built again
    ImageUnpause {
        /// The name of the image
        image: String,
    },

    /// Show what ZooKeeper has about a provider: its uploads and nodes
    Info {
        /// The name of the provider, which need not be configured any more
        provider: String,
        #[command(flatten)]
        listing: Listing,
    },

    /// Erase what ZooKeeper has about a provider: its uploads and nodes
    ///
    /// For a provider that is gone for good. Nothing is deleted at the provider; what it has is unknown
    /// afterwards.
    Erase {
        /// The name of the provider, which need not be configured any more
        provider: String,
        /// Do not ask whether it is meant
        #[arg(long)]
        force: bool,
    },

    /// Write the records of all builds, uploads and pause marks to a file
    ///
    /// The file is a JSON object with the data of each path, as the original has it.
    ExportImageData {
        /// The file; one that is there is replaced
        path: PathBuf,
    },

    /// Put the records of an exported file back into ZooKeeper
    ///
    /// Records that are there already get the data of the file; others stay. To be done while no builder
    /// runs.
    ImportImageData {
        /// The file, ours or the original's
        path: PathBuf,
    },

    /// List the nodes: their labels, addresses and states
    List {
        /// Show all that is known about each
        #[arg(long)]
        detail: bool,
        #[command(flatten)]
        listing: Listing,
    },

    /// List the node requests in the order in which they are served
    RequestList(Listing),

    /// Delete a node
    ///
    /// Marks the node; its launcher then deletes it. Waits up to five seconds for the node's lock, which whoever
    /// uses the node has.
    Delete {
        /// The node as `list` shows it, with or without its leading zeros
        id: String,
        /// Delete it from here, at its provider first
        ///
        /// For a node whose launcher does not run. The provider must be configured here.
        #[arg(long)]
        now: bool,
    },

    /// Keep a node as it is, for somebody to look at
    ///
    /// Waits up to five seconds for the node's lock, which whoever uses the node has.
    Hold {
        /// The node as `list` shows it, with or without its leading zeros
        id: String,
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
    /// The Build ID as `image-list` shows it, without the name of the image
    #[arg(long)]
    pub(super) build_id: String,
    /// The Upload ID as `image-list` shows it
    #[arg(long)]
    pub(super) upload_id: String,
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn the_definition_is_consistent() {
        Arguments::command().debug_assert();
    }

    #[test]
    fn the_defaults_are_the_originals() {
        let arguments = Arguments::try_parse_from(["nodepool", "image-list"]).unwrap();
        let files = &arguments.files;
        assert_eq!(files.config, PathBuf::from("/etc/nodepool/nodepool.yaml"));
        assert!(files.secure.is_none() && files.logging.is_none() && !arguments.debug);
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
