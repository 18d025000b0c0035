//! What Nova is told of a new server.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value as Json, json};

use super::OpenStackNodes;
use crate::api::{CallContext, Error, ErrorKind, LabelImage, NodeRequest, NodeSpec, PoolSettings};
use crate::openstack::compute::Flavor;
use crate::openstack::config::{OwnLabel, OwnPool};

/// A server that is to be created.
pub(super) struct Wish<'a> {
    pub(super) request: &'a NodeRequest,
    pub(super) node: &'a NodeSpec,
    pub(super) pool: &'a PoolSettings,
    pub(super) own_pool: &'a OwnPool,
    pub(super) own_label: &'a OwnLabel,
}

impl OpenStackNodes {
    /// The flavor of a label.
    pub(super) fn flavor(&self, call: &CallContext, label: &OwnLabel) -> Result<Flavor, Error> {
        let flavors = self.nova.flavors(call)?;
        let chosen = Flavor::choose(&flavors.value, &label.flavor);
        chosen.cloned().map_err(|why| self.nova.error(ErrorKind::Permanent, why))
    }

    /// The id of an entry of `cloud-images`. One that is given as an id is taken for it.
    pub(super) fn cloud_image(&self, call: &CallContext, name: &str) -> Result<Option<String>, Error> {
        let image = self.settings.nodes.cloud_images.get(name);
        if let Some(id) = image.and_then(|image| image.image_id.clone()) {
            return Ok(Some(id));
        }
        let wanted = image.and_then(|image| image.image_name.as_deref()).unwrap_or(name);
        self.glance.find(call, wanted)
    }

    /// The body of the creation, and the flavor in it.
    pub(super) fn describe(&self, call: &CallContext, wish: &Wish<'_>) -> Result<(Json, Flavor), Error> {
        let Wish { node, own_label, .. } = wish;
        let flavor = self.flavor(call, own_label)?;
        let (image, name, config_drive) = self.image(call, wish)?;
        let mut server = json!({
            "name": node.hostname,
            "flavorRef": flavor.id,
            "imageRef": image,
            "min_count": 1,
            "max_count": 1,
            "metadata": self.metadata(wish, &name),
        });
        match self.networks(call, wish)? {
            Some(networks) => server["networks"] = networks,
            None if self.nova.is_recent(call)? => server["networks"] = json!("auto"),
            None => {}
        }
        let mut set = |key: &str, value: Option<Json>| {
            if let Some(value) = value {
                server[key] = value;
            }
        };
        set("availability_zone", node.zone.as_deref().map(Json::from));
        set("key_name", own_label.key_name.as_deref().map(Json::from));
        set("user_data", own_label.userdata.as_ref().map(|text| Json::from(STANDARD.encode(text))));
        set("config_drive", config_drive.then_some(Json::from(true)));
        let groups: Vec<_> =
            wish.own_pool.security_groups.iter().map(|name| json!({ "name": name })).collect();
        set("security_groups", (!groups.is_empty()).then(|| Json::from(groups)));
        if let Some(size) = own_label.volume {
            // Deleted with the server.
            server["block_device_mapping_v2"] = json!([{
                "boot_index": "0", "delete_on_termination": true, "destination_type": "volume",
                "source_type": "image", "uuid": image, "volume_size": size.to_string(),
            }]);
            server["imageRef"] = json!("");
        }
        Ok((server, flavor))
    }

    /// The id of the image, its name, and whether it wants a configuration drive.
    fn image(&self, call: &CallContext, wish: &Wish<'_>) -> Result<(String, String, bool), Error> {
        let Wish { node, pool, .. } = wish;
        match (pool.labels.get(&node.label).map(|label| &label.image), &node.image) {
            (Some(LabelImage::Disk(name)), Some(id)) => {
                let own = self.settings.images.diskimages.get(name);
                Ok((id.clone(), name.clone(), own.is_some_and(|own| own.config_drive)))
            }
            (Some(LabelImage::Cloud(name)), _) => {
                let Some(id) = self.cloud_image(call, name)? else {
                    let what = format!("there is no active image for the cloud image '{name}'");
                    return Err(self.nova.error(ErrorKind::Permanent, what));
                };
                let own = self.settings.nodes.cloud_images.get(name);
                Ok((id, name.clone(), own.is_some_and(|own| own.config_drive)))
            }
            _ => {
                let what = format!("the label '{}' has no image to boot", node.label);
                Err(self.nova.error(ErrorKind::Permanent, what))
            }
        }
    }

    /// The networks by their ids; `None` for what the cloud chooses.
    fn networks(&self, call: &CallContext, wish: &Wish<'_>) -> Result<Option<Json>, Error> {
        let own = wish.own_label.networks.as_ref().unwrap_or(&wish.own_pool.networks);
        let mut names: Vec<&str> = own.iter().map(String::as_str).collect();
        if names.is_empty() {
            let wishes = self.cloud.reach.networks.iter().filter(|wish| wish.default_interface);
            names.extend(wishes.map(|wish| wish.name.as_str()));
        }
        if names.is_empty() {
            return Ok(None);
        }
        let ids = names.into_iter().map(|name| Ok(json!({ "uuid": self.neutron.network_id(call, name)? })));
        ids.collect::<Result<Json, Error>>().map(Some)
    }

    /// What the server is known by again, and what Zuul makes groups of; over the label's properties.
    fn metadata(&self, wish: &Wish<'_>, image: &str) -> BTreeMap<String, String> {
        let Wish { request, node, own_label, .. } = wish;
        let groups = [self.settings.provider.as_str(), image, &node.label].join(",");
        let mut metadata = BTreeMap::from([("groups".to_owned(), groups)]);
        metadata.extend(own_label.properties.clone());
        let dynamic = own_label.dynamic_properties.iter();
        metadata.extend(dynamic.map(|(name, template)| (name.clone(), template.fill(request))));
        metadata.extend(node.metadata.clone());
        metadata
    }
}
