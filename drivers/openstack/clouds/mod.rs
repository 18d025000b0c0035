//! `clouds.yaml`, as openstacksdk reads it: which files there are ([`files`]), what of them is a cloud
//! ([`merge`]), and what that means ([`resolve`]).
//!
//! The result is a [`Cloud`] that cannot be wrong any more. Whatever is secret in it shows in no text. Not
//! here: clouds of environment variables (`OS_AUTH_URL` …), the profiles that are part of openstacksdk's
//! program, and authentication by anything but password, application credential or token.

mod auth;
mod credentials;
mod files;
mod merge;
mod networks;
mod resolve;
mod secret;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

pub(super) use auth::Credentials;
pub(super) use files::Search;
pub(super) use secret::Secret;

/// A cloud of `clouds.yaml`, with everything that was found out about it.
#[derive(Debug)]
pub(super) struct Cloud {
    /// Its name there.
    pub(super) name: String,
    /// The region whose endpoints are wanted; `None` for the first that there is.
    pub(super) region: Option<String>,
    /// Where Keystone is, with or without a version.
    pub(super) auth_url: String,
    /// Who we are.
    pub(super) credentials: Credentials,
    /// How servers prove who they are, and we to them.
    pub(super) tls: Tls,
    /// The format that the cloud wants its images in.
    pub(super) image_format: String,
    /// Whether images go through `stage` and `import` instead of straight to their place.
    pub(super) import: bool,
    /// Properties that each image gets.
    pub(super) image_properties: BTreeMap<String, String>,
    /// How long a server may be silent, where the cloud says that.
    pub(super) timeout: Option<Duration>,
    /// How servers are reached.
    pub(super) reach: Reach,
    /// Where the services differ from what the catalog says, by the name that their keys begin with.
    services: BTreeMap<String, Service>,
    /// Stands for all of it: another one, another cloud.
    pub(super) digest: String,
}

/// How one service is found.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Service {
    /// Its address, whatever the catalog says.
    pub(super) endpoint: Option<String>,
    /// The interfaces in question, best first, such as `public`.
    pub(super) interfaces: Vec<String>,
    /// Its region, if that is another one than the cloud's.
    pub(super) region: Option<String>,
    /// Its type in the catalog, if that is another one than usual.
    pub(super) service_type: Option<String>,
    /// Its name in the catalog, where only one of that name will do.
    pub(super) service_name: Option<String>,
}

/// What is said of networks: how servers are reached.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Reach {
    /// The networks that something is said of.
    pub(super) networks: Vec<NetworkWish>,
    /// Whether servers are reached by their private addresses (`private`).
    pub(super) private: bool,
    /// Whether only IPv4 is used (`force_ipv4`).
    pub(super) only_ipv4: bool,
    /// Whether there are no floating IPs (`floating_ip_source: none`, or with nothing behind it).
    pub(super) no_floating_ips: bool,
}

/// An entry of `networks`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct NetworkWish {
    /// Its name or id.
    pub(super) name: String,
    /// Whether its addresses are known outside of the cloud.
    pub(super) external: bool,
    /// Whether floating IPs come from it.
    pub(super) nat_source: bool,
    /// Whether floating IPs lead to it.
    pub(super) nat_destination: bool,
    /// Whether servers are reached by it.
    pub(super) default_interface: bool,
}

/// The keys `verify`, `cacert`, `cert` and `key`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Tls {
    /// Whether a server's certificate is checked.
    pub(super) verify: bool,
    /// The authorities to trust instead of the system's.
    pub(super) ca: Option<PathBuf>,
    /// Our certificate.
    pub(super) cert: Option<PathBuf>,
    /// Its key; `None` if it is in the same file.
    pub(super) key: Option<PathBuf>,
}

impl Cloud {
    /// How the service is found whose keys begin with `prefix`, such as `image`.
    pub(super) fn service(&self, prefix: &str) -> Service {
        let mut service = self.services.get(prefix).cloned().unwrap_or_default();
        if service.interfaces.is_empty() {
            service.interfaces = self.services.get("").map(|all| all.interfaces.clone()).unwrap_or_default();
        }
        service.region = service.region.or_else(|| self.region.clone());
        service
    }
}

impl Search {
    /// The cloud `name`, in `region` if the provider has one, and what is odd about it; or every mistake.
    pub(super) fn resolve(
        &self,
        name: &str,
        region: Option<&str>,
    ) -> Result<(Cloud, Vec<String>), Vec<String>> {
        resolve::resolve(self, name, region)
    }

    /// Every file that [`Search::resolve`] reads, or would read if it were there.
    pub(super) fn files(&self) -> Vec<PathBuf> {
        [files::Kind::Clouds, files::Kind::Secure, files::Kind::Public]
            .iter()
            .flat_map(|kind| self.candidates(*kind))
            .collect()
    }
}
