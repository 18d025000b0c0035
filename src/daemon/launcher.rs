//! `nodepool-launcher`.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::ExitCode;

use crossbeam_channel::Receiver;
use nodepool_threads::StopSignals;
use slog::Logger;

use super::arguments::{self, CommonArguments, LAUNCHER, LauncherArguments};
use super::program::{self, App, Prepared, Program};
use crate::arguments::FileArguments;
use crate::config::Config;
use crate::launcher::NodepoolLauncherApp;
use crate::web::StatusPages;
use crate::window::Stopped;

/// The program.
pub fn launcher_main() -> ExitCode {
    program::main(arguments::read::<LauncherArguments>)
}

/// A launcher with its status pages, if it has some.
pub(super) struct Launcher {
    app: NodepoolLauncherApp,
    pages: Option<StatusPages>,
}

impl Program for LauncherArguments {
    const NAME: &'static str = LAUNCHER;
    // As the original's, which its builder has not.
    const STOPS: StopSignals = StopSignals::AlsoUsr1;
    type App = Launcher;

    fn files(&self) -> &FileArguments {
        &self.files
    }

    fn pid_file(&self) -> &Path {
        &self.pid_file
    }

    fn common(&self) -> &CommonArguments {
        &self.common
    }

    /// A name but `localhost` is not looked up so early: that takes as long as the resolver likes.
    fn pages(&self, config: &Config) -> Option<SocketAddr> {
        let pages = &config.launcher.webapp;
        let address = match pages.listen_address.as_str() {
            "localhost" => IpAddr::from(Ipv4Addr::LOCALHOST),
            other => other.parse().ok()?,
        };
        (!self.no_webapp).then_some(SocketAddr::new(address, pages.port))
    }

    fn start(
        &self,
        prepared: Prepared,
        log: &Logger,
        _notice: &mut dyn FnMut(&str),
    ) -> Result<Launcher, String> {
        let app = NodepoolLauncherApp::start(&prepared.files, prepared.loaded, log)?;
        let pages = match self.no_webapp {
            true => None,
            false => Some(
                StatusPages::of_launcher(app.window(), prepared.door, log)
                    .map_err(|error| format!("cannot start the thread of the status pages: {error}"))?,
            ),
        };
        Ok(Launcher { app, pages })
    }
}

impl App for Launcher {
    fn ended(&self) -> &Receiver<Infallible> {
        self.app.ended()
    }

    fn stop(self) -> bool {
        // From here on nobody should take it for a launcher that is ready.
        if let Some(pages) = &self.pages {
            pages.close();
        }
        self.app.stop() == Stopped::Clean
    }
}
