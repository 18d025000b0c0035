//! What the record of a node that is launched says: before the launch, and what the provider has said after it.

use nodepool_drivers::api::{Connection, LabelImage, LaunchedNode, NodeSettings, PoolSettings, Resources};
use nodepool_threads::crash_point;
use serde_json::Value;

use super::{HeldNode, Launch};
use crate::launcher::world::ReadyUpload;
use crate::model::{NodeRecord, NodeState};
use crate::zk::ZkResult;

impl Launch {
    /// Makes the node's record and locks it. `None` if somebody was quicker, which only who cleans up is.
    pub(super) fn record(
        &self,
        settings: &NodeSettings,
        pool: &PoolSettings,
        upload: Option<&ReadyUpload>,
    ) -> ZkResult<Option<HeldNode>> {
        let tools = &self.tools;
        let mut record = NodeRecord::new(NodeState::Init, &self.label);
        record.provider = Some(tools.name.clone());
        record.pool = Some(pool.name.clone());
        record.launcher = Some(tools.id(&pool.name).to_owned());
        record.allocated_to = Some(self.request.clone());
        record.tenant_name.clone_from(&self.tenant);
        record.set("requestor", self.requestor.clone());
        record.set("attributes", pool.node_attributes.as_ref().map_or(Value::Null, |value| value.to_json()));
        let facts = tools.shared.lock().facts(&tools.name).unwrap_or_default();
        record.set("resources", amounts(&facts.needs(&pool.name, &self.label)));
        if let Some(zone) = &self.zone {
            record.az = Value::from(zone.as_str());
        }
        self.describe_image(&mut record, settings, pool, upload);
        let id = self.nodes.create(&record)?;
        self.reserved.recorded(&id);
        crash_point("node-recorded");
        let Some(lock) = self.nodes.try_lock_new(&id)? else { return Ok(None) };
        crash_point("node-locked");
        let mut node = HeldNode { id, record, version: 0, nodes: self.nodes.under(&lock), lock };
        // Only now: one that is building and not locked is deleted by whoever sees it.
        node.record.set_state(NodeState::Building);
        node.write()?;
        crash_point("node-building");
        Ok(Some(node))
    }

    /// What the image says of the nodes that boot it.
    fn describe_image(
        &self,
        record: &mut NodeRecord,
        settings: &NodeSettings,
        pool: &PoolSettings,
        upload: Option<&ReadyUpload>,
    ) {
        let describe = |record: &mut NodeRecord, connection: &Connection, parts: [Option<&String>; 3]| {
            let [username, python_path, shell_type] = parts.map(|part| part.map(String::as_str));
            record.username = username.map_or(Value::Null, Value::from);
            record.set("python_path", python_path);
            record.set("shell_type", shell_type);
            record.set("connection_type", connection.kind.as_str());
            record.connection_port = Value::from(connection.port);
            record.set("ssh_port", connection.port);
        };
        match pool.labels.get(&self.label).map(|label| &label.image) {
            Some(LabelImage::Disk(name)) => {
                let images = self.tools.config.images();
                let own = images.and_then(|images| images.diskimages.get(name));
                let connection = own.map(|own| own.connection.clone()).unwrap_or_default();
                // What the configuration says now, not what it said when the image was built, as in the original.
                let image = self.tools.shared.lock().diskimages.get(name).cloned();
                if let Some(image) = image {
                    let parts = [Some(&image.username), Some(&image.python_path), image.shell_type.as_ref()];
                    describe(record, &connection, parts);
                }
                record.set("image_id", upload.map(|upload| upload.path.as_str()));
            }
            Some(LabelImage::Cloud(name)) => {
                if let Some(image) = settings.cloud_images.get(name) {
                    let parts = [&image.username, &image.python_path, &image.shell_type];
                    describe(record, &image.connection, parts.map(Option::as_ref));
                }
                record.set("image_id", name.as_str());
            }
            Some(LabelImage::None) | None => {}
        }
    }
}

/// Resources as a record has them.
fn amounts(resources: &Resources) -> Value {
    Value::Object(resources.iter().map(|(name, amount)| (name.to_owned(), Value::from(amount))).collect())
}

/// Writes down what the provider has said.
pub(super) fn describe(record: &mut NodeRecord, launched: &LaunchedNode, use_internal_ip: bool) {
    let text = |value: &Option<String>| value.as_deref().map_or(Value::Null, Value::from);
    let private = launched.private_ipv4.as_deref().filter(|_| use_internal_ip);
    record.external_id = Value::from(launched.external_id.as_str());
    record.set("interface_ip", private.unwrap_or(&launched.interface_ip));
    record.public_ipv4 = text(&launched.public_ipv4);
    record.private_ipv4 = text(&launched.private_ipv4);
    record.public_ipv6 = text(&launched.public_ipv6);
    record.set("host_id", text(&launched.host_id));
    record.set("cloud", text(&launched.cloud));
    record.set("region", text(&launched.region));
    record.az = text(&launched.az);
    if let Some(resources) = &launched.resources {
        record.set("resources", amounts(resources));
    }
}
