//! `nodepool-builder`.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::path::Path;
use std::process::ExitCode;

use crossbeam_channel::Receiver;
use nodepool_threads::StopSignals;
use slog::Logger;

use super::arguments::{self, BUILDER, BuilderArguments, CommonArguments};
use super::program::{self, App, Prepared, Program};
use crate::arguments::FileArguments;
use crate::builder::{NodepoolBuilderApp, Options};
use crate::config::Config;
use crate::web::StatusPages;
use crate::window::Stopped;

/// The program.
pub fn builder_main() -> ExitCode {
    program::main(arguments::read::<BuilderArguments>)
}

/// A builder with its status pages.
pub(super) struct Builder {
    app: NodepoolBuilderApp,
    pages: StatusPages,
}

impl Program for BuilderArguments {
    const NAME: &'static str = BUILDER;
    const STOPS: StopSignals = StopSignals::Usual;
    type App = Builder;

    fn files(&self) -> &FileArguments {
        &self.files
    }

    fn pid_file(&self) -> &Path {
        &self.pid_file
    }

    fn common(&self) -> &CommonArguments {
        &self.common
    }

    fn pages(&self, config: &Config) -> Option<SocketAddr> {
        let pages = &config.builder_webapp;
        pages.enabled.then_some(pages.address)
    }

    fn start(
        &self,
        prepared: Prepared,
        log: &Logger,
        notice: &mut dyn FnMut(&str),
    ) -> Result<Builder, String> {
        let options = Options {
            build_workers: self.build_workers,
            upload_workers: self.upload_workers,
            cleanup_interval: Some(self.cleanup_interval).filter(|interval| !interval.is_zero()),
        };
        let app = NodepoolBuilderApp::start(&prepared.files, prepared.loaded, options, log, notice)?;
        let pages = StatusPages::of_builder(app.window(), prepared.door, log)
            .map_err(|error| format!("cannot start the thread of the status pages: {error}"))?;
        Ok(Builder { app, pages })
    }
}

impl App for Builder {
    fn ended(&self) -> &Receiver<Infallible> {
        self.app.ended()
    }

    fn stop(self) -> bool {
        // From here on nobody should take it for a builder that is ready.
        self.pages.close();
        self.app.stop() == Stopped::Clean
    }
}
