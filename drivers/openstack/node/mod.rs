//! The ability to run nodes, which are servers of Nova with what they need of Neutron and Cinder.
//!
//! [`launch`] is the way of a node there, [`description`] what Nova is told of it, [`floating`] how it gets a floating
//! IP, [`address`] where it is reached, [`removal`] the way back; [`clean_up`] removes what others have left,
//! and [`quantities`] counts.

mod address;
mod clean_up;
mod description;
mod floating;
mod launch;
mod quantities;
mod removal;

use std::sync::Arc;

use nodepool_threads::Mutex;

use super::clouds::Cloud;
use super::compute::Nova;
use super::config::{Own, OwnLabel};
use super::image::Glance;
use super::network::Neutron;
use super::volume::Cinder;
use crate::api::{
    CallContext, CleanedUp, Error, ErrorKind, ImageSettings, Instance, LabelImage, NodeRequest,
    NodeRequestHandler, NodeSettings, Nodes, PoolSettings, Resources,
};
use clean_up::PortsDown;
use floating::Tried;
use launch::Handler;

/// The servers of a provider. A clone is the same.
#[derive(Debug, Clone)]
pub(super) struct OpenStackNodes {
    pub(super) nova: Nova,
    pub(super) neutron: Neutron,
    pub(super) cinder: Cinder,
    pub(super) glance: Arc<Glance>,
    pub(super) cloud: Arc<Cloud>,
    pub(super) settings: Arc<Settings>,
    ports_down: Arc<Mutex<Option<PortsDown>>>,
}

/// What the nodes of a provider are configured with.
#[derive(Debug)]
pub(super) struct Settings {
    /// The provider's name.
    pub(super) provider: String,
    pub(super) nodes: Arc<NodeSettings>,
    pub(super) images: Arc<ImageSettings>,
    pub(super) own: Arc<Own>,
}

impl OpenStackNodes {
    pub(super) fn new(
        (nova, neutron, cinder): (Nova, Neutron, Cinder),
        glance: Arc<Glance>,
        cloud: Arc<Cloud>,
        settings: Settings,
    ) -> Self {
        let ports_down = Arc::new(Mutex::new("ports of a cloud that are down", None));
        Self { nova, neutron, cinder, glance, cloud, settings: Arc::new(settings), ports_down }
    }

    /// The same servers, asked for without waiting for a turn.
    fn unpaced(&self) -> Self {
        Self { nova: self.nova.unpaced(), neutron: self.neutron.unpaced(), ..self.clone() }
    }

    /// Has everything asked for again that seldom changes.
    fn forget(&self) {
        self.nova.forget();
        self.neutron.forget();
        self.glance.forget();
    }

    /// A label's own settings.
    fn own_label(&self, pool: &str, label: &str) -> Result<&OwnLabel, Error> {
        self.settings.own.label(pool, label).ok_or_else(|| {
            let what = format!("the pool '{pool}' has no label '{label}'");
            self.nova.error(ErrorKind::Permanent, what)
        })
    }
}

impl Nodes for OpenStackNodes {
    fn handler(&self, request: NodeRequest) -> Box<dyn NodeRequestHandler> {
        Box::new(Handler::new(self.clone(), request))
    }

    fn delete(&self, call: &CallContext, external_id: &str) -> Result<(), Error> {
        self.remove(call, external_id, &Tried::default())
    }

    fn list(&self, call: &CallContext) -> Result<Vec<Instance>, Error> {
        self.instances(call)
    }

    fn limits(&self, call: &CallContext) -> Result<Resources, Error> {
        self.all_limits(call)
    }

    fn needs(&self, call: &CallContext, pool: &PoolSettings, label: &str) -> Result<Resources, Error> {
        call.stop.check()?;
        let own = self.own_label(&pool.name, label)?;
        Ok(quantities::of_label(&self.flavor(call, own)?, own))
    }

    fn label_ready(&self, call: &CallContext, pool: &PoolSettings, label: &str) -> Result<bool, Error> {
        call.stop.check()?;
        let Some(LabelImage::Cloud(name)) = pool.labels.get(label).map(|label| &label.image) else {
            return Ok(true);
        };
        Ok(self.cloud_image(call, name)?.is_some())
    }

    fn zones(&self, call: &CallContext) -> Result<Vec<String>, Error> {
        self.nova.zones(call)
    }

    fn console(&self, call: &CallContext, external_id: &str) -> Result<Option<String>, Error> {
        self.nova.console(call, external_id)
    }

    fn clean_up(&self, call: &CallContext) -> Result<CleanedUp, Error> {
        self.clean(call)
    }
}
