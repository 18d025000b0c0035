//! The builder's pages: what there is, what runs and what has failed. Each is made of a `Snapshot`: what the builder
//! thread says when it is asked, and a copy of its copy of ZooKeeper's tree. No value of an image's variable and no
//! credential is on any page: see `redact`.

mod disks;
mod failures;
mod images;
mod index;
mod log_tail;
mod metrics;
mod redact;
mod snapshot;

use std::io;

use super::core::http::{Place, Request, Response};
use super::core::pages::Daemon;
use super::core::rows::ImageListing;
use crate::builder::Window;
use crate::host_name::HostName;
use crate::window::NoAnswer;
use disks::Disks;
use snapshot::{Snapshot, readiness};

/// A builder, as far as its pages are concerned.
pub(super) struct Builder {
    window: Window,
    disks: Disks,
}

impl Builder {
    pub(super) fn new(window: Window) -> io::Result<Self> {
        Ok(Self { window, disks: Disks::new()? })
    }
}

impl Daemon for Builder {
    type Listing = ImageListing;
    const LISTINGS: &'static [(&'static str, ImageListing)] = &[
        ("/image-list", ImageListing::Uploads),
        ("/dib-image-list", ImageListing::Builds),
        ("/image-status", ImageListing::Requests),
    ];
    const SECTION: &'static str = "builder-webapp";

    fn place(&self) -> Option<Place> {
        let settings = self.window.web_settings();
        settings.enabled.then(|| settings.address.into())
    }

    fn host(&self) -> &HostName {
        &self.window.host
    }

    fn allowed_hosts(&self) -> Vec<String> {
        self.window.web_settings().allowed_hosts
    }

    fn parameters(_listing: ImageListing) -> &'static [&'static str] {
        &["fields"]
    }

    fn begin_page(&mut self) {
        self.disks.begin_page();
    }

    fn unready(&mut self) -> Result<Option<&'static str>, NoAnswer> {
        Ok(readiness(&mut self.window)?.1)
    }

    fn index(&mut self) -> Result<Response, NoAnswer> {
        let snapshot = Snapshot::take(&mut self.window)?;
        Ok(index::page(&snapshot, &self.window, &mut self.disks))
    }

    fn metrics(&mut self) -> Result<String, NoAnswer> {
        let snapshot = Snapshot::take(&mut self.window)?;
        Ok(metrics::text(&snapshot, &self.window, &mut self.disks))
    }

    fn listing(
        &mut self,
        listing: ImageListing,
        request: &Request,
    ) -> Result<Result<String, &'static str>, NoAnswer> {
        let snapshot = Snapshot::take(&mut self.window)?;
        Ok(match snapshot.view.tree_complete {
            true => Ok(listing.show(&snapshot.images, snapshot.now, request)),
            false => Err(snapshot.unready.unwrap_or_default()),
        })
    }
}
