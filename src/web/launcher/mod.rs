//! The launcher's pages: nodes, requests, providers, and what is being launched. Each is made of a `Snapshot`: what the
//! launcher thread says when it is asked, and copies of its copies of ZooKeeper's trees. Of what a provider has said
//! there is only the kind, and of a node's port only a number.

mod failures;
mod index;
mod metrics;
mod nodes;
mod providers;
mod requests;
mod snapshot;

use super::core::http::{Place, Request, Response};
use super::core::pages::Daemon;
use super::core::rows::{ImageListing, read_images, show};
use crate::host_name::HostName;
use crate::launcher::Window;
use crate::listing::{label_rows, node_rows, request_rows};
use crate::model::now;
use crate::window::NoAnswer;
use snapshot::{Snapshot, read_labels, read_nodes, read_requests, readiness};

/// A launcher, as far as its pages are concerned.
pub(super) struct Launcher {
    window: Window,
}

/// The listings, which are those of the original's launcher.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Listing {
    Nodes,
    Requests,
    Labels,
    Images(ImageListing),
}

impl Launcher {
    pub(super) fn new(window: Window) -> Self {
        Self { window }
    }
}

impl Daemon for Launcher {
    type Listing = Listing;
    const LISTINGS: &'static [(&'static str, Listing)] = &[
        ("/node-list", Listing::Nodes),
        ("/request-list", Listing::Requests),
        ("/label-list", Listing::Labels),
        ("/image-list", Listing::Images(ImageListing::Uploads)),
        ("/dib-image-list", Listing::Images(ImageListing::Builds)),
        ("/image-status", Listing::Images(ImageListing::Requests)),
    ];
    const SECTION: &'static str = "webapp";

    fn place(&self) -> Option<Place> {
        let settings = self.window.web_settings();
        Some(Place { host: settings.listen_address, port: settings.port })
    }

    fn host(&self) -> &HostName {
        &self.window.host
    }

    fn allowed_hosts(&self) -> Vec<String> {
        self.window.web_settings().allowed_hosts
    }

    fn parameters(listing: Listing) -> &'static [&'static str] {
        match listing {
            Listing::Nodes => &["fields", "node_id"],
            Listing::Requests | Listing::Labels | Listing::Images(_) => &["fields"],
        }
    }

    fn begin_page(&mut self) {}

    fn unready(&mut self) -> Result<Option<&'static str>, NoAnswer> {
        Ok(readiness(&mut self.window)?.1)
    }

    fn index(&mut self) -> Result<Response, NoAnswer> {
        let snapshot = Snapshot::take(&mut self.window)?;
        Ok(index::page(&snapshot, &self.window))
    }

    fn metrics(&mut self) -> Result<String, NoAnswer> {
        let snapshot = Snapshot::take(&mut self.window)?;
        Ok(metrics::text(&snapshot, &self.window))
    }

    fn listing(
        &mut self,
        listing: Listing,
        request: &Request,
    ) -> Result<Result<String, &'static str>, NoAnswer> {
        let (view, unready) = readiness(&mut self.window)?;
        if !view.tree_complete {
            return Ok(Err(unready.unwrap_or_default()));
        }
        let (now, damaged) = (now(), &mut Vec::new());
        Ok(Ok(match listing {
            Listing::Nodes => {
                let only = request.parameter("node_id");
                show(&node_rows(read_nodes(&self.window, only.as_deref(), damaged), now), now, request)
            }
            Listing::Requests => show(&request_rows(read_requests(&self.window, damaged)), now, request),
            Listing::Labels => show(&label_rows(read_labels(&self.window)), now, request),
            Listing::Images(images) => {
                images.show(&read_images(&self.window.own.images, damaged), now, request)
            }
        }))
    }
}
