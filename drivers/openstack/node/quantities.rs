//! What servers need, as they are counted against limits.

use std::collections::BTreeMap;
use std::time::Instant;

use slog::warn;

use super::OpenStackNodes;
use crate::api::{CallContext, Error, Instance, Resources};
use crate::openstack::compute::{Flavor, Server, SizeOf};
use crate::openstack::config::OwnLabel;

/// What a node of a label needs that has this flavor.
pub(super) fn of_label(flavor: &Flavor, label: &OwnLabel) -> Resources {
    let mut needs = of_size(flavor.cores, flavor.ram);
    if let Some(size) = label.volume {
        needs.set("volumes", 1);
        needs.set("volume-gb", size);
    }
    needs
}

fn of_size(cores: i64, ram: i64) -> Resources {
    [(Resources::INSTANCES, 1), ("cores", cores), ("ram", ram)].into_iter().collect()
}

/// What a server has. A flavor that is no more counts as nothing.
fn of_server(server: &Server, flavors: &[Flavor], volumes: &BTreeMap<String, i64>) -> Resources {
    let mut has = match &server.size {
        SizeOf::Is { cores, ram } => of_size(*cores, *ram),
        SizeOf::Flavor(id) => flavors
            .iter()
            .find(|flavor| flavor.id == *id)
            .map_or_else(Resources::one_instance, |flavor| of_size(flavor.cores, flavor.ram)),
        SizeOf::Unknown => Resources::one_instance(),
    };
    let sizes: Vec<i64> = server.volumes.iter().filter_map(|id| volumes.get(id)).copied().collect();
    if !sizes.is_empty() {
        has.set("volumes", i64::try_from(sizes.len()).unwrap_or(i64::MAX));
        has.set("volume-gb", sizes.iter().sum());
    }
    has
}

impl OpenStackNodes {
    /// What the project may have.
    pub(super) fn all_limits(&self, call: &CallContext) -> Result<Resources, Error> {
        call.stop.check()?;
        let mut limits = self.nova.limits(call)?;
        limits.add(&self.but_for_cinder(call, self.cinder.limits(call))?);
        Ok(limits)
    }

    /// What Cinder has said, or nothing: most nodes have no volumes, and the others will hear it from Nova.
    fn but_for_cinder<T: Default>(&self, call: &CallContext, said: Result<T, Error>) -> Result<T, Error> {
        said.or_else(|error| {
            call.stop.check()?;
            warn!(call.log, "volumes are not counted"; "reason" => %error);
            Ok(T::default())
        })
    }

    /// All servers of the project, with what they need.
    pub(super) fn instances(&self, call: &CallContext) -> Result<Vec<Instance>, Error> {
        call.stop.check()?;
        let servers = self.nova.servers_since(call, Instant::now())?;
        let servers = servers.value.values();
        let by_flavor = servers.clone().any(|server| matches!(server.size, SizeOf::Flavor(_)));
        let flavors = if by_flavor { Some(self.nova.flavors(call)?) } else { None };
        let flavors = flavors.as_ref().map(|told| told.value.as_slice()).unwrap_or_default();
        let have_volumes = servers.clone().any(|server| !server.volumes.is_empty());
        let volumes =
            if have_volumes { self.but_for_cinder(call, self.cinder.sizes(call))? } else { BTreeMap::new() };
        let instance = |server: &Server| Instance {
            external_id: server.id.clone(),
            metadata: server.metadata.clone(),
            resources: of_server(server, flavors, &volumes),
        };
        Ok(servers.map(instance).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_and_labels_are_counted() {
        let flavor = |id: &str| Flavor { id: id.to_owned(), name: "f".to_owned(), cores: 2, ram: 4096 };
        let volumes = [("a".to_owned(), 10), ("b".to_owned(), 20)].into();
        let server = |size, volumes: &[&str]| Server {
            size,
            volumes: volumes.iter().map(|id| (*id).to_owned()).collect(),
            ..Server::default()
        };
        #[rustfmt::skip]
        let cases = [
            (server(SizeOf::Is { cores: 4, ram: 1024 }, &[]), vec![("instances", 1), ("cores", 4), ("ram", 1024)]),
            (server(SizeOf::Flavor("1".to_owned()), &["a", "b", "unknown"]),
             vec![("instances", 1), ("cores", 2), ("ram", 4096), ("volumes", 2), ("volume-gb", 30)]),
            (server(SizeOf::Flavor("gone".to_owned()), &[]), vec![("instances", 1)]),
            (server(SizeOf::Unknown, &["a"]), vec![("instances", 1), ("volumes", 1), ("volume-gb", 10)]),
        ];
        for (server, expected) in cases {
            assert_eq!(
                of_server(&server, &[flavor("1")], &volumes),
                expected.into_iter().collect(),
                "{server:?}"
            );
        }
        let label = |volume| OwnLabel { volume, ..OwnLabel::default() };
        let needs = [("instances", 1), ("cores", 2), ("ram", 4096)].into_iter().collect::<Resources>();
        assert_eq!(of_label(&flavor("1"), &label(None)), needs);
        let mut with_volume = needs;
        with_volume.set("volumes", 1);
        with_volume.set("volume-gb", 50);
        assert_eq!(of_label(&flavor("1"), &label(Some(50))), with_volume);
    }
}
