"""A driver of Neutron that wants no agents: a port is bound at once, and a floating IP is ACTIVE while it has a port."""

from neutron_lib import constants
from neutron_lib.api.definitions import portbindings
from neutron_lib.callbacks import events, registry, resources
from neutron_lib.plugins import constants as plugins
from neutron_lib.plugins import directory
from neutron_lib.plugins.ml2 import api


class Driver(api.MechanismDriver):
    connectivity = portbindings.CONNECTIVITY_L2

    def initialize(self):
        for event in (events.AFTER_CREATE, events.AFTER_UPDATE):
            registry.subscribe(self.floating_ip, resources.FLOATING_IP, event)

    @staticmethod
    def floating_ip(resource, event, trigger, payload):
        state = payload.latest_state
        status = "ACTIVE" if state.get("port_id") or state.get("fixed_port_id") else "DOWN"
        router = directory.get_plugin(plugins.L3)
        router.update_floatingip_status(payload.context.elevated(), payload.resource_id, status)

    def bind_port(self, context):
        segment = context.segments_to_bind[0]
        details = {portbindings.CAP_PORT_FILTER: True, portbindings.VIF_DETAILS_CONNECTIVITY: self.connectivity}
        context.set_binding(
            segment[api.ID], portbindings.VIF_TYPE_OVS, details, status=constants.PORT_STATUS_ACTIVE
        )
