//! The catalog that comes with a token: which services there are, and where.

use std::collections::BTreeSet;

use serde_json::Value as Json;

use crate::openstack::clouds::Service as Wanted;

/// What a cloud has.
#[derive(Debug, Default)]
pub(in crate::openstack) struct Catalog(Vec<Service>);

#[derive(Debug)]
struct Service {
    kind: String,
    name: String,
    endpoints: Vec<Endpoint>,
}

#[derive(Debug)]
struct Endpoint {
    interface: String,
    region: String,
    url: String,
}

impl Catalog {
    /// Reads the catalog in a token; entries of unknown form are left out.
    pub(super) fn read(json: Option<&Json>) -> Self {
        let items = |json: &Json| json.as_array().cloned().unwrap_or_default();
        let text = |json: &Json, key: &str| json.get(key).and_then(Json::as_str).map(str::to_owned);
        let endpoint = |json: &Json| {
            let region = text(json, "region_id").or_else(|| text(json, "region")).unwrap_or_default();
            Some(Endpoint { interface: text(json, "interface")?, region, url: text(json, "url")? })
        };
        let service = |json: &Json| {
            let endpoints = items(json.get("endpoints")?).iter().filter_map(endpoint).collect();
            Some(Service {
                kind: text(json, "type")?,
                name: text(json, "name").unwrap_or_default(),
                endpoints,
            })
        };
        Self(json.map(items).unwrap_or_default().iter().filter_map(service).collect())
    }

    /// Whether there is such a service where it is wanted.
    pub(super) fn has(&self, types: &[&str], wanted: &Wanted) -> bool {
        self.find(types, wanted).is_ok()
    }

    /// The address of a service that has one of `types`. The error tells what there is instead.
    pub(super) fn find(&self, types: &[&str], wanted: &Wanted) -> Result<String, String> {
        let Some(kind) = types.first() else { return Err("no type of service is asked for".to_owned()) };
        if self.0.is_empty() {
            let advice = "the token comes without a catalog of services; see 'project_name' in clouds.yaml";
            return Err(advice.to_owned());
        }
        let of_type =
            types.iter().map(|kind| self.0.iter().filter(|service| service.kind == **kind).collect());
        let services: Vec<&Service> =
            of_type.into_iter().find(|found: &Vec<_>| !found.is_empty()).unwrap_or_default();
        if services.is_empty() {
            let there = list(self.0.iter().map(|service| service.kind.as_str()));
            return Err(format!("the catalog has no service '{kind}', only: {there}"));
        }
        let named =
            |service: &&Service| wanted.service_name.as_ref().is_none_or(|name| *name == service.name);
        if !services.iter().any(named) {
            let name = wanted.service_name.as_deref().unwrap_or_default();
            let there = list(services.iter().map(|service| service.name.as_str()));
            return Err(format!("the catalog has no service '{kind}' of the name '{name}', only: {there}"));
        }
        let endpoints: Vec<&Endpoint> =
            services.into_iter().filter(named).flat_map(|service| &service.endpoints).collect();
        let in_region =
            |endpoint: &&&Endpoint| wanted.region.as_ref().is_none_or(|region| *region == endpoint.region);
        if !endpoints.iter().any(|endpoint| in_region(&endpoint)) {
            let region = wanted.region.as_deref().unwrap_or_default();
            let there = list(endpoints.iter().map(|endpoint| endpoint.region.as_str()));
            return Err(format!("the service '{kind}' is not in the region '{region}', only in: {there}"));
        }
        let found = wanted.interfaces.iter().find_map(|interface| {
            endpoints.iter().filter(in_region).find(|endpoint| endpoint.interface == *interface)
        });
        found.map(|endpoint| endpoint.url.clone()).ok_or_else(|| {
            let there = list(endpoints.iter().filter(in_region).map(|endpoint| endpoint.interface.as_str()));
            let interface = wanted.interfaces.join("', '");
            format!("the service '{kind}' has no interface '{interface}' there, only: {there}")
        })
    }
}

fn list<'a>(names: impl Iterator<Item = &'a str>) -> String {
    names.collect::<BTreeSet<_>>().into_iter().collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn catalog() -> Catalog {
        let endpoint = |interface: &str, region: &str| {
            json!({"interface": interface, "region_id": region, "region": region,
                   "url": format!("http://{interface}.{region}")})
        };
        Catalog::read(Some(&json!([
            {"type": "image", "name": "glance", "endpoints":
                [endpoint("admin", "one"), endpoint("public", "one"), endpoint("public", "two")]},
            {"type": "volumev3", "name": "cinder", "endpoints": [endpoint("public", "one")]},
            {"type": "broken"},
        ])))
    }

    fn wanted(region: Option<&str>, interfaces: &[&str]) -> Wanted {
        Wanted {
            region: region.map(str::to_owned),
            interfaces: interfaces.iter().map(|name| (*name).to_owned()).collect(),
            ..Wanted::default()
        }
    }

    #[test]
    fn an_endpoint_is_found_by_type_region_and_interface() {
        let cases = [
            (&["image"][..], wanted(None, &["public"]), "http://public.one"),
            (&["image"], wanted(Some("two"), &["public"]), "http://public.two"),
            (&["image"], wanted(Some("one"), &["internal", "admin"]), "http://admin.one"),
            (&["block-storage", "volumev3"], wanted(None, &["public"]), "http://public.one"),
        ];
        for (types, wanted, expected) in cases {
            assert_eq!(catalog().find(types, &wanted).unwrap(), expected, "{types:?} {wanted:?}");
        }
    }

    #[test]
    fn what_is_missing_is_told_with_what_there_is() {
        let mut other_name = wanted(None, &["public"]);
        other_name.service_name = Some("glare".to_owned());
        let cases = [
            (
                "compute",
                wanted(None, &["public"]),
                "the catalog has no service 'compute', only: image, volumev3",
            ),
            (
                "image",
                wanted(Some("three"), &["public"]),
                "the service 'image' is not in the region 'three', only in: one, two",
            ),
            (
                "image",
                wanted(Some("two"), &["internal"]),
                "the service 'image' has no interface 'internal' there, only: public",
            ),
            ("image", other_name, "the catalog has no service 'image' of the name 'glare', only: glance"),
        ];
        for (kind, wanted, expected) in cases {
            assert_eq!(catalog().find(&[kind], &wanted).unwrap_err(), expected);
            assert!(!catalog().has(&[kind], &wanted), "{expected}");
        }
        let empty = Catalog::read(None).find(&["image"], &wanted(None, &["public"])).unwrap_err();
        assert!(empty.contains("without a catalog"), "{empty}");
    }
}
